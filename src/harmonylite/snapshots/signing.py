"""Signatures on snapshots: write access to the store does not make anyone a member of the cluster.

Invariant: a signature covers everything that a node goes by: the name, what the file holds (its SHA-256), and its
positions. With a key, a node uses no snapshot that is not signed by a key that it trusts. No seed is in any text.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Collection

import msgspec
import nkeys  # type: ignore[import-untyped]  # it has no stubs
from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey

from harmonylite.errors import ConfigError, SnapshotRefusedError
from harmonylite.snapshots.manifest import Snapshot

SAYING = b"harmonylite snapshot 1\n"
"""Begins what is signed: a signature for anything else that the key is used for is none for a snapshot."""


class Signing:
    """Signs as ``pair``, an NKey of a user; trusts it and the public keys ``trusted``. Raises ConfigError."""

    def __init__(self, pair: nkeys.KeyPair, trusted: Collection[str] = ()) -> None:
        self._pair = pair
        self.public = bytes(pair.public_key).decode()
        self._trusted = {key: verify_key(key) for key in {*trusted, self.public}}

    def signed(self, snapshot: Snapshot) -> Snapshot:
        """Return the description with this node's signature."""
        signature = bytes(self._pair.sign(_said(snapshot))).hex()
        return msgspec.structs.replace(snapshot, signer=self.public, signature=signature)

    def check(self, snapshot: Snapshot) -> None:
        """Raise SnapshotRefusedError where no trusted key signed the description."""
        if not snapshot.signature:
            raise SnapshotRefusedError(
                "it is not signed, and this node asks for signatures",
                advice=f"set snapshot.sign_key on node {snapshot.node}, too, if that is a member",
            )
        key = self._trusted.get(snapshot.signer)
        if key is None:
            raise SnapshotRefusedError(
                f"it is signed by {snapshot.signer}, which this node does not trust",
                advice="put that public key into snapshot.trusted_keys if it is a member's",
            )
        try:
            key.verify(_said(snapshot), bytes.fromhex(snapshot.signature))
        except (BadSignatureError, ValueError):
            raise SnapshotRefusedError(f"its signature is not one of {snapshot.signer} for what it says") from None


def verify_key(public: str) -> VerifyKey:
    """Return what checks signatures of a user's NKey; raises ConfigError."""
    try:
        raw = base64.b32decode(public + "=" * (-len(public) % 8))
    except (binascii.Error, ValueError):
        raw = b""
    checked = len(raw) == 35 and bytes(nkeys.crc16_checksum(bytearray(raw[:-2]))) == raw[-2:]
    if not checked or raw[0] != nkeys.PREFIX_BYTE_USER:
        raise ConfigError(
            f"snapshot.trusted_keys: {public!r} is no public key of a user's NKey",
            advice="`harmonylite nkey public FILE` shows it",
        )
    return VerifyKey(raw[1:-2])


def _said(snapshot: Snapshot) -> bytes:
    """Return what a signature of ``snapshot`` is for; which older ones there were does not count.

    Nor does the origin: earlier versions check signatures without it. It is checked against the file (`is_at`).
    """
    s = snapshot
    at = [sorted(each.items()) for each in (s.positions, s.resume, s.created)]
    return SAYING + msgspec.json.encode(
        [s.name, s.cluster, s.node, s.at, s.sha256, s.size, s.bytes, s.history, s.begins, s.named, *at]
    )
