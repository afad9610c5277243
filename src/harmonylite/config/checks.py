"""Errors of several keys together: keys that need or exclude one another, and missing files.

Invariant: checks look at files' existence and rights only; they open no network connection and never the database.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from harmonylite.config.kinds import split_address
from harmonylite.config.nats import NatsSettings
from harmonylite.config.settings import PageSettings, Settings
from harmonylite.config.snapshot import SnapshotSettings

PAGE_DATA = ("status.json", "hour.json", "details.json", "conflicts.json", "log.json", "changes.ndjson")
PAGE_ACTIONS = ("actions/snapshot", "actions/verify", "actions/put-back")
PAGE_PATHS = ("/", *(f"/{name}" for name in (*PAGE_DATA, *PAGE_ACTIONS)))
"""Paths of the page and its requests."""
TOKEN_LENGTH = 16
"""Characters that the page's token has at least."""

_PUBLIC = re.compile(r"U[A-Z2-7]{55}")
Fault = tuple[str, str]
"""Dotted key, and what is wrong with it."""


def faults(settings: Settings) -> Iterator[Fault]:
    """Yield everything that is wrong with ``settings`` as a whole."""
    yield from _database(settings.db_path)
    yield from _credentials(settings.nats)
    yield from _listening(settings.nats)
    yield from _regions(settings.nats)
    yield from _files(settings)
    yield from _health_path(settings)
    yield from _page(settings.page)
    yield from _feed(settings)
    yield from _signing(settings.snapshot)
    if settings.snapshot.enable:
        yield from _store(settings.snapshot)


def notes(settings: Settings) -> list[str]:
    """Return one sentence for each key that is set and has no effect, or not the one that a reader expects."""
    found = _embedded_notes(settings) if settings.nats.embedded else _external_notes(settings.nats)
    if settings.seq_map_path:
        found.append("seq_map_path has no effect: positions are kept inside the databases; remove the key")
    if not settings.publish and not settings.replicate:
        found.append("publish and replicate are both false: this node only watches")
    if settings.feed.subject and settings.sleep_timeout:
        found.append("sleep_timeout ends this node whether or not its events are published; another one continues")
    if settings.sleep_timeout and not settings.snapshot.enable:
        found.append("sleep_timeout ends this node without a snapshot: snapshot.enable is false")
    if settings.snapshot.enable and settings.snapshot.store in ("s3", "azure", "webdav"):
        found += _store_notes(settings.snapshot)
    return found


def _store_notes(snapshot: SnapshotSettings) -> list[str]:
    if snapshot.store == "s3":
        url = f"{'https' if snapshot.s3.use_ssl else 'http'}://{snapshot.s3.endpoint or 'amazonaws.com'}"
        what = "snapshot.s3.use_ssl is false: snapshots"
    elif snapshot.store == "azure":
        url = f"{'https' if snapshot.azure.use_ssl else 'http'}://{snapshot.azure.endpoint or 'windows.net'}"
        what = "snapshot.azure.use_ssl is false: snapshots"
    else:
        url = snapshot.webdav.url.get_secret_value()
        what = "snapshot.webdav.url begins with http: login, secret and snapshots"
    parts = urlsplit(url)
    if parts.scheme.lower() != "http" or _is_loopback(parts.hostname or ""):
        return []
    return [f"{what} cross the network to {parts.hostname} in the open"]


def _external_notes(nats: NatsSettings) -> list[str]:
    unused = (
        "bind_address",
        "cluster_addr",
        "cluster_peers",
        "cluster_secret_file",
        "leaf_addr",
        "leaf_servers",
        "server_config",
    )
    why = "has no effect: nats.urls names an external cluster, so no server is started here"
    return [f"nats.{name} {why}" for name in unused if getattr(nats, name)]


def _embedded_notes(settings: Settings) -> list[str]:
    nats, replicas = settings.nats, settings.replication_log.replicas
    if nats.server_config:
        return []
    given = {"token": nats.token.get_secret_value(), "seed_file": nats.seed_file, "creds_file": nats.creds_file}
    why = "has no effect: the embedded server asks for user_name and user_password only"
    found = [f"nats.{name} {why}" for name, value in given.items() if value]
    if nats.cluster_secret_file and not nats.cluster_addr:
        found.append("nats.cluster_secret_file has no effect without cluster_addr: no other server is let in")
    if replicas > 1 and not nats.cluster_peers:
        found.append(
            f"replication_log.replicas = {replicas}, but the embedded server has no peers: nothing is replicated until "
            "-cluster-addr and -cluster-peers join it with others"
        )
    return found


