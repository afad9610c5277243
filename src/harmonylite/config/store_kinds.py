"""Kinds of values that only the snapshot stores' keys take; see `harmonylite.config.kinds`.

Invariant: what passes here can be used unchanged: no store has to validate it again.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated

from harmonylite.config.kinds import OptionalUrl
from harmonylite.config.reading import After
from harmonylite.config.secret_text import Url
from harmonylite.config.store_urls import sftp_place, webdav_place

# https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html; old buckets may have _ and capitals.
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,253}[A-Za-z0-9]")
_HOST = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+)(?::(?P<port>[0-9]{1,5}))?")


def _endpoint(text: str) -> str:
    text = text.strip()
    if "://" in text:
        raise ValueError("begins with a scheme; write host or host:port alone, use_ssl chooses http or https")
    found = _HOST.fullmatch(text)
    if text and (not found or int(found["port"] or 443) not in range(1, 65536)):
        raise ValueError('is not host or host:port; write for example "minio.example.com:9000"')
    return text


def _bucket(text: str) -> str:
    if text and not _BUCKET.fullmatch(text):
        raise ValueError("is not a bucket's name; those have 3 to 255 letters, digits, dots, - and _")
    return text


def _account(text: str) -> str:
    if text and not re.fullmatch(r"[a-z0-9]{3,24}", text):
        raise ValueError("is not a storage account's name; those have 3 to 24 small letters and digits")
    return text


def _folder(text: str) -> str:
    pieces = [piece for piece in text.strip().split("/") if piece]
    if any(piece in (".", "..") for piece in pieces) or any(ord(letter) < 32 for letter in text):
        raise ValueError('has . or .. or control characters in it; write for example "snapshots/shop"')
    return "/".join(pieces)


def _parsed(take: Callable[[str], object]) -> Callable[[Url], Url]:
    def check(url: Url) -> Url:
        if url.get_secret_value():
            take(url.get_secret_value())
        return url

    return check


Endpoint = Annotated[str, After(_endpoint)]
AccountName = Annotated[str, After(_account)]
BucketName = Annotated[str, After(_bucket)]
Folder = Annotated[str, After(_folder)]
WebdavUrl = Annotated[OptionalUrl, After(_parsed(webdav_place))]
SftpUrl = Annotated[OptionalUrl, After(_parsed(sftp_place))]
