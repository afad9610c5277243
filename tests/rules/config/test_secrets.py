"""Secrets never appear where they could be read: not in shown settings, not in errors, not in redacted text."""

from __future__ import annotations

from dataclasses import asdict

import nkeys  # type: ignore[import-untyped]  # it has no stubs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harmonylite.config import effective, redact, secrets
from harmonylite.errors import ConfigError
from tests.rules.config.fix_config import Loads

SECRET = "hunter2hunter2"

EVERYWHERE = f"""
[nats]
urls = ["nats://user:{SECRET}@host:4222", "tls://{SECRET}@other"]
cluster_peers = ["nats://route:{SECRET}@peer:4221/"]
leaf_servers = ["nats://leaf:{SECRET}@far:7422"]
user_name = "someone"
user_password = "{SECRET}"
[snapshot.s3]
secret = "{SECRET}"
session_token = "{SECRET}"
[snapshot.webdav]
url = "https://host/dav?dir=/d&login=someone&secret={SECRET}"
[snapshot.sftp]
url = "sftp://someone:{SECRET}@host:22/d"
"""


def test_no_secret_is_shown(loads: Loads) -> None:
    settings = loads(EVERYWHERE)
    for shown in (effective(settings), repr(settings), str(settings), str(settings.nats.urls), asdict(settings)):
        assert SECRET not in str(shown)
    text = effective(settings)
    assert 'urls = ["nats://user:***@host:4222", "tls://***@other"]' in text
    assert 'url = "https://host/dav?dir=/d&login=someone&secret=***"' in text
    assert 'url = "sftp://someone:***@host:22/d"' in text


def test_secrets_are_there_for_whoever_connects(loads: Loads) -> None:
    settings = loads(EVERYWHERE)
    assert settings.nats.urls[0].get_secret_value() == f"nats://user:{SECRET}@host:4222"
    assert settings.nats.user_password.get_secret_value() == SECRET
    assert SECRET in secrets(settings)


@pytest.mark.parametrize(
    "text",
    [
        f'[nats]\nuser_password = ["{SECRET}"]',
        f'[nats]\ntoken = "{SECRET}"\nuser_name = "x"',
        f'[nats]\nurls = "http://user:{SECRET}@host"',
        f'[nats]\nurls = [["nats://user:{SECRET}@host"]]',
        f'[snapshot.s3]\nsecret = {{ value = "{SECRET}" }}',
        f'[snapshot.sftp]\nurl = ["sftp://user:{SECRET}@host"]',
    ],
)
def test_no_error_repeats_a_secret(loads: Loads, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loads(text)
    assert SECRET not in str(caught.value)
    assert SECRET not in repr(caught.value.__cause__)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("connect to nats://a:b@host:4222 failed", "connect to nats://a:***@host:4222 failed"),
        ("nats://a:b@one,nats://c:d@two", "nats://a:***@one,nats://c:***@two"),
        ("nats://a:b@c@host", "nats://a:***@host"),
        ("nats://a:b/c?d#e@host", "nats://a:***@host"),
        ("nats://sometoken@host", "nats://***@host"),
        ("sftp://name@host/p", "sftp://name@host/p"),
        ("nats://host:4222/", "nats://host:4222/"),
        ("https://host:443/?x=a@b", "https://host:443/?x=a@b"),
        ("?login=a&secret=b&dir=/c", "?login=a&secret=***&dir=/c"),
        ("password: 'a b' and more", "password: '***' and more"),
        ('{"user_password": "x", "n": 1}', '{"user_password": "***", "n": 1}'),
        ("Authorization: Bearer abcdefgh.ijkl", "Authorization: Bearer ***"),
        ("jwt eyJ0eXAiOiJKV1Qi.eyJqdGkiOiJ.abc-_9 end", "jwt *** end"),
        ("file secretary.db, shard 3: 12", "file secretary.db, shard 3: 12"),
        ("bypass=1 compass: north", "bypass=1 compass: north"),
    ],
)
def test_text_is_redacted(text: str, shown: str) -> None:
    assert redact(text) == shown


def test_a_seed_is_redacted_and_its_public_key_is_not() -> None:
    seed = nkeys.encode_seed(bytes(range(32)), nkeys.PREFIX_BYTE_USER)
    public = nkeys.from_seed(bytearray(seed)).public_key.decode()
    assert redact(f"seed {seed.decode()} of {public}") == f"seed *** of {public}"


@given(st.text("abc:/@?#&= .-", max_size=30))
def test_redacting_twice_changes_nothing_more(text: str) -> None:
    once = redact(f"nats://{text}@host")
    assert redact(once) == once


@given(st.text("xyzXYZ09!$%^()_~", min_size=5, max_size=12))
def test_a_password_in_a_url_never_survives(password: str) -> None:
    assert password not in redact(f"trying nats://user:{password}@host:4222 again")
