"""A node's report, or a cluster's, for a terminal.

Invariant: whatever is in a report is shown as plain text: no markup of rich's and no escape sequence of the
terminal's gets through. A report that lacks fields, from an older node, is shown as far as it goes.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from harmonylite.progress import catching_up

STYLES = {
    "ok": "green",
    "starting": "dim",
    "waiting": "yellow",
    "failed": "bold red",
    "stopped": "dim",
    "up": "green",
    "silent": "bold red",
    "unknown": "dim",
}


def render(report: dict[str, Any]) -> RenderableType:
    """Return one node's `NodeStatus.report` as a few lines and tables, without a trailing newline."""
    blocks: list[RenderableType] = [_headline(report), *_reasons(report), Text(), _facts(report)]
    if region := report.get("region"):
        blocks += [Text(), _region(region, report.get("server") or {})]
    if shards := report.get("shards"):
        blocks += [Text(), _shards(shards)]
    if peers := report.get("peers"):
        blocks += [Text(), _peers(peers)]
    if parts := report.get("parts"):
        blocks += [Text(), _parts(parts)]
    return Group(*blocks)


def render_cluster(reports: Sequence[dict[str, Any]]) -> RenderableType:
    """Return one line a node, within 80 columns for names of up to 16, and below what any of them waits for.

    Where there are held-back rows, their column takes the place of the version's.
    """
    held = any(report.get("held_rows") for report in reports)
    last = [">held", ">conflicts"] if held else [">conflicts", "version"]
    table = _table("node", "state", ">behind", ">oldest", ">pending", *last, gap=2)
    for report in reports:
        shards = report.get("shards", ())
        known = report.get("status") in ("healthy", "starting", "unhealthy")
        numbers = [
            _count(sum(shard.get("lag_messages", 0) for shard in shards)),
            f"{max((shard.get('lag_seconds', 0.0) for shard in shards), default=0.0):.1f} s",
            _count(report.get("pending_rows", 0)),
            *([_count(report.get("held_rows", 0))] if held else []),
            _count(report.get("counters", {}).get("conflicts", 0)),
        ]
        table.add_row(
            _plain(report.get("node_id")),
            _state(report),
            *(numbers if known else ["-"] * len(numbers)),
            *([] if held else [_plain(report.get("version"))]),
        )
    waits = [(_plain(r.get("node_id")), _plain(wait)) for r in reports for wait in r.get("waits", ())]
    if not waits:
        return table
    return Group(table, Text(), *(Text.assemble((node.plain, "bold"), "  ", wait) for node, wait in waits))


def _headline(report: dict[str, Any]) -> Text:
    return Text.assemble(
        (_plain(report.get("node_id")).plain or "node", "bold"),
        "  ",
        _state(report),
        "  ",
        (_plain(report.get("db_path")).plain, "dim"),
    )


def _state(report: dict[str, Any]) -> Text:
    status = report.get("status")
    if status == "healthy":
        if report.get("ready", True):
            return Text("healthy", "bold green")
        return Text("waiting" if report.get("caught_up") else "catching up", "bold yellow")
    return Text("unhealthy", "bold red") if status == "unhealthy" else Text(_plain(status).plain or "unknown", "dim")


def _reasons(report: dict[str, Any]) -> Iterable[Text]:
    if report.get("db_connected") is False:
        yield Text("  the database is not open", "red")
    if report.get("nats_connected") is False:
        yield Text("  NATS is not connected", "red")
    if progress := catching_up(report.get("catching_up")):
        yield Text(f"  {progress}", "yellow")
    for wait in report.get("waits", ()):
        yield Text(f"  {_plain(wait)}", "yellow")
    for about, text in report.get("warnings", {}).items():
        yield Text(f"  {_plain(about)}: {_plain(text)}", "yellow")


