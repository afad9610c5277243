"""A few schedules of everything that may happen to nodes, files, NATS, snapshots and schemas.

`chaos.py` and `schema_chaos.py` run any others.
"""

from __future__ import annotations

import pytest

from tests.cluster import chaos, schema_chaos
from tests.cluster.fix_cluster import Site

pytestmark = [pytest.mark.timeout(600), pytest.mark.slow]


@pytest.mark.parametrize("seed", [2, 4])
def test_every_committed_row_survives_a_schedule_of_calamities(site: Site, seed: int) -> None:
    chaos.run(site, seed)


@pytest.mark.parametrize(("seed", "changers"), [(3, 3), (106, 1)])
def test_all_nodes_have_one_schema_after_changes_of_every_kind_and_kills(site: Site, seed: int, changers: int) -> None:
    schema_chaos.run(site, seed, changers=changers)
