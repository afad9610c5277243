"""``harmonylite nats``: operating the NATS that the nodes use.

Invariant: the node need not run; a command names what it changes, and has its own exit code.
"""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import rich_click as click

from harmonylite.cli.go_flags import GoCommand, GoGroup
from harmonylite.cli.invocation import config_option, invocation, json_option
from harmonylite.cli.output import print_json, remark


@click.group(cls=GoGroup)
def nats() -> None:
    """Move the streams between embedded and external NATS, or run an embedded server by itself."""


@nats.command(cls=GoCommand)
@click.argument("file", type=click.Path(path_type=Path))
@json_option
@config_option
@click.pass_context
def move(ctx: click.Context, file: Path, as_json: bool) -> None:
    """Move all streams from the NATS of this configuration to that of FILE.

    Nodes may run meanwhile: writes queue. Afterwards start every node with its new configuration. The old streams are
    kept, but accept no more messages.
    """
    from harmonylite.config import load
    from harmonylite.node.stream_migration import move as move_all

    given = invocation(ctx)
    carried = asyncio.run(move_all(given.settings, load(file, database=given.database), remark))
    if as_json:
        print_json({"moved": [each.name for each in carried]})
        return
    click.echo(f"{len(carried)} streams moved; start every node with its configuration for the new place now")


@nats.command(cls=GoCommand)
@json_option
@config_option
@click.pass_context
def release(ctx: click.Context, as_json: bool) -> None:
    """Let the streams here accept messages again, after a move that you don't want after all.

    Only before any node has used the new streams: what was published there would be missing here.
    """
    from harmonylite.node.stream_migration import release_all

    names = asyncio.run(release_all(invocation(ctx).settings))
    if as_json:
        print_json({"released": list(names)})
        return
    click.echo(f"take messages again: {', '.join(names)}" if names else "no stream was held")


@nats.command(cls=GoCommand)
@config_option
@click.pass_context
def serve(ctx: click.Context) -> None:
    """Run only the embedded server of this configuration, without its node, until Ctrl-C.

    For a move to embedded servers in a cluster: each machine's server must be up to receive the streams.
    """
    from harmonylite import logs
    from harmonylite.config import secrets

    settings = invocation(ctx).databases[0]
    logs.configure(settings.logging, known_secrets=secrets(settings))

    async def run() -> None:
        from harmonylite.node.stream_migration import serving

        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        async with serving(settings) as server:
            click.echo(f"nats-server listens at {server.url}")
            await stop.wait()

    asyncio.run(run())
