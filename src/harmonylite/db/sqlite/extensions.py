"""Load into the node's connections what the application's have: SQLite extensions, and functions of a Python module.

Invariant: they are tried once before any database is opened, and an error names the configuration key and the
extension; after that every connection of this process has all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

import apsw

from harmonylite.db.sqlite.connection import open_scratch, rows
from harmonylite.errors import ConfigError

Register = Callable[[apsw.Connection], object]


class Extensions:
    """The extensions of one configuration; apsw calls this object with each new connection."""

    def __init__(self, load: Sequence[str], python: str) -> None:
        self._load = [_library(name) for name in load]
        self._register = _function(python) if python else None

    def __call__(self, connection: apsw.Connection) -> None:
        """Load everything into ``connection``. Raises apsw.Error, and any error of the module."""
        if self._load:
            connection.enable_load_extension(True)
            try:
                for library in self._load:
                    connection.load_extension(library)
            finally:
                connection.enable_load_extension(False)
        if self._register is not None:
            self._register(connection)


_used: list[Extensions] = []
_functions: set[str] = set()


def use(load: Sequence[str], python: str) -> None:
    """Load these into every connection that is opened from now on, instead of those of an earlier call.

    ``load``: files or names of SQLite extensions; ``python``: "package.module:function", called with each connection
    (apsw.Connection). Raises ConfigError when one of them can't be loaded, and then loads none.
    """
    while _used:
        apsw.connection_hooks.remove(_used.pop())
    before = _listed()
    for number, name in enumerate(load):
        _try(Extensions([name], ""), f"extensions.load[{number}]", name)
    if python:
        _try(Extensions(load, python), "extensions.python", python)
    if load or python:
        _used.append(Extensions(load, python))
        apsw.connection_hooks.append(_used[0])
    _functions.clear()
    _functions.update(_listed() - before)


def given_functions() -> frozenset[str]:
    """Return the functions that `use` loaded, in lower case: the operator trusts them in a schema."""
    return frozenset(_functions)


def _listed() -> set[str]:
    connection = open_scratch()
    try:
        return {str(name).lower() for (name,) in rows(connection, "SELECT name FROM pragma_function_list")}
    finally:
        connection.close()


def _try(given: Extensions, key: str, what: str) -> None:
    connection = open_scratch()
    try:
        given(connection)
    except Exception as error:  # the code is not ours and may raise anything
        raise ConfigError(f"{key}: {what!r} can't be loaded: {type(error).__name__}: {error}") from error
    finally:
        connection.close()


def _library(name: str) -> str:
    """Return the name for SQLite to load: an absolute path for a file, else the name that the system searches."""
    path = Path(name)
    return str(path.absolute()) if len(path.parts) > 1 or path.exists() else name


def _function(name: str) -> Register:
    """Return the function named ``name``. Raises ConfigError."""
    module, colon, attribute = name.partition(":")
    if not (module and colon and attribute):
        raise ConfigError(f'extensions.python: {name!r} is not "package.module:function"')
    try:
        found = getattr(import_module(module), attribute)
    except Exception as error:  # a module may raise anything
        raise ConfigError(
            f"extensions.python: {name!r} can't be imported: {type(error).__name__}: {error}",
            advice="install the module into the environment of harmonylite, or name its folder in PYTHONPATH",
        ) from error
    if not callable(found):
        raise ConfigError(f"extensions.python: {name!r} is not a function")
    return found  # type: ignore[no-any-return]
