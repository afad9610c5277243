"""`harmonylite region`: what is asked of the node, and what a person reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.parts.cli.fix_cli import NodeDouble, Run

NODES: list[dict[str, Any]] = [
    {"node_id": "a1", "region": {"region": "a", "primary": "a", "reachable": True}},
    {"node_id": "b1", "region": {"region": "b", "primary": "a", "reachable": True, "round_trip_seconds": 0.0412}},
    {"node_id": "b2", "region": {"region": "b", "primary": "a", "reachable": True, "copy_behind": 7}},
    {"node_id": "b3", "region": {"region": "b", "primary": "a", "reachable": False}},
    {"node_id": "b4", "status": "unknown"},
    {"node_id": "b5", "region": {"region": "b", "primary": "a", "reachable": False, "failover": True}},
]
SHOWN = """\
a1: region a, the primary region
b1: region b, primary region a in 41.2 ms
b2: region b, primary region a in 0.0 ms, copy 7 messages behind
b3: region b, primary region a can't be reached
b4: in no region, or it did not answer
b5: region b, failed over, primary region a can't be reached
"""


def test_show_has_a_line_for_every_node(run: Run, config_file: Path, node: NodeDouble) -> None:
    node.answers["/v1/cluster"] = (200, {"nodes": NODES})
    assert run("region", "show", "-config", config_file).stdout == SHOWN
    as_json = json.loads(run("region", "show", "-json", "-config", config_file).stdout)
    assert as_json["nodes"][1] == {"node_id": "b1", **NODES[1]["region"]}


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        (["promote"], {"action": "promote", "force": False}),
        (["promote", "-force", "-yes"], {"action": "promote", "force": True}),
        (["rejoin"], {"action": "rejoin"}),
    ],
)
def test_a_move_is_asked_for_and_what_was_done_is_said(
    run: Run, config_file: Path, node: NodeDouble, words: list[str], asked: dict[str, object]
) -> None:
    node.answers["/v1/region"] = (200, {"region": "b", "primary": "b", "said": ["this was done", "and this"]})
    assert run("region", *words, "-config", config_file).stdout == "this was done\nand this\n"
    assert node.asked == [("POST", "/v1/region", asked)]
    assert json.loads(run("region", *words, "-json", "-config", config_file).stdout)["primary"] == "b"


def test_giving_a_region_up_is_asked_about_first(run: Run, config_file: Path, node: NodeDouble) -> None:
    refused = run("region", "promote", "-force", "-config", config_file, answer="n\n")
    assert refused.exit_code == 1
    assert "as it is lost?" in refused.stderr
    assert node.asked == []
