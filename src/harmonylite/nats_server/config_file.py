"""The configuration file of the embedded nats-server: ours, with the user's file merged over it.

Invariant: no key of ours conflicts with one of the user's. nats-server replaces a whole block by an included one of
the same name, but adds up blocks whose names differ in case only; so our part of a block that the user has too is
written in another case and holds only what the user left out.
"""

from __future__ import annotations

import ipaddress
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from harmonylite.errors import ConfigError
from harmonylite.nats.names import split_address
from harmonylite.nats.settings import TlsSettings
from harmonylite.nats_server.cluster_secret import RouteLogin
from harmonylite.nats_server.config_keys import conf_keys
from harmonylite.nats_server.settings import EmbeddedSettings

_LISTEN = ("listen", "host", "net", "port")
_AUTH = ("authorization", "accounts", "operator", "operators", "roots", "root", "trusted", "trusted_keys", "resolver")
_MONITOR = ("http", "http_port", "monitor_port", "https", "https_port")
_STORE = ("store_dir", "storedir", "jetstream.store_dir", "jetstream.storedir", "jetstream.store")


@dataclass(frozen=True, slots=True)
class ServerPlan:
    """What `plan` decided. ``port``: -1 = the system chooses. ``own_auth``: the client port wants our credentials.

    ``monitor_path``: the prefix of every path of the monitoring port.
    """

    text: str
    host: str
    port: int
    own_auth: bool
    monitor_path: str = ""


