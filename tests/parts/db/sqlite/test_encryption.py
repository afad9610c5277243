"""An encrypted file is told from a damaged one: it is never called damaged, and nobody is advised to move it away."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import apsw
import pytest

from harmonylite.db.repair import damage
from harmonylite.db.replica_options import ReplicaOptions
from harmonylite.db.sqlite.encryption import HEADER, is_encrypted
from harmonylite.db.sqlite.thread import SqliteThread
from harmonylite.errors import DatabaseDamagedError, DatabaseEncryptedError
from harmonylite.recovery.bootstrap import Bootstrap
from harmonylite.status import NodeStatus
from tests.cluster.libraries import INSTALLED
from tests.needs import Need


def plain(path: Path, page: int = 4096, rows: int = 400) -> bytes:
    blobs = random.Random(page)
    values = [(n, f"name {n}", blobs.randbytes(900)) for n in range(rows)]
    with closing(apsw.Connection(str(path))) as connection:
        connection.execute(f"PRAGMA page_size = {page}; CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT, data BLOB)")
        with connection:
            connection.executemany("INSERT INTO t VALUES (?, ?, ?)", values)
    return path.read_bytes()


def ciphered(size: int, start: bytes = b"") -> bytes:
    """Return bytes like those of a cipher, the same for each size, whatever ran before."""
    return start + random.Random(size).randbytes(size - len(start))


ENCRYPTED: dict[str, Callable[[bytes], bytes]] = {
    "SQLCipher": lambda whole: ciphered(len(whole)),
    "a plain header of 32 bytes": lambda whole: ciphered(len(whole), whole[:32]),
    "bytes 16 to 23 plain, as SQLite3MC leaves them": lambda whole: (
        ciphered(16) + whole[16:24] + ciphered(len(whole) - 24)
    ),
    "a plain header of 100 bytes": lambda whole: whole[:100] + b"\x99" + ciphered(len(whole) - 101),
    "one small page": lambda _: ciphered(512),
    "one page": lambda _: ciphered(4096),
    "large": lambda _: ciphered(3_000_000),
}
DAMAGED: dict[str, Callable[[bytes], bytes]] = {
    "header of zeros": lambda whole: bytes(100) + whole[100:],
    "random header": lambda whole: ciphered(100) + whole[100:],
    "random first page": lambda whole: ciphered(4096) + whole[4096:],
    "first page of zeros": lambda whole: bytes(4096) + whole[4096:],
    "page type": lambda whole: whole[:100] + b"\x77" + whole[101:],
    "cut": lambda whole: whole[:5000],
    "text": lambda _: b"this is no database, but a text of some length\n" * 300,
    "short": lambda _: b"no database",
    "random bytes, shorter than a page": lambda _: ciphered(100),
    "first half random": lambda whole: ciphered(len(whole) // 2 // 4096 * 4096) + bytes(len(whole) // 2),
}


@pytest.mark.parametrize("page", [512, 4096, 65536])
@pytest.mark.parametrize("make", ENCRYPTED.values(), ids=ENCRYPTED.keys())
def test_an_encrypted_file_is_recognised(tmp_path: Path, make: Callable[[bytes], bytes], page: int) -> None:
    path = tmp_path / "app.db"
    path.write_bytes(make(plain(path, page)))
    assert is_encrypted(path)
    assert "is encrypted" in damage(path)


@pytest.mark.parametrize("header", [0, 32, 100])
def test_no_byte_where_the_first_page_begins_makes_an_encrypted_file_a_plain_one(tmp_path: Path, header: int) -> None:
    path = tmp_path / "app.db"
    cipher = random.Random(header).randbytes(20_000)
    begin = plain(path)[:header] + cipher[header:100]
    for byte in range(256):
        path.write_bytes(begin + bytes([byte]) + cipher[101:])
        assert is_encrypted(path), byte


REAL = """
import sys
import sqlcipher3
connection = sqlcipher3.connect(sys.argv[1])
for statement in sys.argv[2:]:
    connection.execute(statement)
connection.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT)")
connection.executemany("INSERT INTO t VALUES (?, ?)", [(n, f"name {n}") for n in range(400)])
connection.commit()
"""


@pytest.mark.parametrize(
    "more",
    [[], ["PRAGMA cipher_plaintext_header_size = 32", f"""PRAGMA cipher_salt = "x'{"01" * 16}'\""""]],
    ids=["whole", "with a plain header"],
)
def test_a_file_of_the_real_sqlcipher_is_recognised(tmp_path: Path, more: list[str]) -> None:
    python = INSTALLED / "python"
    Need("sqlcipher3", "" if (python / "sqlcipher3").exists() else "make libraries").skip()
    path = tmp_path / "app.db"
    command = [sys.executable, "-c", REAL, str(path), "PRAGMA key = 'secret'", *more]
    subprocess.run(command, check=True, env=os.environ | {"PYTHONPATH": str(python)})
    assert is_encrypted(path)
    assert "is encrypted" in damage(path)


@pytest.mark.parametrize("make", DAMAGED.values(), ids=DAMAGED.keys())
def test_a_damaged_file_is_not_called_encrypted(tmp_path: Path, make: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "app.db"
    path.write_bytes(make(plain(path)))
    assert not is_encrypted(path)
    assert damage(path)
    assert "encrypted" not in damage(path)


@pytest.mark.parametrize("content", [b"", HEADER])
def test_an_empty_file_is_not_encrypted(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "app.db"
    path.write_bytes(content)
    assert not is_encrypted(path)


def test_a_plain_file_full_of_random_blobs_is_plain(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    plain(path, rows=3000)
    assert not is_encrypted(path)
    assert not damage(path)


async def _opened(path: Path, *, replicated: bool) -> None:
    options = ReplicaOptions(database=path, folder=path.parent / "mirror", node="one", session="s")
    options.folder.mkdir()
    if replicated:
        (options.mirror.parent / f"{options.mirror.name}.damaged-before").write_bytes(b"")
    thread = SqliteThread()

    async def nobody() -> bool:
        return False

    try:
        await Bootstrap(options, thread, NodeStatus(), request_snapshot=nobody).open()
    finally:
        await thread.aclose()


@pytest.mark.parametrize("replicated", [False, True])
async def test_an_encrypted_database_ends_the_start_and_stays_in_its_place(tmp_path: Path, replicated: bool) -> None:
    path = tmp_path / "app.db"
    path.write_bytes(ciphered(40960))
    before = path.read_bytes(), sorted(each.name for each in tmp_path.iterdir())
    with pytest.raises(DatabaseEncryptedError, match="is encrypted") as found:
        await _opened(path, replicated=replicated)
    assert "leave the file where it is" in found.value.advice
    assert (path.read_bytes(), sorted({each.name for each in tmp_path.iterdir()} - {"mirror"})) == before


async def test_a_damaged_database_ends_the_start_with_its_own_advice(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    path.write_bytes(DAMAGED["header of zeros"](plain(path)))
    with pytest.raises(DatabaseDamagedError, match="is damaged, or no SQLite file"):
        await _opened(path, replicated=False)
