"""Private names of nats-py that the client here uses: all are known, and the pinned version has them."""

from __future__ import annotations

import ast
from pathlib import Path

import nats.aio.client
import pytest

from harmonylite.nats.client import SureClient

FOLDER = Path(__file__).parents[3] / "src" / "harmonylite"

OVERRIDDEN = {"_build_message", "_close", "_process_headers", "_process_info", "_process_pong", "_read_loop"}
"""Methods of nats-py's client that `SureClient` replaces and calls."""

USED = {
    "_flush_queue",
    "_pending",
    "_pending_data_size",
    "_pings_outstanding",
    "_pongs",
    "_process_op_err",
    "_server_info",
    "_transport",
}
"""What else of the client is read or called."""

TRANSPORT = {"_bare_io_writer", "_io_writer"}
"""Attributes of its transports, asked for with a default."""


def private_names(path: Path) -> set[str]:
    """Return the private names that a file uses of ``self``, ``super()`` or a client, and does not define itself."""
    tree = ast.parse(path.read_text())
    own = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)}
    found = set()
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute) or not node.attr.startswith("_") or node.attr.startswith("__"):
            continue
        of_client = isinstance(node.value, ast.Attribute) and node.value.attr == "_client"
        if of_client or (path.name == "client.py" and node.attr not in own - USED):
            found.add(node.attr)
    return found


def test_every_private_name_that_is_used_is_listed() -> None:
    files = [path for path in FOLDER.rglob("*.py") if path.parent.name in ("nats", "jetstream", "regions")]
    assert set().union(*(private_names(path) for path in files)) - {"_insist_on_tls"} == OVERRIDDEN | USED


@pytest.mark.parametrize("name", sorted(OVERRIDDEN))
def test_the_library_has_what_is_overridden(name: str) -> None:
    assert callable(getattr(nats.aio.client.Client, name)), "nats-py changed: look at nats/client.py"
    assert getattr(SureClient, name) is not getattr(nats.aio.client.Client, name)


@pytest.mark.parametrize("name", sorted(USED))
def test_the_library_has_what_is_used(name: str) -> None:
    client = nats.aio.client.Client()
    assert hasattr(client, name), "nats-py changed: look at nats/client.py and nats/connection.py"


@pytest.mark.parametrize("name", sorted(TRANSPORT))
def test_the_library_still_writes_to_what_is_closed(name: str) -> None:
    assert name in Path(nats.aio.client.__file__).with_name("transport.py").read_text()
