"""The floors of the architecture hold: arrows between parts point down only, and nothing goes round in a circle."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from itertools import combinations
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src"
PACKAGE = "harmonylite"

FLOORS: tuple[dict[str, tuple[str, ...]], ...] = (
    {
        "version": (),
        "errors": (),
        "model": (),
        "histogram": (),
        "backoff": (),
        "resource": (),
        "ticks": (),
        "wakeup": (),
    },
    {
        "config": (),
        "changes": (),
        "schema": (),
        "wire": (),
        "foreign": (),
        "ports": (),
        "extensions": (),
        "status": (),
        "peer": (),
        "progress": (),
    },
    {
        "db": (),
        "nats": (),
        "nats_server": ("nats", "identity"),
        "jetstream": ("nats",),
        "stores": (),
        "identity": (),
        "logs": (),
        "systemd": (),
    },
    {"replication": (), "snapshots": (), "recovery": ("snapshots",), "web": ()},
    {"node": (), "doctor": ("node",)},
    {
        "": ("program",),
        "client": (),
        "asgi": ("client", "position_cookie"),
        "wsgi": ("client", "position_cookie"),
        "position_cookie": (),
        "cli": ("client", "demo"),
        "demo": ("client",),
        "__main__": ("cli",),
        "program": ("client",),
        "hosted": ("cli",),
    },  # "": the public names
)
"""From the lowest floor up: each part, and which parts of its own floor it uses. Floor 0 and 1 are free within."""

INSIDE = {
    "db": ("sqlite", "tracking", "mirror", "capture", "apply", ""),
    "jetstream": ("", "regions"),
    "recovery": ("failover", ""),
}
"""The rooms of a part, from the lowest up; "" is what lies in no room."""

FREE = {0, 1}
"""Floors whose parts may use each other: pure rules and vocabulary. No import may go round in a circle there either."""

FLOOR = {part: floor for floor, parts in enumerate(FLOORS) for part in parts}


def modules() -> dict[str, Path]:
    """Return the file of every module of the package, by its name below the package ("" = the package itself)."""
    found = {}
    for path in sorted((SOURCE / PACKAGE).rglob("*.py")):
        parts = path.relative_to(SOURCE / PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imports(path: Path) -> Iterator[str]:
    """Yield what ``path`` imports of the package, lazily or for types only included, as names below the package."""
    for node in ast.walk(ast.parse(path.read_text(), filename=str(path))):
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


def room(module: str) -> str:
    """Return the room of its part that ``module`` lies in, "" for none."""
    name = module.split(".")[1] if "." in module else ""
    return name if name in INSIDE.get(part(module), ()) else ""


def breach(module: str, target: str) -> str:
    """Return why ``module`` must not import ``target``, "" when it may."""
    here, there = part(module), part(target)
    if here == there:
        rooms = INSIDE.get(here, ("",))
        if rooms.index(room(target)) > rooms.index(room(module)) and target != here:
            return f"{module} imports {target}: a room above it"
        return ""
    if FLOOR[there] > FLOOR[here]:
        return f"{module} (floor {FLOOR[here]}) imports {target} (floor {FLOOR[there]})"
    if FLOOR[here] == FLOOR[there] and FLOOR[here] not in FREE and there not in FLOORS[FLOOR[here]][here]:
        return f"{module} imports {target}: parts of one floor that must not know each other"
    return ""


def test_every_part_has_a_floor() -> None:
    assert {part(module) for module in MODULES} <= FLOOR.keys(), "name the new part's floor in FLOORS and the docs"


def test_every_room_has_its_place() -> None:
    folders = {(part(m), m.split(".")[1]) for m in MODULES if m.count(".") == 2}
    assert folders == {(name, room) for name, rooms in INSIDE.items() for room in rooms if room}


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down_only(module: str) -> None:
    assert [why for target in imports(MODULES[module]) if (why := breach(module, target))] == []


def test_no_imports_go_round_in_a_circle() -> None:
    graph = {module: set(imports(path)) - {module} for module, path in MODULES.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" → ".join(error.args[1]))


@pytest.mark.parametrize(
    ("module", "target"),
    [
        ("model", "wire"),
        ("db.merge", "jetstream.link"),
        ("web", "snapshots.save"),
        ("replication.flow", "node"),
        ("snapshots.lease", "recovery.recover"),
        ("nats.link", "nats_server.server"),
        ("nats_server", "jetstream"),
        ("snapshots.lease", "replication.engine"),
        ("node.node", "doctor.rows"),
    ],
)
def test_an_import_that_points_up_or_sideways_is_seen(module: str, target: str) -> None:
    assert breach(module, target)


@pytest.mark.parametrize(
    ("name", "lower", "upper"), [(name, *pair) for name, rooms in INSIDE.items() for pair in combinations(rooms, 2)]
)
def test_an_import_of_a_room_above_is_seen(name: str, lower: str, upper: str) -> None:
    low, high = (".".join(filter(None, (name, each, "module"))) for each in (lower, upper))
    assert breach(low, high)
    assert not breach(high, low)


@pytest.mark.parametrize("module", ["stores.s3", "jetstream.shard", "snapshots.lease"])
def test_ports_are_open_to_all_above(module: str) -> None:
    assert not breach(module, "ports")
