"""The process: signals, log and systemd around the node of one database, or the nodes of several.

Invariant: the first signal drains, the second cuts; every end has an exit code, and one line where no signal asked for
it.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Sequence

from harmonylite.config import Settings
from harmonylite.config import secrets as known_secrets
from harmonylite.logs import LogTail, configure
from harmonylite.node.databases import Databases
from harmonylite.node.exit import cut_short, ended_by
from harmonylite.node.node import NodeRuntime
from harmonylite.systemd import supervised

log = logging.getLogger(__name__)


async def run(databases: Sequence[Settings]) -> int:
    """Run until a signal ends it; return the exit code. ``databases``: one without a name, or several."""
    tail, first = LogTail(), databases[0]
    configure(first.logging, known_secrets=[secret for each in databases for secret in known_secrets(each)], tail=tail)
    runtime = Databases(databases, tail) if first.name else NodeRuntime(first, tail)
    loop = asyncio.get_running_loop()

    def stop() -> None:
        if runtime.status_object.stopping:
            cut_short()
        log.info("stopping: publishing what is committed, if NATS is reachable; a second signal stops at once")
        runtime.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    loop.add_signal_handler(signal.SIGHUP, runtime.renew)
    try:
        async with supervised(runtime.status_object):
            await runtime.run()
    except Exception as error:  # noqa: BLE001 # the process's edge: whatever it is, it is logged and has an exit code
        return ended_by(error)
    log.info("stopped")
    return 0
