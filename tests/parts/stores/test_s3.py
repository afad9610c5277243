"""S3: whose keys, which address, which certificate; on a real server where it matters."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs

import pytest
import trustme

from harmonylite.config.secret_text import Secret
from harmonylite.config.snapshot import S3StoreSettings
from harmonylite.errors import ConfigError, SnapshotError
from harmonylite.stores.s3 import S3Store, where, who
from tests.parts.stores.fix_stores import s3_settings
from tests.parts.stores.servers import KEY, SECRET, Server, s3_server


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing of this machine's environment in."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)


def settings(server: Server, *, access_key: str = "", secret: str = "") -> S3StoreSettings:
    return S3StoreSettings(
        endpoint=f"127.0.0.1:{server.port}",
        bucket="bucket",
        use_ssl=False,
        access_key=access_key,
        secret=Secret(secret),
    )


@pytest.mark.parametrize(
    "names",
    [
        ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
        ("MINIO_ROOT_USER", "MINIO_ROOT_PASSWORD"),
        ("MINIO_ACCESS_KEY", "MINIO_SECRET_KEY"),
    ],
)
async def test_keys_may_come_from_the_environment(
    s3_api: Server, monkeypatch: pytest.MonkeyPatch, names: tuple[str, str]
) -> None:
    monkeypatch.setenv(names[0], KEY)
    monkeypatch.setenv(names[1], SECRET)
    assert isinstance(await S3Store(settings(s3_api)).names(), list)


async def test_the_configurations_keys_are_not_mixed_with_the_environments(
    s3_api: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A session token of other keys would have every request refused."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "MINIO_ROOT_USER", "MINIO_ROOT_PASSWORD"):
        monkeypatch.setenv(name, "of-another")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "of-another")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    store = S3Store(settings(s3_api, access_key=KEY, secret=SECRET))
    (tmp_path / "source").write_bytes(b"1")
    await store.put("mixed", tmp_path / "source")
    await store.delete("mixed")


class Role(BaseHTTPRequestHandler):
    """Hands out the keys of a role to who shows the right token: as a container's agent does, as an EC2 instance's
    metadata (version 2), and as the security token service (AssumeRoleWithWebIdentity).
    """

    def do_GET(self) -> None:
        shown = self.headers.get("Authorization"), self.headers.get("X-aws-ec2-metadata-token")
        ways = {
            "/keys": (shown[0] == "Bearer of-the-pod", json.dumps(keys())),
            "/latest/meta-data/iam/security-credentials/": (shown[1] == "of-the-instance", "backups"),
            "/latest/meta-data/iam/security-credentials/backups": (shown[1] == "of-the-instance", json.dumps(keys())),
        }
        self.answer(*ways.get(self.path, (False, "")))

    def do_PUT(self) -> None:
        self.answer(self.path == "/latest/api/token", "of-the-instance")

    def do_POST(self) -> None:
        query = self.path.partition("?")[2] + self.rfile.read(int(self.headers.get("content-length") or 0)).decode()
        asked = {name: values[0] for name, values in parse_qs(query).items()}
        right = asked.get("WebIdentityToken") == "of-the-job" and asked.get("RoleArn", "").endswith(":role/backups")
        inside = "".join(f"<{name}>{value}</{name}>" for name, value in keys(token="SessionToken").items())
        result = (
            f"<AssumeRoleWithWebIdentityResult><Credentials>{inside}</Credentials></AssumeRoleWithWebIdentityResult>"
        )
        self.answer(right, f"<AssumeRoleWithWebIdentityResponse>{result}</AssumeRoleWithWebIdentityResponse>")

    def answer(self, right: bool, text: str) -> None:
        self.send_response(200 if right else 403)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def keys(token: str = "Token") -> dict[str, str]:  # noqa: S107 # a name
    """Return the keys of the role, as Amazon's services write them."""
    later = (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "Code": "Success",
        "Type": "AWS-HMAC",
        "AccessKeyId": KEY,
        "SecretAccessKey": SECRET,
        token: "role-token",
        "Expiration": later,
        "LastUpdated": later,
    }


@pytest.fixture
def role(kind: str, tmp_path: Path) -> Iterator[str]:
    """The address of the service of ``kind``; tokens are only shown to the token service over https."""
    server, scheme = ThreadingHTTPServer(("127.0.0.1", 0), Role), "http"
    if kind == "web identity":
        authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(context)
        authority.cert_pem.write_to_path(tmp_path / "ca")
        server.socket, scheme = context.wrap_socket(server.socket, server_side=True), "https"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"{scheme}://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


