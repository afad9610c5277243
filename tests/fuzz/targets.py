"""What is fuzzed: every codec with what its values are used for, and the decoders of the stream's messages."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from harmonylite.errors import ForeignError
from harmonylite.foreign import Codec
from harmonylite.model import StreamMessage
from harmonylite.wire import WireError, decode_abort, decode_block, decode_envelope, decode_value
from tests.rules.foreign.codecs import GOOD, USES, every_codec

Target = Callable[[bytes], object]

WIRE: tuple[Target, ...] = (
    lambda data: decode_envelope(StreamMessage(0, 1, "c.0.n1", data), 2),
    partial(decode_block, packed=False),
    partial(decode_block, packed=True),
    decode_value,
    decode_abort,
)


def targets() -> list[Target]:
    """Return what is fuzzed, in an order that stays; the first byte of an input chooses one."""
    codecs = every_codec()
    return [*(partial(_used, codecs[name]) for name in sorted(codecs)), *WIRE]


def _used(codec: Codec[Any], data: bytes) -> object:
    value = codec.decode(data)
    return USES[codec.what](value) if codec.what in USES else value


def one_input(found: list[Target], data: bytes) -> None:
    """Run one input; raises what a decoder must not raise."""
    if data:
        try:
            found[data[0] % len(found)](data[1:])
        except (ForeignError, WireError):
            return


def seed(folder: Path) -> None:
    """Write the good values of all codecs into ``folder``, for the fuzzer to begin with."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, (name, codec) in enumerate(sorted(every_codec().items())):
        for nth, good in enumerate(GOOD[name]):
            (folder / f"good-{number}-{nth}").write_bytes(bytes([number]) + codec.encode(good))
