"""What the documents and the example files name, beside what there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ces.config.settings import Settings, resolve
from ces.hub import api as hub
from ces.hub.settings import HubSettings
from ces.repeater import api as repeater
from ces.repeater.settings import RepeaterSettings
from tests.hub.test_hub import Floor
from tests.support.repeaters import Bench

ROOT = Path(__file__).parent.parent
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()
ROLES = [("hub", HubSettings), ("repeater", RepeaterSettings)]
EXAMPLES = {"interconnect", "node-id", "id", "routes", "central-repeater-addresses", "spool"}
"""Options without a default of use: their lines in the example files are commented out."""


@pytest.mark.parametrize(("role", "settings"), ROLES)
def test_the_example_file_has_every_option_with_its_default(role: str, settings: type[Settings]) -> None:
    text = (ROOT / "etc" / f"{role}.toml").read_text()
    assert resolve(settings, {}, {}, text, f"{role}.toml") == settings()
    for declared in settings.options():
        sign = "# " if declared.name in EXAMPLES else ""
        assert re.search(rf"^{sign}{declared.name} = ", text, re.MULTILINE), declared.name


@pytest.mark.parametrize(("role", "settings"), ROLES)
def test_the_operators_page_names_every_option(role: str, settings: type[Settings]) -> None:
    named = set(re.findall(r"`--([a-z-]+)", OPERATIONS))
    assert {declared.name for declared in settings.options()} <= named


def test_the_operators_page_names_every_metric_and_no_other(tmp_path: Path) -> None:
    bench = Bench(spool_dir=str(tmp_path))
    bench.repeater.start()
    shown = hub.counters(Floor().hub) | repeater.counters(bench.repeater)
    bench.stop()
    there = {name + ("_total" if kind == "counter" else "") for name, (_, kind, _) in shown.items()}
    named = set(re.findall(r"ces_(?:hub|repeater)_\w*[a-z]", OPERATIONS))
    assert named <= there
    both = {name.replace("ces_hub_", "ces_repeater_") for name in named}
    assert there <= named | both


@pytest.mark.parametrize(
    "page", [*sorted(ROOT.glob("docs/*.md")), ROOT / "README.md"], ids=lambda page: page.name
)
def test_links_within_a_page_lead_somewhere(page: Path) -> None:
    text = page.read_text()
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
    assert set(re.findall(r"\]\(#([^)]+)\)", text)) <= anchors
