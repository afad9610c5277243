"""``harmonylite snapshot``: list, save, fetch; restore to a point in time.

Invariant: a file that exists is never overwritten, and a restore never touches the database itself.
"""

from __future__ import annotations

import asyncio
from datetime import datetime
from pathlib import Path
from typing import Any

import rich_click as click

from harmonylite.cli.given import Invocation
from harmonylite.cli.go_flags import GoCommand, GoGroup
from harmonylite.cli.invocation import config_option, invocation, json_option
from harmonylite.cli.moments import moment
from harmonylite.cli.output import console, local_time, plain, print_json, remark, table
from harmonylite.cli.progress_bar import WorkProgress, followed
from harmonylite.errors import NotRunningError, SnapshotError

SAVE_SECONDS = 3600.0
"""Time for one snapshot: large databases and slow stores take long."""
SEPARATE = ("/v1/snapshot/fetch", "/v1/snapshot/restore")
"""What needs no node."""


@click.group(cls=GoGroup)
def snapshot() -> None:
    """List, save and fetch snapshots; restore the database to a point in time."""


@snapshot.command("list", cls=GoCommand)
@json_option
@config_option
@click.pass_context
def listing(ctx: click.Context, as_json: bool) -> None:
    """List the snapshots in the store, the newest first; * is the one that a new node starts from."""
    given = invocation(ctx)
    try:
        answer = given.control(60.0).get("/v1/snapshots")
    except NotRunningError as error:
        answer = _offline(given, error, "/v1/snapshots", {}).do()
    if as_json:
        print_json(answer)
        return
    if not answer["snapshots"]:
        console().print("there is no snapshot yet")
        return
    shown = table("", "name", "saved", "by", ">bytes", ">unpacked", "position")
    for each in answer["snapshots"]:
        mark = "*" if each["newest"] else ""
        sizes = [f"{each['bytes']:,}", f"{each['size']:,}"]
        shown.add_row(mark, plain(each["name"]), local_time(each["at"]), plain(each["node"]), *sizes, _positions(each))
    console().print(shown)


@snapshot.command(cls=GoCommand)
@json_option
@config_option
@click.pass_context
def save(ctx: click.Context, as_json: bool) -> None:
    """Have the running node save a snapshot now, and wait until it is stored."""
    ctx.exit(save_snapshot(invocation(ctx), as_json=as_json))


@snapshot.command(cls=GoCommand)
@click.argument("name", default="")
@click.option("-o", "-output", "output", type=click.Path(path_type=Path), required=True, help="The new file.")
@json_option
@config_option
@click.pass_context
def fetch(ctx: click.Context, name: str, output: Path, as_json: bool) -> None:
    """Fetch snapshot NAME, or the newest one without NAME, into a new file: unpacked, its digest checked.

    The file is a mirror: the tables with their rows, and HarmonyLite's own tables.
    """
    arguments = {"name": name, "target": str(output.absolute())}
    answer = _followed(invocation(ctx), "/v1/snapshot/fetch", arguments, as_json=as_json)
    if not as_json:
        size = f"{answer['size']:,} bytes, at position {_positions(answer)}"
        click.echo(f"fetched {plain(answer['name'])} into {plain(answer['file'])}, {size}")


@snapshot.command(cls=GoCommand)
@click.option("-o", "-output", "output", type=click.Path(path_type=Path), required=True, help="The new file.")
@click.option("-at", metavar="TIME", help="The state at this time: 2026-11-20T10:00, yesterday 18:00 or -2h.")
@click.option("-position", type=click.IntRange(0), help="The state at this position of the stream.")
@json_option
@config_option
@click.pass_context
def restore(ctx: click.Context, output: Path, at: str | None, position: int | None, as_json: bool) -> None:
    """Make a copy of the database as of a time or a position; without either, as of the end of the streams.

    The copy is an ordinary database without anything of HarmonyLite's. The running database is not touched.
    """
    if at is not None and position is not None:
        raise click.UsageError("-at and -position can't go together; give one of them")
    arguments = {"target": str(output.absolute()), "at": _seconds(at), "position": position}
    answer = _followed(invocation(ctx), "/v1/snapshot/restore", arguments, as_json=as_json)
    if not as_json:
        for entry in answer.get("left_out", ()):
            remark(f"the copy lacks a change set: {plain(entry['reason'])}")
        stream = "and the stream" if answer.get("streams", True) else "alone, without the stream"
        made_of = f"from {plain(answer['snapshot'])} {stream}"
        click.echo(f"made {plain(answer['file'])} at position {_positions(answer)}, {made_of}")


def save_snapshot(given: Invocation, *, as_json: bool) -> int:
    """Ask for a snapshot and say which it is; return the exit code."""
    answer = _followed(given, "/v1/snapshot", {}, as_json=as_json)
    if not as_json:
        click.echo(f"saved {plain(answer['name'])}, {answer['bytes']:,} bytes, at position {_positions(answer)}")
    return 0


def _seconds(at: str | None) -> float | None:
    if at is None:
        return None
    return moment(at, datetime.now().astimezone())


def _positions(answer: dict[str, Any]) -> str:
    return ", ".join(f"{shard}:{seq}" for shard, seq in sorted(dict(answer.get("positions") or {}).items())) or "-"


def _asked(given: Invocation, path: str, arguments: dict[str, Any]) -> WorkProgress:
    """Return how the running node is asked."""
    control = given.control(SAVE_SECONDS)
    asking = given.control(5.0)
    return WorkProgress(lambda: control.post(path, arguments), lambda: asking.get("/v1/status").get("progress"))


def _followed(given: Invocation, path: str, arguments: dict[str, Any], *, as_json: bool) -> dict[str, Any]:
    """Ask the node, or the store where no node runs and none is needed, and show meanwhile how far it is."""
    try:
        answer = followed(_asked(given, path, arguments), silent=as_json)
    except NotRunningError as error:
        if path not in SEPARATE:
            raise
        answer = followed(_offline(given, error, path, arguments), silent=as_json)
    if as_json:
        print_json(answer)
    return answer


def _offline(given: Invocation, error: NotRunningError, path: str, arguments: dict[str, Any]) -> WorkProgress:
    """Return how the store is asked without a node, as ``error`` says that none runs."""
    from harmonylite.node.offline import offline
    from harmonylite.status import NodeStatus

    settings, status = given.settings, NodeStatus()
    target = Path(str(arguments.get("target") or Path.cwd() / "list"))
    if not target.parent.is_dir():
        raise SnapshotError(f"there is no folder {target.parent}", advice="make it, or name another file with -o")
    remark(f"{error.message}: the store itself is asked")

    async def work() -> dict[str, Any]:
        async with offline(settings, status, target.parent) as past:
            match path:
                case "/v1/snapshots":
                    return {"snapshots": list(await past.snapshots())}
                case "/v1/snapshot/fetch":
                    return await past.fetch_snapshot(arguments["name"], arguments["target"])
            return await past.restore(arguments["target"], arguments["at"], arguments["position"])

    return WorkProgress(lambda: asyncio.run(work()), lambda: status.progress)
