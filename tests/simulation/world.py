"""The streams of a simulated cluster: one list of messages for each shard, kept permanently."""

from __future__ import annotations

from dataclasses import dataclass, field

from harmonylite.model import StreamMessage


@dataclass
class World:
    """What all nodes share. ``mirrors``: what the mirror held at a position, as the first node there found it.

    ``torn``: the streams lost their newest messages at least once; others have their numbers.
    """

    shards: int
    streams: list[list[StreamMessage]] = field(default_factory=list)
    mirrors: dict[tuple[object, ...], tuple[frozenset[tuple[str, tuple[str, ...]]], str]] = field(default_factory=dict)
    time: float = 1_000.0
    torn: bool = False

    def __post_init__(self) -> None:
        self.streams = [[] for _ in range(self.shards)]

    def publish(self, shard: int, node: str, payload: bytes) -> int:
        """Store a message; return its sequence."""
        self.time += 1.0
        stream = self.streams[shard]
        stream.append(StreamMessage(shard, len(stream) + 1, f"sim.{shard}.{node}", payload, self.time))
        return len(stream)

    def last(self, shard: int) -> int:
        """Return the newest sequence of a shard."""
        return len(self.streams[shard])

    def after(self, shard: int, seq: int, most: int) -> list[StreamMessage]:
        """Return up to ``most`` messages after ``seq``."""
        return self.streams[shard][seq : seq + most]

    def clock(self) -> float:
        """Return the simulated time, seconds since the epoch."""
        self.time += 0.001
        return self.time
