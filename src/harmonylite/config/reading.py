"""Read one value as the kind that its key declares.

Invariant: nothing is guessed. A text is no number, a number is no switch; what a kind accepts besides its own type, a
function of that kind reads first (`Before`). What does not fit becomes a sentence that continues after the key's name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin

from harmonylite.config.secret_text import Secret, Url

Name = tuple[str, ...]

_WANTED = {
    bool: "a switch; write true or false, without quotes",
    int: "a whole number; write it without quotes",
    float: "a number",
    str: "text; write it in quotes",
    Path: "a path; write it in quotes",
    Url: "text; write it in quotes",
    Secret: "text; write it in quotes",
}


@dataclass(frozen=True, slots=True)
class Before:
    """Reads what else a kind accepts; what it does not know it returns as given. Raises ValueError."""

    function: Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class After:
    """Checks a value of the right type and returns it, or what it means. Raises ValueError."""

    function: Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Limits:
    """What bounds a value: inclusive ``ge`` and ``le``, exclusive ``gt``; ``pattern`` a text's, ``least`` a list's."""

    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    pattern: str | None = None
    least: int = 0

    def check(self, value: Any) -> None:
        """Raise ValueError when ``value`` is outside."""
        if self.ge is not None and not value >= self.ge:
            raise ValueError(f"is too small; {self.ge} is the least")
        if self.gt is not None and not value > self.gt:
            raise ValueError(f"is too small; it must be above {self.gt}")
        if self.le is not None and not value <= self.le:
            raise ValueError(f"is too large; {self.le} is the most")
        if self.pattern is not None and not re.search(self.pattern, value):
            raise ValueError(f"has another form; it must match {self.pattern}")
        if self.least and len(value) < self.least:
            raise ValueError(f"is empty; name at least {self.least}")


@dataclass(frozen=True, slots=True)
class Fault:
    """``at``: the key, and below it the item that does not fit. ``value``: as given. ``what``: see `Problem`."""

    at: Name
    value: Any
    what: str


class FaultsError(ValueError):
    """Everything in a table of keys that does not fit."""

    def __init__(self, faults: list[Fault]) -> None:
        super().__init__("; ".join(f"{'.'.join(fault.at)} {fault.what}" for fault in faults))
        self.faults = faults


def plain(kind: Any) -> Any:
    """Return the type that values of ``kind`` have in the end."""
    return get_args(kind)[0] if get_origin(kind) is Annotated else kind


def read(kind: Any, value: Any, at: Name) -> Any:
    """Return ``value`` as ``kind``, which may be annotated with `Before`, `After` and `Limits`. Raises FaultsError."""
    steps = get_args(kind)[1:] if get_origin(kind) is Annotated else ()
    try:
        given = value
        for step in steps:
            if isinstance(step, Before):
                given = step.function(given)
        found = _typed(plain(kind), given, at)
        for step in steps:
            if isinstance(step, After):
                found = step.function(found)
            elif isinstance(step, Limits):
                step.check(found)
    except FaultsError:
        raise
    except ValueError as error:
        raise FaultsError([Fault(at, value, str(error))]) from None
    return found


def _typed(kind: Any, value: Any, at: Name) -> Any:
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal:
        return _one_of(inner, value)
    if origin is tuple:
        if not isinstance(value, tuple):
            raise ValueError('is not a list; write ["one", "two"]')
        return tuple(read(inner[0], item, (*at, str(number))) for number, item in enumerate(value))
    if origin is dict:
        return _table(inner[1], value, at)
    if NoneType in inner:
        return None if value is None else _typed(inner[0], value, at)
    return _simple(kind, value)


def _simple(kind: Any, value: Any) -> Any:
    if kind is Secret and isinstance(value, str):
        return Secret(value)
    fitting = (int, float) if kind is float else kind
    if isinstance(value, fitting) and isinstance(value, bool) == (kind is bool):
        return float(value) if kind is float else value
    raise ValueError(f"is not {_WANTED[kind]}")


def _one_of(choices: tuple[str, ...], value: Any) -> str:
    for choice in choices:
        if value == choice:
            return choice
    *some, last = map(repr, choices)
    raise ValueError(f"is not one of {', '.join(some)} or {last}")


def _table(kind: Any, value: Any, at: Name) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError("is not a table; write one line for each table's name below it")  # noqa: TRY004 # see `read`
    found, faults = {}, []
    for name, item in value.items():
        try:
            found[name] = read(kind, item, (*at, name))
        except FaultsError as error:
            faults += error.faults
    if faults:
        raise FaultsError(faults)
    return found
