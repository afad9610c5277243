"""Of lines that a server repeats each second the log gets one at once, and one a minute; new ones always pass."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from harmonylite.nats_server.log_repeats import EVERY, MOST, OVER, LogRepeats

LOST = "Error trying to connect to route (attempt {}): dial tcp 127.0.0.1:{}: connect: connection refused"


def test_a_dead_peer_is_one_line_and_then_one_a_minute() -> None:
    repeats = LogRepeats()
    lines = [repeats.passed(LOST.format(n, 4222 + n % 2), n / 4) for n in range(4 * 181)]
    said = [line for line in lines if line]
    first = [line for line in said if "such lines" not in line]
    assert [line.rpartition("dial")[2] for line in first] == [
        " tcp 127.0.0.1:4222: connect: connection refused",
        " tcp 127.0.0.1:4223: connect: connection refused",
    ]
    assert 4 <= len(said) - len(first) <= 6
    assert all(line.endswith(" such lines in the last minute)") for line in said[2:])


def test_a_peer_that_is_lost_again_is_told_again() -> None:
    repeats = LogRepeats()
    assert repeats.passed(LOST.format(1, 4222), 0.0)
    assert not repeats.passed(LOST.format(2, 4222), 1.0)
    assert repeats.passed(LOST.format(1, 4222), 1.0 + OVER + 1) == LOST.format(1, 4222)


def test_numbers_of_connections_make_no_new_line() -> None:
    repeats = LogRepeats()
    for number in range(50):
        line = f"127.0.0.1:{40000 + number} - rid:{number} - Route Error 'Authorization Violation'"
        assert bool(repeats.passed(line, number / 10)) == (number == 0)


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.floats(0.0, 100.0)), max_size=60))
def test_new_lines_pass_and_repeated_ones_are_bounded(lines: list[tuple[str, float]]) -> None:
    repeats, now = LogRepeats(), 0.0
    heard: dict[str, float] = {}
    logged: dict[str, float] = {}
    for text, passes in lines:
        now += passes
        said = repeats.passed(text, now)
        if text not in heard or now - heard[text] > OVER:
            assert said == text
        elif said:
            assert now - logged[text] >= EVERY
        heard[text] = now
        if said:
            logged[text] = now


def test_what_is_remembered_is_bounded() -> None:
    repeats = LogRepeats()
    for number in range(3 * MOST):
        assert repeats.passed(f"line {number}", 0.0)
    assert len(repeats._kinds) == MOST
