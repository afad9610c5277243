"""The `[snapshot]` section and its stores.

Invariant: what these sections accept can be used unchecked; secrets are masked wherever they are shown.
"""

from __future__ import annotations

from typing import Literal

from harmonylite.config.kinds import Milliseconds, OptionalName, OptionalPath, Texts
from harmonylite.config.secret_text import Secret, Url
from harmonylite.config.section import Section, key
from harmonylite.config.store_kinds import AccountName, BucketName, Endpoint, Folder, SftpUrl, WebdavUrl


class NatsStoreSettings(Section):
    """Snapshots in the NATS object store (`store = "nats"`)."""

    bucket: OptionalName = key("", "Bucket of the object store.", zero="Empty: `<stream_prefix>-snapshots`")
    replicas: int = key(
        0, "On how many servers each snapshot is kept.", zero="0: as many as `replication_log.replicas`", ge=0, le=5
    )


class S3StoreSettings(Section):
    """Snapshots in an S3 bucket (`store = "s3"`)."""

    endpoint: Endpoint = key("", "Host and port of the service, without https://.", zero="Empty: Amazon's, by region")
    bucket: BucketName = key("", "Bucket; it must exist.")
    path: Folder = key("", "Folder within the bucket.")
    region: str = key(
        "",
        "Region.",
        zero="Empty: as the endpoint says, else from the environment, else us-east-1",
        pattern=r"^[\w-]*$",
    )
    use_ssl: bool = key(True, "Speak https; false only for a service on your own network.")
    ca_file: OptionalPath = key(None, "Certificates to trust besides the system's, as PEM; for a service of your own.")
    path_style: bool = key(
        False,
        "Address Amazon's buckets as host/bucket, too, not as bucket.host. Other services' always are, unless "
        "`endpoint` begins with the bucket's name.",
    )
    access_key: str = key("", "Access key id.", zero="Empty: from the environment or the machine's role")
    secret: Secret = key(Secret(""), "Secret key.")
    session_token: Secret = key(Secret(""), "Session token of temporary credentials.")


class AzureStoreSettings(Section):
    """Snapshots in Azure Blob Storage (`store = "azure"`)."""

    account: AccountName = key("", "Storage account.")
    container: BucketName = key("", "Container; it must exist.")
    path: Folder = key("", "Folder within the container.")
    account_key: Secret = key(
        Secret(""), "Access key.", zero="Empty: `sas_token`, the environment or the machine's identity"
    )
    sas_token: Secret = key(Secret(""), "Shared access signature, instead of `account_key`.")
    endpoint: Endpoint = key(
        "", "Host and port of the service, without https://.", zero="Empty: `<account>.blob.core.windows.net`"
    )
    use_ssl: bool = key(True, "Speak https; false only for a service on your own network.")
    ca_file: OptionalPath = key(None, "Certificates to trust besides the system's, as PEM; for a service of your own.")


class WebdavStoreSettings(Section):
    """Snapshots on a WebDAV server (`store = "webdav"`)."""

    url: WebdavUrl = key(Url(""), "As `https://host/dav?dir=/folder&login=name&secret=password`.")
    ca_file: OptionalPath = key(None, "Certificates to trust instead of the usual ones, as PEM.")


class SftpStoreSettings(Section):
    """Snapshots on an SFTP server (`store = "sftp"`). An unknown host key is refused."""

    url: SftpUrl = key(
        Url(""),
        "As `sftp://name:password@host:port/folder`; `/~/folder` is below the user's own. Without a password "
        "`key_file` is used, without that your SSH agent and the keys in ~/.ssh.",
    )
    key_file: OptionalPath = key(None, "Private key to log in with.")
    key_passphrase: Secret = key(Secret(""), "What opens `key_file`, where it is encrypted.")
    known_hosts: OptionalPath = key(None, "File with the server's public key.", zero="Empty: ~/.ssh/known_hosts")


class FileStoreSettings(Section):
    """Snapshots in a directory (`store = "file"`), for example on a network file system."""

    path: OptionalPath = key(None, "The directory; it must exist.")


class SnapshotSettings(Section):
    """Snapshots, from which new nodes, and nodes that are far behind, start."""

    enable: bool = key(
        True, "Save snapshots, and restore from them when this node is new or too late for the streams.", also="enabled"
    )
    interval: Milliseconds = key(
        0,
        "Save one when the newest is older than this.",
        unit='milliseconds, or a text such as "15m"',
        zero="0: only before the streams forget what a new node would need",
        ge=0,
    )
    lease_ttl: Milliseconds = key(
        30_000,
        "How long the node that saves snapshots holds the lease without renewing it.",
        unit='milliseconds, or a text such as "30s"',
        also="leader_ttl",
        ge=1000,
    )
    keep: int = key(3, "How many snapshots stay in the store; older ones are removed.", zero="0: all", ge=0)
    sign_key: OptionalPath = key(
        None,
        "NKey seed file (`harmonylite nkey generate`), mode 0600: sign the snapshots that this node saves, and use "
        "only signed ones.",
        zero="Empty: no signatures",
    )
    trusted_keys: Texts = key(
        (), "Public keys whose snapshots are used besides those signed with `sign_key`.", zero="Empty: none"
    )
    store: Literal["nats", "s3", "azure", "webdav", "sftp", "file"] = key("nats", "Where snapshots are kept.")
    nats: NatsStoreSettings = NatsStoreSettings()
    s3: S3StoreSettings = S3StoreSettings()
    azure: AzureStoreSettings = AzureStoreSettings()
    webdav: WebdavStoreSettings = WebdavStoreSettings()
    sftp: SftpStoreSettings = SftpStoreSettings()
    file: FileStoreSettings = FileStoreSettings()
