"""Credentials and certificates, read from their files for each new connection, so that new ones take effect.

Invariant: a file that is missing or not what it should be is a ConfigError that names it; no secret is in the text.
"""

from __future__ import annotations

import base64
import binascii
import re
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from nats.aio.client import RawCredentials

from harmonylite.errors import ConfigError
from harmonylite.nats.settings import LinkSettings, TlsSettings

if TYPE_CHECKING:
    import nkeys  # type: ignore[import-untyped] # ships no types

_CERTIFICATE = "-----BEGIN"
_CREDS = re.compile(r"-----BEGIN NATS USER JWT-----\s+\S+\s+.*-----BEGIN USER NKEY SEED-----\s+\S+\s", re.DOTALL)


def connect_options(url: str, settings: LinkSettings) -> dict[str, Any]:
    """Return nats-py's options with the credentials for ``url``; raises ConfigError."""
    options: dict[str, Any] = {}
    parts = urlsplit(url)
    if parts.username and parts.password is None:
        options["token"] = unquote(parts.username)
    elif parts.username:
        options.update(user=unquote(parts.username), password=unquote(parts.password or ""))
    elif settings.user:
        options.update(user=settings.user, password=settings.password)
    elif settings.token:
        options["token"] = settings.token
    if settings.creds_file is not None:
        options["user_credentials"] = RawCredentials(_creds(settings.creds_file))
    elif settings.seed_file is not None:
        options["nkeys_seed_str"] = read_seed(settings.seed_file, "seed_file")
    if settings.tls.wanted:
        options["tls"] = client_context(settings.tls)
    return options


def client_context(tls: TlsSettings) -> ssl.SSLContext:
    """Return the TLS context of a client; raises ConfigError naming the file that is wrong."""
    context = ssl.create_default_context()
    if tls.ca_file is not None:
        text = read(tls.ca_file, "tls_ca_file")
        try:
            if _CERTIFICATE not in text:
                raise ValueError  # an empty text would mean to trust whom the system trusts
            context = ssl.create_default_context(cadata=text)
        except (ssl.SSLError, ValueError):
            raise ConfigError(f"tls_ca_file {tls.ca_file}: holds no PEM certificates") from None
    if (tls.cert_file is None) != (tls.key_file is None):
        raise ConfigError("tls_cert_file and tls_key_file belong together", advice="set both or none")
    if tls.cert_file is not None and tls.key_file is not None:
        read(tls.cert_file, "tls_cert_file")
        if "ENCRYPTED" in read(tls.key_file, "tls_key_file"):
            raise ConfigError(
                f"tls_key_file {tls.key_file}: is encrypted, and a node can't ask for its passphrase",
                advice="decrypt it with `openssl pkey`, into a file that only the node's user reads (chmod 600)",
            )
        try:
            context.load_cert_chain(tls.cert_file, tls.key_file)
        except (ssl.SSLError, ValueError) as error:
            raise ConfigError(
                f"tls_cert_file {tls.cert_file} and tls_key_file {tls.key_file} don't make a pair of PEM files: {error}"
            ) from None
    context.check_hostname = tls.check_hostname
    return context


def read(path: Path, key: str) -> str:
    """Return the text of the file that the setting ``key`` names; raises ConfigError."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        cause = getattr(error, "strerror", None) or "not a text file"
        raise ConfigError(f"{key} {path}: {cause}") from None


def read_seed(path: Path, key: str) -> str:
    """Return the NKey seed of a user in the file that the setting ``key`` names; raises ConfigError."""
    # `nk` writes the seed alone, other tools put comments and the public key beside it.
    found = re.search(r"^\s*(SU[A-Z2-7]{56})\s*$", read(path, key), re.MULTILINE)
    if found is None:
        raise ConfigError(f"{key} {path}: holds no nkey user seed (a line that begins with SU)")
    try:
        key_pair(found[1].encode())
    except ValueError as error:
        raise ConfigError(f"{key} {path}: holds a damaged nkey seed: {error}") from None
    return found[1]


def key_pair(seed: bytes) -> nkeys.KeyPair:
    """Return the key pair of any kind of seed; raises ValueError when the seed is damaged."""
    import nkeys  # here, not above: it brings libsodium, and most nodes have no seed

    try:
        raw = base64.b32decode(seed + b"=" * (-len(seed) % 8))
        # The library reads a seed without comparing its checksum (nkeys 0.2.1).
        if bytes(nkeys.crc16_checksum(bytearray(raw[:-2]))) != raw[-2:]:
            raise ValueError("its checksum is wrong")
        return nkeys.from_seed(bytearray(seed))
    except (nkeys.NkeysError, binascii.Error):
        raise ValueError("its checksum is wrong") from None


def _creds(path: Path) -> str:
    text = read(path, "creds_file")
    if not _CREDS.search(text):
        raise ConfigError(f"creds_file {path}: holds no user JWT followed by a user seed")
    return text
