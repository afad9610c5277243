"""What the parts of this package are told: small frozen records, made by `node` from the configuration."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsSettings:
    """Certificates. ``ca_file``: whom to trust (None: the system's); ``cert_file``/``key_file``: our own, both or none.

    ``check_hostname``: False only towards the embedded server on loopback, whose certificate names other hosts.
    """

    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    check_hostname: bool = True

    @property
    def wanted(self) -> bool:
        """True when any file is set: then a connection without TLS is refused."""
        return any((self.ca_file, self.cert_file, self.key_file))


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkSettings:
    """How to reach NATS.

    ``urls``: ``nats://`` or ``tls://``, with or without credentials in them, which go before the ones here.
    ``connect_retries``: failed rounds over all servers before giving up (0 = never give up), at the start and after
    each loss of the connection. ``reconnect_wait``: seconds between rounds. ``connect_seconds``: deadline of one
    attempt at one server. ``ping_seconds``: a peer that answers none of three pings in a row is taken for dead.
    ``stick``: use no servers but ``urls``, also when the cluster announces more.
    """

    urls: tuple[str, ...] = field(default=(), repr=False)
    name: str = "harmonylite"
    user: str = ""
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)
    seed_file: Path | None = None
    creds_file: Path | None = None
    tls: TlsSettings = TlsSettings()
    connect_retries: int = 5
    reconnect_wait: float = 2.0
    connect_seconds: float = 5.0
    ping_seconds: float = 3.0
    stick: bool = False


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


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedSettings:
    """The embedded nats-server.

    ``folder``: its files live in ``<folder>/<server>/``, ``server`` being ``node_name`` unless the node was renamed;
    ``database``: fingerprint of whose they are. ``bind_address``: ``host:port`` or ``:port`` of the client
    port, "" = loopback and a port that the system chooses. ``cluster_addr``: ``host:port`` for routes, "" = alone.
    ``cluster_peers``/``leaf_servers``: ``nats://host:port/`` or ``dns://host:port/``. ``leaf_addr``: ``host:port`` for
    leaf links of other regions, "" = none. ``domain``: JetStream domain, the region's name. ``server_config``: the
    user's nats-server file; its keys win. ``insecure``: allow to listen beyond loopback without credentials.
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
    tls: TlsSettings = TlsSettings()
    insecure: bool = False
    guest: bool = False
    max_payload: int = 8 * 1024 * 1024
    start_seconds: float = 60.0
    stop_seconds: float = 5.0


def split_addresses(text: str) -> tuple[str, ...]:
    """Split a comma list as it stands on the command line; blanks and empty pieces are dropped."""
    return tuple(piece.strip() for piece in text.split(",") if piece.strip())
