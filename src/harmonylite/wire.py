"""The wire format: change sets as MessagePack blocks in envelopes. `docs/wire-format.md` describes it for other
languages.

A change set is a run of *blocks*; each block holds rows of some tables, is compressed alone, and is cut into as many
messages as its size needs. Every message carries one `Envelope`.

Invariant: every SQLite value survives bit for bit. Text that is not UTF-8 is extension type 1 (its raw bytes); all
other values are MessagePack's own nil, int, float 64, str and bin.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import msgspec

from harmonylite.errors import ConfigError
from harmonylite.model import ChangeSetId, RawText, StreamMessage

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

VERSION: Final = 1
KIND_CHANGES: Final = 0
KIND_CHECKPOINT: Final = 1
KIND_ABORT: Final = 2
KIND_ADDITIONS: Final = 3
"""A change set that begins with a schema section that adds."""
KIND_SCHEMA: Final = 4
"""A change set that begins with a schema section of any kind."""
SECTIONS: Final = (KIND_ADDITIONS, KIND_SCHEMA)
CHANGES: Final = (KIND_CHANGES, *SECTIONS)
"""The kinds of messages that hold rows."""
RAW_TEXT: Final = 1
"""MessagePack extension type of TEXT that is not UTF-8."""
BLOCK_BYTES: Final = 1_000_000
"""A block is closed once its rows reach about this many bytes before compression."""
MOST_PACKED_BYTES: Final = 64 * 1024**2
"""Larger blocks (one huge row) are sent as they are, so no message makes a reader fill more memory than this."""
COMPRESS_FROM: Final = 1024
"""Blocks smaller than this many bytes are sent as they are."""
ENVELOPE_BYTES: Final = 1024
"""Room that an envelope without its body, and NATS's headers, never exceed."""
NAME_CHARACTERS: Final = 128
"""The names of a node, a session and a history are no longer than this, and have no control characters."""
LARGEST: Final = 2**63 - 1
"""Numbers of change sets and messages are whole numbers from 0 to this, so that SQLite can keep them."""

LATEST: Final = 253_370_764_800
"""Times of messages are seconds from 1970 to the end of the year 9999 in any time zone, so that sums stay finite."""

_PLAIN = re.compile(rb"[A-Za-z0-9_-]")
_NAME = re.compile(rf"[^\x00-\x1f\x7f]{{0,{NAME_CHARACTERS}}}")


class WireError(ValueError):
    """Bytes that are not a message of a known version."""


class ForeignMessageError(WireError):
    """A message that no node wrote in its own name: not our format, one that contradicts itself, or another's name.

    Every reader ignores it. The message, its subject and the number of shards decide that, so all readers agree.
    """


class Envelope(msgspec.Struct, array_like=True, frozen=True):
    """One message. ``index`` counts the messages of the change set on this shard from 0; ``more``: the block continues
    in the next message; ``last``: this message completes the change set on this shard; ``shards``: every shard that
    the change set touches; ``time``: when it was captured, seconds since the epoch; ``base``: per shard the sequence
    that the writer had folded when it captured; ``packed``: the block is compressed with zstd; ``history``: the
    one that the writer's mirror belongs to, by which a node of another beginning is noticed at once ("" = not said);
    ``current``: of each row that it changes, the writer saw what its mirror held at ``base`` (False: not said).
    """

    version: int
    kind: int
    node: str
    session: str
    number: int
    index: int
    more: bool
    last: bool
    shards: list[int]
    time: float
    base: dict[int, int]
    packed: bool
    body: bytes
    history: str = ""
    current: bool = False

    @property
    def id(self) -> ChangeSetId:
        """The change set that the message belongs to."""
        return ChangeSetId(self.node, self.session, self.number)


class Head(msgspec.Struct, array_like=True, frozen=True):
    """How a message of every version begins, also of versions to come."""

    version: int
    kind: int
    node: str


class Updates(msgspec.Struct, array_like=True):
    """Rows that were updated, all in the same columns.

    ``changed``: indices into the table's columns; ``rows``: whole images; ``old``: what the writer last saw in the
    changed columns, in their order, one list per row.
    """

    changed: list[int]
    rows: list[list[Any]]
    old: list[list[Any]]


class TableBlock(msgspec.Struct, array_like=True):
    """Changes of one table within one block.

    ``columns``: names, the key's first; ``keys``: how many of them form the key; ``deletes``: whole rows as the
    writer last saw them; ``inserts``: whole rows; ``updates``: grouped by changed columns.
    """

    table: str
    columns: list[str]
    keys: int
    deletes: list[list[Any]] = []
    inserts: list[list[Any]] = []
    updates: list[Updates] = []

    @property
    def count(self) -> int:
        """Number of rows."""
        return len(self.deletes) + len(self.inserts) + sum(len(u.rows) for u in self.updates)


