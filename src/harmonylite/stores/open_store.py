"""Create the configured store, without connecting to it.

Invariant: a store's library is imported only where that store is configured.
"""

from __future__ import annotations

from harmonylite.config.snapshot import SnapshotSettings
from harmonylite.errors import ConfigError
from harmonylite.ports import Store


def open_store(settings: SnapshotSettings, *, owner: str, nats: Store | None) -> Store:
    """Return where snapshots are kept. ``nats``: the object store, for ``store = "nats"`` and while snapshots are off;
    None where neither is so.

    ``owner``: this node's id; what an upload of its own left behind unfinished is removed by its next one.
    Raises ConfigError when a package that the store needs is not installed.
    """
    if not settings.enable or settings.store == "nats":
        assert nats is not None
        return nats
    try:
        match settings.store:
            case "s3":
                from harmonylite.stores.s3 import S3Store

                return S3Store(settings.s3)
            case "azure":
                from harmonylite.stores.azure import AzureStore

                return AzureStore(settings.azure)
            case "webdav":
                from harmonylite.stores.webdav import WebdavStore

                return WebdavStore(settings.webdav, owner=owner)
            case "sftp":
                from harmonylite.stores.sftp import SftpStore

                return SftpStore(settings.sftp, owner=owner)
            case "file":
                from harmonylite.stores.directory import DirectoryStore

                assert settings.file.path is not None
                return DirectoryStore(settings.file.path, owner=owner)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "harmonylite":
            raise
        raise ConfigError(
            f'snapshot.store = "{settings.store}" needs the package {error.name}, which is not installed',
            advice=f"pip install 'harmonylite[{settings.store}]'",
        ) from None
