"""The last hour, kept by the node: rates, lag and latencies between two samples, and for how long rows wait."""

from __future__ import annotations

import pytest

from harmonylite.web.last_hour import EVERY, KEPT, NAMES, LastHour, within
from tests.parts.web.fix_http import running_status


def test_a_sample_is_what_happened_since_the_one_before() -> None:
    status = running_status()
    hour = LastHour(status)
    hour.take(100.0, 1_000.0)
    assert hour.report()["samples"] == [], "one look tells no rate"
    status.counters.published_rows, status.counters.merged_rows, status.counters.conflicts = 50, 20, 3
    status.shard(0).last = 45
    for _ in range(9):
        status.latency.observe(0.0025)
    status.latency.observe(0.4)
    hour.take(105.0, 1_005.0)
    sample = dict(zip(NAMES, hour.report()["samples"][0], strict=True))
    assert sample["at"] == 1_005.0
    assert (sample["published"], sample["merged"], sample["conflicts"]) == (10.0, 4.0, 3)
    assert sample["lag_messages"] == 3
    assert 0.002 <= sample["p50"] <= 0.003
    assert 0.25 <= sample["p99"] <= 0.5
    hour.take(110.0, 1_010.0)
    sample = dict(zip(NAMES, hour.report()["samples"][1], strict=True))
    assert (sample["published"], sample["conflicts"], sample["p50"]) == (0.0, 0, None)


def test_an_hour_is_kept_and_not_more() -> None:
    hour = LastHour(running_status())
    for n in range(2 * KEPT):
        hour.take(n * EVERY, 1e9 + n * EVERY)
    samples = hour.report()["samples"]
    assert len(samples) == KEPT
    assert samples[-1][0] - samples[0][0] == pytest.approx(3600 - EVERY)


def test_rows_wait_since_none_was_published() -> None:
    status = running_status()
    hour = LastHour(status)
    hour.take(0.0, 0.0)
    status.pending_rows = 4
    hour.take(5.0, 5.0)
    assert hour.pending_since == 5.0
    hour.take(10.0, 10.0)
    assert hour.pending_since == 5.0
    status.counters.published_rows += 1  # a busy writer always has rows pending: they are others each time
    hour.take(15.0, 15.0)
    assert hour.pending_since == 15.0
    status.pending_rows = 0
    hour.take(20.0, 20.0)
    assert hour.pending_since == 0.0


def test_shares_lie_between_the_bounds_of_their_bucket() -> None:
    assert within([0] * 16, 0.5) is None
    assert within([10] + [0] * 15, 0.5) == 0.0005
    assert within([0] * 15 + [3], 0.99) == 60.0