Block = list[TableBlock]


def _to_wire(value: object) -> object:
    if isinstance(value, RawText):
        return msgspec.msgpack.Ext(RAW_TEXT, value.data)
    raise TypeError(f"{type(value).__name__} is not a SQLite value")


def _from_wire(code: int, data: memoryview) -> RawText:
    if code != RAW_TEXT:
        raise WireError(f"extension type {code} is not known")
    return RawText(bytes(data))


_encoder = msgspec.msgpack.Encoder(enc_hook=_to_wire)
_blocks = msgspec.msgpack.Decoder(Block, ext_hook=_from_wire)
_values = msgspec.msgpack.Decoder(ext_hook=_from_wire)
_envelopes = msgspec.msgpack.Decoder(Envelope)
_heads = msgspec.msgpack.Decoder(Head)
_MALFORMED = (msgspec.DecodeError, RecursionError, ValueError)
"""What msgspec raises for bytes that are not what is wanted; names that are not UTF-8 are a ValueError."""


def decode_value(data: bytes) -> Any:
    """Return what `encode_value` encoded; raises WireError."""
    try:
        return _values.decode(data)
    except _MALFORMED as error:
        raise WireError(f"value: {error}") from error


def encode_value(values: object) -> bytes:
    """Return MessagePack of plain SQLite values; the input of the shard hash and of digests."""
    return _encoder.encode(values)


def encode_tables(tables: TableBlock) -> bytes:
    """Return MessagePack of one table's part of a block."""
    return _encoder.encode(tables)


def encode_block(tables: Sequence[bytes], *, compress: bool) -> tuple[bytes, bool]:
    """Return a block made of encoded `TableBlock`s, and whether it is compressed."""
    count = len(tables)
    head = bytes([0x90 | count]) if count < 16 else b"\xdd" + count.to_bytes(4, "big")
    raw = head + b"".join(tables)
    if not compress or not COMPRESS_FROM <= len(raw) <= MOST_PACKED_BYTES:
        return raw, False
    packed = zstd.compress(raw, level=1)
    return (packed, True) if len(packed) < len(raw) else (raw, False)


def decode_block(body: bytes, *, packed: bool) -> Block:
    """Return the tables of one whole block; raises WireError."""
    try:
        return _blocks.decode(_unpack(body) if packed else body)
    except WireError:
        raise
    except (*_MALFORMED, zstd.ZstdError) as error:
        raise WireError(f"block: {error}") from error


def _unpack(body: bytes) -> bytes:
    size = zstd.get_frame_info(body).decompressed_size or 0  # None where the frame doesn't say
    if size > MOST_PACKED_BYTES:
        raise WireError(f"a compressed block of {size} bytes is larger than {MOST_PACKED_BYTES}")
    decompressor = zstd.ZstdDecompressor()
    raw = decompressor.decompress(body, max_length=MOST_PACKED_BYTES)
    if not decompressor.eof:
        raise WireError("the compressed block is cut off or too large")
    if decompressor.unused_data:
        raise WireError(f"{len(decompressor.unused_data)} bytes follow the compressed block")
    return raw


def encode_envelope(envelope: Envelope) -> bytes:
    """Return one message's payload."""
    return _encoder.encode(envelope)


def token(name: str) -> str:
    """Return ``name`` as one subject token: bytes other than letters, digits, ``_`` and ``-`` become ``=hh``.

    One name has one token and one token one name, so two nodes never share a subject.
    """
    if not name:
        raise ConfigError("a node id can't be empty")
    return "".join(chr(b) if _PLAIN.match(bytes([b])) else f"={b:02x}" for b in name.encode())


def decode_envelope(message: StreamMessage, shards: int | None) -> Envelope:
    """Return the envelope of ``message``, in a cluster of ``shards`` shards (None: of one that was folded before).

    Raises ForeignMessageError where no node wrote the message in its own name, and WireError where a newer version of
    this program may have written it.
    """
    try:
        envelope = _envelopes.decode(message.payload)
    except _MALFORMED as error:
        raise _unreadable(message, str(error)) from error
    if envelope.version != VERSION:
        raise _unreadable(message, f"format version {envelope.version} does not exist")
    if why := _impersonates(envelope.node, message.subject) or _contradiction(envelope, message.shard, shards):
        raise ForeignMessageError(why)
    if envelope.kind == KIND_ABORT:
        decode_abort(envelope.body)
    if envelope.kind > KIND_SCHEMA:
        raise WireError(f"messages of kind {envelope.kind} are not known, a newer version may have written it")
    return envelope


