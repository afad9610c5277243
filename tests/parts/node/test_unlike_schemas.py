"""Nodes whose tables have the same columns, and other affinities or identities, are told apart and named."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import apsw
import pytest

from harmonylite.db.schema_facts import SchemaFacts, read_facts
from harmonylite.db.sqlite.introspection import TableRules, read_inventory
from harmonylite.node.control import Control, Parts
from harmonylite.node.registry import ListedNode, NodeList, SchemaNote
from harmonylite.node.schemas import Schemas
from harmonylite.peer import Peer
from harmonylite.status import NodeStatus

TABLE = "CREATE TABLE t(id INTEGER PRIMARY KEY, a {})"
TYPES = ("TEXT", "VARCHAR(9)", "INT", "BIGINT", "REAL", "NUMERIC", "BLOB", "")
ALIKE = ({"TEXT", "VARCHAR(9)"}, {"INT", "BIGINT"}, {"BLOB", ""})


def facts(sql: str, **rules: Any) -> SchemaFacts:
    """Return what a node says of a database with one table."""
    connection = apsw.Connection(":memory:")
    connection.execute(sql)
    made = TableRules(**rules)
    return read_facts(connection, made, read_inventory(connection, made).tables.values())


@dataclass
class Listed:
    """The cluster's list of nodes, with one that has ``facts``."""

    facts: SchemaFacts

    def last(self) -> NodeList:
        said = self.facts
        note = SchemaNote(said.hash, identities=said.identities, columns=said.columns, affinities=said.affinities)
        return NodeList(nodes={"old": ListedNode(), "b": ListedNode(schema=note)})


def unlike(mine: SchemaFacts, theirs: SchemaFacts) -> tuple[dict[str, list[str]], NodeStatus]:
    """Return what a node with ``mine`` says of one with ``theirs``, and its status."""
    status = NodeStatus()
    schemas = Schemas(status, cast(Any, None), Parts(registry=cast(Any, Listed(theirs))), cast(Control, None))
    status.schema_state = dict(found := schemas._others(mine))
    return found, status


@pytest.mark.parametrize("mine", TYPES)
@pytest.mark.parametrize("theirs", TYPES)
def test_a_column_of_another_affinity_is_warned_of(mine: str, theirs: str) -> None:
    found, status = unlike(facts(TABLE.format(mine)), facts(TABLE.format(theirs)))
    same = mine == theirs or any({mine, theirs} <= kind for kind in ALIKE)
    assert found["other_affinities"] == ([] if same else ["b"])
    assert ("b declare columns" in status.all_warnings.get("other_affinities", "")) is not same


def test_the_digest_of_a_peer_is_the_one_on_the_list_also_while_it_is_away() -> None:
    mine, theirs = facts(TABLE.format("INT")), facts("CREATE TABLE t(id INTEGER PRIMARY KEY)")
    status = NodeStatus(peers={name: Peer(name, "silent") for name in ("b", "old", "strange")})
    parts = Parts(registry=cast(Any, Listed(theirs)))
    Schemas(status, cast(Any, None), parts, cast(Control, None))._share(mine)
    assert status.schema == mine.columns[:8]
    assert {name: peer.schema for name, peer in status.peers.items()} == {
        "b": theirs.columns[:8],
        "old": "",
        "strange": "",
    }


def test_a_schema_that_lacks_a_column_is_another_schema_and_no_other_affinity() -> None:
    found, status = unlike(facts(TABLE.format("INT")), facts("CREATE TABLE t(id INTEGER PRIMARY KEY)"))
    assert not any(found.values())
    assert not status.all_warnings


def test_other_identities_are_warned_of() -> None:
    mine, theirs = (facts(TABLE.format("INT"), identity=(("t", (name,)),)) for name in ("a", "id"))
    found, status = unlike(mine, theirs)
    assert found == {"other_identities": ["b"], "other_affinities": []}
    assert "b give tables other identities" in status.all_warnings["other_identities"]
