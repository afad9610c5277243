"""The floors of the architecture hold: arrows between parts point down only, and nothing goes round in a circle."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src"
PACKAGE = "harmonylite"

FLOORS = {
    "": 0,  # the package itself: its version
    "errors": 0,
    "model": 0,
    "resource": 0,
    "backoff": 0,
    "status": 0,
    "config": 1,
    "changes": 1,
    "schema": 1,
    "foreign": 1,
    "wire": 1,
    "db": 2,
    "jetstream": 2,
    "stores": 2,
    "identity": 2,
    "logs": 2,
    "systemd": 2,
    "replication": 3,
    "snapshots": 3,
    "web": 3,
    "doctor": 4,  # looks at everything that a node is made of
    "node": 4,
    "cli": 5,
    "demo": 5,
    "__main__": 5,
}
STRANGERS = ({"db", "jetstream", "stores"}, {"replication", "snapshots", "web"})
"""Parts of one floor that must not know each other."""

OPEN = {"replication.ports": 1}
"""Files of Protocols only, which every part from this floor up may name."""


def modules() -> dict[str, ast.Module]:
    """Return every module of the package, parsed, by its name below the package ("" = the package itself)."""
    found = {}
    for path in sorted((SOURCE / PACKAGE).rglob("*.py")):
        parts = path.relative_to(SOURCE / PACKAGE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = ast.parse(path.read_text(), filename=str(path))
    return found


MODULES = modules()


def imports(tree: ast.Module) -> Iterator[str]:
    """Yield what ``tree`` imports of the package, lazily or for types only included, as names below the package."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            if name == PACKAGE or name.startswith(f"{PACKAGE}."):
                yield module_of(name.removeprefix(PACKAGE).removeprefix("."))


def module_of(name: str) -> str:
    """Return the module that ``name`` is or lives in: an imported name may be a class or function in it."""
    while name and name not in MODULES:
        name = name.rpartition(".")[0]
    return name


def part(module: str) -> str:
    """Return the part that ``module`` belongs to: the first piece of its name."""
    return module.partition(".")[0]


def breach(module: str, target: str) -> str:
    """Return why ``module`` must not import ``target``, "" when it may."""
    here, there = part(module), part(target)
    if here == there or FLOORS[here] >= OPEN.get(target, 99):
        return ""
    if FLOORS[there] > FLOORS[here]:
        return f"{module} (floor {FLOORS[here]}) imports {target} (floor {FLOORS[there]})"
    if any({here, there} <= strangers for strangers in STRANGERS):
        return f"{module} imports {target}: parts of one floor that must not know each other"
    return ""


def test_every_part_has_a_floor() -> None:
    assert {part(module) for module in MODULES} <= FLOORS.keys(), "name the new part's floor in FLOORS and the docs"


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down_only(module: str) -> None:
    assert [why for target in imports(MODULES[module]) if (why := breach(module, target))] == []


def test_no_imports_go_round_in_a_circle() -> None:
    graph = {module: set(imports(tree)) - {module} for module, tree in MODULES.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" → ".join(error.args[1]))


@pytest.mark.parametrize(
    ("module", "target"),
    [("model", "wire"), ("db.merge", "jetstream.link"), ("web", "snapshots.save"), ("replication.flow", "node")],
)
def test_an_import_that_points_up_or_sideways_is_seen(module: str, target: str) -> None:
    assert breach(module, target)


@pytest.mark.parametrize("module", ["wire", "jetstream.link", "web"])
def test_protocol_files_are_open_to_all_above(module: str) -> None:
    assert not breach(module, "replication.ports")
