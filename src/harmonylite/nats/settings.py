"""Settings of this package's parts: small frozen records, made by `node` from the configuration.

Invariant: a record can't be changed, and holds only what its part needs.
"""

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
    attempt at one server. ``ping_seconds``: a peer that sends nothing and answers none of three
    pings in a row is taken for dead.
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


def split_addresses(text: str) -> tuple[str, ...]:
    """Split a comma list as it is on the command line; blanks and empty pieces are dropped."""
    return tuple(piece.strip() for piece in text.split(",") if piece.strip())
