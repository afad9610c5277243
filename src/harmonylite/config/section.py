"""What every section of the configuration is made of: frozen models whose keys carry their own documentation.

Invariant: a key is declared in one place with its description, unit, default and meaning of zero; the commented
template, the reference in `docs/configuration.md` and the errors are all made from that.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.fields import FieldInfo

ALSO = "also"


class Section(BaseModel):
    """Base of all sections: frozen, typed without guessing, unknown keys refused."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, hide_input_in_errors=True, arbitrary_types_allowed=True
    )


@dataclass(frozen=True, slots=True)
class Key:
    """One key. ``path``: from the top; ``zero``: meaning of 0 or of an empty text; ``also``: its second spelling."""

    path: tuple[str, ...]
    field: FieldInfo
    unit: str = ""
    zero: str = ""
    also: str = ""
    example: str = ""

    @property
    def name(self) -> str:
        """The dotted name."""
        return ".".join(self.path)

    @property
    def description(self) -> str:
        """What the key does, with unit and meaning of zero, as sentences."""
        text = self.field.description or ""
        if self.unit:
            text += f" In {self.unit}."
        if self.zero:
            text += f" {self.zero}."
        if self.also:
            text += f" Also spelled `{self.also}`."
        return text


def key(default: Any, description: str, **about: Any) -> Any:
    """Declare a key. ``about``: unit, zero, also, example go to `Key`; everything else limits the value (ge, le)."""
    extra = {name: about.pop(name) for name in ("unit", "zero", ALSO, "example") if name in about}
    return Field(default, description=description, json_schema_extra=extra, **about)


def subsection(field: FieldInfo) -> type[Section] | None:
    """Return the model of ``field`` when it is a table of its own with known keys."""
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, Section) else None


def keys(model: type[Section], prefix: tuple[str, ...] = ()) -> Iterator[Key]:
    """Yield every key of ``model`` and the sections below it: a section's own keys first."""
    below = []
    for name, field in model.model_fields.items():
        if inner := subsection(field):
            below.append((inner, name))
            continue
        extra: Any = field.json_schema_extra or {}
        yield Key((*prefix, name), field, **extra)
    for inner, name in below:
        yield from keys(inner, (*prefix, name))


def sections(model: type[Section], prefix: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], type[Section]]]:
    """Yield the path and model of ``model`` and every section below it."""
    yield prefix, model
    for name, field in model.model_fields.items():
        if inner := subsection(field):
            yield from sections(inner, (*prefix, name))
