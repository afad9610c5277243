"""Which of several mirrors are right, when they differ at one position of the order.

Invariant: a mirror that lacks messages, because they were skipped on its node, has no vote against those that lack
none; without a majority no node is right.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from harmonylite.foreign import Line, Long, Name, PerShard, Seq
from harmonylite.schema.names import folded


class Digest(msgspec.Struct):
    """One node's mirror. ``tables``: digest by table name; ``positions``: where they were taken; ``lacks``: how many
    messages were left out of it.

    ``schema``: digests of the definitions in its database then, by kind and name; empty for an older version's.
    ``unsent``: how many rows are pending there although the time was enough to get them into the order.
    """

    node: Name
    tables: dict[Long, Line]
    positions: PerShard
    unsent: Seq = 0
    lacks: Seq = 0
    schema: dict[Long, Line] = {}


@dataclass(frozen=True)
class Group:
    """Nodes whose mirrors are equal. ``tables``: their digests by table name."""

    nodes: tuple[str, ...]
    tables: Mapping[str, str]

    def differs(self, other: Mapping[str, str]) -> list[str]:
        """Return the names of the tables in which ``other`` is another mirror."""
        mine = {folded(table): digest for table, digest in self.tables.items()}
        names = {folded(table): table for table in (*self.tables, *other)}
        theirs = {folded(table): digest for table, digest in other.items()}
        return sorted(name for key, name in names.items() if mine.get(key) != theirs.get(key))


@dataclass(frozen=True)
class Majority:
    """All sides, the one with most voting nodes first. ``right``: the one that the majority is on, if any."""

    all: tuple[Group, ...]
    right: Group | None

    def none_against(self, own: str) -> bool:
        """Return whether no other mirror is known to differ from node ``own``'s, or the majority is with it."""
        return len(self.all) <= 1 or (self.right is not None and own in self.right.nodes)

    def note(self, own: str) -> str:
        """Return a sentence for an operator of node ``own`` on which side is right; "" if there is only one."""
        if len(self.all) <= 1:
            return ""
        if self.right is None:
            groups = "; ".join(", ".join(side.nodes) for side in self.all)
            return f"there is no majority, so nothing is repaired; these have the same mirror: {groups}"
        right = ", ".join(self.right.nodes)
        if own in self.right.nodes:
            wrong = sorted({node for side in self.all for node in side.nodes} - set(self.right.nodes))
            return f"the majority, {right}, is right; run `harmonylite verify -repair` on {', '.join(wrong)}"
        return (
            f"the majority, {right}, is right, and this node deviates; `harmonylite verify -repair` takes their mirror"
        )


def majority_of(digests: Mapping[str, Digest]) -> Majority:
    """Return which nodes agree, and which side is right: the one of more than half of the voting nodes."""
    groups: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for node, digest in sorted(digests.items()):
        tables = sorted((folded(table), found) for table, found in digest.tables.items())
        groups.setdefault(tuple(tables), []).append(node)
    voters = {node for node, digest in digests.items() if not digest.lacks} or set(digests)
    found = [Group(tuple(nodes), digests[nodes[0]].tables) for nodes in groups.values()]
    found.sort(key=lambda side: (-len(voters & set(side.nodes)), -len(side.nodes), side.nodes))
    has_most = bool(found) and 2 * len(voters & set(found[0].nodes)) > len(voters)
    return Majority(tuple(found), found[0] if has_most else None)


def schema_differences(digests: Mapping[str, Digest]) -> dict[str, str]:
    """Return a sentence for each node whose schema is not that of most others: whose it is compared with, and what
    differs. Nodes that don't say their schema count as neither.
    """
    groups: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for node, digest in sorted(digests.items()):
        if digest.schema:
            groups.setdefault(tuple(sorted(digest.schema.items())), []).append(node)
    (usual, nodes), *others = sorted(groups.items(), key=lambda group: -len(group[1])) or [((), [])]
    found: dict[str, str] = {}
    for schema, different in others:
        mine, theirs = dict(schema), dict(usual)
        objects = [name for name in sorted(mine.keys() | theirs.keys()) if mine.get(name) != theirs.get(name)]
        sentence = f"its schema differs from that of {', '.join(nodes)} in {', '.join(objects)}"
        found |= dict.fromkeys(different, sentence)
    return found
