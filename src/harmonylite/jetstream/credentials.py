"""Credentials and certificates, read from their files each time a connection is made, so that new ones are taken up.

Invariant: a file that is missing or not what it should be is a ConfigError that names it; no secret is in the text.
"""

from __future__ import annotations

import re
import ssl
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import nkeys  # type: ignore[import-untyped] # ships no types
from nats.aio.client import RawCredentials

from harmonylite.errors import ConfigError
from harmonylite.jetstream.settings import LinkSettings, TlsSettings

_CREDS = re.compile(r"-----BEGIN NATS USER JWT-----\s+\S+\s+.*-----BEGIN USER NKEY SEED-----\s+\S+\s", re.DOTALL)


def connect_options(url: str, settings: LinkSettings) -> dict[str, Any]:
    """Return nats-py's options that say who we are towards ``url``; raises ConfigError."""
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
        options["nkeys_seed_str"] = _seed(settings.seed_file)
    if settings.tls.wanted:
        options["tls"] = client_context(settings.tls)
    return options


def client_context(tls: TlsSettings) -> ssl.SSLContext:
    """Return the TLS context of a client; raises ConfigError naming the file that is wrong."""
    context = ssl.create_default_context()
    if tls.ca_file is not None:
        text = read(tls.ca_file, "tls_ca_file")
        try:
            context = ssl.create_default_context(cadata=text)
        except ssl.SSLError as error:
            raise ConfigError(f"tls_ca_file {tls.ca_file}: not a PEM certificate: {error.reason}") from None
    if (tls.cert_file is None) != (tls.key_file is None):
        raise ConfigError("tls_cert_file and tls_key_file belong together", advice="set both or none")
    if tls.cert_file is not None and tls.key_file is not None:
        read(tls.cert_file, "tls_cert_file")
        read(tls.key_file, "tls_key_file")
        try:
            context.load_cert_chain(tls.cert_file, tls.key_file, password=lambda: "")
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


def _seed(path: Path) -> str:
    # `nk` writes the seed alone, other tools put comments and the public key beside it.
    found = re.search(r"^\s*(SU[A-Z2-7]{56})\s*$", read(path, "seed_file"), re.MULTILINE)
    try:
        if found is None:
            raise ValueError
        nkeys.from_seed(bytearray(found[1].encode()))
    except Exception:  # noqa: BLE001 - nkeys raises anything from binascii.Error to bare asserts on damaged seeds
        raise ConfigError(f"seed_file {path}: holds no nkey user seed (a line that begins with SU)") from None
    return found[1]


def _creds(path: Path) -> str:
    text = read(path, "creds_file")
    if not _CREDS.search(text):
        raise ConfigError(f"creds_file {path}: holds no user JWT followed by a user seed")
    return text
