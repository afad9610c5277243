"""Alembic and sqlite-utils change replicated files: what adds travels from one node, all else runs on each."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.cluster.fix_cluster import Site, start
from tests.cluster.libraries import INSTALLED
from tests.cluster.processes import SECONDS, Node, environment, until, until_equal
from tests.needs import Need

pytestmark = pytest.mark.timeout(300)

ENV = """
from alembic import context
from sqlalchemy import create_engine

engine = create_engine(f"sqlite:///{context.get_x_argument(as_dictionary=True)['file']}", connect_args={"timeout": 30})
with engine.connect() as connection:
    context.configure(connection=connection, render_as_batch=True)
    with context.begin_transaction():
        context.run_migrations()
"""
REVISION = """
import sqlalchemy as sa
from alembic import op

revision, down_revision = "{number}", {after}


def upgrade():
    {body}
"""
REVISIONS = (
    'op.create_table("book", sa.Column("id", sa.Text, primary_key=True), sa.Column("title", sa.Text, nullable=False))',
    'op.add_column("book", sa.Column("author", sa.Text))',
    """with op.batch_alter_table("book", recreate="always") as book:
        book.add_column(sa.Column("pages", sa.Integer, server_default="0"))
        book.create_index("book_author", ["author"])
    op.execute("UPDATE book SET author = 'nobody' WHERE author IS NULL")""",
)
"""A table, a column, and a column in batch mode: the table is made again beside the old one, filled, and renamed."""
AUTHORS = "SELECT id, author, pages FROM book ORDER BY id"


def tool(name: str, *words: str | Path, folder: Path | None = None) -> str:
    """Run a tool of `make libraries`, to a good end; return what it printed."""
    Need(name, "" if (INSTALLED / "python" / name).exists() else "make libraries WHICH=python").skip()
    done = subprocess.run(
        [sys.executable, "-m", name, *map(str, words)],
        cwd=folder,
        env=environment() | {"PYTHONPATH": str(INSTALLED / "python")},
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


class History:
    """An Alembic history in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "versions").mkdir(parents=True)
        (folder / "env.py").write_text(ENV)
        (folder / "alembic.ini").write_text("[alembic]\nscript_location = .\npath_separator = os\n")
        for number, body in enumerate(REVISIONS, start=1):
            after = repr(str(number - 1)) if number > 1 else None
            text = REVISION.format(number=number, after=after, body=body)
            (folder / "versions" / f"{number}.py").write_text(text)

    def upgrade(self, node: Node, revision: str) -> None:
        """Upgrade the file of ``node``."""
        tool("alembic", "-x", f"file={node.db}", "upgrade", revision, folder=self.folder)


@pytest.fixture
def nodes(site: Site) -> Sequence[Node]:
    """Two nodes, with a file each that nobody has migrated."""
    found = [site.node(name, tables="CREATE TABLE begun(id TEXT PRIMARY KEY NOT NULL);") for name in ("a", "b")]
    start(found)
    return found


def test_alembic_upgrades_one_node_and_finds_nothing_to_do_on_the_other(
    site: Site, nodes: Sequence[Node], tmp_path: Path
) -> None:
    a, b = nodes
    history, writer = History(tmp_path / "history"), site.application(b)
    history.upgrade(a, "1")
    until(lambda: b.value("SELECT 1 FROM sqlite_schema WHERE name = 'book'"), "the table travels")
    writer.write("INSERT INTO book(id, title) VALUES ('b1', 'first')")
    until(lambda: a.value("SELECT count(*) FROM book") == 1, "the row is there")
    history.upgrade(a, "head")
    until(lambda: b.value("SELECT version_num FROM alembic_version") == "3", "the note travels")
    history.upgrade(b, "head")
    writer.write("INSERT INTO book(id, title, author) VALUES ('b2', 'second', 'her')")
    until_equal(nodes)
    assert a.rows(AUTHORS) == b.rows(AUTHORS) == [("b1", "nobody", 0), ("b2", "her", 0)]
    assert b.value("SELECT 1 FROM sqlite_schema WHERE name = 'book_author'") == 1


def test_sqlite_utils_adds_on_one_node_and_transforms_on_each(site: Site, nodes: Sequence[Node]) -> None:
    a, b = nodes
    writer = site.application(b)
    tool("sqlite_utils", "create-table", a.db, "place", "id", "text", "name", "text", "old", "text", "--pk", "id")
    tool("sqlite_utils", "add-column", a.db, "place", "height", "integer")
    tool("sqlite_utils", "create-index", a.db, "place", "name")
    until(lambda: b.value("SELECT 1 FROM sqlite_schema WHERE name = 'idx_place_name'"), "what came last is there")
    assert b.value("SELECT 1 FROM pragma_table_info('place') WHERE name = 'height'") == 1
    writer.write("INSERT INTO place(id, name, height) VALUES ('p', 'peak', 3000)")
    until_equal(nodes)
    for node in nodes:
        tool("sqlite_utils", "transform", node.db, "place", "--drop", "old", "--rename", "height", "metres")
    writer.write("UPDATE place SET metres = metres + 1")
    until_equal(nodes)
    assert a.rows("SELECT id, name, metres FROM place") == [("p", "peak", 3001)]


def test_sqlite_utils_transforms_one_node_where_all_travels(site: Site) -> None:
    tables = "CREATE TABLE place(id TEXT PRIMARY KEY NOT NULL, name TEXT, old TEXT, height INTEGER);"
    a, b = nodes = [site.node(name, sections={"schema": {"apply": "all"}}, tables=tables) for name in ("a", "b")]
    start(nodes)
    writer = site.application(b)
    writer.write("INSERT INTO place(id, name, height) VALUES ('p', 'peak', 3000)")
    until_equal(nodes)
    tool("sqlite_utils", "transform", a.db, "place", "--drop", "old", "--rename", "height", "metres")
    until(lambda: b.value("SELECT 1 FROM pragma_table_info('place') WHERE name = 'metres'"), "the rename travels")
    writer.write("UPDATE place SET metres = metres + 1")
    until_equal(nodes)
    assert a.rows("SELECT id, name, metres FROM place") == [("p", "peak", 3001)]
    assert a.value("SELECT sql FROM sqlite_schema WHERE name = 'place'").count("old") == 0
