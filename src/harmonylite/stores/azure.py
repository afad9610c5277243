"""Snapshots in a container of Azure Blob Storage.

Invariant: what the configuration says wins over the environment, and one identity is used: a key, a SAS token, or what
the machine has.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from obstore.store import AzureStore as Container

from harmonylite.config.snapshot import AzureStoreSettings
from harmonylite.stores.bucket import BucketStore, client_options, retries
from harmonylite.stores.bucket_failures import Advice
from harmonylite.stores.failures import Failures

if TYPE_CHECKING:
    from obstore.store import AzureConfig

_KEY = "correct snapshot.azure.account and account_key, or sas_token"
_RIGHTS = "let these credentials list, read, write and delete blobs of snapshot.azure.container"
ADVICE = Advice(
    "snapshot.azure",
    {
        "ContainerNotFound": "make the container, or correct snapshot.azure.container; it is never made by itself",
        "AuthenticationFailed": f"{_KEY}; set this machine's clock",
        "AuthorizationFailure": f"{_KEY}; {_RIGHTS}",
        "AuthorizationPermissionMismatch": _RIGHTS,
        "InvalidAuthenticationInfo": "set snapshot.azure.account_key or sas_token",
        "NoAuthenticationInformation": "set snapshot.azure.account_key or sas_token",
        "ServerBusy": "it is tried again later",
    },
    no_bucket=("ContainerNotFound", "ContainerBeingDeleted"),
    credentials="set snapshot.azure.account_key or sas_token, or AZURE_STORAGE_ACCOUNT_KEY",
)

_ENVIRONMENT = ("AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_SAS_KEY", "AZURE_STORAGE_SAS_TOKEN", "AZURE_CLIENT_SECRET")


class AzureStore(BucketStore):
    """Blobs in a container, below ``path``; nothing is connected to yet. Raises ConfigError."""

    def __init__(self, settings: AzureStoreSettings) -> None:
        container = Container(
            settings.container,
            prefix=settings.path or None,
            config={"account_name": settings.account, **where(settings), **who(settings)},
            client_options=client_options(plain=not settings.use_ssl, ca_file=settings.ca_file, what="snapshot.azure"),
            retry_config=retries(),
        )
        secrets = [settings.account_key.get_secret_value(), settings.sas_token.get_secret_value()]
        secrets += [os.environ.get(name, "") for name in _ENVIRONMENT]
        super().__init__(container, Failures(f"the Azure container {settings.container!r}", secrets), ADVICE)


def where(settings: AzureStoreSettings) -> AzureConfig:
    """Return the address. An endpoint that begins with the account's name is complete; others have it as a folder."""
    host = settings.endpoint
    if not host:
        return {}
    url = f"{'https' if settings.use_ssl else 'http'}://{host}"
    return {"endpoint": url if host.startswith(f"{settings.account}.") else f"{url}/{settings.account}"}


def who(settings: AzureStoreSettings) -> AzureConfig:
    """Return the key or the token; {} = obstore looks (AZURE_…, a managed identity)."""
    if key := settings.account_key.get_secret_value():
        return {"account_key": key}
    if token := settings.sas_token.get_secret_value():
        return {"sas_key": token.removeprefix("?")}
    return {}
