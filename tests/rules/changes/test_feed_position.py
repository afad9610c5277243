"""A position as text reads back as it was, and nothing else is taken for one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harmonylite.changes.feed_position import parse_position, tag, text_of_positions
from harmonylite.errors import ConfigError
from harmonylite.model import ChangeSetId, Position, StreamInfo

NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
SESSIONS = st.text("0123456789abcdef-.", min_size=1, max_size=8)
IDS = st.builds(ChangeSetId, NAMES, SESSIONS, st.integers(0, 2**40))


@st.composite
def positions(draw: st.DrawFn) -> Position:
    seq = draw(st.integers(0, 2**63 - 2))
    resume = draw(st.integers(1, seq + 1))
    return Position(0, seq, resume, draw(NAMES), tuple(draw(st.lists(IDS, max_size=3))))


@given(st.lists(positions(), min_size=1, max_size=4))
def test_a_position_reads_back(found: list[Position]) -> None:
    wanted = {
        shard: Position(shard, each.seq, each.resume, each.created, each.aborted) for shard, each in enumerate(found)
    }
    text = text_of_positions(wanted)
    assert text.isascii()
    assert not set(text) & set(" \t\n;&'\"\\$`!|<>()*?#"), "it needs no quotes in a shell"
    places = parse_position(text, wanted)
    for shard, position in wanted.items():
        place = places[shard]
        assert (place.seq, place.resume, place.aborted) == (position.seq, position.resume, position.aborted)
        assert place.tag == tag(position.created)
        assert place.fits(StreamInfo(shard, 1, 9, position.created))


@given(st.text("0123456789:@/,+%-abc \u0661", max_size=20))
def test_any_other_text_is_refused_by_name(text: str) -> None:
    try:
        places = parse_position(text, [0, 1])
    except ConfigError as error:
        assert repr(text) in str(error)  # noqa: PT017  # a text that is a position is none to refuse
    else:
        assert sorted(places) == [0, 1]


@pytest.mark.parametrize("text", ["", "0:", "0:x", "0:-1", "0:1,0:2", "0:1,2:1", "12", "0:12@zz,1:1", "0:1/5,1:1"])
def test_what_names_not_every_shard_once_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="position"):
        parse_position(text, [0, 1])


def test_with_one_shard_a_number_will_do() -> None:
    assert parse_position("12", [0])[0].seq == 12


def test_a_place_fits_its_own_stream_and_one_that_continues_it() -> None:
    place = parse_position(text_of_positions({0: Position(0, 5, 6, "first")}), [0])[0]
    assert place.fits(StreamInfo(0, 1, 9, "first"))
    assert not place.fits(StreamInfo(0, 1, 9, "second"))
    assert place.fits(StreamInfo(0, 1, 9, "second", forks=(("first", 5),)))
    assert not place.fits(StreamInfo(0, 1, 9, "second", forks=(("first", 4),)))
    assert parse_position("0:5", [0])[0].fits(StreamInfo(0, 1, 9, "any"))
