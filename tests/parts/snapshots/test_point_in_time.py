"""Finding the position of a time, also where single messages are missing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harmonylite.model import StreamInfo, StreamMessage
from harmonylite.snapshots.point_in_time import last_before
from tests.parts.snapshots.fix_streams import ReadStream


class Kept(ReadStream):
    """A stream of messages stored one second apart; ``gone``: deleted ones."""

    shard = 0

    def __init__(self, first: int, last: int, gone: set[int]) -> None:
        self.info_now = StreamInfo(0, first, last, "then")
        self._gone = gone

    async def info(self) -> StreamInfo:
        return self.info_now

    async def get(self, seq: int) -> StreamMessage | None:
        if seq in self._gone or not self.info_now.first <= seq <= self.info_now.last:
            return None
        return StreamMessage(0, seq, "s", b"", time=float(seq))


@given(st.integers(1, 30), st.integers(0, 40), st.sets(st.integers(1, 60)), st.floats(0, 80))
async def test_it_is_the_newest_kept_message_at_or_before_the_time(
    first: int, count: int, gone: set[int], at: float
) -> None:
    stream = Kept(first, first + count - 1, gone)
    kept = [seq for seq in range(first, first + count) if seq not in gone]
    expected = [seq for seq in kept if seq <= at]
    found = await last_before(stream, stream.info_now, at)
    later = [seq for seq in kept if seq > at]
    assert found >= (expected[-1] if expected else first - 1)
    assert not later or found < later[0]


@pytest.mark.parametrize(("at", "seq"), [(0.5, 0), (1.0, 1), (2.5, 2), (99.0, 3)])
async def test_a_plain_stream(at: float, seq: int) -> None:
    stream = Kept(1, 3, set())
    assert await last_before(stream, stream.info_now, at) == seq
