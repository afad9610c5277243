"""What every section of the configuration is made of: frozen records whose keys carry their own documentation.

Invariant: a key is declared in one place with its description, unit, default and meaning of zero; the commented
template, the reference in `docs/configuration.md` and the errors are all made from that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Annotated, Any, ClassVar, Self, TypeVar, cast, dataclass_transform, get_type_hints

from harmonylite.config.reading import Fault, FaultsError, Limits, Name, plain, read

S = TypeVar("S", bound="Section")

ABOUT = ("unit", "zero", "also", "example")

ABSENT = "is not set; give -config FILE with it, or write a file with `harmonylite config init`"


@dataclass(frozen=True, slots=True)
class Key:
    """One key. ``path``: from the top; ``kind``: see `read`; ``default``: `MISSING` where it must be set; ``zero``:
    meaning of 0 or of an empty text; ``also``: its second spelling.
    """

    path: Name
    kind: Any
    default: Any
    text: str = ""
    unit: str = ""
    zero: str = ""
    also: str = ""
    example: str = ""

    @property
    def name(self) -> str:
        """The dotted name."""
        return ".".join(self.path)

    @property
    def type(self) -> Any:
        """The type that its values have."""
        return plain(self.kind)

    @property
    def description(self) -> str:
        """What the key does, with unit and meaning of zero, as sentences."""
        text = self.text
        if self.unit:
            text += f" In {self.unit}."
        if self.zero:
            text += f" {self.zero}."
        if self.also:
            text += f" Also spelled `{self.also}`."
        return text


@dataclass_transform(kw_only_default=True, frozen_default=True)
class Section:
    """Base of all sections: frozen, typed without guessing, unknown keys refused."""

    known: ClassVar[Mapping[str, Key | type[Section]]]
    """Its keys, with paths of their own names only, and its sections, in the order of their declaration."""

    def __init_subclass__(cls) -> None:
        """Make a record of the declared keys."""
        dataclass(frozen=True, kw_only=True)(cls)
        kinds = get_type_hints(cls, include_extras=True)
        cls.known = {each.name: _declared(each, kinds[each.name]) for each in fields(cast(Any, cls))}

    @classmethod
    def read(cls, raw: Mapping[str, Any]) -> Self:
        """Return the section that ``raw`` says, defaults for the rest. Raises FaultsError with all that is wrong."""
        faults: list[Fault] = []
        found = _read(cls, raw, (), faults)
        if found is None:
            raise FaultsError(faults)
        return found


def _declared(each: Field[Any], kind: Any) -> Key | type[Section]:
    if isinstance(kind, type) and issubclass(kind, Section):
        return kind
    about = dict(each.metadata)
    if limits := about.pop("limits"):
        kind = Annotated[kind, Limits(**limits)]
    default = each.default if each.default_factory is MISSING else each.default_factory()
    return Key((each.name,), kind, default, **about)


def _read(model: type[S], raw: Mapping[str, Any], at: Name, faults: list[Fault]) -> S | None:
    """Return the section that ``raw`` says; None where anything in it is wrong, which is added to ``faults``."""
    found: dict[str, Any] = {}
    before = len(faults)
    faults += (Fault((*at, name), raw[name], "is unknown; remove it") for name in raw.keys() - model.known.keys())
    for name, each in model.known.items():
        if name not in raw:
            if isinstance(each, Key) and each.default is MISSING:
                faults.append(Fault((*at, name), None, ABSENT))
        elif isinstance(each, Key):
            try:
                found[name] = read(each.kind, raw[name], (*at, name))
            except FaultsError as error:
                faults += error.faults
        elif isinstance(raw[name], Mapping):
            found[name] = _read(each, raw[name], (*at, name), faults)
        else:
            faults.append(Fault((*at, name), raw[name], "is not a table"))
    return model(**found) if len(faults) == before else None


def key(default: Any, description: str, **about: Any) -> Any:
    """Declare a key; ``default`` ``...``: it must be set. ``about``: unit, zero, also, example go to `Key`; everything
    else limits the value, see `Limits`.
    """
    extra = {name: about.pop(name) for name in ABOUT if name in about}
    metadata = {"text": description, "limits": about, **extra}
    if default is ...:
        return field(metadata=metadata)
    if default == {}:
        return field(default_factory=dict, metadata=metadata)
    return field(default=default, metadata=metadata)


def keys(model: type[Section], prefix: Name = ()) -> Iterator[Key]:
    """Yield every key of ``model`` and the sections below it: a section's own keys first."""
    for name, each in model.known.items():
        if isinstance(each, Key):
            yield Key(
                (*prefix, name), each.kind, each.default, each.text, each.unit, each.zero, each.also, each.example
            )
    for name, each in model.known.items():
        if not isinstance(each, Key):
            yield from keys(each, (*prefix, name))


def sections(model: type[Section], prefix: Name = ()) -> Iterator[tuple[Name, type[Section]]]:
    """Yield the path and model of ``model`` and every section below it."""
    yield prefix, model
    for name, each in model.known.items():
        if not isinstance(each, Key):
            yield from sections(each, (*prefix, name))
