"""What all commands share: the flags -config and -json, and what the command line gave.

Invariant: a command line has one `Invocation`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import rich_click as click

from harmonylite.cli.given import Invocation

Function = TypeVar("Function", bound=Callable[..., Any])


def invocation(ctx: click.Context) -> Invocation:
    """Return the one of the running command line."""
    return ctx.find_root().ensure_object(Invocation)


def _named(ctx: click.Context, _parameter: click.Parameter, path: Path | None) -> None:
    if path is not None:
        invocation(ctx).config = path


def _chosen(ctx: click.Context, _parameter: click.Parameter, name: str | None) -> None:
    if name is not None:
        invocation(ctx).database = name


def config_option(function: Function) -> Function:
    """Give a command the flags -config and -database, so that they may follow the command's name too."""
    which = click.option(
        "-database",
        expose_value=False,
        callback=_chosen,
        metavar="NAME",
        help="Name of the database, if the configuration has several.",
    )
    option = click.option(
        "-config",
        type=click.Path(path_type=Path),
        expose_value=False,
        callback=_named,
        metavar="FILE",
        help="Configuration file. Without it: config.toml in the working directory.",
    )
    return option(which(function))


def timeout_option(help: str, *, seconds: float = 30.0) -> Callable[[Function], Function]:
    """Return what gives a command the flag -timeout, as ``seconds``; ``help``: what happens after them."""
    return click.option(
        "-timeout",
        "seconds",
        type=click.FloatRange(0, 3600, min_open=True),
        default=seconds,
        show_default=True,
        metavar="S",
        help=help,
    )


def json_option(function: Function) -> Function:
    """Give a command the switch -json."""
    return click.option("-json", "as_json", is_flag=True, help="Print exact JSON on standard output.")(function)
