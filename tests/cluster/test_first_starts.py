"""Three nodes that start together for the first time: anyone who begins, all of them come to hold the same.

Many more in a row: ``python -m tests.cluster.first_starts 500``.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster.first_starts import first_start

pytestmark = pytest.mark.timeout(300)


@pytest.mark.parametrize("number", range(3))
def test_a_row_that_is_written_while_a_cluster_begins_comes_to_every_node(tmp_path: Path, number: int) -> None:
    first_start(tmp_path / str(number), verify=True)
