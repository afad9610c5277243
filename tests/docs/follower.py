"""A program that follows a cluster's streams and knows nothing but docs/wire-format.md.

Invariant: nothing of HarmonyLite is imported; what is done here, a program in any language can do. Rows are kept in
plain dictionaries, so that every rule of the page has to be followed and none is SQLite's doing.
"""

from __future__ import annotations

import asyncio
import string
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias
from zlib import crc32

import apsw
import msgspec
import nats

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

Name: TypeAlias = tuple[str, str, int]
Key: TypeAlias = tuple[Any, ...]
Row: TypeAlias = dict[str, Any]

PLAIN = string.ascii_letters + string.digits + "_-"


@dataclass
class ChangeSet:
    """One change set on one shard, as far as it has come. ``end``: the sequence of its last message, 0 = not there."""

    name: Name
    shards: list[int]
    index: int = 0
    end: int = 0
    piece: bytes = b""
    parts: list[list[Any]] = field(default_factory=list)


class Follower:
    """What the streams say, row by row. ``unique``: columns of the unique index that a table has beside its key."""

    def __init__(self, shards: int, unique: Mapping[str, Sequence[str]]) -> None:
        self.tables: dict[str, dict[Key, Row]] = {}
        self.schema: list[list[Any]] = []
        """What was added to the schema, line by line."""
        self.seen: set[str] = set()
        """What of the format was met: a test that meets none of it shows nothing."""
        self._shards = shards
        self._unique = unique
        self._open: list[dict[str, ChangeSet]] = [{} for _ in range(shards)]
        self._whole: list[list[ChangeSet]] = [[] for _ in range(shards)]
        self._void: set[Name] = set()

    def begin(self, snapshot: Path, keys: Mapping[str, Sequence[str]]) -> tuple[list[int], list[int]]:
        """Take the rows of a snapshot for a start; ``keys``: each table's key, as it travels.

        Return, by shard, the first message to read, and the last one whose change set is in the snapshot.
        """
        file = apsw.Connection(str(snapshot), flags=apsw.SQLITE_OPEN_READONLY)
        for table, key in keys.items():
            real = [name for _, name, *_ in file.execute(f"PRAGMA table_info({table})") if name not in key]
            listed = ", ".join(
                f'typeof("{c}"), iif(typeof("{c}") = \'text\', CAST("{c}" AS BLOB), "{c}")' for c in (*key, *real)
            )
            rows = self.tables[table] = {}
            for pairs in file.execute(f"SELECT {listed} FROM {table}"):
                row: list[Any] = [travels(kind, value) for kind, value in zip(pairs[::2], pairs[1::2], strict=True)]
                if key[-1] == "rowid" and len(key) > 1 and None not in row[: len(key) - 1]:
                    row[len(key) - 1] = None
                rows[key_of(row, len(key))] = dict(zip((*key, *real), row, strict=True))
        found: list[Any] = file.execute("SELECT resume, seq FROM __harmonylite__position ORDER BY shard").fetchall()
        file.close()
        return [resume for resume, _ in found], [seq for _, seq in found]

    # putting change sets together ------------------------------------------------------------------------------

    def hear(self, shard: int, seq: int, subject: str, payload: bytes) -> None:
        """Take in one message of one stream."""
        if not counts(shard, self._shards, subject, payload):
            self.seen.add("stepped over")
            return
        version, kind, node, session, number, index, more, last, shards, _, _, packed, body, *_ = decode(payload)
        assert (version, kind in (0, 1, 2, 3, 4)) == (1, True), "a newer program wrote it"
        if kind == 2:
            victim: Name = tuple(decode(body))
            if all(done.name != victim for done in self._whole[shard]):
                self._void.add(victim)
            self.seen.add("abort")
        if kind not in (0, 3, 4):
            return
        name = (node, session, number)
        now = self._open[shard].get(node)
        if now is None or now.name != name:
            if index > 0:
                return
            self._open[shard].pop(node, None)
            now = self._open[shard][node] = ChangeSet(name, shards)
            if len(self._open[shard]) > 64:
                del self._open[shard][next(iter(self._open[shard]))]
        if index != now.index or shards != now.shards:
            return
        now.index += 1
        now.piece += body
        self.seen |= {"cut"} if more else {"packed"} if packed else set()
        if not more:
            now.parts += decode(zstd.decompress(now.piece) if packed else now.piece)
            now.piece = b""
        if last:
            now.end = seq
            self._whole[shard].append(self._open[shard].pop(node))

    def fold(self, after: Sequence[int]) -> None:
        """Fold all that was heard, in each shard's order; ``after``: what a snapshot had folded already, by shard.

        What is not whole on each of its shards must not be there: the cluster is to be at rest.
        """
        ends = [{done.name for done in whole} for whole in self._whole]
        for shard, whole in enumerate(self._whole):
            for done in whole:
                if done.name in self._void or done.end <= after[shard]:
                    continue
                assert all(done.name in ends[other] for other in done.shards)
                self.seen |= {"several shards"} if len(done.shards) > 1 else set()
                for part in done.parts:
                    if part[0] == "__harmonylite__schema":
                        self.seen.add("schema")
                        lines = part[4] if shard == min(done.shards) else []
                        self.schema += [line[:5] for line in lines]
                        assert all(line[4] is not None and not any(line[5:7]) for line in lines), (
                            "nothing but additions"
                        )
                    else:
                        self._part(shard, *part)

    # folding ---------------------------------------------------------------------------------------------------

    def _part(
        self,
        shard: int,
        table: str,
        columns: list[str],
        keys: int,
        deletes: list[Any],
        inserts: list[Any],
        updates: list[Any],
    ) -> None:
        rows = self.tables.setdefault(table, {})
        for row in deletes:
            rows.pop(key_of(row, keys), None)
        groups = [(range(len(columns)), inserts), *((changed, images) for changed, images, _ in updates)]
        for changed, images in groups:
            merged = []
            for image in images:
                self._check_shard(shard, table, image[:keys])
                new = dict(zip(columns, image, strict=True))
                there = rows.pop(key_of(image, keys), None)
                if there is not None:
                    new = there | {columns[i]: image[i] for i in changed}
                merged.append((key_of(image, keys), new))
            for key, new in merged:
                self._displace(table, new)
                rows[key] = new
        self.seen |= {"delete"} if deletes else {"update"} if updates else {"insert"}

    def _displace(self, table: str, new: Row) -> None:
        rows, columns = self.tables[table], self._unique.get(table, ())
        claim = [comparable(new[column]) for column in columns]
        if not columns or None in claim:
            return
        for key in [k for k, row in rows.items() if [comparable(row[column]) for column in columns] == claim]:
            self.seen.add("displaced")
            del rows[key]

    def _check_shard(self, shard: int, table: str, key: Sequence[Any]) -> None:
        name = "".join(letter.lower() if letter.isascii() else letter for letter in table)
        of = [name] if table in self._unique else [name, *map(whole, key)]
        assert crc32(msgspec.msgpack.encode(of)) % self._shards == shard


