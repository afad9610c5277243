"""``harmonylite status``: the state of the running node.

Invariant: everything that is shown comes from one answer of the node.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import rich_click as click

from harmonylite.cli.given import Invocation
from harmonylite.cli.go_flags import GoCommand
from harmonylite.cli.invocation import config_option, invocation, json_option
from harmonylite.cli.output import console, print_json
from harmonylite.errors import NotAnsweringError, NotRunningError

if TYPE_CHECKING:
    from rich.console import RenderableType

WATCH_SECONDS = 1.0


@click.command(cls=GoCommand)
@click.option("-watch", is_flag=True, help="Refresh every second, until Ctrl-C.")
@click.option("-cluster", is_flag=True, help="Show every node of the cluster, one line each.")
@json_option
@config_option
@click.pass_context
def status(ctx: click.Context, watch: bool, cluster: bool, as_json: bool) -> None:
    """Show the running node's state, what it waits for, and how far behind it is."""
    given = invocation(ctx)
    try:
        if watch:
            _watch_lines(given, cluster) if as_json or not console().is_terminal else _watch_screen(given, cluster)
        elif as_json:
            print_json(_report(given, cluster))
        else:
            console().print(_shown(given, cluster))
    except KeyboardInterrupt:
        ctx.exit(0)


def _report(given: Invocation, cluster: bool) -> dict[str, object]:
    return given.control().get("/v1/cluster" if cluster else "/v1/status")


def _shown(given: Invocation, cluster: bool) -> RenderableType:
    from harmonylite.cli.status_view import render, render_cluster

    if cluster:
        return render_cluster(given.control().get("/v1/cluster")["nodes"])
    return render(given.control().get("/v1/status"))


def _watch_lines(given: Invocation, cluster: bool) -> None:
    while True:
        print_json(_report(given, cluster), lines=True)
        time.sleep(WATCH_SECONDS)


def _watch_screen(given: Invocation, cluster: bool) -> None:
    """Keep showing it, also while the node is stopped and started again."""
    from rich.live import Live
    from rich.text import Text

    with Live(Text("asking the node"), console=console(), auto_refresh=False, screen=False) as live:
        while True:
            try:
                shown = _shown(given, cluster)
            except (NotRunningError, NotAnsweringError) as error:
                shown = Text(str(error), "yellow")
            live.update(shown, refresh=True)
            time.sleep(WATCH_SECONDS)
