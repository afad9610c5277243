"""What the command line says of the node: which configuration, and what flags change in it.

Invariant: the configuration is read only by a command that needs it, and at most once. Nothing here needs click: a
line that only runs the node (`node_line`) is read without it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harmonylite.client.control_client import ControlClient
    from harmonylite.config import Settings

OVERRIDES = {
    "cluster_addr": "nats.cluster_addr",
    "cluster_peers": "nats.cluster_peers",
    "cluster_secret_file": "nats.cluster_secret_file",
    "leaf_servers": "nats.leaf_servers",
    "node_id": "node_id",
}
"""Flags with a value, and the keys that they set."""


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

    def take(self, flags: Mapping[str, Any]) -> None:
        """Take what the flags of ``harmonylite`` itself say; None: not given."""
        self.config, self.verbose, self.database = flags["config"], flags["verbose"], flags["database"] or ""
        self.overrides |= {key: flags[flag] for flag, key in OVERRIDES.items() if flags[flag] is not None}
        if self.verbose:
            self.overrides["logging.verbose"] = True
