"""Keys, certificates and signed credentials, made on the spot."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import nkeys  # type: ignore[import-untyped] # ships no types
import pytest
import trustme


def new_seed(kind: int) -> bytes:
    return bytes(nkeys.encode_seed(os.urandom(32), kind))


def public(seed: bytes) -> str:
    return bytes(nkeys.from_seed(bytearray(seed)).public_key).decode()


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def jwt(issuer: bytes, subject: str, name: str, nats: dict[str, Any]) -> str:
    """Return a NATS JWT signed by ``issuer``; see https://docs.nats.io/reference/reference-protocols/nats-server-jwt."""
    claims: dict[str, Any] = {
        "iat": int(time.time()),
        "iss": public(issuer),
        "name": name,
        "sub": subject,
        "nats": nats,
    }
    claims["jti"] = base64.b32encode(hashlib.sha256(json.dumps(claims).encode()).digest()).decode().rstrip("=")
    header = _encoded(b'{"typ":"JWT","alg":"ed25519-nkey"}')
    body = f"{header}.{_encoded(json.dumps(claims).encode())}"
    return f"{body}.{_encoded(nkeys.from_seed(bytearray(issuer)).sign(body.encode()))}"


JETSTREAM = dict.fromkeys(("mem_storage", "disk_storage", "streams", "consumer"), -1)
"""Limits of an account that may use JetStream without any."""


@dataclass(frozen=True)
class Operator:
    """An operator with one account: what the server is configured with, and credentials of users."""

    seed: bytes
    account: bytes

    @property
    def config(self) -> str:
        operator = jwt(self.seed, public(self.seed), "op", {"type": "operator", "version": 2})
        system = new_seed(nkeys.PREFIX_BYTE_ACCOUNT)
        limits = {self.account: JETSTREAM, system: {}}  # the system's account can't have JetStream
        preload = "\n".join(f"{public(account)}: {self._account(account, more)}" for account, more in limits.items())
        return (
            f"operator: {operator}\nresolver: MEMORY\nsystem_account: {public(system)}\n"
            f"resolver_preload {{\n{preload}\n}}\n"
        )

    def _account(self, account: bytes, more: dict[str, int]) -> str:
        free = dict.fromkeys(("subs", "data", "payload", "imports", "exports", "conn", "leaf"), -1)
        limits = {**free, **more, "wildcards": True}
        return jwt(self.seed, public(account), "account", {"type": "account", "version": 2, "limits": limits})

    def creds(self, path: Path) -> Path:
        """Write the ``.creds`` file of a new user to ``path``."""
        user = new_seed(nkeys.PREFIX_BYTE_USER)
        limits = {"type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1}
        token = jwt(self.account, public(user), "user", limits)
        path.write_text(
            f"-----BEGIN NATS USER JWT-----\n{token}\n------END NATS USER JWT------\n\n"
            f"-----BEGIN USER NKEY SEED-----\n{user.decode()}\n------END USER NKEY SEED------\n"
        )
        return path


def new_operator() -> Operator:
    return Operator(new_seed(nkeys.PREFIX_BYTE_OPERATOR), new_seed(nkeys.PREFIX_BYTE_ACCOUNT))


@dataclass(frozen=True)
class Certificates:
    """An authority with a server's and a client's certificate, and another authority."""

    ca: Path
    server_cert: Path
    server_key: Path
    client_cert: Path
    client_key: Path
    other_ca: Path
    expired_cert: Path
    expired_key: Path

    @property
    def server_tls(self) -> str:
        return f'cert_file: "{self.server_cert}", key_file: "{self.server_key}"'


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    """Certificates in files, the server's for localhost and 127.0.0.1."""
    folder = tmp_path / "certificates"
    folder.mkdir()
    authority, other = trustme.CA(), trustme.CA()
    server = authority.issue_cert("localhost", "127.0.0.1")
    client = authority.issue_cert("client@example.org")
    names = ("ca", "cert", "key", "client-cert", "client-key", "other-ca", "expired-cert", "expired-key")
    found = Certificates(*(folder / name for name in names))
    authority.cert_pem.write_to_path(str(found.ca))
    other.cert_pem.write_to_path(str(found.other_ca))
    server.cert_chain_pems[0].write_to_path(str(found.server_cert))
    server.private_key_pem.write_to_path(str(found.server_key))
    client.cert_chain_pems[0].write_to_path(str(found.client_cert))
    client.private_key_pem.write_to_path(str(found.client_key))
    late = authority.issue_cert("late@example.org", not_after=datetime.now(UTC) - timedelta(days=1))
    late.cert_chain_pems[0].write_to_path(str(found.expired_cert))
    late.private_key_pem.write_to_path(str(found.expired_key))
    return found
