"""Bytes that others wrote are decoded in one module, so that no decoder is without bounds and a test of its own."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[3] / "src" / "harmonylite"

DECODERS = {
    "msgspec.json.decode",
    "msgspec.msgpack.decode",
    "msgspec.json.Decoder",
    "msgspec.msgpack.Decoder",
    "msgspec.convert",
    "json.load",
    "json.loads",
    "pickle.load",
    "pickle.loads",
    "marshal.loads",
    "ast.literal_eval",
}
"""What turns bytes into values."""

OURS = {
    "foreign.py": "the one place",
    "wire.py": "the stream's messages, with an error and tests of their own (tests/rules/wire)",
}

PLAIN = {
    "changes/sharding.py": (1, "text that was just encoded here"),
    "cli/nkey_command.py": (2, "a seed that was just made here, or was checked by its checksum"),
    "db/mirror/positions.py": (1, "text that was just encoded here"),
    "nats_server/cluster_secret.py": (2, "bytes that were just seen to be ASCII"),
    "jetstream/regions/failover_streams.py": (1, "text that was just encoded here"),
    "jetstream/object_store.py": (3, "base64 that was just made here; what comes from NATS is decoded within a try"),
    "jetstream/stream_metadata.py": (1, "text that was just encoded here"),
    "nats_server/server_files.py": (2, "text that was just encoded here"),
    "config/load.py": (1, "text that the program itself encoded, here or in the process that runs its node"),
    "snapshots/signing.py": (1, "a public key that the library of NKeys wrote"),
    "stores/host_keys.py": (1, "a key that the SSH library exports"),
    "web/page.py": (1, "base64 that was just made here"),
}
"""How often a file decodes what nobody else wrote, or handles what can't be decoded right there, and what that is."""


def dotted(node: ast.AST) -> str:
    """Return ``a.b.c`` for such an expression, "" for any other."""
    if isinstance(node, ast.Attribute):
        before = dotted(node.value)
        return f"{before}.{node.attr}" if before else ""
    return node.id if isinstance(node, ast.Name) else ""


def strict_text(call: ast.Call) -> bool:
    """Return whether a call is ``.decode()`` of bytes that raises for what is not UTF-8."""
    if not isinstance(call.func, ast.Attribute) or call.func.attr != "decode":
        return False
    if any(keyword.arg == "errors" for keyword in call.keywords) or len(call.args) > 1:
        return False
    return all(isinstance(each, ast.Constant) and isinstance(each.value, str) for each in call.args)


def raw_decoders(text: str) -> Iterator[str]:
    """Yield line and name of each decoder in a program that is not a codec's."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call) and dotted(node.func) in DECODERS:
            yield f"line {node.lineno}: {dotted(node.func)}"
        elif isinstance(node, ast.Call) and strict_text(node):
            yield f"line {node.lineno}: decode()"
        elif isinstance(node, ast.ImportFrom) and node.module in ("msgspec.json", "msgspec.msgpack", "json"):
            yield f"line {node.lineno}: from {node.module}"


FILES = sorted(str(path.relative_to(SOURCE)) for path in SOURCE.rglob("*.py"))


@pytest.mark.parametrize("file", [file for file in FILES if file not in OURS])
def test_a_file_decodes_by_a_codec(file: str) -> None:
    found = list(raw_decoders((SOURCE / file).read_text()))
    allowed, _ = PLAIN.get(file, (0, ""))
    assert len(found) == allowed, (
        f"make a harmonylite.foreign.Codec for it: it bounds and names what goes wrong: {found}"
    )


def test_the_exceptions_are_files() -> None:
    assert {*OURS, *PLAIN} <= set(FILES)


@pytest.mark.parametrize(
    "text",
    [
        "json.loads(x)",
        "msgspec.json.decode(x, type=T)",
        "msgspec.msgpack.Decoder(T)",
        "x.decode()",
        "y[0].decode('ascii')",
        "from json import loads",
        "msgspec.convert(x, T)",
    ],
)
def test_a_raw_decoder_is_seen(text: str) -> None:
    assert list(raw_decoders(text))


@pytest.mark.parametrize("text", ["CODEC.decode(data)", "x.decode(errors='replace')", "json.dumps(x)", "decode(x)"])
def test_others_are_not(text: str) -> None:
    assert not list(raw_decoders(text))
