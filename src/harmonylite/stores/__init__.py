"""Where snapshots are kept outside NATS: a directory, an S3 bucket, a WebDAV folder, an SFTP folder.

Invariant: every store here is a `harmonylite.ports.Store`, passes the same tests as the NATS object store, and raises
SnapshotError only (ConfigError if it can't be created). Their libraries are imported when a store is created, because
they cost up to half a second.
"""

from harmonylite.stores.open_store import open_store

__all__ = ["open_store"]
