"""What takes a file's place has its mode, owner and group, is never wider, and was not for a moment."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path

import apsw
import pytest

from harmonylite.db.mirror.mirror_file import make_mirror
from harmonylite.db.snapshot import save_copy
from harmonylite.db.sqlite.file_access import Access, access_of, follow, make_file, make_private
from tests.parts.db.fix_replicas import Group

MODES = [0o600, 0o640, 0o660, 0o644, 0o664, 0o666, 0o604]
UMASKS = [0, 0o022, 0o077]
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def mode_of(path: Path) -> int:
    return path.stat().st_mode & 0o7777


def model(folder: Path, mode: int) -> Path:
    path = folder / "app.db"
    path.write_bytes(b"")
    path.chmod(mode)
    return path


@pytest.mark.parametrize(("mode", "mask"), list(product(MODES, UMASKS)))
def test_a_file_is_made_like_the_one_before_whatever_the_umask(tmp_path: Path, mode: int, mask: int) -> None:
    before = access_of(model(tmp_path, mode))
    with umask(mask):
        make_file(tmp_path / "new.db", before)
    assert access_of(tmp_path / "new.db") == before


@pytest.mark.parametrize("mask", UMASKS)
def test_where_none_was_it_is_made_as_sqlite_would(tmp_path: Path, mask: int) -> None:
    with umask(mask):
        make_file(tmp_path / "new.db", access_of(tmp_path / "none"))
        connection = apsw.Connection(str(tmp_path / "sqlite.db"))
        connection.execute("CREATE TABLE t(x)")
        connection.close()
    assert access_of(tmp_path / "new.db") == access_of(tmp_path / "sqlite.db")


def test_rights_of_another_kind_are_not_taken_over(tmp_path: Path) -> None:
    make_file(tmp_path / "new.db", access_of(model(tmp_path, 0o6660)))
    assert mode_of(tmp_path / "new.db") == 0o660


def test_nothing_that_is_there_is_opened_and_no_link_followed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("precious")
    (tmp_path / "link").symlink_to(precious)
    (tmp_path / "dangling").symlink_to(tmp_path / "made by a link")
    for name in ("precious", "link", "dangling"):
        with pytest.raises(FileExistsError):
            make_file(tmp_path / name, Access(0o600, os.geteuid(), os.getegid()))
    for name in ("link", "dangling"):
        make_private(tmp_path / name)
        assert not (tmp_path / name).is_symlink()
        assert mode_of(tmp_path / name) == 0o600
    assert precious.read_text() == "precious"
    assert not (tmp_path / "made by a link").exists()


@pytest.mark.parametrize("mode", MODES)
def test_the_mirror_and_its_side_files_follow_the_database(tmp_path: Path, mode: int) -> None:
    database, mirror = model(tmp_path, mode), tmp_path / "mirror.db"
    with umask(0):
        make_mirror(mirror, "UTF-8")
        assert mode_of(mirror) == 0o600
        follow(mirror, database)
        connection = apsw.Connection(str(mirror))
        connection.execute("CREATE TABLE t(x)")
        assert {mode_of(path) for path in tmp_path.glob("mirror.db*")} == {mode}
        assert len(list(tmp_path.glob("mirror.db*"))) == 3
        connection.close()
    follow(mirror, tmp_path / "none")
    assert mode_of(mirror) == mode


@pytest.mark.parametrize("mask", UMASKS)
def test_a_copy_of_a_mirror_is_for_this_user_alone(group: Group, tmp_path: Path, mask: int) -> None:
    member = group.member("CREATE TABLE t(id INTEGER PRIMARY KEY)")
    with umask(mask):
        save_copy(member.options.mirror, tmp_path / "copy.db")
    assert mode_of(tmp_path / "copy.db") == 0o600


# with other users ------------------------------------------------------------------------------------------------

WORK = """
import json, os, pathlib, sys
from harmonylite.db.sqlite.file_access import access_of, make_file
os.setgroups([22222]), os.setgid(23456), os.setuid(12345)
before, after = map(pathlib.Path, sys.argv[1:])
make_file(after, access_of(before))
found = after.stat()
print(json.dumps([found.st_mode & 0o777, found.st_uid, found.st_gid]))
"""


@pytest.fixture
def open_to_all() -> Iterator[Path]:
    """A folder that every user can come to; pytest's own are below one that only this user may enter."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        yield Path(folder)


@as_root
def test_root_gives_it_to_owner_and_group(tmp_path: Path) -> None:
    database = model(tmp_path, 0o660)
    os.chown(database, 12345, 23456)
    make_file(tmp_path / "new.db", access_of(database))
    assert access_of(tmp_path / "new.db") == Access(0o660, 12345, 23456)
    make_mirror(tmp_path / "mirror.db", "UTF-8")
    follow(tmp_path / "mirror.db", database)
    assert access_of(tmp_path / "mirror.db") == Access(0o660, 12345, 23456)


@as_root
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("owner", "group", "kept"),
    [(12345, 23456, True), (12345, 22222, True), (11111, 23456, True), (12345, 33333, False), (11111, 33333, False)],
    ids=["its own", "a further group", "the group", "a strange group", "a stranger"],
)
def test_who_may_not_give_it_away_leaves_out_what_others_would_get(
    open_to_all: Path, mode: int, owner: int, group: int, kept: bool
) -> None:
    """The process is user 12345 in groups 23456 and 22222."""
    database = model(open_to_all, mode)
    os.chown(database, owner, group)
    command = [sys.executable, "-c", WORK, str(database), str(open_to_all / "new.db")]
    done = subprocess.run(command, capture_output=True, check=True, text=True)
    found, user, got = json.loads(done.stdout)
    assert user == 12345
    if kept:
        assert (found, got) == (mode, group)
    else:
        assert got == 23456
        assert found & 0o707 == mode & 0o707
        assert found >> 3 & 7 == mode & 7 & mode >> 3, "that group may what everybody may, and no more"
    told = "can't be given" in done.stderr
    assert told == ((owner, group) != (user, got))
