"""The reference in docs/python.md, made from the docstrings of the public names. Run as a module to write it."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "python.md"
MARK = "<!-- reference: written by `python -m tests.docs.api_reference` -->\n"
PUBLIC = ("harmonylite", "harmonylite.client", "harmonylite.asgi", "harmonylite.wsgi")


def reference() -> str:
    """Return what stands below `MARK`."""
    return "\n".join(line for module in PUBLIC for line in _module(module)) + "\n"


def names(module: str) -> list[tuple[str, object]]:
    """Return the public names of ``module``, its errors and values last."""
    found = importlib.import_module(module)
    return [(name, getattr(found, name)) for name in found.__all__]


def _module(module: str) -> Iterator[str]:
    yield f"\n### `{module}`\n"
    errors = []
    for name, value in names(module):
        if not inspect.isclass(value):
            continue
        if issubclass(value, Exception):
            errors.append(f"`{name}`: {_text(value)}")
            continue
        yield f"**`{name}{'' if dataclasses.is_dataclass(value) else _signature(value)}`** {_text(value)}\n"
        if dataclasses.is_dataclass(value):
            yield "".join(f"- `{field.name}: {field.type}`\n" for field in dataclasses.fields(value))
            continue
        for method, told in vars(value).items():
            if method.startswith("_") or not (doc := inspect.getdoc(told)):
                continue
            call = _signature(told) if inspect.isfunction(told) else ""
            before = "await " if inspect.iscoroutinefunction(told) else ""
            yield f"- `{before}{method}{call}` {_clean(doc)}"
        yield ""
    if errors:
        yield "Errors, all of them `HarmonyLiteError`:\n"
        yield from (f"- {each}" for each in errors)


def _signature(value: object) -> str:
    assert callable(value)
    text = str(inspect.signature(value)).replace("(self, ", "(").replace("(self)", "()")
    return re.sub(r": '([^']*)'", r": \1", re.sub(r" -> .*$", "", text))


def _text(value: object) -> str:
    return _clean(inspect.getdoc(value) or "")


def _clean(doc: str) -> str:
    """Return a docstring as Markdown of one paragraph."""
    return re.sub(r"\s+", " ", re.sub(r":raises (\w+):", r"Raises `\1`:", doc)).replace("``", "`").strip()


def main() -> None:
    """Write the page."""
    head, _, _ = PAGE.read_text().partition(MARK)
    PAGE.write_text(head + MARK + reference())


if __name__ == "__main__":
    main()
