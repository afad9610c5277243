"""The `[nats]` section: the embedded server, or an external cluster, and its credentials.

Invariant: what these sections accept can be used unchecked; secrets are masked wherever they are shown.
"""

from __future__ import annotations

from harmonylite.config.kinds import (
    Address,
    Name,
    OptionalName,
    OptionalPath,
    Seconds,
    ServerUrls,
    Subject,
    Urls,
)
from harmonylite.config.secret_text import Secret
from harmonylite.config.section import Section, key


class NatsSettings(Section):
    """NATS: without `urls` a server is started inside this node, with `urls` an existing cluster is used."""

    urls: ServerUrls = key(
        (),
        'Servers of an external cluster, for example ["nats://host-1:4222", "nats://host-2:4222"].',
        zero="Empty: an embedded server is started",
    )
    subject_prefix: Subject = key(
        "harmonylite-change-log", "First part of the subjects; two clusters on one NATS need different ones."
    )
    stream_prefix: Name = key(
        "harmonylite-changes", "First part of the streams' names; two clusters on one NATS need different ones."
    )
    bind_address: Address = key(
        "",
        "Where the embedded server listens for clients, as host:port.",
        zero="Empty: on 127.0.0.1, at a port that the system chooses",
    )
    cluster_addr: Address = key(
        "",
        "Where the embedded server listens for the other nodes' servers, as host:port. Flag: -cluster-addr.",
        zero="Empty: the server has no cluster",
    )
    cluster_peers: Urls = key(
        (),
        "The other nodes' cluster addresses; dns://host:port/ means every address of a name. "
        "Flag: -cluster-peers (comma separated).",
    )
    cluster_secret_file: OptionalPath = key(
        None,
        "File with the secret that the embedded servers of one cluster ask of each other; made where it is missing, "
        "and to be copied to every node. Flag: -cluster-secret-file.",
        zero="Empty: user_name and user_password where they are set, else a secret that this user's nodes on this "
        "machine share",
    )
    leaf_addr: Address = key(
        "",
        "Where the embedded server listens for leaf links from other regions, as host:port.",
        zero="Empty: it takes none",
    )
    leaf_servers: Urls = key(
        (),
        "Leaf addresses of another region's servers to link to; one link is kept, to whichever of them answers. "
        "Flag: -leaf-servers (comma separated).",
    )
    region: OptionalName = key(
        "",
        "Name of this node's region, and of its JetStream domain; needed only where leaf links join regions.",
    )
    primary_region: OptionalName = key(
        "",
        "Region whose streams order all changes, the same on every node. It counts until the streams exist; then the "
        "streams name the primary region, and `harmonylite region promote` moves it.",
        also="home_region",
    )
    failover_after: Seconds = key(
        30.0,
        "In a secondary region: how long the primary region must be unreachable before the region's nodes fail over "
        "to streams of their own. They fail back once the link is back.",
        zero="0: never; they see each other's writes once the link is back",
        unit='seconds, or a text such as "30s"',
        also="interim_after",
        ge=0,
        le=86400,
    )
    server_config: OptionalPath = key(
        None, "A nats-server configuration file that is merged over the embedded server's own."
    )
    insecure: bool = key(
        False,
        "Let other machines connect to the embedded server without credentials: everyone who reaches it can "
        "read and change all data.",
    )
    user_name: str = key("", "User name for NATS; the embedded server asks its clients for it, too.")
    user_password: Secret = key(Secret(""), "Password of `user_name`.")
    token: Secret = key(Secret(""), "Token for NATS, instead of a user name.")
    seed_file: OptionalPath = key(None, "NKey seed file; `harmonylite nkey generate` writes one.")
    creds_file: OptionalPath = key(None, "Credentials file (JWT and seed) of an operator-mode NATS.")
    tls_ca_file: OptionalPath = key(None, "Certificates to trust, PEM.", also="ca_file")
    tls_cert_file: OptionalPath = key(None, "This node's own certificate, PEM.", also="cert_file")
    tls_key_file: OptionalPath = key(None, "Key of this node's own certificate, PEM.", also="key_file")
    connect_retries: int = key(
        5,
        "How many attempts per server, at the start and after a lost connection, before the node stops; no data is "
        "lost.",
        zero="0: no limit",
        ge=0,
    )
    reconnect_wait: Seconds = key(
        2.0,
        "Pause between two attempts to connect.",
        unit='seconds, or a text such as "500ms"',
        also="reconnect_wait_seconds",
        gt=0,
        le=3600,
    )

    @property
    def embedded(self) -> bool:
        """True when this node starts a server of its own."""
        return not self.urls