def loopback(host: str) -> bool:
    """True when ``host`` is reachable from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def listen_address(settings: EmbeddedSettings) -> tuple[str, int]:
    """Return host and port of the client port (-1 = any); raises ConfigError when it would be open to everyone."""
    if not settings.bind_address:
        return "127.0.0.1", -1
    host, port = split_address(settings.bind_address, -1)
    host = host or "0.0.0.0"  # noqa: S104 - `:port` means all interfaces, as it does for nats-server
    _guarded(host, settings, "bind_address", settings.bind_address)
    return host, port


def _guarded(host: str, settings: EmbeddedSettings, key: str, address: str, *, secret: bool = False) -> None:
    if not loopback(host) and not (settings.user and settings.password) and not secret and not settings.insecure:
        own = ", or cluster_secret_file" if key == "cluster_addr" else ""
        raise ConfigError(
            f"{key} {address!r} opens the embedded NATS server to other machines without credentials",
            advice=f"set user_name and user_password in [nats]{own}, or insecure = true to insist",
        )


@dataclass(frozen=True, slots=True)
class OtherServers:
    """Servers to link to, as ``host:port``: those of the cluster, and those of other regions."""

    routes: Sequence[str]
    leaf_urls: Sequence[str]


@dataclass(frozen=True, slots=True)
class ClientLogin:
    """What the client port asks for; ``user`` "": nothing."""

    user: str
    password: str = field(repr=False)


def plan(
    settings: EmbeddedSettings,
    folder: Path,
    *,
    name: str,
    others: OtherServers,
    client: ClientLogin,
    login: RouteLogin | None = None,
    port: int | None = None,
    monitor_path: str = "",
) -> ServerPlan:
    """Return the configuration as text and what it says of the client port; raises ConfigError.

    ``name``: of the server in its cluster. ``login``: what routes ask for and give. ``port``: chosen earlier, kept over
    restarts. ``monitor_path``: a secret under which monitoring answers, where the user opens no monitoring port.
    """
    host, asked = listen_address(settings)
    port = asked if port is None or asked > 0 else port
    given = frozenset[str]()
    if settings.server_config is not None:
        if not settings.server_config.is_file():
            raise ConfigError(f"server_config {settings.server_config}: no such file")
        given = conf_keys(settings.server_config)
    if login is not None and login.found and "cluster.authorization" in given:
        login = None  # the user's own file says what routes ask for
    top: dict[str, Any] = {
        "server_name": name,
        "logtime": False,
        "max_payload": settings.max_payload,
    }
    if settings.leaf_addr or others.leaf_urls:
        # A line that dies silently is else taken for alive for minutes. It ends between two and four intervals later: a
        # ping is left out where something arrived within the last interval, and the third without an answer ends it.
        top |= {"ping_interval": "2.5s", "ping_max": 2}
    if not given & set(_LISTEN):
        top["listen"] = f"{_bracketed(host)}:{port}"
    own_auth = bool(client.user) and not given & set(_AUTH)
    if own_auth:
        top["authorization"] = {"user": client.user, "password": client.password, "timeout": 5}
    if settings.tls.cert_file is not None:
        top["tls"] = _tls(settings.tls)
    if given & {*_MONITOR, "http_base_path"}:
        monitor_path = ""
    else:
        # nats-server asks no client for a password there, so the path is the password.
        top |= {"http": "127.0.0.1:-1", "http_base_path": monitor_path} if monitor_path else {}
    lines = [_line(key, value) for key, value in top.items() if key not in given]
    blocks = {
        "jetstream": {} if settings.guest else _jetstream(settings, folder, given),
        "cluster": _cluster(settings, others.routes, login),
        "leafnodes": _leafnodes(settings, others.leaf_urls),
    }
    lines += [line for name, block in blocks.items() for line in _block(name, block, given)]
    if settings.server_config is not None:
        # nats-server takes the path of an include as relative to the including file, even an absolute one.
        relative = os.path.relpath(settings.server_config.resolve(), folder.resolve())
        lines.append(f"include {json.dumps(relative)}")
    return ServerPlan("\n".join(lines) + "\n", host, port, own_auth, monitor_path)


def _jetstream(settings: EmbeddedSettings, folder: Path, given: frozenset[str]) -> dict[str, Any]:
    # By default an acknowledged message may not be on disk for two minutes; then a power cut takes it back.
    block: dict[str, Any] = {"sync_interval": "always"}
    if not given & set(_STORE):
        block["store_dir"] = str(folder.resolve())
    if settings.domain:
        block["domain"] = settings.domain
    return block


def _cluster(settings: EmbeddedSettings, routes: Sequence[str], login: RouteLogin | None) -> dict[str, Any]:
    if not settings.cluster_addr:
        return {}
    host, port = split_address(settings.cluster_addr, 4248)
    secret = login is not None and not login.found
    _guarded(host or "0.0.0.0", settings, "cluster_addr", settings.cluster_addr, secret=secret)  # noqa: S104 - as for bind_address
    block: dict[str, Any] = {
        "name": settings.cluster_name,
        "listen": f"{_bracketed(host or '0.0.0.0')}:{port}",  # noqa: S104 - the same
        # Without a route JetStream refuses to start in a cluster; a route to itself makes it wait for the first peer.
        "routes": [_url("nats", route, login) for route in routes or [f"{_bracketed(host or '127.0.0.1')}:{port}"]],
    }
    if login is not None:
        block["authorization"] = {"user": login.user, "password": login.password, "timeout": 5}
    if settings.tls.cert_file is not None:
        block["tls"] = _tls(settings.tls)
    return block


def _leafnodes(settings: EmbeddedSettings, urls: Sequence[str]) -> dict[str, Any]:
    block: dict[str, Any] = {}
    if settings.leaf_addr:
        host, port = split_address(settings.leaf_addr, 7422)
        if not settings.user and settings.server_config is None:
            # Who connects would have to know the generated password of the client port.
            raise ConfigError(
                f"leaf_addr {settings.leaf_addr!r} takes leaf links with credentials only",
                advice="set user_name and user_password in [nats], the same in both regions",
            )
        block["listen"] = f"{_bracketed(host or '0.0.0.0')}:{port}"  # noqa: S104 - the same
        # Other regions use the addresses in their configuration, which may be another network's.
        block["no_advertise"] = True
        if settings.user:
            block["authorization"] = {"user": settings.user, "password": settings.password, "timeout": 5}
        if settings.tls.cert_file is not None:
            block["tls"] = _tls(settings.tls)
    if urls:
        login = RouteLogin(settings.user, settings.password) if settings.user else None
        remote: dict[str, Any] = {"urls": [_url("nats-leaf", url, login) for url in urls]}
        if settings.tls.wanted:
            remote["tls"] = _tls(settings.tls)
        block |= {"remotes": [remote], "reconnect": "1s"}
    return block


def _url(scheme: str, address: str, login: RouteLogin | None) -> str:
    if "@" in address or login is None:
        return f"{scheme}://{address}"
    return f"{scheme}://{quote(login.user, safe='')}:{quote(login.password, safe='')}@{address}"


def _tls(tls: TlsSettings) -> dict[str, Any]:
    files = {"cert_file": tls.cert_file, "key_file": tls.key_file, "ca_file": tls.ca_file}
    block: dict[str, Any] = {key: str(path.resolve()) for key, path in files.items() if path is not None}
    if tls.ca_file is not None and tls.cert_file is not None:
        block["verify"] = True
    return block


def _block(name: str, block: dict[str, Any], given: frozenset[str]) -> list[str]:
    left = {key: value for key, value in block.items() if f"{name}.{key}" not in given}
    # An address that the user writes in two keys conflicts with ours in one.
    if given & {f"{name}.host", f"{name}.port"}:
        left.pop("listen", None)
    whole = name in given and not any(key.startswith(f"{name}.") for key in given)
    if not left or whole:
        return []
    return [_line(name.upper() if name in given else name, left)]


def _line(key: str, value: Any) -> str:
    return f"{key}: {json.dumps(value)}"


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
