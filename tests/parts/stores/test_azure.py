"""Azure: whose key, which address; on a real server of its protocol where it matters."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from harmonylite.config.secret_text import Secret
from harmonylite.config.snapshot import AzureStoreSettings
from harmonylite.errors import ObjectMissingError, SnapshotError
from harmonylite.stores.azure import AzureStore, where, who
from tests.parts.stores.fix_stores import azure_settings
from tests.parts.stores.servers import Server

WRONG = base64.b64encode(b"another key").decode()


async def test_a_wrong_key_is_refused_with_advice_and_shown_nowhere(azurite: Server) -> None:
    with pytest.raises(
        SnapshotError, match=r"403 Forbidden.*correct snapshot\.azure\.account and account_key"
    ) as found:
        await AzureStore(azure_settings(azurite, secret=WRONG)).names()
    assert WRONG not in str(found.value)


async def test_a_missing_container_is_no_missing_object(azurite: Server, tmp_path: Path) -> None:
    store = AzureStore(azure_settings(azurite, container="none"))
    with pytest.raises(SnapshotError, match=r"ContainerNotFound.*make the container"):
        await store.names()
    with pytest.raises(SnapshotError, match="ContainerNotFound") as found:
        await store.get("x", tmp_path / "x")
    assert not isinstance(found.value, ObjectMissingError)


@pytest.mark.parametrize(
    ("endpoint", "url"),
    [
        ("", None),
        ("127.0.0.1:10000", "https://127.0.0.1:10000/shop"),
        ("shop.blob.core.chinacloudapi.cn", "https://shop.blob.core.chinacloudapi.cn"),
    ],
)
def test_an_endpoint_that_begins_with_the_account_is_complete(endpoint: str, url: str | None) -> None:
    assert where(AzureStoreSettings(account="shop", endpoint=endpoint)).get("endpoint") == url


def test_a_token_is_used_where_there_is_no_key() -> None:
    assert who(AzureStoreSettings(sas_token=Secret("?sv=1&sig=2"))) == {"sas_key": "sv=1&sig=2"}
    assert who(AzureStoreSettings()) == {}
