"""docs/stores.md: its examples are valid, its commands work, and no key of a store is missing in it."""

from __future__ import annotations

import asyncio
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from harmonylite.config import load, notes
from harmonylite.config.section import keys
from harmonylite.config.snapshot import (
    AzureStoreSettings,
    FileStoreSettings,
    NatsStoreSettings,
    S3StoreSettings,
    SftpStoreSettings,
    WebdavStoreSettings,
)
from harmonylite.stores.sftp import SftpStore
from tests.needs import KEYSCAN
from tests.parts.stores.fix_stores import sftp_settings
from tests.parts.stores.servers import Server

DOCS = (Path(__file__).parents[3] / "docs" / "stores.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```toml\n(.*?)```", DOCS, re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES, ids=range(len(EXAMPLES)))
def test_an_example_is_a_valid_configuration(example: str, tmp_path: Path) -> None:
    for place in set(re.findall(r'"(/[^"]+)"', example)):
        path = tmp_path / place.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir() if "mnt" in place else path.touch()
        example = example.replace(f'"{place}"', f'"{path}"')
    config = tmp_path / "config.toml"
    config.write_text(f'db_path = "{tmp_path}/app.db"\nnats.urls = ["nats://host"]\n{example}')
    settings = load(config, environment={})
    assert settings.snapshot.store in example
    assert notes(settings) == []


@pytest.mark.parametrize(
    "section",
    [
        NatsStoreSettings,
        S3StoreSettings,
        AzureStoreSettings,
        WebdavStoreSettings,
        SftpStoreSettings,
        FileStoreSettings,
    ],
)
def test_every_key_of_a_store_is_explained(section: type) -> None:
    for key in keys(section):
        assert re.search(rf"\b{key.name}\b", DOCS), key.name


def test_there_is_an_example_of_every_store() -> None:
    stores = {re.findall(r'store = "(\w+)"', example)[0] for example in EXAMPLES}
    assert stores == {"nats", "s3", "azure", "webdav", "sftp", "file"}


@KEYSCAN.mark
async def test_ssh_keyscan_writes_what_the_store_wants(sftp: Server, tmp_path: Path) -> None:
    (command,) = re.findall(r"^ssh-keyscan (.*) >> (.*)$", DOCS, re.MULTILINE)
    words = command[0].replace("22", str(sftp.port)).replace("backup.example.com", "127.0.0.1").split()
    known = tmp_path / "known_hosts"
    with known.open("wb") as out:
        await asyncio.to_thread(subprocess.run, ["ssh-keyscan", *words], stdout=out, check=True, timeout=60)
    settings = replace(sftp_settings(sftp), known_hosts=known)
    assert isinstance(await SftpStore(settings, owner="one").names(), list)
