"""Signed snapshots: with a key, a node uses none that nobody whom it trusts has signed."""

from __future__ import annotations

import secrets
from pathlib import Path

import msgspec
import nkeys  # type: ignore[import-untyped]  # it has no stubs
import pytest

from harmonylite.errors import ConfigError, SnapshotRefusedError
from harmonylite.nats.credentials import key_pair
from harmonylite.nats.link import NatsLink
from harmonylite.snapshots.manifest import Snapshot, decode, encode
from harmonylite.snapshots.repository import SnapshotRepository
from harmonylite.snapshots.signing import Signing, verify_key
from tests.parts.snapshots.test_repository import Place, saved

SAID = Snapshot(
    "snapshot-1", "a", {0: 5, 1: 7}, {0: 6, 1: 8}, {0: "then", 1: "now"}, "0" * 64, 100, 1.5, [], 200, "c", "h", True
)
OTHERS: dict[str, object] = {
    "name": "snapshot-2",
    "node": "b",
    "positions": {0: 5, 1: 8},
    "resume": {0: 6},
    "created": {0: "then", 1: "later"},
    "sha256": "1" * 64,
    "bytes": 101,
    "at": 2.5,
    "size": 201,
    "cluster": "d",
    "history": "i",
    "begins": False,
    "named": True,
}


def pair() -> nkeys.KeyPair:
    return key_pair(nkeys.encode_seed(secrets.token_bytes(32), nkeys.PREFIX_BYTE_USER))


def test_a_signature_goes_along_with_the_description_whatever_the_order_of_its_keys() -> None:
    signing = Signing(pair())
    signed = signing.signed(SAID)
    stored = decode(encode(signed), "it")
    signing.check(stored)
    signing.check(msgspec.structs.replace(stored, positions={1: 7, 0: 5}, older=["snapshot-0"]))
    Signing(pair(), [signing.public]).check(stored)


UNSIGNED = ("older", "signer", "origin")
"""What a signature is not for. The file says its origin, too, and a description that says another one is refused."""


@pytest.mark.parametrize("name", [field for field in Snapshot.__struct_fields__ if field not in UNSIGNED])
def test_nothing_that_a_node_goes_by_can_be_changed(name: str) -> None:
    signing = Signing(pair())
    signed = signing.signed(SAID)
    forged = {"signature": signing.signed(msgspec.structs.replace(SAID, name="snapshot-3")).signature}
    with pytest.raises(SnapshotRefusedError, match="its signature is not one of U"):
        signing.check(msgspec.structs.replace(signed, **{name: (OTHERS | forged)[name]}))


def test_whom_nobody_trusts_signs_for_nobody() -> None:
    stranger, member = Signing(pair()), Signing(pair())
    with pytest.raises(SnapshotRefusedError, match="is not signed, and this node asks for signatures") as caught:
        member.check(SAID)
    assert "snapshot.sign_key on node a" in caught.value.advice
    signed = stranger.signed(SAID)
    with pytest.raises(SnapshotRefusedError, match=f"signed by {stranger.public}, which this node does not trust"):
        member.check(signed)
    with pytest.raises(SnapshotRefusedError, match="its signature is not one of"):
        member.check(msgspec.structs.replace(signed, signer=member.public))
    with pytest.raises(SnapshotRefusedError, match="does not trust"):
        member.check(msgspec.structs.replace(signed, signer=""))


@pytest.mark.parametrize("damage", ["", "U", "x", "SUAAA"])
def test_what_is_no_public_key_is_told(damage: str) -> None:
    with pytest.raises(ConfigError, match="is no public key of a user's NKey"):
        Signing(pair(), [damage])
    public = Signing(pair()).public
    verify_key(public)
    with pytest.raises(ConfigError):
        verify_key(public[:-1] + ("A" if public[-1] != "A" else "B"))
    account = bytes(key_pair(nkeys.encode_seed(secrets.token_bytes(32), nkeys.PREFIX_BYTE_ACCOUNT)).public_key).decode()
    with pytest.raises(ConfigError):
        verify_key(account)


@pytest.fixture
def place(link: NatsLink, tmp_path: Path) -> Place:
    return Place(link, tmp_path)


def with_key(repository: SnapshotRepository, signing: Signing | None) -> SnapshotRepository:
    repository._signing = signing
    return repository


async def test_an_unsigned_one_in_the_store_is_passed_over_for_an_older_signed_one(place: Place) -> None:
    signing = Signing(pair())
    names = await saved(place, with_key(place.repository(), signing), 1)
    names += await saved(place, with_key(place.repository(), None), 2)
    names += await saved(place, with_key(place.repository(), Signing(pair())), 3)
    member = with_key(place.repository(), signing)
    fetched = await member.fetch()
    assert fetched is not None
    assert fetched[0].name == names[0]
    assert member.damaged == set(names[1:])
    assert "is refused: it is not signed" in place.status.part("snapshots").reason
    events = [event.sentence for event in place.status.part("snapshots").events]
    assert any("which this node does not trust; put that public key into snapshot.trusted_keys" in e for e in events)
    anybody = await with_key(place.repository(), None).fetch()
    assert anybody is not None
    assert anybody[0].name == names[2], "who has no key asks for no signature"


async def test_a_look_at_the_newest_sees_that_members_could_not_use_it(place: Place) -> None:
    (name,) = await saved(place, with_key(place.repository(), None), 1)
    member = with_key(place.repository(), Signing(pair()))
    newest = await member.newest()
    assert newest is not None
    await member.check(newest)
    assert member.damaged == {name}, "so this node saves one that is signed"


def test_a_key_is_exchanged_in_steps_in_which_all_use_what_all_save() -> None:
    old, new = pair(), pair()
    was, becomes = Signing(old).public, Signing(new).public
    steps = [
        [Signing(old), Signing(old, [becomes])],
        [Signing(old, [becomes]), Signing(old, [becomes])],
        [Signing(new, [was]), Signing(old, [becomes])],
        [Signing(new, [was]), Signing(new, [was])],
        [Signing(new), Signing(new, [was])],
    ]
    for nodes in steps:
        for scheduler in nodes:
            for user in nodes:
                user.check(scheduler.signed(SAID))
    with pytest.raises(SnapshotRefusedError):
        Signing(new).check(Signing(old).signed(SAID))
