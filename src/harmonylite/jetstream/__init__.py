"""NATS: the link, the embedded server, streams, objects and questions between nodes.

`EmbeddedServer` runs a nats-server, `NatsLink` keeps a connection, `ensure_streams` makes the streams, `JetStreamShard`
reads and writes one of them.
"""

from harmonylite.jetstream.embedded import EmbeddedServer
from harmonylite.jetstream.link import NatsLink
from harmonylite.jetstream.names import redact
from harmonylite.jetstream.objects import JetStreamObjects
from harmonylite.jetstream.peers import NatsPeers
from harmonylite.jetstream.settings import (
    EmbeddedSettings,
    LinkSettings,
    StreamSettings,
    TlsSettings,
    split_addresses,
)
from harmonylite.jetstream.shard import JetStreamShard
from harmonylite.jetstream.streams import ensure_streams

__all__ = [
    "EmbeddedServer",
    "EmbeddedSettings",
    "JetStreamObjects",
    "JetStreamShard",
    "LinkSettings",
    "NatsLink",
    "NatsPeers",
    "StreamSettings",
    "TlsSettings",
    "ensure_streams",
    "redact",
    "split_addresses",
]
