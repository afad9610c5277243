"""Decode external bytes: pointers, leases, questions and answers of nodes, descriptions in stores, files.

Invariant: whatever the bytes are, decoding ends with a value of the stated type whose texts, numbers and times are
within the bounds of that type, or with a `ForeignError` that names what the bytes should be. A test finds every `Codec`
and mutates its input; another one forbids decoders elsewhere (`tests/rules/foreign`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Generic, TypeVar

import msgspec
from msgspec import Meta

from harmonylite.errors import ForeignError

T = TypeVar("T")

MOST_BYTES = 64 * 1024
"""Bytes that are decoded at most, unless a codec says otherwise."""
DEEPEST = 32
"""Levels of nesting in a value that has no type of its own; encoders have less room than decoders."""

_LINE = r"\A[^\x00-\x1f\x7f]*\Z"

Seq = Annotated[int, Meta(ge=0, le=2**63 - 1)]
"""A sequence, a revision or a number of bytes: SQLite holds no larger integer."""
Shard = Annotated[int, Meta(ge=0, le=1023)]
Seconds = Annotated[float, Meta(ge=0, le=253370764800)]
"""A time since the epoch, up to the year 9999 in any time zone, or a duration; neither infinite nor NaN."""
Line = Annotated[str, Meta(max_length=1024, pattern=_LINE)]
"""Text without control characters, so that it can't begin a line of the log; may be empty."""
Name = Annotated[str, Meta(min_length=1, max_length=128, pattern=_LINE)]
"""The name of a node, of a history, of a session."""
Long = Annotated[str, Meta(max_length=16 * 1024)]
"""Any other text."""
PerShard = Annotated[dict[Shard, Seq], Meta(max_length=1024)]
StreamEnd = tuple[Line, Seq]
"""A stream's identity and a sequence in it."""
StreamEnds = Annotated[dict[Shard, StreamEnd], Meta(max_length=1024)]

_BAD = (msgspec.MsgspecError, ValueError, TypeError, OverflowError, RecursionError)
"""What msgspec raises: text that isn't UTF-8 is a ValueError of its own, nesting ends in RecursionError."""


class Codec(Generic[T]):
    """How one kind of value travels. ``what``: what errors call it; ``kind``: its type; ``packed``: MessagePack, not
    JSON; ``most``: bytes that are looked at.
    """

    def __init__(self, what: str, kind: type[T], *, packed: bool = False, most: int = MOST_BYTES) -> None:
        self.what = what
        self.kind = kind
        self.most = most
        self.packed = packed
        decoder = msgspec.msgpack.Decoder(kind) if packed else msgspec.json.Decoder(kind)
        self._decode = decoder.decode
        self._encode = msgspec.msgpack.encode if packed else msgspec.json.encode

    def decode(self, data: bytes, what: str = "") -> T:
        """Return the value in ``data``; raises ForeignError naming ``what`` (else what the codec is for)."""
        what = what or self.what
        if len(data) > self.most:
            raise ForeignError(f"{what} can't be read: it has {len(data)} bytes, more than {self.most}")
        try:
            found = self._decode(data)
        except _BAD as error:
            raise ForeignError(f"{what} can't be read: {error}") from error
        return found

    def encode(self, value: T) -> bytes:
        """Return ``value`` as it travels."""
        return self._encode(value)


class Untyped(Codec[dict[str, Any]]):
    """An object of which only some fields have a type. ``check``: a struct of those; the others pass as they are."""

    def __init__(self, what: str, *, check: type[Any], most: int = MOST_BYTES) -> None:
        super().__init__(what, dict[str, Any], most=most)
        self.check = check

    def decode(self, data: bytes, what: str = "") -> dict[str, Any]:
        """Return the object in ``data``; raises ForeignError as `Codec.decode`, and for what is nested too deeply."""
        found = super().decode(data, what)
        if _deeper(found, DEEPEST):
            raise ForeignError(f"{what or self.what} can't be read: it has more than {DEEPEST} levels")
        convert(found, self.check, what or self.what)
        return found


class Text(Codec[str]):
    """A text as bare UTF-8. ``pattern``: what the whole of it has to match."""

    def __init__(self, what: str, pattern: str, *, most: int = 1024) -> None:
        super().__init__(what, str, most=most)
        self._pattern = re.compile(pattern)

    def decode(self, data: bytes, what: str = "") -> str:
        """Return the text in ``data``; raises ForeignError."""
        what = what or self.what
        if len(data) > self.most:
            raise ForeignError(f"{what} can't be read: it has {len(data)} bytes, more than {self.most}")
        try:
            found = data.decode()
        except UnicodeDecodeError as error:
            raise ForeignError(f"{what} can't be read: {error}") from error
        if self._pattern.fullmatch(found) is None:
            raise ForeignError(f"{what} can't be read: {found[:64]!r} is none")
        return found

    def encode(self, value: str) -> bytes:
        """Return ``value`` as it travels."""
        return value.encode()


def convert(found: Any, kind: type[T], what: str) -> T:
    """Return a decoded value as ``kind``; unknown fields are dropped. Raises ForeignError naming ``what``."""
    try:
        return msgspec.convert(found, kind)
    except _BAD as error:
        raise ForeignError(f"{what} can't be read: {error}") from error


def _deeper(value: object, most: int) -> bool:
    """Return whether ``value`` nests more than ``most`` levels, without recursion."""
    level: list[object] = [value]
    for _ in range(most):
        inner: list[object] = []
        for each in level:
            if isinstance(each, Mapping):
                inner += each.values()
            elif isinstance(each, list):
                inner += each
        if not inner:
            return False
        level = inner
    return True
