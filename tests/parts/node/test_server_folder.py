"""The embedded server's folder is found again after a rename, without ``mirror/``, after an upgrade; never a copy's."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from harmonylite.errors import ConfigError
from harmonylite.identity import fingerprint, folder_for, identify, make_folder
from harmonylite.nats_server.server_files import SERVER, ServerFile
from harmonylite.node.server_folder import MIRROR, server_folder


@pytest.fixture
def db(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    return tmp_path / "data" / "app.db"


def started(db: Path, node: str = "") -> str:
    """Do what a start does with names and folders, as far as nats-server; return the folder's name."""
    name = identify(db, node).node_id
    folder = db.parent / "nats" / server_folder(db, name)
    (folder / "jetstream").mkdir(parents=True, exist_ok=True)
    ServerFile.claim(folder, fingerprint(db))
    (folder_for(db) / MIRROR).touch()
    return folder.name


def started_before(db: Path, node: str = "") -> str:
    """Do what a start of a version before `ServerFile` did: a configured id was not kept."""
    name = node or identify(db).node_id
    make_folder(folder_for(db))
    (folder_for(db) / MIRROR).touch()
    (db.parent / "nats" / name / "jetstream").mkdir(parents=True, exist_ok=True)
    return name


NAMES = ["", "a", "b", "a"]


@pytest.mark.parametrize("first", NAMES)
@pytest.mark.parametrize("second", NAMES)
def test_a_renamed_node_keeps_its_folder(db: Path, first: str, second: str) -> None:
    folder = started(db, first)
    assert started(db, second) == folder
    assert started(db, first) == folder


@pytest.mark.parametrize("first", ["", "a"])
@pytest.mark.parametrize("second", ["a", "b"])
def test_so_does_one_that_a_version_before_has_run(db: Path, first: str, second: str) -> None:
    folder = started_before(db, first)
    assert started(db, second) == folder
    assert started(db, "c") == folder


def test_the_folder_is_found_without_the_mirrors_folder(db: Path) -> None:
    folder = started(db)
    shutil.rmtree(db.parent / "mirror")
    assert started(db) == folder


def test_two_databases_in_one_folder_never_take_each_others(db: Path) -> None:
    other = db.with_name("other.db")
    assert started(db, "a") != started(other, "b")
    assert started(other, "c") == "b"
    assert started(db, "d") == "a"


def test_where_it_is_not_clear_whose_a_folder_is_nothing_is_made_and_it_says_what_to_do(db: Path) -> None:
    other = db.with_name("other.db")
    started_before(db, "a")
    started_before(other, "b")
    with pytest.raises(ConfigError, match=r"holds a, b, and nothing says which.*rename that folder to c"):
        started(db, "c")
    assert sorted(path.name for path in (db.parent / "nats").iterdir()) == ["a", "b"]
    assert (started(db, "a"), started(other, "b"), started(db, "c")) == ("a", "b", "a")


def test_a_new_database_beside_others_gets_a_folder_of_its_own(db: Path) -> None:
    started_before(db, "a")
    assert started(db.with_name("new.db"), "n") == "n"


@pytest.mark.parametrize("node", ["", "b"])
def test_a_copy_under_another_name_does_not_take_the_originals(db: Path, node: str) -> None:
    folder = started(db)
    shutil.copytree(db.parent, db.parent.with_name("copy"))
    copy = db.parent.with_name("copy") / db.name
    assert started(copy, node) != folder
    assert started(db) == folder


def test_a_node_that_is_moved_by_its_name_takes_its_folder_along(db: Path) -> None:
    folder = started(db, "a")
    db.parent.rename(db.parent.with_name("moved"))
    assert started(db.parent.with_name("moved") / db.name, "a") == folder


def test_a_server_keeps_the_name_that_its_cluster_knows(tmp_path: Path) -> None:
    folder = tmp_path / "n1"
    folder.mkdir()
    assert ServerFile.claim(folder, "d") == "n1"
    folder.rename(tmp_path / "renamed")
    assert ServerFile.claim(tmp_path / "renamed", "another") == "n1"
    assert ServerFile.read(tmp_path / "renamed") == ServerFile("n1", "another")
    assert (tmp_path / "renamed" / SERVER).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("damage", ["", "[]", "{", json.dumps({"name": "x"})])
def test_a_damaged_file_says_nothing(tmp_path: Path, damage: str) -> None:
    (tmp_path / SERVER).write_text(damage)
    assert ServerFile.read(tmp_path) is None
