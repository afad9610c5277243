"""A few schedules of everything that may happen to nodes, files, NATS and snapshots; `chaos.py` runs any others."""

from __future__ import annotations

import pytest

from tests.cluster.chaos import run
from tests.cluster.fix_cluster import Site

pytestmark = [pytest.mark.timeout(600), pytest.mark.slow]


@pytest.mark.parametrize("seed", [2, 4])
def test_every_committed_row_survives_a_schedule_of_calamities(site: Site, seed: int) -> None:
    run(site, seed)
