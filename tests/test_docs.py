"""What the documents and the example files name, beside what there is."""

from __future__ import annotations

import builtins
import inspect
import re
from collections import defaultdict
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from twisted.internet.task import Clock

import ces
import ces.event
import ces.messenger
from ces.config.settings import Settings, resolve
from ces.hub import api as hub
from ces.hub.settings import HubSettings
from ces.ops.clock import utc_now
from ces.repeater import api as repeater
from ces.repeater.settings import RepeaterSettings
from ces.tap import reference
from tests.support.hubs import Floor
from tests.support.repeaters import Bench

ROOT = Path(__file__).parent.parent
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()
ROLES = [("hub", HubSettings), ("repeater", RepeaterSettings)]
EXAMPLES = {
    *("access", "interconnect", "node-id", "id", "routes", "central-repeater-addresses", "spool"),
    *("allow-origin", "allow-host", "token-file"),
}
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


@pytest.mark.parametrize(("role", "settings"), ROLES)
def test_the_operators_table_of_limits_has_the_declared_defaults(role: str, settings: type[Settings]) -> None:
    rows = re.findall(r"^\| (`--[^|]+) \| ([^|]+) \|", OPERATIONS.partition("## Limits")[2], re.MULTILINE)
    shown = {name: told for names, told in rows for name in re.findall("`--([a-z-]+)`", names)}
    for declared in settings.options():
        if declared.name in shown:
            told = re.sub(r"(\d) ([KM]iB|s)\b", r"\1\2", shown[declared.name])
            for default in declared.shown_default.removesuffix("0B").split():
                assert re.search(rf"(?<!\w){default}(?!\w)", told), declared.name


def test_the_settings_page_is_up_to_date() -> None:
    assert (ROOT / "docs" / "settings.md").read_text(encoding="utf-8") == reference.page(), "run `make docs`"


def test_the_operators_page_names_every_metric_and_no_other(tmp_path: Path) -> None:
    bench = Bench(spool=str(tmp_path))
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


# -- docs/api.md ---------------------------------------------------------------------------------------------

API = (ROOT / "docs" / "api.md").read_text()
MODULES = [ces.messenger, ces.event]
CLASSES = ["Messenger", "State", "Received", "Event", "Room", "Device"]
"""Classes whose public names are described one by one."""


def documented(module: ModuleType) -> dict[str, dict[str, str | None]]:
    """name -> {member: its parameters}, as the section of a module describes them; "" is the name itself."""
    section = API.split(f"\n## {module.__name__}\n")[1].split("\n## ")[0]
    found: dict[str, dict[str, str | None]] = defaultdict(dict)
    owner = ""
    for line in section.splitlines():
        entry = re.match(r"(?:#+|\|) `([\w.]+)(?:\((.*)\))?`", line)
        if entry is None:
            continue
        name, parameters = entry.groups()
        if "." in name:
            assert name.split(".")[0] in (owner, owner.lower()), f"{name} is described under {owner}"
            found[owner][name.split(".")[1]] = parameters
        else:
            owner = name
            found[owner][""] = parameters
    return found


def public_names(value: Any) -> set[str]:
    """The public names of a class: its own, not those of a framework, which are in camelCase."""
    if isinstance(value, type) and issubclass(value, ces.messenger.State):
        return {state.name for state in value}
    fields = getattr(value, "_fields", getattr(value, "__struct_fields__", ()))
    names = [name for name in vars(value) if not name.startswith("_") and name.islower()]
    return {*fields, *names} if value.__module__.startswith("ces.") else set(fields)


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_the_api_page_describes_every_public_name_and_no_other(module: ModuleType) -> None:
    assert set(documented(module)) == set(module.__all__)


@pytest.mark.parametrize("name", CLASSES)
def test_the_api_page_describes_every_public_member_and_no_other(name: str) -> None:
    module = ces.messenger if hasattr(ces.messenger, name) else ces.event
    described = set(documented(module)[name]) - {""}
    value = getattr(module, name)
    there: Any = ces.messenger.Messenger("hub", reactor=Clock()) if name == "Messenger" else value
    assert public_names(value) <= described
    assert [member for member in described if not hasattr(there, member)] == []


def test_the_api_page_names_every_tag_counter_and_part_of_the_status() -> None:
    messenger = ces.messenger.Messenger("hub", reactor=Clock())
    tags = {name for name in vars(ces.event.Tag) if name.isupper()}
    names = tags | messenger.counters.keys() | messenger.status().keys()
    assert names <= set(re.findall(r"`([\w-]+)`", API))


def same_parameters(value: Any, written: str) -> None:
    """Compare the parameters with those of a Python value; default values, too, where they are literals."""
    signature = [one for name, one in inspect.signature(value).parameters.items() if name != "self"]
    names: dict[str, object] = {"utc_now": utc_now}
    exec(f"def function({written}): ...", names)
    described = inspect.signature(names["function"]).parameters.values()  # type: ignore[arg-type]
    assert [one.replace(annotation=one.empty) for one in signature] == list(described)


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_the_api_page_gives_parameters_and_defaults_as_they_are(module: ModuleType) -> None:
    for name, members in documented(module).items():
        for member, parameters in members.items():
            if parameters is not None:
                value = getattr(module, name)
                same_parameters(getattr(value, member) if member else value, parameters)
    constructor = re.search(r"```python\nMessenger\((.*?)\n\)", API, re.DOTALL)
    assert constructor is not None
    same_parameters(ces.messenger.Messenger, constructor[1])


def test_every_error_is_described_with_the_kinds_that_it_is_of() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (?:`(\w+)`)? ?\| ", API, re.MULTILINE)
    kinds = vars(ces.messenger) | vars(ces.event)
    found = {name: kind for name, kind in rows if isinstance(kinds[name], type)}
    errors = [name for name in kinds if isinstance(kinds[name], type) and issubclass(kinds[name], Exception)]
    assert set(found) == set(errors)
    for name, kind in found.items():
        if kind:
            assert issubclass(kinds[name], kinds.get(kind) or vars(builtins)[kind])
