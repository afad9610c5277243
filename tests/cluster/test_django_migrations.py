"""A Django project's own migrations on replicated files: on one node, on each in turn, on two at once."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.cluster.fix_cluster import Site, start
from tests.cluster.processes import SECONDS, Node, environment, until, until_equal

pytest.importorskip("django", reason="Django is not installed: it comes with requirements-dev.txt")
pytestmark = pytest.mark.timeout(300)

SETTINGS = """
import os
SECRET_KEY = "test"
INSTALLED_APPS = ["library"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ["DB"], "OPTIONS": {"timeout": 30}}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
"""
MODELS = """
from django.db import models

class Tag(models.Model):
    name = models.CharField(max_length=30, unique=True)

class Book(models.Model):
    title = models.CharField(max_length=100)
    tags = models.ManyToManyField(Tag)
"""
LATER = """
    subtitle = models.CharField(max_length=100, null=True)

class Shelf(models.Model):
    name = models.CharField(max_length=30)
    books = models.ManyToManyField(Book)
"""
FILL = """
from django.db import migrations

def fill(apps, _):
    Book = apps.get_model("library", "Book")
    Book.objects.filter(subtitle=None).update(subtitle="none yet")

class Migration(migrations.Migration):
    dependencies = [("library", "0002_later")]
    operations = [migrations.RunPython(fill)]
"""
CHANGES = """
from django.db import migrations, models

class Migration(migrations.Migration):
    dependencies = [("library", "0002_later")]
    operations = [
        migrations.AlterField("book", "title", models.TextField(null=True)),
        migrations.RenameField("book", "subtitle", "heading"),
        migrations.RemoveField("shelf", "name"),
        migrations.AlterUniqueTogether("book", {("title", "heading")}),
    ]
"""
"""What removes, renames and rebuilds."""
SCRIPT = """
import sqlite3, sys