def counts(shard: int, shards: int, subject: str, payload: bytes) -> bool:
    """Return whether a node wrote a message in its own name."""
    try:
        found = decode(payload)
    except (msgspec.DecodeError, ValueError):
        return False
    types = (int, int, str, str, int, int, bool, bool, list, float, dict, bool, bytes)
    if not isinstance(found, list) or [type(each) for each in found[:3]] != list(types[:3]):
        return False
    version, kind, node = found[:3]
    if not node or not sound(node) or token(node) != subject.split(".")[-1]:
        return False
    if version > 1:
        return True
    if [type(each) for each in found[:13]] != list(types):
        return False
    _, _, _, session, number, index, more, last, listed, time, _, _, body, *rest = found
    return (
        version == 1
        and kind >= 0
        and 0 <= number < 2**63
        and 0 <= index < 2**63
        and 0 <= time <= 253370764800
        and shard in listed
        and len(set(listed)) == len(listed)
        and set(listed) <= set(range(shards))
        and all(map(sound, (session, *rest[:1])))
        and not (last and more)
        and (kind not in (1, 2) or (index == 0 and last))
        and (kind != 2 or names_a_change_set(body))
    )


def names_a_change_set(body: bytes) -> bool:
    """Return whether the body of an abort names a change set."""
    try:
        found = decode(body)
    except (msgspec.DecodeError, ValueError):
        return False
    if not isinstance(found, list) or [type(each) for each in found] != [str, str, int]:
        return False
    node, session, number = found
    return bool(node) and sound(node) and sound(session) and 0 <= number < 2**63


def sound(name: str) -> bool:
    """Return whether a name is short and has no control characters."""
    return len(name) <= 128 and all(character >= " " and character != "\x7f" for character in name)


def token(node: str) -> str:
    """Return a node id as it is written in a subject."""
    return "".join(chr(b) if chr(b) in PLAIN else f"={b:02x}" for b in node.encode())


def decode(data: bytes) -> Any:
    """Return what MessagePack says."""
    return msgspec.msgpack.decode(data)


def comparable(value: Any) -> Any:
    """Return a value as a key that is equal where SQLite's BINARY holds two equal, and can be hashed."""
    return ("text", value.data) if isinstance(value, msgspec.msgpack.Ext) else value


def whole(value: Any) -> Any:
    """Return the integer for a float that is one of 64 bits, anything else as it is."""
    return int(value) if isinstance(value, float) and value.is_integer() and -(2.0**63) <= value < 2.0**63 else value


def key_of(row: Sequence[Any], keys: int) -> Key:
    """Return the key of a row."""
    return tuple(comparable(value) for value in row[:keys])


def travels(kind: str, value: Any) -> Any:
    """Return a value of SQLite's type ``kind``, text as bytes, as it is in a message."""
    if kind != "text":
        return value
    try:
        return value.decode()
    except UnicodeDecodeError:
        return msgspec.msgpack.Ext(1, value)


def told_apart(value: Any) -> tuple[str, Any]:
    """Return a value with SQLite's name of its type, text as bytes: as a query can give it, too."""
    if isinstance(value, str):
        return "text", value.encode()
    if isinstance(value, msgspec.msgpack.Ext):
        assert value.code == 1
        return "text", bytes(value.data)
    names = {type(None): "null", int: "integer", float: "real", bytes: "blob"}
    return names[type(value)], repr(value) if isinstance(value, float) else value


def messages(url: str, streams: Sequence[str], starts: Sequence[int]) -> list[tuple[int, int, str, bytes]]:
    """Return shard, sequence, subject and payload of every message that the streams hold from ``starts`` on."""

    async def read() -> list[tuple[int, int, str, bytes]]:
        link = await nats.connect(url)
        stream = link.jetstream()
        found = []
        for shard, name in enumerate(streams):
            state = (await stream.stream_info(name)).state
            for seq in range(max(starts[shard], state.first_seq), state.last_seq + 1):
                message = await stream.get_msg(name, seq)
                found.append((shard, seq, message.subject or "", message.data or b""))
        await link.close()
        return found

    return asyncio.run(read())


def rows_told_apart(rows: Mapping[Key, Row], columns: Sequence[str]) -> Iterator[tuple[tuple[str, Any], ...]]:
    """Yield each row's values in the order of ``columns``, types told apart."""
    for row in rows.values():
        yield tuple(told_apart(row[column]) for column in columns)
