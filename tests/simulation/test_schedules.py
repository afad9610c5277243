"""Thousands of schedules, the same ones every time; `make simulate SEEDS=…` runs as many others as wanted."""

from __future__ import annotations

import pytest

from tests.simulation.run import run

pytestmark = pytest.mark.timeout(900)  # a busy machine may take its time over a chunk; a schedule itself has an end

SHORT = range(1_000_001, 1_000_251)
"""Seeds that run for a few steps each: most of what goes wrong does so soon. As many as a run of all tests has time
for."""
SHORT_STEPS = 40
LONG = range(2_000_001, 2_000_031)
"""Seeds that run for as many steps as they say themselves."""
BLOCKS = range(3_000_001, 3_000_041)
"""Seeds whose change sets have many blocks, which are staged while they come in."""

FOUND = (833, 2_993, 3_473, 2_523, 22_833, 70_008_024, 163, 1_213, 6_000_229, 43_024, 51_039, 77_028)
"""Seeds that failed once: what writers saw of keys in other letters, a table rebuilt while the mirror was behind, a
shard of which a newer mirror had nothing, rows of a column that came and went while a node did not look, a record whose
identity holds the number of another one that moved, an update under way of a row that changed and went elsewhere,
a column that came twice while its table was in the mirror alone, a schedule that waited inside a step for good."""
FOUND_SHORT = (1_001_048,)
"""The same with few steps: a pending record that a newer mirror has under another number."""
FOUND_IN_BLOCKS = (205_593,)
"""The same with many blocks: defaults of rows that come beside one that is there."""

CHANGING = range(9_000_001, 9_000_021)
"""Seeds in which one node's application changes its schema in every way."""
CHANGING_STEPS = 60
FOUND_CHANGING = (234, 6_043, 6_069, 6_070, 43_037, 960_044, 960_056, 54_020)
"""Of those, what failed once: a change of an earlier session that a newer mirror lacks, tables that were rebuilt with
their change still to be sent, a section that was made each time its batch was tried again, names that came again."""

CHANGING_AT_ONCE = range(9_100_001, 9_100_021)
"""Seeds in which the applications of all nodes change their schema in every way, at once."""
FOUND_CHANGING_AT_ONCE = (2, 5, 44, 45, 46, 85, 104, 287, 316, 371, 410, 2_013, 4_020, 52_006, 800_060, 800_072)
"""Of those, what failed once: see ADR 17 for the kinds."""

FOUND_CHANGING_LONG = (65, 133)
"""The same with as many steps as they say themselves: rows for which a new unique index had no room, of which another
one stayed on each node; a newer row, above a watermark that a restart raised, undone by an older one that came back."""

STANDING_STILL = range(9_200_001, 9_200_021)
"""Seeds in which nodes stand still for a while, and send what their applications write all the same."""


def chunks(seeds: range, size: int) -> list[range]:
    """Cut a range into pieces."""
    return [seeds[start : start + size] for start in range(0, len(seeds), size)]


@pytest.mark.parametrize("seeds", chunks(SHORT, 25), ids=lambda seeds: f"{seeds[0]}..{seeds[-1]}")
def test_nodes_that_write_anywhere_end_the_same_after_short_schedules(seeds: range) -> None:
    for seed in seeds:
        run(seed, steps=SHORT_STEPS)


@pytest.mark.parametrize("seeds", chunks(LONG, 10), ids=lambda seeds: f"{seeds[0]}..{seeds[-1]}")
def test_nodes_that_write_anywhere_end_the_same_after_long_schedules(seeds: range) -> None:
    for seed in seeds:
        run(seed)


@pytest.mark.parametrize("seeds", chunks(BLOCKS, 20), ids=lambda seeds: f"{seeds[0]}..{seeds[-1]}")
def test_what_is_staged_before_a_change_set_is_whole_changes_nothing(seeds: range) -> None:
    for seed in seeds:
        run(seed, steps=SHORT_STEPS, small_blocks=True)


@pytest.mark.parametrize("seed", FOUND)
def test_what_once_went_wrong_stays_right(seed: int) -> None:
    run(seed)


@pytest.mark.parametrize("seed", FOUND_SHORT)
def test_what_once_went_wrong_soon_stays_right(seed: int) -> None:
    run(seed, steps=SHORT_STEPS)


@pytest.mark.parametrize("seed", FOUND_IN_BLOCKS)
def test_what_once_went_wrong_in_blocks_stays_right(seed: int) -> None:
    run(seed, small_blocks=True)


@pytest.mark.parametrize("seeds", chunks(CHANGING, 20), ids=lambda seeds: f"{seeds[0]}..{seeds[-1]}")
def test_what_one_node_changes_in_its_schema_all_end_with(seeds: range) -> None:
    for seed in seeds:
        run(seed, steps=CHANGING_STEPS, changers=1)


@pytest.mark.parametrize("seed", FOUND_CHANGING)
def test_what_once_went_wrong_with_a_schema_stays_right(seed: int) -> None:
    run(seed, steps=CHANGING_STEPS, changers=1)


@pytest.mark.parametrize("seeds", chunks(CHANGING_AT_ONCE, 10), ids=lambda seeds: f"{seeds[0]}..{seeds[-1]}")
def test_what_all_nodes_change_in_their_schemas_at_once_all_end_with(seeds: range) -> None:
    for seed in seeds:
        run(seed, steps=SHORT_STEPS, changers=4)


@pytest.mark.parametrize("seed", FOUND_CHANGING_AT_ONCE)
def test_what_once_went_wrong_with_schemas_changed_at_once_stays_right(seed: int) -> None:
    run(seed, steps=SHORT_STEPS, changers=4)


@pytest.mark.parametrize("seed", FOUND_CHANGING_LONG)
def test_what_once_went_wrong_after_a_while_with_schemas_changed_at_once_stays_right(seed: int) -> None:
    run(seed, changers=4)


@pytest.mark.parametrize("seeds", chunks(STANDING_STILL, 10), ids=lambda seeds: f"{seeds[0]}..{seeds[-1]}")
def test_what_nodes_that_stand_still_send_undoes_nothing_and_loses_nothing(seeds: range) -> None:
    for seed in seeds:
        run(seed, steps=CHANGING_STEPS, still=True)
