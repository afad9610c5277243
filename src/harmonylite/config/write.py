"""Write the configuration: the effective one, a commented template, and the reference for the docs.

Invariant: all three come from the sections' own metadata, so they always agree with the code; secrets are masked.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from dataclasses import MISSING
from pathlib import Path
from typing import Any

from harmonylite.config.layers import ENVIRONMENT_PREFIX
from harmonylite.config.load import value_of
from harmonylite.config.secret_text import MASK, Secret, Url
from harmonylite.config.section import Key, Section, keys, sections
from harmonylite.config.settings import Settings

WIDTH = 100

HEAD = """\
## HarmonyLite. Every key is shown with its default; remove the "# " before a key to change it.
## `harmonylite config check FILE` shows what is wrong with this file and what is in effect.
## Each key can also come from the environment: HARMONYLITE_NATS__USER_PASSWORD is user_password in [nats].
"""


def effective(settings: Settings) -> str:
    """Return ``settings`` as TOML, every key of it, secrets masked."""
    blocks = []
    for path, model in sections(Settings):
        lines = [f"[{'.'.join(path)}]"] if path else []
        tables = []
        for key in _own(path, model):
            value = value_of(settings, key.path)
            if isinstance(value, dict):
                tables += ["", *_table(key, value)] if value else []
            else:
                lines.append(f"{key.path[-1]} = {toml(value)}")
        if len(lines) > bool(path):
            blocks.append("\n".join(lines + tables))
    return "\n\n".join(blocks) + "\n"


def template() -> str:
    """Return a commented configuration file with every key at its default."""
    blocks = [HEAD]
    for path, model in sections(Settings):
        own = [_documented(key) for key in _own(path, model)]
        title = _comment(_plain(model.__doc__ or ""))
        head = f"{title}\n[{'.'.join(path)}]\n" if path else ""
        blocks.append(head + "\n".join(own))
    return "\n\n".join(blocks).rstrip() + "\n"


def reference() -> str:
    """Return the tables of all keys as Markdown, for ``docs/configuration.md``."""
    blocks = []
    for path, model in sections(Settings):
        own = list(_own(path, model))
        if not own:
            continue
        title = f"### `[{'.'.join(path)}]`" if path else "### At the top of the file"
        rows = [f"| `{key.path[-1]}` | {_shown_default(key)} | {_cell(key.description)} |" for key in own]
        blocks.append(
            "\n".join(
                [title, "", model.__doc__ or "", "", "| key | default | what it does |", "| --- | --- | --- |", *rows]
            )
        )
    return "\n\n".join(blocks) + "\n"


def variable(key: Key) -> str:
    """Return the environment variable of ``key``."""
    return ENVIRONMENT_PREFIX + "__".join(key.path).upper()


def toml(value: Any) -> str:
    """Return ``value`` as TOML, secrets masked."""
    match value:
        case Secret():
            return toml(MASK if value.get_secret_value() else "")
        case None:
            return '""'
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)
        case tuple() | list():
            return f"[{', '.join(toml(item) for item in value)}]"
        case Path() | Url() | str():
            # JSON's strings are TOML's basic strings but for DEL, which TOML wants escaped.
            return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
    raise TypeError(f"no TOML for {type(value).__name__}")


def _own(path: tuple[str, ...], model: type[Section]) -> Iterator[Key]:
    return (key for key in keys(model, path) if key.path[:-1] == path)


def _table(key: Key, value: dict[str, Any]) -> Iterator[str]:
    yield f"[{key.name}]"
    yield from (f"{toml(name)} = {toml(item)}" for name, item in value.items())


def _documented(key: Key) -> str:
    comment = _comment(_plain(key.description))
    if key.default is MISSING:
        return f"{comment}\n{key.example}\n"
    if key.example:
        return f"{comment}\n{_comment(key.example, wrap=False)}\n"
    return f"{comment}\n# {key.path[-1]} = {toml(key.default)}\n"


def _comment(text: str, *, wrap: bool = True) -> str:
    lines = textwrap.wrap(text, WIDTH - 3, break_on_hyphens=False) if wrap else text.splitlines()
    # Two marks for words, one for keys: anyone who removes the single ones is left with a valid file.
    return "\n".join(f"{'##' if wrap else '#'} {line}" for line in lines)


def _plain(text: str) -> str:
    return " ".join(text.split())


def _shown_default(key: Key) -> str:
    if key.default is MISSING:
        return "must be set"
    return "none" if key.default == {} else f"`{toml(key.default)}`"


def _cell(text: str) -> str:
    return _plain(text).replace("|", "\\|")
