"""A node's identity: made once, kept in its place, created again for a copy; one process for one database."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from harmonylite import identity
from harmonylite.errors import ConfigError, HarmonyLiteError
from harmonylite.identity import (
    acquire_lock,
    folder_for,
    generate,
    holder,
    identify,
    kept_ids,
    make_folder,
    nats_folder_for,
)
from harmonylite.web.control_file import FILE_NAME, ControlFile, read_control_file, write_control_file

HOLDER = """
import pathlib, sys
from harmonylite.identity import acquire_lock
lock = acquire_lock(pathlib.Path(sys.argv[1]))
print("held", flush=True)
input()
"""


def test_an_id_is_made_once_and_kept(tmp_path: Path) -> None:
    first = identify(tmp_path / "app.db")
    assert first.origin == "new"
    assert re.fullmatch(r"[a-z2-9]{12}", first.node_id)
    again = identify(tmp_path / "app.db")
    assert (again.node_id, again.origin, again.note) == (first.node_id, "kept", "")


def test_two_databases_in_one_folder_are_two_nodes(tmp_path: Path) -> None:
    assert identify(tmp_path / "a.db").node_id != identify(tmp_path / "b.db").node_id
    assert folder_for(tmp_path / "a.db") == tmp_path / "mirror" / "a.db"
    assert nats_folder_for(tmp_path / "a.db") == tmp_path / "nats"


def test_a_copied_folder_is_another_node_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    first = identify(tmp_path / "one" / "app.db")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    copy = identify(tmp_path / "two" / "app.db")
    assert (copy.origin, identify(tmp_path / "one" / "app.db").node_id) == ("copied", first.node_id)
    assert copy.node_id != first.node_id
    assert first.node_id in copy.note
    assert "path" in copy.note
    assert identify(tmp_path / "two" / "app.db").node_id == copy.node_id


def test_another_machine_is_another_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = identify(tmp_path / "app.db")
    (tmp_path / "machine-id").write_text("another\n")
    monkeypatch.setattr(identity, "MACHINE_ID", tmp_path / "machine-id")
    other = identify(tmp_path / "app.db")
    assert other.origin == "copied"
    assert other.node_id != first.node_id
    assert "machine" in other.note


def test_without_a_machine_id_the_host_name_stands_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "MACHINE_ID", tmp_path / "none")
    assert identify(tmp_path / "app.db").node_id == identify(tmp_path / "app.db").node_id
    monkeypatch.setattr("socket.gethostname", lambda: "elsewhere")
    assert identify(tmp_path / "app.db").origin == "copied"


def test_another_way_to_the_same_file_is_the_same_node(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert identify(tmp_path / "real" / "app.db").node_id == identify(tmp_path / "link" / "app.db").node_id


def test_a_configured_id_wins_stays_and_says_whom_it_renames(tmp_path: Path) -> None:
    made = identify(tmp_path / "app.db").node_id
    renamed = identify(tmp_path / "app.db", "berlin-1")
    assert (renamed.node_id, renamed.origin, renamed.former) == ("berlin-1", "configured", made)
    assert made in renamed.note
    again = identify(tmp_path / "app.db", "berlin-1")
    assert (again.note, again.former) == ("", made)
    assert identify(tmp_path / "app.db").node_id == "berlin-1"
    assert identify(tmp_path / "app.db", "berlin-2").former == "berlin-1"
    assert kept_ids(tmp_path / "app.db") == ["berlin-2", "berlin-1"]
    with pytest.raises(ConfigError, match="is not a node id"):
        identify(tmp_path / "app.db", "a.b")


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"node_id": "a b", "path": "", "machine": ""}'])
def test_a_damaged_record_is_replaced(tmp_path: Path, damage: str) -> None:
    identify(tmp_path / "app.db")
    (folder_for(tmp_path / "app.db") / identity.RECORD).write_text(damage)
    assert identify(tmp_path / "app.db").origin == "new"


def test_the_record_names_neither_machine_nor_path(tmp_path: Path) -> None:
    identify(tmp_path / "app.db")
    record = folder_for(tmp_path / "app.db") / identity.RECORD
    assert set(json.loads(record.read_text())) == {"node_id", "path", "machine", "former"}
    assert str(tmp_path) not in record.read_text()
    assert record.stat().st_mode & 0o777 == 0o600
    assert record.parent.stat().st_mode & 0o777 == 0o700
    assert not [path for path in record.parent.iterdir() if path != record]


def test_a_folder_that_can_not_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "mirror").write_text("in the way")
    with pytest.raises(HarmonyLiteError, match="can't make the folder"):
        identify(tmp_path / "app.db")


def test_ids_do_not_repeat() -> None:
    assert len({generate() for _ in range(1000)}) == 1000


def test_one_process_holds_the_lock_until_it_ends_however(tmp_path: Path) -> None:
    folder = make_folder(folder_for(tmp_path / "app.db"))
    other = subprocess.Popen([sys.executable, "-c", HOLDER, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert other.stdout is not None
    assert other.stdin is not None
    assert other.stdout.readline() == b"held\n"
    with pytest.raises(HarmonyLiteError, match=rf"a node runs for app\.db already \(process {other.pid}"):
        acquire_lock(folder)
    other.kill()
    other.wait()
    other.stdin.close()
    other.stdout.close()
    with acquire_lock(folder) as lock:
        lock.close()
        lock.close()
        acquire_lock(folder).close()


def test_a_full_disk_takes_the_holders_name_from_the_lock_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    folder = make_folder(folder_for(tmp_path / "app.db"))
    acquire_lock(folder).close()
    monkeypatch.setattr(os, "pwrite", full)
    with acquire_lock(folder), pytest.raises(HarmonyLiteError, match=r"process unknown"):
        acquire_lock(folder)


def test_who_holds_the_lock_can_be_asked_and_asking_keeps_no_node_from_starting(tmp_path: Path) -> None:
    folder = make_folder(folder_for(tmp_path / "app.db"))
    assert holder(folder) is None
    with acquire_lock(folder):
        assert holder(folder) == str(os.getpid())
    assert holder(folder) is None
    asking = os.open(folder / identity.LOCK, os.O_RDONLY)
    fcntl.flock(asking, fcntl.LOCK_SH)
    timer = threading.Timer(0.2, os.close, [asking])
    timer.start()
    acquire_lock(folder).close()
    timer.join()


def test_children_do_not_inherit_the_lock(tmp_path: Path) -> None:
    folder = make_folder(folder_for(tmp_path / "app.db"))
    lock = acquire_lock(folder)
    child = subprocess.Popen(
        [sys.executable, "-c", "print(flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        close_fds=False,
    )
    assert child.stdout is not None
    child.stdout.readline()  # what is closed on exec is closed only once the new program runs
    lock.close()
    try:
        acquire_lock(folder).close()
    finally:
        child.communicate(b"\n")


def folders(tmp_path: Path) -> list[Path]:
    """Return every folder of ours beside a database, made."""
    made = [make_folder(folder_for(tmp_path / "app.db")), make_folder(nats_folder_for(tmp_path / "app.db"))]
    return [made[0].parent, *made]


def make_all(tmp_path: Path) -> None:
    for folder in (folder_for(tmp_path / "app.db"), nats_folder_for(tmp_path / "app.db")):
        make_folder(folder)


def test_folders_of_ours_are_for_their_owner_alone_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        made = folders(tmp_path)
    finally:
        os.umask(before)
    assert [folder.stat().st_mode & 0o777 for folder in made] == [0o700] * 3


@pytest.mark.parametrize("which", range(3))
@pytest.mark.parametrize(("mode", "who"), [(0o770, "its group"), (0o702, "everyone"), (0o1777, "everyone")])
def test_a_folder_that_others_may_write_is_refused(tmp_path: Path, which: int, mode: int, who: str) -> None:
    folder = folders(tmp_path)[which]
    folder.chmod(mode)
    with pytest.raises(HarmonyLiteError, match=f"may be written by {who}") as caught:
        make_all(tmp_path)
    assert caught.value.advice == f"chmod go-w {folder}"
    folder.chmod(0o755)
    make_all(tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
@pytest.mark.parametrize("which", range(3))
@pytest.mark.parametrize("way", ["the folder", "a link"])
def test_a_folder_of_another_user_is_refused(tmp_path: Path, which: int, way: str) -> None:
    folder = folders(tmp_path)[which]
    if way == "a link":
        folder.rename(tmp_path / "elsewhere")
        folder.symlink_to(tmp_path / "elsewhere")
    os.chown(folder, 12345, -1, follow_symlinks=False)
    with pytest.raises(HarmonyLiteError, match=f"the folder {folder} belongs to user 12345") as caught:
        make_all(tmp_path)
    assert "run as user 12345" in caught.value.advice


def test_a_folder_may_be_a_link_of_ones_own_to_another_disk(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    nats_folder_for(tmp_path / "app.db").symlink_to(tmp_path / "disk")
    make_all(tmp_path)


@pytest.mark.parametrize("name", [identity.LOCK, FILE_NAME])
def test_no_link_in_place_of_a_lock_or_control_file_is_followed(tmp_path: Path, name: str) -> None:
    folder = make_folder(folder_for(tmp_path / "app.db"))
    precious = tmp_path / "precious"
    precious.write_text('{"port": 1, "token": "t", "pid": 1}')
    (folder / name).symlink_to(precious)
    with pytest.raises(HarmonyLiteError):
        acquire_lock(folder) if name == identity.LOCK else read_control_file(folder)
    assert precious.read_text() == '{"port": 1, "token": "t", "pid": 1}'
    assert (folder / name).is_symlink()


def test_locks_and_control_files_are_for_their_owner_alone_whatever_the_umask(tmp_path: Path) -> None:
    folder = make_folder(folder_for(tmp_path / "app.db"))
    before = os.umask(0)
    try:
        acquire_lock(folder).close()
        write_control_file(folder, ControlFile(1, "t", 1))
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
