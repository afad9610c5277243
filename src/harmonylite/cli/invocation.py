"""What all commands share: which configuration is meant, and what the flags said.

Invariant: the configuration is read only by a command that needs it, and at most once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import rich_click as click

if TYPE_CHECKING:
    from harmonylite.client.control_client import ControlClient
    from harmonylite.config import Settings

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass
class Invocation:
    """``config``: the file that was named, None = none. ``database``: which of several of one process is meant, "" =
    the only one. ``overrides``: dotted keys that flags set.
    """

    config: Path | None = None
    database: str = ""
    overrides: dict[str, Any] = field(default_factory=dict)
    verbose: bool = False

    @property
    def file(self) -> Path | None:
        """The configuration file: the named one, else ``config.toml`` here where it exists, else None."""
        from harmonylite.config import DEFAULT_FILE

        default = Path(DEFAULT_FILE)
        return self.config or (default if default.exists() else None)

    @cached_property
    def settings(self) -> Settings:
        """The configuration of the database that is meant, read and checked; raises ConfigError."""
        from harmonylite.config import load

        return load(self.file, self.overrides, database=self.database)

    @cached_property
    def databases(self) -> Sequence[Settings]:
        """The configurations of all databases of the process."""
        from harmonylite.config import load_all

        return load_all(self.file, self.overrides)

    def control(self, seconds: float = 15.0) -> ControlClient:
        """Return the way to the running node of the configured database; raises NotRunningError."""
        from harmonylite.client.control_client import ControlClient

        start = f"harmonylite -config {self.file}" if self.file else "harmonylite"
        return ControlClient.find(self.settings.db_path, start=start, seconds=seconds)


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
        help="Which database is meant, where the configuration has several.",
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


def json_option(function: Function) -> Function:
    """Give a command the switch -json."""
    return click.option("-json", "as_json", is_flag=True, help="Print exact JSON on standard output.")(function)
