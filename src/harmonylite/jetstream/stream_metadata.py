"""Regions: which one makes the order of all changes, and what a stream's settings say about it.

Every region has its own JetStream domain, named after the region. The streams of the primary region accept messages;
each other region keeps copies of them (JetStream mirrors: same messages, sequences and times), reads those, and
publishes to the primary region over leaf links.

Invariant: the streams themselves say which region is the primary one; the configuration counts only until they exist. A
promoted stream has a higher number of moves than its predecessor. So nodes distinguish the two if both accept messages
after a promotion without the old primary region.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from harmonylite.changes.failover import Failover
from harmonylite.errors import ConfigError
from harmonylite.foreign import Codec, Line, Seq, convert

ORDER = "harmonylite-order"
FORKS = "harmonylite-forks"
MOVES = "harmonylite-moves"
LEFT_FOR = "harmonylite-left-for"
CAME_FROM = "harmonylite-came-from"
"""Metadata of a stream.

The identity of its order, earlier identities, how often another region was promoted, and to/from which region.
"""

_API = re.compile(r"\$JS\.([A-Za-z0-9_-]+)\.API")


Region = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9_-]{0,64}\Z")]
"""A region's name becomes a token of subjects; "" = none."""


class _Metadata(msgspec.Struct):
    """The keys that we read of a stream's metadata; any client with the rights may change them with NATS's tools."""

    order: Line = msgspec.field(name=ORDER, default="")
    forks: str = msgspec.field(name=FORKS, default="")
    moves: Annotated[str, Meta(pattern=r"\A[0-9]{0,9}\Z")] = msgspec.field(name=MOVES, default="")
    left_for: Region = msgspec.field(name=LEFT_FOR, default="")
    came_from: Region = msgspec.field(name=CAME_FROM, default="")


FORKS_CODEC = Codec("the earlier identities of an order", list[tuple[Line, Seq]])


@dataclass(frozen=True, slots=True)
class Role:
    """The role of a stream in its order.

    ``order``: the order's identity. ``forks``: earlier identities and up to which sequence they are the same.
    ``copy_of``: the region that it mirrors, "" if it accepts messages itself. ``left_for``: the region promoted while
    this one was away. ``moves``: how often a region was promoted. ``came_from``: the primary region before that.
    ``shut``: it accepts no messages, because another region is being promoted or was.
    """

    order: str
    forks: tuple[tuple[str, int], ...] = ()
    copy_of: str = ""
    left_for: str = ""
    moves: int = 0
    came_from: str = ""
    shut: bool = False

    @property
    def takes_messages(self) -> bool:
        """True for the order itself."""
        return not (self.copy_of or self.left_for or self.shut)

    def metadata(self) -> dict[str, str]:
        """Return the metadata that `role_of` reads; copies carry that of their order."""
        found = {ORDER: self.order, FORKS: FORKS_CODEC.encode(list(self.forks)).decode(), MOVES: str(self.moves)}
        return found | ({CAME_FROM: self.came_from} if self.came_from else {})


def role_of(config: Mapping[str, Any], created: str) -> Role:
    """Return the role of the stream with this configuration.

    Raises ConfigError when it mirrors another program's stream, ForeignError when its metadata can't be read.
    """
    metadata = convert(config.get("metadata") or {}, _Metadata, "its metadata")
    forks = FORKS_CODEC.decode(metadata.forks.encode()) if metadata.forks else []
    copy_of = ""
    if mirror := config.get("mirror"):
        found = _API.fullmatch(str((mirror.get("external") or {}).get("api") or ""))
        if found is None or mirror.get("name") != config.get("name"):
            raise ConfigError(
                f"stream {config.get('name')} is a mirror of {mirror.get('name')} in no other region",
                advice="another program made it; set stream_prefix and subject_prefix in pairs",
            )
        copy_of = found[1]
    return Role(
        order=metadata.order or created,
        forks=tuple(forks),
        copy_of=copy_of,
        left_for=metadata.left_for,
        moves=int(metadata.moves or 0),
        came_from=metadata.came_from,
        shut=config.get("subjects") == [closed_subject(str(config.get("name")))],
    )


def new_identity() -> str:
    """Return the identity of a new order: its creation time, for people, and a random part."""
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}-{secrets.token_hex(4)}"


def closed_subject(name: str) -> str:
    """Return the subject of a closed stream: no node publishes there."""
    return f"{name}.shut"


def failover_stream_name(stream: str, number: int) -> str:
    """Return the name of a stream's failover ``number``."""
    return f"{stream}-interim-{number}"


def failover_subject(prefix: str, region: str, number: int, shard: int, last: str) -> str:
    """Return a subject of a failover; no other order, of no other region either, has it."""
    return f"{prefix}.interim.{region}.{number}.{shard}.{last}"


class PrimaryRegion:
    """Which region is the primary region, as far as this node knows. ``region``: its own; ``configured``: the
    primary region until the streams say otherwise.

    ``left``: another region was promoted while this region was away. ``moves``: how often a region was promoted.
    ``failover``: the failover whose streams this node uses instead; it changes only while the node replicates nothing.
    """

    def __init__(self, region: str, configured: str = "") -> None:
        self.region = region
        self.now = configured or region
        self.left = False
        self.moves = 0
        self.failover: Failover | None = None
        self._storing = ""

    @property
    def here(self) -> bool:
        """True when this node's own region is the primary region."""
        return self.now == self.region

    @property
    def store(self) -> str:
        """The region whose object store and pointers are used."""
        return self._storing or self.now

    @contextmanager
    def storing(self, region: str) -> Iterator[None]:
        """Within the block, use the store of ``region``, the next primary region."""
        self._storing = region
        try:
            yield
        finally:
            self._storing = ""

    def follow(self, role: Role) -> None:
        """Learn from the role of the stream in the own region."""
        self.now = role.left_for or role.copy_of or self.region
        self.left = bool(role.left_for)
        self.moves = role.moves


def mirrored(role: Role, home: str, config: Mapping[str, Any], replicas: int) -> dict[str, Any]:
    """Return the configuration of a copy of the stream with ``config`` and ``role``, which is in region ``home``.

    It has the same limits, and no subjects, so no client can publish into it by accident.
    """
    kept = ("name", "storage", "retention", "discard", "max_msgs", "max_bytes", "max_msg_size", "compression")
    return {
        **{key: config[key] for key in kept if key in config},
        "max_consumers": -1,
        **({"num_replicas": replicas} if replicas else {}),
        "mirror": {"name": config["name"], "external": {"api": f"$JS.{home}.API"}},
        "metadata": role.metadata(),
    }