ROLES = {
    "container": {
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": "{url}/keys",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": "{file}",
    },
    "instance": {"AWS_METADATA_ENDPOINT": "{url}"},
    "web identity": {
        "AWS_WEB_IDENTITY_TOKEN_FILE": "{file}",
        "AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/backups",
        "AWS_ENDPOINT_URL_STS": "{url}",
    },
}
TOKENS = {"container": "Bearer of-the-pod", "instance": "", "web identity": "of-the-job"}


@pytest.mark.parametrize("kind", ROLES)
async def test_keys_may_come_from_a_role_of_the_machine(
    s3_api: Server, monkeypatch: pytest.MonkeyPatch, role: str, tmp_path: Path, kind: str
) -> None:
    file = tmp_path / "token"
    for name, value in ROLES[kind].items():
        monkeypatch.setenv(name, value.format(url=role, file=file))
    file.write_text(TOKENS[kind])
    given = replace(settings(s3_api), ca_file=tmp_path / "ca" if kind == "web identity" else None)
    assert isinstance(await S3Store(given).names(), list)
    if kind != "instance":
        file.write_text("of-somebody-else")
        with pytest.raises(SnapshotError):
            await S3Store(given).names()


async def test_without_any_keys_it_says_so(s3_api: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(SnapshotError, match=r"no credentials were found.*set snapshot\.s3\.access_key and secret"):
        await S3Store(settings(s3_api)).names()


def placed(**keys: object) -> tuple[str, bool, str]:
    found = where(S3StoreSettings.read({"bucket": "shop", **keys}))
    assert found.get("endpoint") == found.get("aws_endpoint_url_s3")
    return str(found.get("endpoint", "")), found["virtual_hosted_style_request"], str(found.get("region", ""))


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, ("", True, "")),
        ({"region": "eu-west-1"}, ("", True, "eu-west-1")),
        ({"path_style": True}, ("", False, "")),
        ({"bucket": "shop.example"}, ("", False, "")),
        (
            {"endpoint": "s3.eu-central-1.amazonaws.com"},
            ("https://shop.s3.eu-central-1.amazonaws.com", True, "eu-central-1"),
        ),
        ({"endpoint": "s3-us-west-2.amazonaws.com"}, ("https://shop.s3-us-west-2.amazonaws.com", True, "us-west-2")),
        ({"endpoint": "s3.amazonaws.com", "path_style": True}, ("https://s3.amazonaws.com", False, "")),
        ({"endpoint": "minio.lan:9000", "use_ssl": False}, ("http://minio.lan:9000", False, "")),
        ({"endpoint": "minio.lan:9000", "region": "here"}, ("https://minio.lan:9000", False, "here")),
        ({"endpoint": "shop.oss-cn-hangzhou.aliyuncs.com"}, ("https://shop.oss-cn-hangzhou.aliyuncs.com", True, "")),
    ],
)
def test_a_bucket_is_addressed_as_its_service_wants_it(
    keys: dict[str, object], expected: tuple[str, bool, str]
) -> None:
    assert placed(**keys) == expected


def test_temporary_keys_keep_their_token() -> None:
    found = who(S3StoreSettings(access_key="a", secret=Secret("b"), session_token=Secret("c")))
    assert found == {"access_key_id": "a", "secret_access_key": "b", "session_token": "c"}


async def test_a_service_of_ones_own_is_trusted_by_its_authority_only(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca")
    pair = authority.issue_cert("127.0.0.1")
    pair.private_key_and_cert_chain_pem.write_to_path(tmp_path / "pair")
    (tmp_path / "server").mkdir()
    server = s3_server(tmp_path / "server", str(tmp_path / "pair"), str(tmp_path / "pair"))
    try:
        plain = replace(s3_settings(server), use_ssl=True)
        with pytest.raises(SnapshotError, match=r"snapshot\.s3\.ca_file"):
            await S3Store(plain).names()
        assert await S3Store(replace(plain, ca_file=tmp_path / "ca")).names() == []
    finally:
        server.stop()


async def test_https_to_a_service_that_speaks_http_is_said(s3_api: Server) -> None:
    with pytest.raises(SnapshotError, match="use_ssl = false"):
        await S3Store(replace(s3_settings(s3_api), use_ssl=True)).names()


async def test_a_service_that_is_not_up_is_said(s3_api: Server) -> None:
    with pytest.raises(SnapshotError, match=r"127\.0\.0\.1:9: Connection refused; look at snapshot\.s3\.endpoint"):
        await S3Store(s3_settings(s3_api, port=9)).names()


def test_a_certificate_file_that_can_not_be_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"snapshot\.s3\.ca_file .*absent can't be read"):
        S3Store(S3StoreSettings(bucket="shop", ca_file=tmp_path / "absent"))