def _unreadable(message: StreamMessage, why: str) -> WireError:
    """Return the error for a message that is none of this version."""
    try:
        head = _heads.decode(message.payload)
    except _MALFORMED:
        return ForeignMessageError(f"it is not in HarmonyLite's format: {why}")
    if head.version <= VERSION:
        return ForeignMessageError(f"it is not in HarmonyLite's format: {why}")
    if other := _impersonates(head.node, message.subject):
        return ForeignMessageError(other)
    return WireError(f"format version {head.version} is newer than {VERSION}")


def _impersonates(node: str, subject: str) -> str:
    """Return a sentence on a message in another node's name, "" when ``subject`` is that node's own."""
    if node and _NAME.fullmatch(node) and token(node) == subject.rpartition(".")[2]:
        return ""
    return f"it bears the name of node {node[:NAME_CHARACTERS]!r}, whose subject this is not"


def _contradiction(envelope: Envelope, shard: int, shards: int | None) -> str:
    """Say what in an envelope can't be true, "" when all can."""
    listed = envelope.shards
    if shard not in listed or len(set(listed)) < len(listed) or min(listed) < 0:
        return f"it is on shard {shard} and names the shards {_shortened(listed)}"
    if shards is not None and max(listed) >= shards:
        return f"it names shard {max(listed)}, and there are {shards} shards"
    if not (0 <= envelope.number <= LARGEST and 0 <= envelope.index <= LARGEST and envelope.kind >= 0):
        return f"kind {envelope.kind}, number {envelope.number} or index {envelope.index} is out of range"
    if not (_NAME.fullmatch(envelope.session) and _NAME.fullmatch(envelope.history)):
        return f"the name of its session or history has more than {NAME_CHARACTERS} characters, or control characters"
    if not 0 <= envelope.time <= LATEST:  # NaN is neither
        return f"it was captured at {envelope.time} seconds since 1970"
    if envelope.last and envelope.more:
        return "it is the last message, and its block continues in the next one"
    if envelope.kind in (KIND_CHECKPOINT, KIND_ABORT) and (envelope.index or not envelope.last):
        return f"a message of kind {envelope.kind} is one of several"
    return ""


def _shortened(listed: list[int]) -> str:
    return str(listed) if len(listed) <= 8 else f"[{', '.join(map(str, listed[:8]))}, …]"


def encode_abort(victim: ChangeSetId) -> bytes:
    """Return the body of an abort message: the name of the change set that it voids."""
    return _encoder.encode([victim.node, victim.session, victim.number])


def decode_abort(body: bytes) -> ChangeSetId:
    """Return the change set that an abort message voids; raises ForeignMessageError: no node writes another body."""
    try:
        node, session, number = msgspec.msgpack.decode(body, type=tuple[str, str, int])
    except _MALFORMED as error:
        raise ForeignMessageError(f"abort: {error}") from error
    if not (node and _NAME.fullmatch(node) and _NAME.fullmatch(session) and 0 <= number <= LARGEST):
        raise ForeignMessageError("abort: it names a change set that can't exist")
    return ChangeSetId(node, session, number)


def encode_names(names: Iterable[ChangeSetId]) -> bytes:
    """Return names of change sets as they are stored beside a position."""
    return _encoder.encode([[name.node, name.session, name.number] for name in names])


def decode_names(data: bytes) -> list[ChangeSetId]:
    """Return the change sets that `encode_names` wrote down; raises WireError."""
    try:
        return [ChangeSetId(*name) for name in msgspec.msgpack.decode(data, type=list[tuple[str, str, int]])]
    except (*_MALFORMED, TypeError) as error:
        raise WireError(f"names of change sets: {error}") from error


def encode_named(named: tuple[int, ChangeSetId] | None) -> bytes | None:
    """Return a sequence and the name of its change set as they are stored beside a position."""
    return None if named is None else _encoder.encode([named[0], named[1].node, named[1].session, named[1].number])


def decode_named(data: bytes | None) -> tuple[int, ChangeSetId] | None:
    """Return the sequence and the change set that `encode_named` wrote down; raises WireError."""
    if data is None:
        return None
    try:
        seq, node, session, number = msgspec.msgpack.decode(data, type=tuple[int, str, str, int])
    except (*_MALFORMED, TypeError) as error:
        raise WireError(f"the name of a change set: {error}") from error
    return seq, ChangeSetId(node, session, number)


def cut(body: bytes, most: int) -> Iterator[tuple[bytes, bool]]:
    """Cut a block's bytes into pieces of at most ``most`` bytes; yield each with whether more follow."""
    if len(body) <= most:
        yield body, False
        return
    for start in range(0, len(body), most):
        yield body[start : start + most], start + most < len(body)


def rows_in(blocks: Iterable[TableBlock]) -> int:
    """Return the number of rows in ``blocks``."""
    return sum(block.count for block in blocks)
