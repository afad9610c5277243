"""The real PocketBase on three nodes: a collection is made and altered through the API of one while the others write.

`make libraries` installs it; where it isn't there, the tests are left out.
"""

from __future__ import annotations

import http.client
import json
import subprocess
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from tests.cluster.fix_cluster import Site
from tests.cluster.libraries import INSTALLED
from tests.cluster.processes import SECONDS, Node, Running, agree, environment, until, until_equal
from tests.needs import Need
from tests.ports import free_port

pytestmark = pytest.mark.timeout(300)

PROGRAM = INSTALLED / "python" / "bin" / "pocketbase"
WHO, PASSWORD = "root@example.com", "correct-horse"
OPEN = {"listRule": "", "viewRule": "", "createRule": "", "updateRule": "", "deleteRule": ""}
FIELDS = [
    {"name": "title", "type": "text", "required": True},
    {"name": "pages", "type": "number"},
    {"name": "note", "type": "text"},
]


@pytest.fixture(autouse=True)
def _pocketbase() -> None:
    Need("PocketBase", "" if PROGRAM.exists() else "make libraries WHICH=python").skip()


class PocketBase(Running):
    """PocketBase over the database of a node, in its folder."""

    def __init__(self, node: Node) -> None:
        super().__init__(f"pocketbase-{node.name}", node.folder)
        self.port = free_port()
        self._token = ""

    def start(self) -> None:
        """Start it, also again, and wait until it answers."""
        if self.alive:
            self.stop()
        folders = ["--dir", str(self.folder), "--publicDir", str(self.folder), "--automigrate=false"]
        self.spawn([str(PROGRAM), "serve", "--http", f"127.0.0.1:{self.port}", *folders])
        until(self.answers, f"{self.name} answers")

    def answers(self) -> bool:
        """Return whether it is up."""
        try:
            return bool(self.ask("GET", "health"))
        except OSError:
            return False

    def ask(self, method: str, path: str, values: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return the answer of its API, which must be a good one."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=SECONDS)
        headers = {"Authorization": self._token, "Content-Type": "application/json"}
        try:
            connection.request(method, f"/api/{path}", json.dumps(values) if values is not None else None, headers)
            answer = connection.getresponse()
            text = answer.read().decode()
        finally:
            connection.close()
        assert answer.status < 400, f"{self.name}: {method} {path}: {text}"
        return dict(json.loads(text)) if text else {}

    def log_in(self) -> None:
        """Be the superuser from now on."""
        given = {"identity": WHO, "password": PASSWORD}
        self._token = self.ask("POST", "collections/_superusers/auth-with-password", given)["token"]

    def add(self, **values: Any) -> str:
        """Make a record in the collection of books; return its id."""
        return str(self.ask("POST", "collections/books/records", values)["id"])

    def listed(self) -> dict[str, dict[str, Any]]:
        """Return the collection's records by title or, as it is called later, by name."""
        items = self.ask("GET", "collections/books/records?perPage=200")["items"]
        return {str(each.get("title", each.get("name"))): each for each in items}


def cluster(site: Site, apply: str) -> tuple[list[Node], list[PocketBase]]:
    """Return three nodes, the first one's file made by PocketBase, each with a PocketBase that runs over it."""
    nodes = [
        site.node(name, tables=None, file="data.db", sections={"schema": {"apply": apply}}) for name in ("a", "b", "c")
    ]
    bases = [PocketBase(node) for node in nodes]
    site.running += bases
    made = subprocess.run(
        [PROGRAM, "superuser", "upsert", WHO, PASSWORD, "--dir", nodes[0].folder],
        capture_output=True,
        text=True,
        check=False,
        env=environment(),
    )
    assert made.returncode == 0, made.stdout + made.stderr
    for node, base in zip(nodes, bases, strict=True):
        node.start()
        node.ready()
        base.start()
        base.log_in()
    return nodes, bases


def with_books(site: Site, apply: str) -> tuple[list[Node], list[PocketBase]]:
    """Return a cluster in which the collection of books was made on the first node, and is everywhere."""
    nodes, bases = cluster(site, apply)
    bases[0].ask("POST", "collections", {"name": "books", "type": "base", "fields": FIELDS, **OPEN})
    follow(nodes, bases, {"id", "title", "pages", "note"})
    return nodes, bases


def columns(node: Node, table: str = "books") -> set[str]:
    """Return the columns of a table in the file of ``node``."""
    return {str(name) for (name,) in node.rows("SELECT name FROM pragma_table_info(?)", [table])}


def definition(node: Node) -> str:
    """Return what the file of ``node`` has of the collection."""
    return str(node.value("SELECT fields FROM _collections WHERE name = 'books'"))


def listed(node: Node) -> set[str]:
    """Return the test's collections that the file of ``node`` lists; a table is there before its collection is."""
    return {str(name) for (name,) in node.rows("SELECT name FROM _collections WHERE name IN ('books', 'kept')")}


def follow(nodes: Sequence[Node], bases: Sequence[PocketBase], expected: set[str]) -> None:
    """Wait until the collection is the same everywhere, its table with ``expected``; restart the others."""
    for node, base in zip(nodes[1:], bases[1:], strict=True):
        until(lambda: columns(node) == expected, f"{node.name} has {sorted(expected)}")  # noqa: B023
        until(lambda: definition(node) == definition(nodes[0]), f"{node.name} has the collection")  # noqa: B023
        base.start()


def alter(base: PocketBase, change: Callable[[list[dict[str, Any]]], None], **values: Any) -> None:
    """Change the fields of the collection through the API of ``base``."""
    fields = base.ask("GET", "collections/books")["fields"]
    change(fields)
    base.ask("PATCH", "collections/books", {"fields": fields, **values})


def rename(fields: list[dict[str, Any]], old: str = "title", new: str = "name") -> None:
    """Give a field another name."""
    next(each for each in fields if each["name"] == old)["name"] = new


def without_note(fields: list[dict[str, Any]]) -> None:
    """Remove the note."""
    fields[:] = [each for each in fields if each["name"] != "note"]


def of(each: dict[str, Any]) -> tuple[Any, Any]:
    """Return what a book has in the fields that are altered."""
    return each.get("leaves", each.get("pages")), each["price"]


def test_a_collection_is_made_altered_and_dropped_on_one_node_where_all_travels(site: Site) -> None:
    nodes, bases = with_books(site, "all")
    a, b, c = bases
    for base in bases:
        base.add(title=f"first of {base.name}", pages=1, note="old")

    # Rows are on their way when the field is renamed: they arrive under the new name.
    b.add(title="under way", pages=2, note="old")
    alter(a, rename)
    a.add(name="after", pages=3)
    follow(nodes, bases, {"id", "name", "pages", "note"})
    c.add(name="third", pages=4)

    # A renamed, a removed and a new field, and an index, in one step.
    def at_once(fields: list[dict[str, Any]]) -> None:
        rename(fields, "pages", "leaves")
        without_note(fields)
        fields.append({"name": "price", "type": "number"})

    b.add(name="once more under way", pages=5, note="old")
    alter(a, at_once, indexes=["CREATE UNIQUE INDEX books_name ON books (name)"])
    follow(nodes, bases, {"id", "name", "leaves", "price"})
    for base in bases:
        base.add(name=f"last of {base.name}", leaves=6, price=9)
    until_equal(nodes)
    expected = {"under way": (2, 0), "after": (3, 0), "third": (4, 0), "once more under way": (5, 0)}
    expected |= {f"first of {base.name}": (1, 0) for base in bases} | {f"last of {base.name}": (6, 9) for base in bases}
    assert all({name: of(each) for name, each in base.listed().items()} == expected for base in bases)

    # Another collection comes, and this one goes.
    kept = {"name": "kept", "type": "base", "fields": [{"name": "x", "type": "text"}], **OPEN}
    a.ask("POST", "collections", kept)
    a.ask("DELETE", "collections/books")
    for node, base in zip(nodes, bases, strict=True):
        until(lambda: not columns(node) and columns(node, "kept"), f"{node.name} has only the table that is left")  # noqa: B023
        until(lambda: listed(node) == {"kept"}, f"{node.name} has only the collection that is left")  # noqa: B023
        base.start()
        base.ask("POST", "collections/kept/records", {"x": base.name})
    assert len(until_equal(nodes)["kept"]) == 3
    until(lambda: len({node.health()["schema"]["hash"] for node in nodes}) == 1, "all have one schema")
    agree(nodes)


def test_by_default_what_adds_travels_and_a_renamed_field_is_renamed_on_each_node(site: Site) -> None:
    nodes, bases = with_books(site, "additive")
    a, b, _ = bases
    for base in bases:
        base.add(title=f"first of {base.name}", pages=1)
    alter(a, lambda fields: fields.append({"name": "price", "type": "number"}))
    follow(nodes, bases, {"id", "title", "pages", "note", "price"})
    b.add(title="under way", price=2)

    # What is renamed or removed waits until somebody does it on each node; so does what comes after it.
    alter(a, rename)
    a.add(name="after", pages=3)
    for node in nodes[1:]:
        until(lambda: node.waits("the column name"), f"{node.name} says what it waits for")  # noqa: B023
        site.application(node).write("ALTER TABLE books RENAME COLUMN title TO name")
    follow(nodes, bases, {"id", "name", "pages", "note", "price"})
    alter(a, without_note)
    for node in nodes[1:]:
        site.application(node).write("ALTER TABLE books DROP COLUMN note")
    follow(nodes, bases, {"id", "name", "pages", "price"})
    for base in bases:
        base.add(name=f"last of {base.name}", pages=6, price=9)
    until_equal(nodes)
    expected = {"under way": (0, 2), "after": (3, 0)}
    expected |= {f"first of {base.name}": (1, 0) for base in bases} | {f"last of {base.name}": (6, 9) for base in bases}
    assert all({name: of(each) for name, each in base.listed().items()} == expected for base in bases)
    until(lambda: len({node.health()["schema"]["hash"] for node in nodes}) == 1, "all have one schema")
    agree(nodes)
