"""The stores' keys: URLs as users of this system write them, and what is told about the wrong ones."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harmonylite.config import notes, secrets
from harmonylite.config.store_urls import SftpPlace, WebdavPlace, sftp_place, webdav_place
from tests.rules.config.fix_config import Faults, Loads

words = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), min_size=1)


@pytest.mark.parametrize(
    ("url", "place"),
    [
        (
            "https://host/dav?dir=/snapshots/a&login=me&secret=word",
            WebdavPlace("https://host/dav/", "snapshots/a", "me", "word"),
        ),
        ("https://host/?login=me&secret=a%2Bb+c", WebdavPlace("https://host/", "", "me", "a+b c")),
        ("http://127.0.0.1:8080", WebdavPlace("http://127.0.0.1:8080/", "", "", "")),
        ("https://me:w%40rd@host/dav/", WebdavPlace("https://host/dav/", "", "me", "w@rd")),
        ("HTTPS://[::1]:1/a/b?dir=x", WebdavPlace("https://[::1]:1/a/b/", "x", "", "")),
    ],
)
def test_a_webdav_url_is_taken_apart(url: str, place: WebdavPlace) -> None:
    assert webdav_place(url) == place


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("sftp://me:word@host:2222/srv/a", SftpPlace("host", 2222, "me", "/srv/a", "word")),
        ("sftp://me@host", SftpPlace("host", 22, "me", "", "")),
        ("sftp://me@host/~/a/", SftpPlace("host", 22, "me", "a", "")),
        ("sftp://me@host/~", SftpPlace("host", 22, "me", "", "")),
        ("ssh://m%40e:w%2Frd@[::1]/a%20b", SftpPlace("::1", 22, "m@e", "/a b", "w/rd")),
    ],
)
def test_an_sftp_url_is_taken_apart(url: str, place: SftpPlace) -> None:
    assert sftp_place(url) == place


@given(words, words)
def test_names_and_passwords_may_be_anything_when_escaped(name: str, password: str) -> None:
    found = sftp_place(f"sftp://{quote(name, safe='')}:{quote(password, safe='')}@host/x")
    assert (found.user, found.password) == (name, password)
    webdav = webdav_place(f"https://host/dav?login={quote(name, safe='')}&secret={quote(password, safe='')}")
    assert (webdav.login, webdav.secret) == (name, password)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[snapshot.webdav]\nurl = 'ftp://host/x'", "does not begin with http:// or https://"),
        ("[snapshot.webdav]\nurl = 'https:///x'", "names no host"),
        ("[snapshot.webdav]\nurl = 'https://host:port/x'", "has a host or port that can't be read"),
        ("[snapshot.webdav]\nurl = 'https://host/x?login=me'", "has login alone"),
        ("[snapshot.webdav]\nurl = 'https://host/x?secret=me'", "has secret alone"),
        ("[snapshot.webdav]\nurl = 'https://host/x?login=a&secret=h&ns'", "has a query that can't be read"),
        ("[snapshot.webdav]\nurl = 'https://host/x?login=a&secret=h&n=s'", "has more in its query than dir"),
        ("[snapshot.webdav]\nurl = 'https://host/x?login=a&secret=hu#sh'", "write % as %25, # as %23"),
        ("[snapshot.webdav]\nurl = 'https://host/x?dir=/a/../b'", "has a folder with .."),
        ("[snapshot.sftp]\nurl = 'http://me:hush@host/x'", "does not begin with sftp:// or ssh://"),
        ("[snapshot.sftp]\nurl = 'sftp://host/x'", "has no user name"),
        ("[snapshot.sftp]\nurl = 'sftp://me:hu@sh@host/x'", "has an @ in the password"),
        ("[snapshot.sftp]\nurl = 'sftp://me:hu/sh@host/x'", "has a host or port that can't be read"),
        ("[snapshot.sftp]\nurl = 'sftp://me:hush@host:0/x'", "names no host"),
        ("[snapshot.sftp]\nurl = 'sftp://me:hush@host/x?y'", 'has a "?"'),
        ("[snapshot.s3]\nendpoint = 'https://host'", "begins with a scheme"),
        ("[snapshot.s3]\nendpoint = 'host:99999'", "is not host or host:port"),
        ("[snapshot.s3]\nendpoint = 'host/folder'", "is not host or host:port"),
        ("[snapshot.s3]\nbucket = 'a/b'", "is not a bucket's name"),
        ("[snapshot.azure]\naccount = 'Example'", "is not a storage account's name"),
        ("[snapshot.s3]\npath = 'a/../b'", "has . or .. or control characters"),
        ("[snapshot.nats]\nreplicas = 6", "is too large; 5 is the most"),
    ],
)
def test_a_value_that_no_store_can_use_is_told_with_file_line_and_key(faults: Faults, text: str, told: str) -> None:
    section, _, line = text.partition("\n")
    (fault,) = faults(text)
    assert fault.startswith(f"config.toml:3: {section[1:-1]}.{line.partition(' ')[0]} ")
    assert told in fault
    assert "hu" not in fault.replace(" has ", ""), "no part of a password is repeated"


@pytest.mark.parametrize("key", ["access_key", "secret"])
def test_half_of_a_pair_of_keys_is_told(faults: Faults, key: str) -> None:
    (fault,) = faults(f'[snapshot]\nstore = "s3"\ns3.bucket = "shop"\ns3.{key} = "x"')
    assert "is missing; set access_key and secret, or neither" in fault


@pytest.mark.parametrize(
    ("store", "key", "more"),
    [
        ("s3", "ca_file", 'bucket = "shop"'),
        ("webdav", "ca_file", 'url = "https://host/"'),
        ("sftp", "key_file", 'url = "sftp://me@host/"'),
        ("sftp", "known_hosts", 'url = "sftp://me@host/"'),
    ],
)
def test_a_file_of_the_chosen_store_must_be_there(
    faults: Faults, loads: Loads, store: str, key: str, more: str
) -> None:
    section = f'[snapshot.{store}]\n{more}\n{key} = "/none/here"'
    assert faults(f'[snapshot]\nstore = "{store}"\n{section}') == [
        f"config.toml:6: snapshot.{store}.{key} = '/none/here': there is no such file"
    ]
    assert loads(section).snapshot.store == "nats"


def test_a_folder_in_a_bucket_may_be_written_with_slashes_around(loads: Loads) -> None:
    assert loads('[snapshot.s3]\npath = "/snapshots//shop/"').snapshot.s3.path == "snapshots/shop"


def test_passwords_in_urls_are_known_secrets(loads: Loads) -> None:
    settings = loads(
        '[snapshot.webdav]\nurl = "https://host/?login=me&secret=hush%2Fone"\n'
        '[snapshot.sftp]\nurl = "sftp://me:hush%40two@host/"\nkey_passphrase = "hush-three"'
    )
    assert {"hush/one", "hush@two", "hush-three"} <= set(secrets(settings))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('store = "webdav"\nwebdav.url = "http://host/?login=a&secret=b"', "to host in the open"),
        ('store = "s3"\ns3.bucket = "shop"\ns3.endpoint = "minio:9000"\ns3.use_ssl = false', "to minio in the open"),
        ('store = "webdav"\nwebdav.url = "http://127.0.0.1:8080/"', ""),
        ('store = "webdav"\nwebdav.url = "https://host/"', ""),
        ('store = "s3"\ns3.bucket = "shop"', ""),
        (
            'store = "azure"\nazure.account = "shop"\nazure.container = "snaps"\nazure.endpoint = "blobs:80"\n'
            "azure.use_ssl = false",
            "to blobs in the open",
        ),
    ],
)
def test_a_line_that_everybody_can_read_is_noted(loads: Loads, tmp_path: Path, text: str, told: str) -> None:
    found = notes(loads(f"[snapshot]\n{text}"))
    assert [told in note for note in found] == ([True] if told else [])
