"""The embedded nats-server: a real one, as a supervised child of this process.

Invariant: from `open` to `aclose` the server runs or is being restarted; it never outlives this process, and its client
port never takes anyone without credentials.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import secrets
import signal
import time
from dataclasses import replace
from pathlib import Path

from harmonylite.backoff import Backoff, Retry
from harmonylite.errors import NO_ROOM, ConfigError, EmbeddedServerError, ForeignError
from harmonylite.identity import must_be_ours
from harmonylite.nats.credentials import client_context
from harmonylite.nats.names import redact
from harmonylite.nats.probes import accepts
from harmonylite.nats.settings import LinkSettings
from harmonylite.nats_server.binary import find_server
from harmonylite.nats_server.child_process import Child
from harmonylite.nats_server.cluster_secret import Refusals, RouteLogin, route_login
from harmonylite.nats_server.config_file import ClientLogin, OtherServers, ServerPlan, loopback, plan
from harmonylite.nats_server.disk_space import DiskSpace
from harmonylite.nats_server.log_repeats import LogRepeats
from harmonylite.nats_server.monitoring import read_metrics
from harmonylite.nats_server.open_ports import refuse_open_ports
from harmonylite.nats_server.routes import expand, whereabouts
from harmonylite.nats_server.server_files import ServerFile, client_port, generated, kept, ports_of, write_private
from harmonylite.nats_server.settings import EmbeddedSettings
from harmonylite.resource import Resource
from harmonylite.status import NodeStatus
from harmonylite.ticks import tick
from harmonylite.wire import token

log = logging.getLogger(__name__)
server_log = logging.getLogger("harmonylite.nats-server")

PART = "embedded"

RELOAD_SECONDS = 10.0
"""How long nats-server may take to read its configuration again."""

SOON = 1.0
"""Seconds from a start to the first check, and between checks while something is wrong."""

FIGURES_EVERY, ALONE_EVERY = 5.0, 15.0
"""Seconds between reads of the server's metrics: in a cluster they show whether it can decide anything, alone they are
only figures.
"""

# What the server logs in passing is detail here: a banner of thirty lines, each route that comes and goes.
IN_USE = "address already in use"
TAKEN = (
    "stop what listens there, or take another port (bind_address, cluster_addr, leaf_addr in [nats], or server_config)"
)

LEVELS = {
    "TRC": logging.DEBUG,
    "DBG": logging.DEBUG,
    "INF": logging.DEBUG,
    "WRN": logging.WARNING,
    "ERR": logging.ERROR,
    "FTL": logging.CRITICAL,
}
_LINE = re.compile(r"^(?:\[\d+\] )?(?:[\d/]+ [\d:.]+ )?\[(?P<level>[A-Z]{3})\] ?(?P<text>.*)$")
_BANNER = re.compile(r"^[\s_|/\\<>()-]*$")


class EmbeddedServer(Resource):
    """A nats-server for one node."""

    def __init__(self, settings: EmbeddedSettings, status: NodeStatus | None = None) -> None:
        self.settings = settings
        # The name becomes a folder: as one token it can't point anywhere else.
        self.folder = settings.folder / (settings.server or token(settings.node_name))
        self._name = ""
        self._status = status or NodeStatus()
        self._part = self._status.part(PART)
        self._binary = Path()
        self._plan = ServerPlan("", "127.0.0.1", -1, own_auth=True)
        self._port: int | None = None
        self._monitor = ""
        self._reloaded: asyncio.Future[str] | None = None
        self._secret_path = f"/{secrets.token_urlsafe(24)}"
        self._user, self._password = settings.user, settings.password
        self._child: Child | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._room = DiskSpace(self.folder)
        self._log_repeats = LogRepeats()
        self._here: tuple[str, ...] = ()
        self._login: RouteLogin | None = None
        self._refusals = Refusals()

    async def open(self) -> None:
        """Start the server, once its disk has room, and wait until it takes connections.

        Raises EmbeddedServerError, ConfigError.
        """
        self._binary = find_server()
        if self.settings.tls.wanted:  # it takes 30 ms and 2 MB
            await asyncio.to_thread(client_context, self.settings.tls)  # names the wrong file; nats-server doesn't
        while True:
            try:
                await self._begin()
                break
            except (EmbeddedServerError, OSError) as error:
                if getattr(error, "errno", None) not in NO_ROOM and not self._room.gone.is_set():
                    raise
            await self._await_room()
        self._part.ok()
        self._tasks = [
            asyncio.create_task(self._keep(), name="embedded nats-server"),
            asyncio.create_task(self._watch_metrics(), name="figures of the embedded nats-server"),
            asyncio.create_task(self._watch_disk(), name="room for the embedded nats-server"),
        ]

    async def _begin(self) -> None:
        for each in (self.settings.folder, self.folder):
            each.mkdir(parents=True, exist_ok=True, mode=0o700)
            must_be_ours(each)
        self._name = await asyncio.to_thread(ServerFile.claim, self.folder, self.settings.database)
        if not self._user:
            self._user, self._password = await asyncio.to_thread(generated, self.folder / "client-auth.json")
        try:
            await self._start()
        except BaseException:
            await asyncio.shield(self._stop())
            raise

    async def attach(self) -> bool:
        """Find this node's server where another process runs it, without starting one; return whether it runs.

        `url` and `link_settings` lead to it then. Raises ConfigError.
        """
        if not self._user:
            found = kept(self.folder / "client-auth.json")
            if found is None:
                return False
            self._user, self._password = found
        self._plan = await self._planned()
        for path in self.folder.glob("*.ports"):
            pid = path.stem.rpartition("_")[2]
            port = client_port(ports_of(self.folder, int(pid))) if pid.isdecimal() else 0
            if port and await accepts(self._plan.host, port):
                self._port = port
                return True
        return False

    async def aclose(self) -> None:
        """Stop the server: SIGTERM, SIGKILL after ``stop_seconds``. Safe to call twice; finishes when cancelled too."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await asyncio.shield(self._stop())
        self._part.set("stopped")

    async def reload(self) -> None:
        """Let the running server read certificates, the user's file and the names behind ``dns://`` again.

        Returns once it has. Raises EmbeddedServerError, ConfigError, OSError when it stays unchanged.
        """
        await self._write_config()
        if self._child is None or self._child.ended:
            return  # it is being started again, and reads everything by itself
        self._reloaded = asyncio.get_running_loop().create_future()
        self._child.signal(signal.SIGHUP)
        try:
            async with asyncio.timeout(RELOAD_SECONDS):
                failure = await self._reloaded
        except TimeoutError:
            failure = f"it did not say within {RELOAD_SECONDS:g} s that it has"
        if failure:
            raise EmbeddedServerError(f"the embedded nats-server did not take its configuration again: {failure}")
        try:
            await self._refuse_open_ports(self._child)
        except ConfigError:
            await self._stop()  # `_keep` starts it again once the file is corrected
            raise

    @property
    def pid(self) -> int:
        """Process id of the server that runs now, 0 when none does."""
        return self._child.pid if self._child is not None and not self._child.ended else 0

    @property
    def url(self) -> str:
        """Where the server takes clients, without credentials; the same after a restart, if the port is still free."""
        host = self._plan.host
        host = "127.0.0.1" if host in ("0.0.0.0", "") else "::1" if host == "::" else host  # noqa: S104
        scheme = "tls" if self.settings.tls.cert_file is not None else "nats"
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{self._port}"

    def urls(self) -> tuple[str, ...]:
        """Return `url` as the list that `NatsLink` asks for."""
        return (self.url,)

    def link_settings(self, base: LinkSettings) -> LinkSettings:
        """Return ``base`` turned towards this server: its address and credentials, tries without end."""
        auth = {"user": self._user, "password": self._password} if self._plan.own_auth or self.settings.user else {}
        tls = replace(self.settings.tls, check_hostname=not loopback(self._plan.host))
        return replace(
            base,
            urls=self.urls(),
            tls=tls,
            connect_retries=0,
            reconnect_wait=0.25,
            stick=True,
            **auth,  # type: ignore[arg-type] # two texts
        )

    async def _keep(self) -> None:
        retry = Retry(log, "the embedded nats-server", Backoff(first=0.1, most=10.0), logging.ERROR)
        while True:
            assert self._child is not None
            code = await self._child.wait()
            reason = self._why(code)
            self._status.server = {}
            while True:
                self._status.nats.restarts += 1
                pause = retry.failed(f"restarting embedded nats-server, which ended: {reason}", time.monotonic())
                self._part.waiting(f"nats-server ended by itself, is started again in {pause:.1f} s: {reason}")
                await asyncio.sleep(pause)
                try:
                    await self._start()
                    break
                except (EmbeddedServerError, ConfigError, OSError) as error:
                    reason = str(error)
                    await self._stop()
            self._part.ok()

    async def _watch_disk(self) -> None:
        """Wait for room after the disk was full, then end the server, which does not resume writing by itself."""
        while True:
            await self._room.gone.wait()
            await self._await_room()
            self._part.event("restarting nats-server: the disk of %(folder)s has room again", folder=self.folder)
            await self._stop()

    async def _await_room(self) -> None:
        self._part.waiting(f"no room is left on the disk of {self.folder}: free some; the server then starts by itself")
        await self._room.comes()

    async def _watch_metrics(self) -> None:
        """Keep the metrics in the status, and report when the cluster has no quorum."""
        shown, pause = "", 0.0
        retry = Retry(log, "reading the figures of nats-server", Backoff(first=SOON, most=FIGURES_EVERY), logging.DEBUG)
        while True:
            every = FIGURES_EVERY if self._here else ALONE_EVERY
            every = every if self._status.server and not shown else SOON
            await (asyncio.sleep(pause) if pause else tick(every))
            pause = 0.0
            if not self._monitor or (self._part.state == "waiting" and self._part.reason != shown):
                continue
            try:
                found = await read_metrics(self._monitor)
            except (OSError, ForeignError) as error:  # TimeoutError is an OSError
                pause = retry.failed(error, time.monotonic())
                continue
            self._status.server = found.values
            if found.here != self._here:  # not at each check: a server that is knocked at writes a line of its own
                self._status.servers = await whereabouts(found.here, self.settings.cluster_peers)
                self._here = found.here
            refused = self._refusals.said(time.monotonic())
            # Who is refused while the cluster can decide is no reason to wait: any server may try.
            absent = "" if "not reached" in found.trouble else self._status.servers.partition("; ")[2]
            trouble = "; ".join(filter(None, (found.trouble, absent, refused))) if found.trouble else ""
            if refused and not trouble and refused != shown:
                self._part.event(refused, warning=True)
            if trouble:
                self._part.waiting(trouble)
            elif self._part.reason == shown:
                self._part.ok()
            shown = trouble or refused

    async def _planned(self) -> ServerPlan:
        settings = self.settings
        self._login = await asyncio.to_thread(route_login, settings)
        self._refusals.source = self._login.source if self._login is not None else "none"
        return plan(
            settings,
            self.folder,
            name=self._name,
            others=OtherServers(
                routes=await expand(settings.cluster_peers, 4248), leaf_urls=await expand(settings.leaf_servers, 7422)
            ),
            client=ClientLogin(self._user, self._password),
            login=self._login,
            port=self._port,
            monitor_path=self._secret_path,
        )

    async def _write_config(self) -> Path:
        self._plan = await self._planned()
        config = self.folder / "nats-server.conf"
        await asyncio.to_thread(write_private, config, self._plan.text)
        return config

    async def _start(self) -> None:
        settings = self.settings
        config = await self._write_config()
        for stale in self.folder.glob("*.ports"):
            stale.unlink(missing_ok=True)
        self._child = Child(self._log)
        command = [str(self._binary), "-c", str(config), "--ports_file_dir", str(self.folder)]
        try:
            await self._child.start(command)
            async with asyncio.timeout(settings.start_seconds):
                self._port = await self._listening(self._child)
            await self._refuse_open_ports(self._child)
        except TimeoutError:
            raise EmbeddedServerError(
                f"nats-server did not take connections within {settings.start_seconds:g} s", advice=f"see {config}"
            ) from None
        except OSError as error:
            raise EmbeddedServerError(f"nats-server can't be started: {error}") from None

    async def _listening(self, child: Child) -> int:
        """Return the client port once the server takes connections there; raises EmbeddedServerError when it ends."""
        ended = asyncio.ensure_future(child.wait())
        try:
            while True:
                done, _ = await asyncio.wait([ended], timeout=0.02)
                if done:
                    raise self._not_started(ended.result())
                ports = ports_of(self.folder, child.pid)
                port = client_port(ports)
                if port and await accepts(self._plan.host, port):
                    self._monitor = next((u for u in ports.get("monitoring") or [] if u.startswith("http://")), "")
                    self._monitor += self._plan.monitor_path if self._monitor else ""
                    return port
        finally:
            ended.cancel()

    async def _refuse_open_ports(self, child: Child) -> None:
        """Raise ConfigError when the user's file lets other machines in without credentials, without insisting."""
        user_file = self.settings.server_config
        if user_file is None or self.settings.insecure:
            return
        await refuse_open_ports(user_file, ports_of(self.folder, child.pid))

    def _not_started(self, code: int) -> EmbeddedServerError:
        reason = self._why(code)
        if IN_USE in reason and self._port is not None:
            self._port = None  # another program took the port that the system chose last time; it may choose again
        user_file = self.settings.server_config
        if user_file is not None:
            relative = os.path.relpath(user_file.resolve(), self.folder.resolve())
            reason = reason.replace(relative, str(user_file)).replace(str(user_file.resolve()), str(user_file))
        return EmbeddedServerError(f"nats-server did not start: {reason}", advice=TAKEN if IN_USE in reason else "")

    def _why(self, code: int) -> str:
        lines = list(self._child.lines) if self._child is not None else []
        errors = [m["text"] for line in lines if (m := _LINE.match(line)) and m["level"] in ("FTL", "ERR")]
        errors += [line.removeprefix("nats-server: ") for line in lines if line.startswith("nats-server: ")]
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return self._redacted(f"{errors[-1]} ({how})" if errors else how)

    def _redacted(self, text: str) -> str:
        text = redact(text)
        for secret in (self._password, self._login.password if self._login is not None else ""):
            text = text.replace(secret, "***") if secret else text
        return text

    def _log(self, line: str) -> None:
        match = _LINE.match(line)
        level, text = (LEVELS.get(match["level"], logging.INFO), match["text"]) if match else (logging.INFO, line)
        # Its file is 0600 and the password a random one; the warning would alarm for nothing.
        if _BANNER.match(text) or text.startswith("Plaintext passwords detected"):
            return
        known = self._room.gone.is_set()
        if self._room.note_line(text) and known:
            level = logging.DEBUG
        if self._refusals.note_line(text, time.monotonic()):
            level = logging.DEBUG
        if said := self._log_repeats.passed(text, time.monotonic()) if level >= logging.WARNING else text:
            server_log.log(level, "%s", self._redacted(said))
        if self._reloaded is not None and not self._reloaded.done():
            if text.startswith("Failed to reload"):
                self._reloaded.set_result(self._redacted(text))
            elif text.startswith("Reloaded server configuration"):
                self._reloaded.set_result("")

    async def _stop(self) -> None:
        if self._child is not None:
            await self._child.stop(self.settings.stop_seconds)