def _database(path: Path) -> Iterator[Fault]:
    try:
        with suppress(FileNotFoundError, NotADirectoryError):
            path.stat()  # unlike the questions below it notices a link to itself, and of a folder that hides it
        if path.is_dir():
            yield "db_path", f"= {str(path)!r} is a directory; name the SQLite file in it"
        elif path.exists() and not path.is_file():
            yield "db_path", f"= {str(path)!r} is not a regular file"
        elif not path.parent.is_dir():
            yield "db_path", f"= {str(path)!r}: the folder {path.parent} does not exist; make it, or correct the path"
    except OSError as error:
        yield "db_path", f"= {str(path)!r} can't be looked at: {error.strerror}"


def _credentials(nats: NatsSettings) -> Iterator[Fault]:
    password = bool(nats.user_password.get_secret_value())
    if password and not nats.user_name:
        yield "nats.user_name", "is missing beside user_password; set both"
    if nats.user_name and not password:
        yield "nats.user_password", "is missing beside user_name; set both (HARMONYLITE_NATS__USER_PASSWORD works too)"
    ways = {
        "user_name": bool(nats.user_name),
        "token": bool(nats.token.get_secret_value()),
        "seed_file": nats.seed_file is not None,
        "creds_file": nats.creds_file is not None,
    }
    if len(used := [name for name, is_set in ways.items() if is_set]) > 1:
        yield f"nats.{used[1]}", f"and {used[0]} are two ways to log in; keep one"
    if (nats.tls_cert_file is None) != (nats.tls_key_file is None):
        missing = "tls_cert_file" if nats.tls_cert_file is None else "tls_key_file"
        yield f"nats.{missing}", "is missing; a certificate and its key belong together"


def _listening(nats: NatsSettings) -> Iterator[Fault]:
    if not nats.embedded:
        return
    if nats.cluster_peers and not nats.cluster_addr and not nats.server_config:
        yield "nats.cluster_addr", "is missing beside cluster_peers; say where the peers reach this node"
    if nats.user_name or nats.server_config or nats.insecure:
        return
    for name in ("bind_address", "cluster_addr"):
        if name == "cluster_addr" and nats.cluster_secret_file:
            continue
        if (address := getattr(nats, name)) and not _is_loopback(split_address(address)[0]):
            own = " (or nats.cluster_secret_file)" if name == "cluster_addr" else ""
            yield (
                f"nats.{name}",
                (
                    f"= {address!r} lets everyone who reaches this machine read and change all data; "
                    f"set nats.user_name and nats.user_password{own}, "
                    "or listen on 127.0.0.1, or set nats.insecure = true to insist"
                ),
            )


def _regions(nats: NatsSettings) -> Iterator[Fault]:
    if nats.region and not nats.primary_region:
        yield "nats.primary_region", "is missing beside region; name the region that puts all changes into one order"
    if nats.primary_region and not nats.region:
        yield "nats.region", "is missing beside primary_region; name the region that this node is in"
    for name in ("leaf_servers", "leaf_addr"):
        if getattr(nats, name) and nats.embedded and not nats.region and not nats.server_config:
            yield "nats.region", f"is missing beside {name}; leaf links join regions, and each needs a name of its own"
            return
    if nats.leaf_addr and nats.embedded and not nats.user_name and not nats.server_config:
        yield (
            "nats.user_name",
            "is missing beside leaf_addr; leaf links are taken with user_name and user_password only",
        )
    away = nats.embedded and nats.region and nats.primary_region not in ("", nats.region)
    if away and not (nats.leaf_servers or nats.leaf_addr or nats.server_config):
        yield (
            "nats.leaf_servers",
            f"is missing: every node of region {nats.region} needs a leaf link towards {nats.primary_region}",
        )


def _health_path(settings: Settings) -> Iterator[Fault]:
    health, metrics = settings.health_check, settings.prometheus
    taken = {"/livez": "another answer", "/readyz": "another answer"}
    if health.detailed:
        taken |= dict.fromkeys(PAGE_PATHS, "the page")
    if metrics.enable and metrics.bind == health.bind:
        taken["/metrics"] = "metrics"
    if health.enable and health.path in taken:
        yield "health_check.path", f"= {health.path!r} is where {taken[health.path]} is; take another, such as /health"


def _page(page: PageSettings) -> Iterator[Fault]:
    if 0 < len(page.token.get_secret_value()) < TOKEN_LENGTH:
        yield "page.token", f"is shorter than {TOKEN_LENGTH} characters; make one with: openssl rand -hex 16"
    if page.url and urlsplit(page.url).scheme not in ("http", "https"):
        yield "page.url", f"= {page.url!r} does not begin with http:// or https://"
    elif "@" in urlsplit(page.url).netloc:
        yield "page.url", "holds a name or a password; the other nodes show it to everyone"
    if not page.open and not page.token.get_secret_value():
        yield "page.token", "is missing beside open = false, so no one could open the page"