def _facts(report: dict[str, Any]) -> Table:
    counters = report.get("counters", {})
    grid = Table.grid(padding=(0, 3))
    facts = [
        ("pending rows", _count(report.get("pending_rows", 0))),
        ("held-back rows", _count(report.get("held_rows", 0))),
        ("conflicts", _count(counters.get("conflicts", 0))),
        ("tables", _count(report.get("tables_tracked", 0))),
        ("rows published", _count(counters.get("published_rows", 0))),
        ("rows merged", _count(counters.get("merged_rows", 0))),
        ("up", duration(report.get("uptime_seconds", 0.0))),
        ("version", _plain(report.get("version")).plain),
        ("NATS", _plain(report.get("nats_server")).plain),
    ]
    for start in range(0, len(facts), 3):
        cells: list[Text] = []
        for name, value in facts[start : start + 3]:
            cells += [Text(name, "dim"), Text(value)]
        grid.add_row(*cells)
    return grid


def _region(region: dict[str, Any], server: dict[str, Any]) -> Text:
    """Say where the primary region is, and whether the way there is open."""
    own, home = _plain(region.get("region")).plain, _plain(region.get("primary")).plain
    links = f", {int(server['leaf_links'])} leaf links here" if "leaf_links" in server else ""
    if own == home:
        return Text.assemble(("region ", "dim"), own, f", the primary region{links}")
    if region.get("failover") and not region.get("reachable"):
        failover = f", failed over at {_clock(region['failover_since'])}, primary region {home} unreachable since"
        return Text.assemble(
            ("region ", "dim"), own, (f"{failover} {_clock(region['unreachable_since'])}{links}", "yellow")
        )
    if "reachable" in region and not region["reachable"]:
        return Text.assemble(("region ", "dim"), own, (f", primary region {home} can't be reached{links}", "yellow"))
    way = f"primary region {home}, {region.get('round_trip_seconds', 0.0) * 1000:.1f} ms away{links}"
    behind = region.get("copy_behind", 0)
    late = f", copy {_count(behind)} behind" if behind else ""
    return Text.assemble(("region ", "dim"), own, f", {way}", (late, "yellow"))


def _clock(seconds: float) -> str:
    """Return a time as UTC, to the second."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))


def _shards(shards: Sequence[dict[str, Any]]) -> Table:
    table = _table(">shard", ">folded", ">stream", ">behind", ">oldest")
    for shard in shards:
        lag = shard.get("lag_messages", 0)
        table.add_row(
            _plain(shard.get("shard")),
            _count(shard.get("position", 0)),
            _count(shard.get("last", 0)),
            _count(lag),
            f"{shard.get('lag_seconds', 0.0):.1f} s",
            style="yellow" if lag else "",
        )
    return table


def _peers(peers: Sequence[dict[str, Any]]) -> Table:
    table = _table("peer", "state", ">last seen", ">behind", ">oldest", "version")
    for peer in peers:
        state, quiet = _plain(peer.get("state")).plain, peer.get("silent_seconds")
        table.add_row(
            _plain(peer.get("node_id")),
            Text(state, STYLES.get(state, "")),
            "-" if quiet is None else f"{duration(quiet)} ago",
            "-" if quiet is None else _count(peer.get("lag_messages", 0)),
            "-" if quiet is None else f"{peer.get('lag_seconds', 0.0):.1f} s",
            _plain(peer.get("version")),
        )
    return table


def _parts(parts: dict[str, dict[str, Any]]) -> Table:
    table = _table("part", "state", ">since", "why")
    for name, part in parts.items():
        state = _plain(part.get("state")).plain
        table.add_row(
            _plain(name),
            Text(state, STYLES.get(state, "")),
            duration(part.get("seconds", 0.0)),
            _plain(part.get("reason")),
        )
    return table


def _table(*heads: str, gap: int = 3) -> Table:
    """Return a table without lines; a head that begins with ``>`` makes its column be at the right."""
    table = Table(box=None, padding=(0, gap, 0, 0), header_style="dim", pad_edge=False)
    for head in heads:
        table.add_column(head.removeprefix(">"), justify="right" if head.startswith(">") else "left", overflow="fold")
    return table


def duration(seconds: float) -> str:
    """Return ``seconds`` in the two largest units that matter: ``42 s``, ``5 min``, ``3 h 20 min``, ``2 d 4 h``."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def _count(number: float) -> str:
    return f"{number:,}"


def _plain(value: object) -> Text:
    text = "" if value is None else str(value)
    return Text("".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text))
