"""Make `Settings` out of defaults, file, environment and flags, in that order; then check the whole.

Invariant: either a complete and valid `Settings`, or one ConfigError that lists every error.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harmonylite.config.checks import faults
from harmonylite.config.databases import DatabaseEntry, entries, misplaced, shared
from harmonylite.config.layers import KEYS, PER_TABLE, Layers
from harmonylite.config.problems import KeySource, Problem, of_value, raise_all
from harmonylite.config.reading import Fault, FaultsError, Name
from harmonylite.config.secret_text import Secret
from harmonylite.config.settings import Settings
from harmonylite.config.store_urls import sftp_place, webdav_place
from harmonylite.errors import ConfigError

DEFAULT_FILE = "config.toml"
"""Looked for in the working directory when no file is named."""


def load(
    path: Path | None,
    overrides: Mapping[str, Any] | None = None,
    *,
    environment: Mapping[str, str] | None = None,
    program: Mapping[str, Any] | None = None,
    database: str = "",
) -> Settings:
    """Read the configuration of one database.

    ``path``: the TOML file; None = only defaults, environment and ``overrides``. ``overrides``: dotted key to value,
    from flags. ``environment``: None = the process's own. ``program``: keys and tables as in the file, from a program
    that runs a node. ``database``: the name of one of several, "" = of the only one.

    :raises ConfigError: the file can't be read, or anything in the whole is wrong; it lists all faults. Or several
        databases are there and none is named, or not that one.
    """
    found = load_all(path, overrides, environment=environment, program=program)
    names = [settings.name for settings in found]
    if database in names:
        return found[names.index(database)]
    if not names[0]:
        raise ConfigError(f"there is no [[database]] named {database}", advice="leave -database out: there is only one")
    what = f"no [[database]] is named {database}" if database else f"the configuration has {len(names)} databases"
    raise ConfigError(what, advice=f"name one with -database: {', '.join(names)}")


def load_all(
    path: Path | None,
    overrides: Mapping[str, Any] | None = None,
    *,
    environment: Mapping[str, str] | None = None,
    program: Mapping[str, Any] | None = None,
) -> Sequence[Settings]:
    """Read the configuration of all databases of a process: of each ``[[database]]``, or of the only one, without name.

    Arguments and errors as for `load`.
    """
    layers = Layers()
    if path is not None:
        layers.add_file(path)
    layers.add_environment(os.environ if environment is None else environment)
    layers.add_program(program or {})
    layers.add_flags(overrides or {})
    listed = entries(layers)
    found: list[tuple[DatabaseEntry, Settings]] = []
    if not listed:
        only = _validated(layers, path)
        raise_all(layers.problems)
        assert only is not None, "no problem was found, so the settings are there"
        return [only]
    layers.problems += misplaced(layers)
    for entry in listed:
        own = entry.over(layers)
        settings = _validated(own, path) if own.values else None
        layers.problems += own.problems
        if settings is not None:
            found.append((entry, settings))
    layers.problems += shared(found)
    raise_all(layers.problems)
    beside = tuple(settings.db_path for _, settings in found)
    return [settings.named(entry.name, beside) for entry, settings in found]


def load_given(given: str) -> Settings:
    """Read a program's keys, as JSON: ``file``, a path or null, and ``keys``. Raises ConfigError."""
    said = json.loads(given)
    return load(None if said["file"] is None else Path(said["file"]), program=said["keys"])


def secrets(settings: Settings) -> list[str]:
    """Return every secret value of ``settings``, so that logs can mask them wherever they turn up."""
    found: list[str] = []
    for key in KEYS.values():
        value = value_of(settings, key.path)
        if isinstance(value, Secret):
            found.append(value.get_secret_value())
    if url := settings.snapshot.webdav.url.get_secret_value():
        found.append(webdav_place(url).secret)
    if url := settings.snapshot.sftp.url.get_secret_value():
        found.append(sftp_place(url).password)
    return [secret for secret in found if secret]


def value_of(settings: Settings, name: Name) -> Any:
    """Return the value of the key ``name``."""
    value: Any = settings
    for piece in name:
        value = getattr(value, piece)
    return value


def _validated(layers: Layers, path: Path | None) -> Settings | None:
    """Return what can be made of ``layers``; collect what is wrong in ``layers.problems``."""
    bad: set[str] = {problem.key for problem in layers.problems}
    settings = None
    try:
        settings = Settings.read(layers.nested())
    except FaultsError as error:
        for each in error.faults:
            layers.problems.append(problem := _problem(layers, each, path))
            bad.add(problem.key)
        settings = _rest(layers, bad)
    if settings is not None:
        for name, what in faults(settings):
            if not _touches(name, bad):
                source = layers.sources.get(tuple(name.split(".")), KeySource(str(path) if path else ""))
                layers.problems.append(Problem(source, name, what))
    return settings


def _problem(layers: Layers, fault: Fault, path: Path | None) -> Problem:
    location = fault.at
    # Deeper pieces name an item of a list or a table; the key is the longest known beginning.
    name = next((location[:end] for end in range(len(location), 0, -1) if location[:end] in KEYS), location)
    source = layers.sources.get(name, KeySource(str(path) if path else ""))
    per_table = name[:1] == ("tables",) and name[1:2] in [(key,) for key in PER_TABLE]
    shown = location[:3] if per_table else name
    return of_value(fault, shown, source, secret=_is_secret(name))


def _is_secret(name: Name) -> bool:
    return name in KEYS and KEYS[name].type is Secret


def _rest(layers: Layers, bad: set[str]) -> Settings | None:
    """Return the settings without the keys that are wrong already, so that what depends on others is checked too."""
    rest = Layers(values={name: value for name, value in layers.values.items() if not _touches(".".join(name), bad)})
    rest.values.setdefault(("db_path",), str(Path.cwd() / "unset"))
    try:
        return Settings.read(rest.nested())
    except FaultsError:
        return None


def _touches(name: str, bad: set[str]) -> bool:
    """Return whether ``name`` is wrong itself; a whole section of which a key is wrong is not."""
    return any(name == each or each.startswith(f"{name}.") or name.startswith(f"{each}.") for each in bad)
