"""Collect facts about this node: from its configuration, its files, its machine, NATS, and the node if it runs.

Invariant: the database is opened read-only and NATS gets only queries; a query that fails leaves its fact unknown.
"""

from __future__ import annotations

import os
import re
import resource
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import apsw

from harmonylite.config import Settings
from harmonylite.db.sqlite.connection import open_file, rows, value
from harmonylite.db.sqlite.encryption import is_encrypted
from harmonylite.db.sqlite.introspection import read_inventory
from harmonylite.doctor.facts import DatabaseFacts, DiskFacts, Facts, NatsFacts, StreamFacts
from harmonylite.errors import DatabaseEncryptedError, HarmonyLiteError
from harmonylite.identity import nats_folder_for
from harmonylite.jetstream.api import JetStream, wall
from harmonylite.nats.link import NatsLink
from harmonylite.nats.names import stream_name
from harmonylite.nats_server.server import EmbeddedServer
from harmonylite.node.wiring import embedded_settings, equip, link_settings, replica_options, stream_settings

CONNECT_SECONDS = 3.0
"""How long each NATS server may take to answer."""


async def collect(
    settings: Settings, *, report: dict[str, Any] | None, nodes: Sequence[dict[str, Any]] = (), pid: int = 0
) -> Facts:
    """Return all facts. ``report``, ``nodes``, ``pid``: of the running node, if there is one."""
    return Facts(
        settings=settings,
        nats=await _nats(settings, str((report or {}).get("node_id") or settings.node_id)),
        database=_database(settings),
        disks=_disks(settings),
        descriptors=_descriptors(pid),
        exposed=_exposed(settings),
        report=report,
        nodes=tuple(nodes),
    )


async def _nats(settings: Settings, node: str) -> NatsFacts:
    try:
        link = await _link(settings, node)
        if link is None:
            return NatsFacts(error="the embedded server runs with its node, and the node does not run")
        async with link:
            return await _asked(link, settings)
    except (HarmonyLiteError, OSError) as error:
        return NatsFacts(error=str(error))


async def _link(settings: Settings, node: str) -> NatsLink | None:
    base = replace(
        link_settings(settings, node), name="harmonylite-doctor", connect_retries=1, connect_seconds=CONNECT_SECONDS
    )
    if settings.nats.urls:
        return NatsLink(base)
    if not node:
        return None
    server = EmbeddedServer(embedded_settings(settings, node))
    if not await server.attach():
        return None
    return NatsLink(replace(server.link_settings(base), connect_retries=1))


async def _asked(link: NatsLink, settings: Settings) -> NatsFacts:
    connection, streams = link.now(), stream_settings(settings)
    api = JetStream(link, streams.domain)
    found: list[StreamFacts] = []
    error, offset = "", 0.0
    for shard in range(streams.shards):
        asked = time.time()
        try:
            answer = await api.call(f"STREAM.INFO.{stream_name(streams.stream_prefix, shard)}")
        except HarmonyLiteError as failure:
            error = str(failure)
            continue
        if theirs := wall(str(answer.get("ts", ""))):
            offset = theirs - (asked + time.time()) / 2
        found.append(_stream(answer))
    servers = max(1, len(connection.announced()))
    return NatsFacts(error, connection.version, servers, offset, tuple(found))


def _stream(answer: Mapping[str, Any]) -> StreamFacts:
    config, state = answer.get("config") or {}, answer.get("state") or {}
    return StreamFacts(
        name=str(config.get("name", "")),
        replicas=int(config.get("num_replicas") or 1),
        storage=str(config.get("storage", "")),
        max_entries=max(0, int(config.get("max_msgs") or 0)),
        messages=int(state.get("messages") or 0),
        bytes=int(state.get("bytes") or 0),
        first_at=wall(str(state.get("first_ts", ""))) if state.get("messages") else 0.0,
        last_at=wall(str(state.get("last_ts", ""))) if state.get("messages") else 0.0,
    )


def _database(settings: Settings) -> DatabaseFacts:
    if not settings.db_path.exists():
        return DatabaseFacts(error=f"there is no {settings.db_path} yet")
    try:
        equip(settings)
        connection = open_file(settings.db_path, read_only=True)
        try:
            return _inspected(connection, settings)
        finally:
            connection.close()
    except (HarmonyLiteError, apsw.Error) as error:
        if is_encrypted(settings.db_path):
            return DatabaseFacts(error=str(DatabaseEncryptedError(settings.db_path)))
        return DatabaseFacts(error=str(error))


def _inspected(connection: apsw.Connection, settings: Settings) -> DatabaseFacts:
    connection.pragma("ignore_check_constraints", 1)  # as the node does
    inventory = read_inventory(connection, replica_options(settings, "doctor", "doctor").rules)
    texts = dict(rows(connection, "SELECT name, sql FROM sqlite_schema WHERE type = 'table'"))
    counted = [name for name, shape in inventory.tables.items() if shape.integer_key]
    return DatabaseFacts(
        journal=str(value(connection, "PRAGMA journal_mode")),
        bytes=settings.db_path.stat().st_size,
        tables=len(inventory.tables),
        keyless=tuple(name for name, shape in inventory.tables.items() if shape.columns[0].pseudo == "rowid"),
        counted=tuple(counted),
        autoincrement=tuple(n for n in counted if re.search(r"\bAUTOINCREMENT\b", texts.get(n) or "", re.IGNORECASE)),
        left_out=tuple(text for name, text in inventory.warnings.items() if name not in inventory.tables),
    )


def _disks(settings: Settings) -> tuple[DiskFacts, ...]:
    places = {"database": settings.db_path.absolute().parent}
    streams = nats_folder_for(settings.db_path.absolute())
    if settings.nats.embedded and streams.is_dir():
        places["streams"] = streams
    mounts = _mounts()
    found = []
    for what, path in places.items():
        room = os.statvfs(path)
        total, free = room.f_blocks * room.f_frsize, room.f_bavail * room.f_frsize
        found.append(DiskFacts(what, str(path), _kind(path, mounts), total, free))
    return tuple(found)


def _mounts() -> dict[str, str]:
    """Return the kinds of all mounted file systems by mount point; {} on a system without such a list."""
    try:
        lines = Path("/proc/self/mounts").read_text(errors="replace").splitlines()
    except OSError:
        return {}
    return {fields[1]: fields[2] for line in lines if len(fields := line.split()) > 2}


def _kind(path: Path, mounts: Mapping[str, str]) -> str:
    return next((mounts[str(place)] for place in (path, *path.parents) if str(place) in mounts), "")


def _exposed(settings: Settings) -> tuple[str, ...]:
    nats = settings.nats
    files = (nats.seed_file, nats.creds_file, nats.tls_key_file, nats.cluster_secret_file, settings.snapshot.sign_key)
    return tuple(str(path) for path in files if path is not None and path.exists() and path.stat().st_mode & 0o077)


def _descriptors(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/limits").read_text() if pid else ""
    except OSError:
        text = ""
    found = re.search(r"^Max open files\s+(\d+)", text, re.MULTILINE)
    return int(found[1]) if found else resource.getrlimit(resource.RLIMIT_NOFILE)[0]