def _feed(settings: Settings) -> Iterator[Fault]:
    feed, nats = settings.feed, settings.nats
    own = f"{nats.subject_prefix}."
    if feed.subject and (f"{feed.subject}.".startswith(own) or own.startswith(f"{feed.subject}.")):
        yield "feed.subject", f"= {feed.subject!r} is within nats.subject_prefix, or around it; take another"
    if feed.stream and not feed.subject:
        yield "feed.subject", "is missing beside stream"
    if feed.stream and feed.stream.startswith(nats.stream_prefix):
        yield "feed.stream", f"= {feed.stream!r} begins as nats.stream_prefix does; take another name"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


STORE_FILES = {
    "sftp": ("key_file", "known_hosts"),
    "s3": ("ca_file",),
    "azure": ("ca_file",),
    "webdav": ("ca_file",),
}


def _files(settings: Settings) -> Iterator[Fault]:
    nats = settings.nats
    for name in ("server_config", "seed_file", "creds_file", "tls_ca_file", "tls_cert_file", "tls_key_file"):
        yield from _readable(f"nats.{name}", getattr(nats, name))
    if (secret := nats.cluster_secret_file) and not secret.parent.is_dir():
        yield "nats.cluster_secret_file", f"= {str(secret)!r}: the folder {secret.parent} does not exist"
    elif secret and secret.exists():
        yield from _readable("nats.cluster_secret_file", secret)
    store = settings.snapshot.store if settings.snapshot.enable else ""
    for name in STORE_FILES.get(store, ()):
        yield from _readable(f"snapshot.{store}.{name}", getattr(getattr(settings.snapshot, store), name))


def _readable(key: str, path: Path | None) -> Iterator[Fault]:
    if path is None:
        return
    if not path.exists():
        yield key, f"= {str(path)!r}: there is no such file"
    elif not path.is_file():
        yield key, f"= {str(path)!r} is not a file"
    elif not os.access(path, os.R_OK):
        yield key, f"= {str(path)!r} can't be read by this user"


def _signing(snapshot: SnapshotSettings) -> Iterator[Fault]:
    path = snapshot.sign_key
    faults = list(_readable("snapshot.sign_key", path))
    yield from faults
    if path is not None and not faults and path.stat().st_mode & 0o077:
        yield "snapshot.sign_key", f"= {str(path)!r} can be read by others, who could sign with it: chmod 600 {path}"
    if snapshot.trusted_keys and path is None:
        yield "snapshot.sign_key", "is missing beside trusted_keys: without it this node's snapshots are unsigned"
    for public in snapshot.trusted_keys:
        if not _PUBLIC.fullmatch(public):
            what = "holds a seed, which is a secret" if public.startswith("S") else f"holds {public!r}"
            yield "snapshot.trusted_keys", f"{what}; write public keys, as `harmonylite nkey public FILE` shows them"


def _store(snapshot: SnapshotSettings) -> Iterator[Fault]:
    for name in {"s3": ("bucket",), "azure": ("account", "container")}.get(snapshot.store, ()):
        if not getattr(getattr(snapshot, snapshot.store), name):
            yield f"snapshot.{snapshot.store}.{name}", f'is not set, but snapshot.store = "{snapshot.store}" needs it'
    if snapshot.azure.account_key.get_secret_value() and snapshot.azure.sas_token.get_secret_value():
        yield (
            "snapshot.azure.sas_token",
            "and account_key are both set; one of them is used, so leave the other one out",
        )
    if snapshot.store == "s3" and bool(snapshot.s3.access_key) != bool(snapshot.s3.secret.get_secret_value()):
        yield (
            f"snapshot.s3.{'secret' if snapshot.s3.access_key else 'access_key'}",
            ("is missing; set access_key and secret, or neither (HARMONYLITE_SNAPSHOT__S3__SECRET works too)"),
        )
    if snapshot.store == "webdav" and not snapshot.webdav.url.get_secret_value():
        yield "snapshot.webdav.url", 'is not set, but snapshot.store = "webdav" needs it'
    if snapshot.store == "sftp" and not snapshot.sftp.url.get_secret_value():
        yield "snapshot.sftp.url", 'is not set, but snapshot.store = "sftp" needs it'
    if snapshot.store == "file":
        if snapshot.file.path is None:
            yield "snapshot.file.path", 'is not set, but snapshot.store = "file" needs it'
        elif not snapshot.file.path.is_dir():
            yield (
                "snapshot.file.path",
                f"= {str(snapshot.file.path)!r} is not a directory; make it, or correct the path",
            )
