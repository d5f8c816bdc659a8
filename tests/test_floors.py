"""The floors of the house: imports point down only, floor 0 is pure, only the top knows the reactor."""

from __future__ import annotations

import ast
import graphlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CES = ROOT / "ces"

FLOORS = {
    "model": 0,
    "event": 0,
    "config": 1,
    "session": 1,
    "access": 2,
    "ops": 3,
    "link": 4,
    "uplink": 5,
    "hub": 6,
    "repeater": 6,
    "messenger": 6,
    "tap": 7,
    "cli": 7,
}
PURE = ("model", "config", "session", "access")
IMPURE = {
    "twisted",
    "autobahn",
    "txaio",
    "klein",
    "treq",
    "socket",
    "time",
    "logging",
    "asyncio",
    "threading",
    "random",
}

MODULES = sorted(CES.rglob("*.py"))


def imports(path: Path, inside_functions: bool = True) -> Iterator[str]:
    """The dotted names that a module imports, ``from a import b`` as ``a.b``."""
    waiting: list[ast.AST] = [ast.parse(path.read_text())]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            yield from (f"{node.module}.{name.name}" for name in node.names)
        if inside_functions or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            waiting += ast.iter_child_nodes(node)


def part(path: Path) -> str:
    """The package or module of `ces` that a file belongs to."""
    return path.relative_to(CES).with_suffix("").parts[0]


def module_name(path: Path) -> str:
    """The dotted name of the module in a file."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def circle(modules: Mapping[str, set[str]]) -> list[str]:
    """Modules that import each other in a circle, the first one twice; empty when there are none.

    :param modules: the names that each module imports.
    """
    needs: dict[str, set[str]] = {}
    for module, names in modules.items():
        found = {name if name in modules else name.rpartition(".")[0] for name in names}
        needs[module] = found & modules.keys() - {module}
    try:
        graphlib.TopologicalSorter(needs).prepare()
    except graphlib.CycleError as error:
        return list(error.args[1])
    return []


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert circle({module_name(path): set(imports(path)) for path in MODULES}) == []


@pytest.mark.parametrize(
    "text",
    [
        "import ces.a",
        "from ces import a",
        "from ces.a import name",
        "if TYPE_CHECKING:\n    from ces.a import name",
        "def function():\n    from ces.a import name",
    ],
)
def test_a_circle_is_found_wherever_it_is_imported(tmp_path: Path, text: str) -> None:
    (tmp_path / "b.py").write_text(text)
    names = set(imports(tmp_path / "b.py"))
    assert circle({"ces": set(), "ces.a": {"ces.b.name"}, "ces.b": names}) in (
        ["ces.a", "ces.b", "ces.a"],
        ["ces.b", "ces.a", "ces.b"],
    )
    assert circle({"ces": set(), "ces.a": {"ces"}, "ces.b": names}) == []


def test_every_part_has_a_floor() -> None:
    assert {part(path) for path in MODULES} - {"__init__", "__main__"} <= set(FLOORS)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(CES)))
def test_imports_point_down(path: Path) -> None:
    if path.name == "__init__.py" and path.parent == CES:
        assert not [name for name in imports(path) if name.startswith("ces")]
        return
    here = part(path)
    for name in imports(path):
        there = name.split(".")[1] if name.startswith("ces.") else here
        if there != here and there in FLOORS:
            assert FLOORS[there] < FLOORS[here] or (here, there) == ("event", "model"), (
                f"{here} imports {name}"
            )


@pytest.mark.parametrize(
    "path", [path for path in MODULES if part(path) in PURE], ids=lambda path: str(path.relative_to(CES))
)
def test_model_config_session_and_access_are_pure(path: Path) -> None:
    assert not {name.split(".")[0] for name in imports(path)} & IMPURE


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(CES)))
def test_no_module_installs_a_reactor(path: Path) -> None:
    assert "twisted.internet.reactor" not in set(imports(path, inside_functions=False))
    if FLOORS.get(part(path), 0) < FLOORS["tap"]:
        assert "twisted.internet.reactor" not in set(imports(path))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(CES)))
def test_autobahn_is_subclassed_in_link_and_uplink_alone(path: Path) -> None:
    if part(path) not in ("link", "uplink"):
        assert not [name for name in imports(path) if name.startswith(("autobahn", "txaio"))]


def test_the_plugin_is_a_lone_module() -> None:
    assert [path.name for path in (ROOT / "twisted" / "plugins").glob("*.py")] == ["ces_plugins.py"]
    assert not (ROOT / "twisted" / "__init__.py").exists()
