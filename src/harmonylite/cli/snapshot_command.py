"""``harmonylite snapshot``: list, save, fetch; restore the database as it was."""

from __future__ import annotations

import sys
import threading
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from harmonylite.cli.go_flags import GoCommand, GoGroup
from harmonylite.cli.invocation import Invocation, config_option, invocation, json_option
from harmonylite.cli.output import console, local_time, plain, print_json, table
from harmonylite.errors import ConfigError, HarmonyLiteError

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

SAVE_SECONDS = 3600.0
"""Time for one snapshot: large databases and slow stores take long."""
LOOK_SECONDS = 0.25
"""Pause between two looks at how far the node is."""


@click.group(cls=GoGroup)
def snapshot() -> None:
    """List, save and fetch snapshots; restore the database as it was at a time."""


@snapshot.command("list", cls=GoCommand)
@json_option
@config_option
@click.pass_context
def listing(ctx: click.Context, as_json: bool) -> None:
    """List the snapshots in the store, the newest first; * is the one that a new node starts from."""
    answer = invocation(ctx).control(60.0).get("/v1/snapshots")
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
    """Let the running node save a snapshot now, and wait until it is stored."""
    ctx.exit(save_snapshot(invocation(ctx), as_json=as_json))


@snapshot.command(cls=GoCommand)
@click.argument("name", default="")
@click.option("-o", "-output", "output", type=click.Path(path_type=Path), required=True, help="The new file.")
@json_option
@config_option
@click.pass_context
def fetch(ctx: click.Context, name: str, output: Path, as_json: bool) -> None:
    """Fetch snapshot NAME, the newest one without a name, into a new file: unpacked, its digest checked.

    The file is a mirror: the tables with their rows, and what HarmonyLite keeps beside them.
    """
    arguments = {"name": name, "target": str(output.absolute())}
    answer = _followed(invocation(ctx), "/v1/snapshot/fetch", arguments, as_json=as_json)
    if not as_json:
        size = f"{answer['size']:,} bytes, at position {_positions(answer)}"
        click.echo(f"fetched {plain(answer['name'])} into {plain(answer['file'])}, {size}")


@snapshot.command(cls=GoCommand)
@click.option("-o", "-output", "output", type=click.Path(path_type=Path), required=True, help="The new file.")
@click.option("-at", metavar="TIME", help="As it was then, for example 2026-11-20T10:00; local time without a zone.")
@click.option("-position", type=click.IntRange(0), help="As it was at this position of the stream.")
@json_option
@config_option
@click.pass_context
def restore(ctx: click.Context, output: Path, at: str | None, position: int | None, as_json: bool) -> None:
    """Make a copy of the database as it was at a time or a position; without either, as it is in the stream now.

    The copy is an ordinary database without anything of HarmonyLite's. The running database is not touched.
    """
    if at is not None and position is not None:
        raise click.UsageError("-at and -position can't go together; give one of them")
    arguments = {"target": str(output.absolute()), "at": _seconds(at), "position": position}
    answer = _followed(invocation(ctx), "/v1/snapshot/restore", arguments, as_json=as_json)
    if not as_json:
        made_of = f"from {plain(answer['snapshot'])} and the stream"
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
    try:
        return datetime.fromisoformat(at).astimezone().timestamp()
    except (ValueError, OverflowError, OSError):
        raise ConfigError(
            f"-at {at!r} is not a time", advice="write it as 2026-11-20T10:00 or 2026-11-20T10:00Z"
        ) from None


def _positions(answer: dict[str, Any]) -> str:
    return ", ".join(f"{shard}:{seq}" for shard, seq in sorted(dict(answer.get("positions") or {}).items())) or "-"


def _followed(given: Invocation, path: str, arguments: dict[str, Any], *, as_json: bool) -> dict[str, Any]:
    """Ask the node for something that takes long; in a terminal, show meanwhile how far it is."""
    plainly = as_json or not sys.stderr.isatty()
    answer = given.control(SAVE_SECONDS).post(path, arguments) if plainly else _with_bar(given, path, arguments)
    if as_json:
        print_json(answer)
    return answer


def _with_bar(given: Invocation, path: str, arguments: dict[str, Any]) -> dict[str, Any]:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, SpinnerColumn, TextColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    done = threading.Event()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("copying the mirror", total=None)
        looking = threading.Thread(target=_look, args=(given, bar, task, done), daemon=True, name="progress")
        looking.start()
        try:
            return given.control(SAVE_SECONDS).post(path, arguments)
        finally:
            done.set()
            looking.join()


def _look(given: Invocation, bar: Progress, task: TaskID, done: threading.Event) -> None:
    while not done.wait(LOOK_SECONDS):
        try:
            found = given.control(5.0).get("/v1/status").get("progress")
        except HarmonyLiteError:
            continue
        if found:
            bar.update(task, description=plain(found[0]), completed=found[1], total=found[2])
