"""Every way to prove who we are, each against a real server that refuses the wrong one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import nkeys  # type: ignore[import-untyped] # ships no types
import pytest
from cryptography.hazmat.primitives import serialization

from harmonylite.errors import ConfigError, ConnectError
from harmonylite.nats.connection import AuthError
from harmonylite.nats.link import NatsLink
from harmonylite.nats.settings import LinkSettings, TlsSettings
from harmonylite.status import NodeStatus
from tests.parts.fix_nats import NatsFactory, RealNats, eventually, quick
from tests.parts.nats.fix_keys import Certificates, new_operator, new_seed, public


@dataclass(frozen=True)
class Case:
    """One way: the server's configuration, the settings that get in, and those that don't."""

    server: str
    right: LinkSettings
    wrong: tuple[LinkSettings, ...]


def user_and_password(tmp_path: Path, certificates: Certificates) -> Case:
    none = LinkSettings()
    return Case(
        'authorization { user: me, password: "p:@/%$" }',
        LinkSettings(user="me", password="p:@/%$"),
        (none, LinkSettings(user="me", password="x"), LinkSettings(user="you", password="p:@/%$")),
    )


def in_the_url(tmp_path: Path, certificates: Certificates) -> Case:
    # A mask of the address, for the port is only known later.
    return Case(
        'authorization { user: me, password: "p:@/%$" }',
        LinkSettings(urls=("nats://me:p%3A%40%2F%25%24@{}",), user="not", password="used"),
        (LinkSettings(urls=("nats://me:wrong@{}",)), LinkSettings(urls=("nats://me@{}",))),
    )


def token_in_the_url(tmp_path: Path, certificates: Certificates) -> Case:
    return Case(
        "authorization { token: s3same }",
        LinkSettings(urls=("nats://s3same@{}",)),
        (LinkSettings(urls=("nats://other@{}",)), LinkSettings(), LinkSettings(token="other")),
    )


def seed(tmp_path: Path, certificates: Certificates) -> Case:
    right, wrong = new_seed(nkeys.PREFIX_BYTE_USER), new_seed(nkeys.PREFIX_BYTE_USER)
    (tmp_path / "right.nkey").write_bytes(b"# made by nk\n" + right + b"\n" + public(right).encode() + b"\n")
    (tmp_path / "wrong.nkey").write_bytes(wrong)
    return Case(
        f"authorization {{ users: [ {{ nkey: {public(right)} }} ] }}",
        LinkSettings(seed_file=tmp_path / "right.nkey"),
        (LinkSettings(seed_file=tmp_path / "wrong.nkey"), LinkSettings()),
    )


def creds(tmp_path: Path, certificates: Certificates) -> Case:
    operator, stranger = new_operator(), new_operator()
    return Case(
        operator.config,
        LinkSettings(creds_file=operator.creds(tmp_path / "right.creds")),
        (LinkSettings(creds_file=stranger.creds(tmp_path / "wrong.creds")), LinkSettings()),
    )


def tls(tmp_path: Path, certificates: Certificates) -> Case:
    return Case(
        f"tls {{ {certificates.server_tls} }}",
        LinkSettings(urls=("tls://{}",), tls=TlsSettings(ca_file=certificates.ca)),
        (
            LinkSettings(urls=("tls://{}",), tls=TlsSettings(ca_file=certificates.other_ca)),
            LinkSettings(urls=("tls://{}",)),
        ),
    )


def mutual_tls(tmp_path: Path, certificates: Certificates) -> Case:
    mine = TlsSettings(ca_file=certificates.ca, cert_file=certificates.client_cert, key_file=certificates.client_key)
    return Case(
        f'tls {{ {certificates.server_tls}, ca_file: "{certificates.ca}", verify: true }}',
        LinkSettings(urls=("tls://{}",), tls=mine),
        (LinkSettings(urls=("tls://{}",), tls=TlsSettings(ca_file=certificates.ca)),),
    )


WAYS = (user_and_password, in_the_url, token_in_the_url, seed, creds, tls, mutual_tls)


def towards(settings: LinkSettings, server: RealNats) -> LinkSettings:
    address = server.url.removeprefix("nats://")
    urls = tuple(url.format(address) for url in settings.urls) or (server.url,)
    return replace(
        quick(*urls),
        **{name: getattr(settings, name) for name in ("user", "password", "token", "seed_file", "creds_file", "tls")},
    )


@pytest.mark.parametrize(
    ("authority", "cert", "said"),
    [
        ("ca", "none", "asks for a client certificate, and none was sent"),
        ("other_ca", "client", "does not trust the authority that signed this node's certificate"),
        ("other_ca", "none", "asks for a client certificate, and none was sent"),
        ("ca", "expired", "this node's certificate has expired"),
    ],
)
async def test_a_server_that_refuses_the_certificate_is_named_as_that_at_the_first_try(
    authority: str, cert: str, said: str, tmp_path: Path, certificates: Certificates, new_nats: NatsFactory
) -> None:
    """It was a broken pipe, again and again for nine seconds."""
    trusted = getattr(certificates, authority)
    server = await new_nats(f'tls {{ {certificates.server_tls}, ca_file: "{trusted}", verify: true }}')
    pairs = {
        "client": (certificates.client_cert, certificates.client_key),
        "expired": (certificates.expired_cert, certificates.expired_key),
    }
    mine, key = pairs.get(cert, (None, None))
    tls = TlsSettings(ca_file=certificates.ca, cert_file=mine, key_file=key)
    settings = LinkSettings(urls=(server.url.replace("nats://", "tls://"),), tls=tls, connect_retries=50)
    with pytest.raises(AuthError, match="refuses the TLS connection") as caught:
        await NatsLink(settings).open()
    assert said in caught.value.message
    assert "tls_cert_file" in caught.value.advice


async def test_a_server_of_a_foreign_authority_is_named_as_that_at_the_first_try(
    certificates: Certificates, new_nats: NatsFactory
) -> None:
    server = await new_nats(f"tls {{ {certificates.server_tls} }}")
    settings = LinkSettings(
        urls=(server.url.replace("nats://", "tls://"),),
        tls=TlsSettings(ca_file=certificates.other_ca),
        connect_retries=50,
    )
    with pytest.raises(AuthError, match="certificate verify failed"):
        await NatsLink(settings).open()


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
async def test_the_right_credentials_get_in_and_the_wrong_ones_end_the_start(
    way: Callable[[Path, Certificates], Case], tmp_path: Path, certificates: Certificates, new_nats: NatsFactory
) -> None:
    case = way(tmp_path, certificates)
    server = await new_nats(case.server)
    async with NatsLink(towards(case.right, server)) as link:
        await link.now().subscribe("anything", lambda message: None)
        assert link.connected
    for wrong in case.wrong:
        # quick() tries permanently: an error within the deadline shows that trying again was known to be useless.
        with pytest.raises(ConnectError, match=r"127\.0\.0\.1"):
            await asyncio.wait_for(NatsLink(towards(wrong, server)).open(), 20)


@pytest.mark.parametrize("way", [user_and_password, seed, creds, mutual_tls], ids=lambda way: way.__name__)
async def test_a_reconnect_proves_it_again(
    way: Callable[[Path, Certificates], Case],
    tmp_path: Path,
    certificates: Certificates,
    new_nats: NatsFactory,
    node_status: NodeStatus,
) -> None:
    case = way(tmp_path, certificates)
    server = await new_nats(case.server)
    async with NatsLink(towards(case.right, server), node_status) as link:
        await server.kill()
        await server.start()
        await eventually(lambda: node_status.nats.reconnects == 1 and link.connected)


async def test_a_changed_seed_file_is_read_again_on_reconnect(
    tmp_path: Path, new_nats: NatsFactory, node_status: NodeStatus
) -> None:
    first, second = new_seed(nkeys.PREFIX_BYTE_USER), new_seed(nkeys.PREFIX_BYTE_USER)
    path = tmp_path / "user.nkey"
    path.write_bytes(first)
    server = await new_nats(f"authorization {{ users: [ {{ nkey: {public(first)} }} ] }}")
    async with NatsLink(replace(quick(server.url), seed_file=path), node_status) as link:
        await server.kill()
        server.extra = f"authorization {{ users: [ {{ nkey: {public(second)} }} ] }}"
        await server.start()
        await eventually(lambda: "Authorization" in node_status.parts["nats"].reason)
        path.write_bytes(second)
        await eventually(lambda: link.connected)


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        (LinkSettings(seed_file=Path("/absent/user.nkey")), "seed_file /absent/user.nkey"),
        (LinkSettings(creds_file=Path("/absent/user.creds")), "creds_file /absent/user.creds"),
        (LinkSettings(tls=TlsSettings(ca_file=Path("/absent/ca.pem"))), "tls_ca_file /absent/ca.pem"),
        (
            LinkSettings(tls=TlsSettings(cert_file=Path("/absent/c.pem"), key_file=Path("/absent/k.pem"))),
            "tls_cert_file /absent/c.pem",
        ),
        (LinkSettings(tls=TlsSettings(cert_file=Path("/absent/c.pem"))), "tls_key_file"),
    ],
)
async def test_a_missing_file_is_named_before_anything_is_tried(settings: LinkSettings, key: str) -> None:
    with pytest.raises(ConfigError, match=key):
        await NatsLink(replace(settings, urls=("nats://127.0.0.1:1",))).open()


async def test_a_file_of_another_kind_is_named_and_its_contents_are_not_shown(
    tmp_path: Path, certificates: Certificates
) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("SUAsecret\n")
    pair = TlsSettings(cert_file=certificates.client_cert, key_file=certificates.server_key)
    for settings in (
        LinkSettings(seed_file=wrong),
        LinkSettings(creds_file=wrong),
        LinkSettings(tls=TlsSettings(ca_file=wrong)),
        LinkSettings(tls=TlsSettings(cert_file=wrong, key_file=certificates.client_key)),
        LinkSettings(tls=pair),
    ):
        with pytest.raises(ConfigError, match=r"wrong|client-cert") as caught:
            await NatsLink(replace(settings, urls=("nats://127.0.0.1:1",))).open()
        assert "SUAsecret" not in str(caught.value)


async def test_an_empty_authority_file_is_refused_and_does_not_mean_whom_the_system_trusts(tmp_path: Path) -> None:
    for text in ("", "\n", "# no certificates yet\n"):
        (tmp_path / "ca.pem").write_text(text)
        with pytest.raises(ConfigError, match=r"ca\.pem: holds no PEM certificates"):
            await NatsLink(
                LinkSettings(urls=("nats://127.0.0.1:1",), tls=TlsSettings(ca_file=tmp_path / "ca.pem"))
            ).open()


async def test_an_encrypted_key_is_told_as_such(tmp_path: Path, certificates: Certificates) -> None:
    encrypted = tmp_path / "key.pem"
    key = serialization.load_pem_private_key(certificates.client_key.read_bytes(), None)
    form, way = serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"a passphrase")
    encrypted.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, way))
    tls = TlsSettings(cert_file=certificates.client_cert, key_file=encrypted)
    with pytest.raises(ConfigError, match=r"tls_key_file .*key\.pem: is encrypted"):
        await NatsLink(LinkSettings(urls=("nats://127.0.0.1:1",), tls=tls)).open()


async def test_a_seed_with_a_wrong_letter_is_told_before_a_server_refuses_it(tmp_path: Path) -> None:
    seed = new_seed(nkeys.PREFIX_BYTE_USER)
    (tmp_path / "user.nkey").write_bytes(seed[:20] + (b"A" if seed[20:21] != b"A" else b"B") + seed[21:])
    with pytest.raises(ConfigError, match=r"user\.nkey: holds a damaged nkey seed: its checksum is wrong"):
        await NatsLink(LinkSettings(urls=("nats://127.0.0.1:1",), seed_file=tmp_path / "user.nkey")).open()