sqlite3.connect(sys.argv[1], timeout=30).executescript(sys.stdin.read())
"""
NOTES = "SELECT app, name FROM django_migrations ORDER BY app, name"


class Project:
    """A Django project in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "library" / "migrations").mkdir(parents=True)
        (folder / "library" / "__init__.py").touch()
        (folder / "library" / "migrations" / "__init__.py").touch()
        (folder / "settings.py").write_text(SETTINGS)
        self.model(MODELS, "first")

    def model(self, text: str, name: str) -> None:
        """Have these models from now on, with a migration to them."""
        (self.folder / "library" / "models.py").write_text(text)
        done = self.start(self.folder / "unused.db", "makemigrations", "library", "-n", name)
        told = done.communicate(timeout=SECONDS)[0]
        assert done.returncode == 0, told

    def start(self, file: Path, *words: str) -> subprocess.Popen[str]:
        """Start a command of the project's on ``file``."""
        env = environment() | {"DB": str(file), "DJANGO_SETTINGS_MODULE": "settings", "PYTHONPATH": str(self.folder)}
        return subprocess.Popen(
            [sys.executable, "-m", "django", *words],
            cwd=self.folder,
            env=env,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def migrate(self, nodes: Sequence[Node]) -> list[str]:
        """Migrate on all ``nodes`` at once; return what failed, "" for what did not."""
        running = [self.start(node.db, "migrate", "--no-color") for node in nodes]
        told = [each.communicate(timeout=SECONDS)[0] for each in running]
        return ["" if each.returncode == 0 else text for each, text in zip(running, told, strict=True)]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project with its first migration."""
    return Project(tmp_path / "project")


def complete(nodes: Sequence[Node], *names: str, twice: bool) -> None:
    """Wait until all files are equal, with a note of each migration.

    ``twice``: two tools ran at once, so that one may have noted what the other had noted a moment before.
    """

    def noted(node: Node) -> list[tuple[object, ...]]:
        found = node.rows(NOTES)
        return sorted(set(found)) if twice else found

    until(lambda: all(noted(node) == [("library", name) for name in names] for node in nodes), "every note is there")
    until_equal(nodes)
    for sql in (
        "SELECT group_concat(name) FROM (SELECT name FROM sqlite_schema WHERE name GLOB 'library*' ORDER BY 1)",
        "SELECT count(*) FROM library_book WHERE subtitle = 'none yet'",
    ):
        until(lambda sql=sql: len({node.value(sql) for node in nodes}) == 1, sql)  # type: ignore[misc]


@pytest.mark.parametrize("where", ["on one node", "on each in turn", "on two at once"])
def test_a_project_is_migrated(site: Site, project: Project, where: str) -> None:
    nodes = [site.node(name, tables="CREATE TABLE begun(id TEXT PRIMARY KEY NOT NULL);") for name in ("a", "b")]
    start(nodes)
    others = {"on one node": [], "on each in turn": nodes[1:], "on two at once": []}[where]
    at_once = nodes if where == "on two at once" else nodes[:1]

    def migrate() -> None:
        for failed in project.migrate(at_once):
            assert not failed or any(word in failed for word in ("already exists", "duplicate column", "locked")), (
                failed
            )
        # The tool that met the other one's table failed: what is left is done when it runs again.
        for node in nodes if where == "on two at once" else others:
            until(lambda: len({tuple(node.rows(NOTES)) for node in nodes}) == 1, "both have the same notes")
            until_equal(nodes)
            assert project.migrate([node]) == [""]
        until(lambda: len({tuple(node.rows(NOTES)) for node in nodes}) == 1, "both have the same notes")

    migrate()
    writer = site.application(nodes[1])
    writer.write("INSERT INTO library_book(title) VALUES ('first')", "INSERT INTO library_tag(name) VALUES ('red')")
    project.model(MODELS + LATER, "later")
    (project.folder / "library" / "migrations" / "0003_fill.py").write_text(FILL)
    writer.write("INSERT INTO library_book(title) VALUES ('second')")
    until_equal(nodes)
    migrate()
    complete(nodes, "0001_first", "0002_later", "0003_fill", twice=where == "on two at once")
    assert nodes[1].value("SELECT count(*) FROM library_book WHERE subtitle = 'none yet'") == 2


def test_what_alters_renames_and_removes_fields_is_run_as_sql_on_the_other_node_where_additions_travel(
    site: Site, project: Project
) -> None:
    additions = {"schema": {"apply": "additive"}}
    tables = "CREATE TABLE begun(id TEXT PRIMARY KEY NOT NULL);"
    nodes = [site.node(name, sections=additions, tables=tables) for name in ("a", "b")]
    start(nodes)
    project.model(MODELS + LATER, "later")
    assert project.migrate(nodes[:1]) == [""]
    until(lambda: len(nodes[1].rows(NOTES)) == 2, "the first migrations travel")
    until_equal(nodes)
    writer = site.application(nodes[1])
    writer.write("INSERT INTO library_book(title, subtitle) VALUES ('first', 'of two')")
    until_equal(nodes)
    (project.folder / "library" / "migrations" / "0003_changes.py").write_text(CHANGES)
    assert project.migrate(nodes[:1]) == [""]
    sql = project.start(nodes[1].db, "sqlmigrate", "library", "0003").communicate(timeout=SECONDS)[0]
    subprocess.run([sys.executable, "-c", SCRIPT, str(nodes[1].db)], input=sql, text=True, check=True, timeout=SECONDS)
    writer.write("INSERT INTO library_book(title, heading) VALUES ('second', 'by another name')")
    until(lambda: len(nodes[1].rows(NOTES)) == 3, "the note travels")
    books = "SELECT title, heading FROM library_book ORDER BY title"
    wanted = [("first", "of two"), ("second", "by another name")]
    until(lambda: nodes[0].rows(books) == nodes[1].rows(books) == wanted, "both books are whole")
    assert project.migrate(nodes) == ["", ""]
    for node in nodes:
        assert [name for (name,) in node.rows("SELECT name FROM pragma_table_info('library_shelf')")] == ["id"]


@pytest.mark.parametrize("where", ["on one node", "on two at once"])
def test_what_alters_renames_and_removes_fields_travels(site: Site, project: Project, where: str) -> None:
    tables = "CREATE TABLE begun(id TEXT PRIMARY KEY NOT NULL);"
    nodes = [site.node(name, tables=tables) for name in ("a", "b", "c")]
    start(nodes)
    project.model(MODELS + LATER, "later")
    assert project.migrate(nodes[:1]) == [""]
    until(lambda: all(len(node.rows(NOTES)) == 2 for node in nodes), "the first migrations travel")
    until_equal(nodes)
    writers = [site.application(node) for node in nodes]
    for number, writer in enumerate(writers):
        book = f"({number + 1}, 'title {number}', 'subtitle {number}')"  # numbers that no two nodes count
        writer.write(f"INSERT INTO library_book(id, title, subtitle) VALUES {book}")
        writer.write(f"INSERT INTO library_tag(id, name) VALUES ({number + 1}, 'tag {number}')")
    (project.folder / "library" / "migrations" / "0003_changes.py").write_text(CHANGES)
    at_once = nodes[:1] if where == "on one node" else nodes[:2]
    told = project.migrate(at_once)
    for failed in told:
        assert not failed or "no such column" in failed or "already exists" in failed or "locked" in failed, failed
    for number, writer in enumerate(writers[1:]):
        writer.write(f"UPDATE library_tag SET name = name || ' changed' WHERE name = 'tag {number}'")
    if all(told):  # each met the other one's changes: what is left is done when it runs again
        until_equal(nodes)
        until(lambda: project.migrate(nodes[:1]) == [""], "it is done when it runs again")
    until(lambda: all(len(set(node.rows(NOTES))) == 3 for node in nodes), "the note travels")
    until_equal(nodes)
    for writer in writers:
        writer.write("INSERT INTO library_book(title, heading) VALUES ('later', lower(hex(randomblob(8))))")
    until_equal(nodes)
    assert project.migrate(nodes) == ["", "", ""]
    for node in nodes:
        assert [name for (name,) in node.rows("SELECT name FROM pragma_table_info('library_shelf')")] == ["id"]
        headings = "SELECT heading FROM library_book WHERE title <> 'later' ORDER BY 1"
        assert node.rows(headings) == [("subtitle 0",), ("subtitle 1",), ("subtitle 2",)]
        assert node.value("PRAGMA integrity_check") == "ok"
