"""Settings of this package's parts: small frozen records, made by `node` from the configuration.

Invariant: a record can't be changed, and holds only what its part needs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from harmonylite.nats.settings import TlsSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedSettings:
    """The embedded nats-server.

    ``folder``: its files live in ``<folder>/<server>/``, ``server`` being ``node_name`` unless the node was renamed;
    ``database``: fingerprint of whose they are. ``bind_address``: ``host:port`` or ``:port`` of the client
    port, "" = loopback and a port that the system chooses. ``cluster_addr``: ``host:port`` for routes, "" = alone.
    ``cluster_peers``/``leaf_servers``: ``nats://host:port/`` or ``dns://host:port/``. ``leaf_addr``: ``host:port`` for
    leaf links of other regions, "" = none. ``domain``: JetStream domain, the region's name. ``server_config``: the
    user's nats-server file; its keys win. ``insecure``: listen on other interfaces than loopback without credentials.
    ``guest``: without JetStream, only to ask in a cluster.
    ``user``/``password`` protect client port, routes and leaf links; without them the client port gets generated ones.
    ``cluster_secret_file``: what routes ask for instead, made where it is missing; see `cluster_secret.route_login`.
    ``max_payload``: bytes. ``start_seconds``/``stop_seconds``: how long a start may take, and a stop before SIGKILL.
    """

    node_name: str
    folder: Path
    server: str = ""
    database: str = ""
    bind_address: str = ""
    cluster_addr: str = ""
    cluster_peers: tuple[str, ...] = field(default=(), repr=False)
    cluster_name: str = "harmonylite"
    cluster_secret_file: Path | None = None
    leaf_addr: str = ""
    leaf_servers: tuple[str, ...] = field(default=(), repr=False)
    domain: str = ""
    server_config: Path | None = None
    user: str = ""
    password: str = field(default="", repr=False)
    tls: TlsSettings = field(default_factory=TlsSettings)
    insecure: bool = False
    guest: bool = False
    max_payload: int = 8 * 1024 * 1024
    start_seconds: float = 60.0
    stop_seconds: float = 5.0
