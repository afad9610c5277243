"""What a sender knows of change sets on their way: when they are back, or lost, and when a further one may leave."""

from __future__ import annotations

from io import BytesIO
from typing import IO, cast

from harmonylite.db.capture.capture import Outgoing
from harmonylite.model import ChangeSetId
from harmonylite.replication.in_flight import MOST, MOST_BYTES, MOST_ROWS, PACE, InFlight


def captured(number: int, rows: int = 1, size: int = 1) -> Outgoing:
    spool = cast(IO[bytes], BytesIO())
    return Outgoing(ChangeSetId("n", "s", number), 0, 0.0, {}, spool, rows, parts={0: [(0, size, False, False)]})


def test_what_was_published_whole_and_passed_by_is_lost() -> None:
    at = {0: 10}
    in_flight = InFlight(lambda shard: at[shard])
    outs = [captured(number) for number in range(3)]
    for seq, out in enumerate(outs, start=11):
        in_flight.begin(out)
        in_flight.published(out.id, {0: seq})
    at[0] = 12
    in_flight.landed(outs[0].id, whole=True)
    in_flight.moved()
    assert in_flight.lost == {outs[1].id: {0: 12}}
    assert in_flight, "the third one is still to come"
    assert in_flight.pause() is None, "nothing leaves on top of what is lost"
    in_flight.landed(outs[2].id, whole=True)
    assert not in_flight
    in_flight.close()
    assert not in_flight.lost
    assert all(out.spool.closed for out in outs)


def test_what_is_back_before_its_acknowledgement_is_not_lost() -> None:
    in_flight, out = InFlight(lambda _: 99), captured(1)
    in_flight.begin(out)
    in_flight.landed(out.id, whole=True)
    in_flight.published(out.id, {0: 5})
    assert not in_flight
    assert not in_flight.lost


def test_the_pause_grows_with_what_is_in_flight_and_ends_in_none() -> None:
    in_flight = InFlight(lambda _: 0)
    for number in range(MOST):
        assert in_flight.pause() == number * PACE
        in_flight.begin(captured(number))
    assert in_flight.pause() is None
    for many in captured(1, rows=MOST_ROWS), captured(1, size=MOST_BYTES):
        in_flight.close()
        in_flight.begin(many)
        assert in_flight.pause() is None
