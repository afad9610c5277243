"""Settings of this package's parts: small frozen records that `node` makes from the configuration.

Invariant: a record can't be changed, and holds only what its part needs.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamSettings:
    """The streams of one cluster: ``<stream_prefix>-<shard>`` on ``<subject_prefix>.<shard>.*``.

    ``shards``: how many streams, from 0. ``max_entries``: messages kept per stream (0 = no limit). ``replicas``:
    copies of each message, 1 to 5; 0: as many as there are servers, at most three. ``update_existing``: change streams
    that exist with other settings; otherwise they are only reported. ``domain``: JetStream domain of the streams ("" =
    that of the server).
    """

    subject_prefix: str = "harmonylite-change-log"
    stream_prefix: str = "harmonylite-changes"
    shards: int = 1
    max_entries: int = 1024
    replicas: int = 1
    update_existing: bool = False
    domain: str = ""
