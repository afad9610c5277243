"""Translate the configuration into each part's settings: a part gets its own small record, never the whole.

Invariant: units are converted here and nowhere else: milliseconds in the file, seconds in every part.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from harmonylite.config import Settings, SnapshotSettings
from harmonylite.db.replica_options import ReplicaOptions
from harmonylite.db.sqlite import extensions
from harmonylite.db.sqlite.introspection import TableRules
from harmonylite.db.sqlite.overwriting import NOTE, Seen
from harmonylite.identity import fingerprint, folder_for, nats_folder_for
from harmonylite.jetstream.settings import StreamSettings
from harmonylite.nats.credentials import key_pair, read_seed
from harmonylite.nats.settings import LinkSettings, TlsSettings
from harmonylite.nats_server.settings import EmbeddedSettings
from harmonylite.node.server_folder import server_folder
from harmonylite.replication.sender import SenderSettings
from harmonylite.web.address import Address
from harmonylite.web.endpoints import HealthEndpoint, MetricsEndpoint
from harmonylite.web.page_guard import PageGuard
from harmonylite.web.server import HttpServer

if TYPE_CHECKING:
    from harmonylite.snapshots.signing import Signing


def equip(settings: Settings) -> None:
    """Give this process's SQLite connections what ``[extensions]`` names. Raises ConfigError."""
    extensions.use(settings.extensions.load, settings.extensions.python)


def table_rules(settings: Settings) -> TableRules:
    """Return which tables are replicated, and how."""
    tables = settings.tables
    return TableRules(
        tuple(tables.include),
        tuple(tables.exclude),
        tuple(name for name, way in tables.conflict.items() if way == "row"),
        tuple(tables.identity.items()),
    )


def replica_options(settings: Settings, node: str, session: str) -> ReplicaOptions:
    """Return the replica's options."""
    folder = folder_for(settings.db_path)
    return ReplicaOptions(
        database=settings.db_path,
        folder=folder,
        node=node,
        session=session,
        shards=settings.replication_log.shards,
        compress=settings.replication_log.compress,
        capture_batch_rows=settings.capture_batch_rows,
        replicate=settings.replicate,
        patience=settings.merge.patience / 1000,
        apply_schema=settings.schema.apply,
        real_digits=settings.merge.real_digits,
        rules=table_rules(settings),
        seen=Seen(folder / NOTE),
    )


def sender_settings(settings: Settings) -> SenderSettings:
    """Return the sender's settings; seconds there, milliseconds in the file."""
    return SenderSettings(
        publish=settings.publish,
        polling_interval=settings.polling_interval / 1000,
        cleanup_interval=settings.cleanup_interval / 1000,
    )


def tls_settings(settings: Settings) -> TlsSettings:
    """Return the certificates."""
    nats = settings.nats
    return TlsSettings(ca_file=nats.tls_ca_file, cert_file=nats.tls_cert_file, key_file=nats.tls_key_file)


def stream_settings(settings: Settings) -> StreamSettings:
    """Return the streams' settings."""
    section = settings.replication_log
    return StreamSettings(
        subject_prefix=settings.nats.subject_prefix,
        stream_prefix=settings.nats.stream_prefix,
        shards=section.shards,
        max_entries=section.max_entries,
        replicas=section.replicas,
        update_existing=section.update_existing,
    )


def link_settings(settings: Settings, node: str) -> LinkSettings:
    """Return the link settings of an external NATS."""
    nats = settings.nats
    return LinkSettings(
        urls=tuple(url.get_secret_value() for url in nats.urls),
        name=f"harmonylite-{node}",
        user=nats.user_name,
        password=nats.user_password.get_secret_value(),
        token=nats.token.get_secret_value(),
        seed_file=nats.seed_file,
        creds_file=nats.creds_file,
        tls=tls_settings(settings),
        connect_retries=nats.connect_retries,
        reconnect_wait=nats.reconnect_wait,
    )


def embedded_settings(settings: Settings, node: str) -> EmbeddedSettings:
    """Return the embedded server's settings."""
    nats, home = settings.nats, _server_home(settings)
    return EmbeddedSettings(
        node_name=node,
        folder=nats_folder_for(home),
        server=server_folder(home, node),
        database=fingerprint(home),
        bind_address=nats.bind_address,
        cluster_addr=nats.cluster_addr,
        cluster_peers=tuple(url.get_secret_value() for url in nats.cluster_peers),
        cluster_name=f"harmonylite-{nats.region}" if nats.region else "harmonylite",
        cluster_secret_file=nats.cluster_secret_file,
        leaf_addr=nats.leaf_addr,
        leaf_servers=tuple(url.get_secret_value() for url in nats.leaf_servers),
        domain=nats.region,
        server_config=nats.server_config,
        user=nats.user_name,
        password=nats.user_password.get_secret_value(),
        tls=tls_settings(settings),
        insecure=nats.insecure,
    )


def _server_home(settings: Settings) -> Path:
    """Return the database beside which the embedded server has its folder: the first that has one, else the first."""
    return next((path for path in settings.beside if nats_folder_for(path).is_dir()), settings.beside[0])


def snapshot_signing(section: SnapshotSettings) -> Signing | None:
    """Return who signs snapshots, None where no key is configured; raises ConfigError."""
    if section.sign_key is None:
        return None
    from harmonylite.snapshots.signing import Signing  # here, not above: it brings libsodium

    return Signing(key_pair(read_seed(section.sign_key, "snapshot.sign_key").encode()), section.trusted_keys)


def health_endpoint(settings: Settings) -> HealthEndpoint | None:
    """Return the health check's site, None when it is off."""
    section = settings.health_check
    if not section.enable:
        return None
    return HealthEndpoint(section.bind, section.path, section.detailed, section.allowed_hosts)


def page_guard(settings: Settings) -> PageGuard:
    """Return the page's access control."""
    return PageGuard(settings.page.token.get_secret_value(), settings.page.open)


def page_address(settings: Settings, server: HttpServer, host: str) -> str:
    """Return where others reach the page that ``server`` serves; ``host``: the name of this machine."""
    address = server.address
    names = {"": host, "0.0.0.0": host, "::": host}  # noqa: S104  # compared, not bound
    where = Address(names.get(address.host, address.host), address.port)
    return settings.page.url or f"http://{where}/"


def metrics_endpoint(settings: Settings) -> MetricsEndpoint | None:
    """Return the metrics' site, None when it is off."""
    section = settings.prometheus
    if not section.enable:
        return None
    return MetricsEndpoint(section.bind, section.namespace, section.subsystem, section.allowed_hosts)


def private_folder(settings: Settings) -> Path:
    """Return the node's private folder."""
    return folder_for(settings.db_path)
