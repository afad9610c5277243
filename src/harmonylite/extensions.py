"""Functions that files of known formats call in their schemas, for ``[extensions] python``.

Invariant: each returns what the format's specification says, and NULL for a value that is not of the format.
"""

from __future__ import annotations

from struct import Struct, error
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import apsw

Box = tuple[float, float, float, float]
"""Least and largest x, least and largest y."""

_ENVELOPE = (0, 32, 48, 48, 64)
"""Bytes of a GeoPackage geometry's envelope, by its kind (GeoPackage 1.4, section 2.1.3)."""
_POINTS, _RINGS = {2, 8}, {3, 17}
_PARTS = {4, 5, 6, 7, 9, 10, 11, 12, 15, 16}
"""Kinds of geometry in well-known binary (ISO 13249-3): lists of points, lists of rings, lists of geometries."""
_DEEPEST = 32


def geopackage(connection: apsw.Connection) -> None:
    """Register the five functions that the triggers of a GeoPackage's R-tree indexes call (its extension F.3)."""
    for number, name in enumerate(("ST_MinX", "ST_MaxX", "ST_MinY", "ST_MaxY")):
        connection.create_scalar_function(
            name, lambda *values, number=number: _bound(values[0], number), 1, deterministic=True
        )
    connection.create_scalar_function("ST_IsEmpty", lambda *values: _is_empty(values[0]), 1, deterministic=True)


def _bound(value: object, number: int) -> float | None:
    box = bounds(value) if isinstance(value, bytes) else None
    return box[number] if box else None


def _is_empty(value: object) -> int | None:
    if not isinstance(value, bytes) or value[:2] != b"GP" or len(value) < 8:
        return None
    return int(bool(value[3] & 0x10) or bounds(value) is None)


def bounds(value: bytes) -> Box | None:
    """Return the bounds of a GeoPackage geometry; None when it is empty or no geometry.

    Arcs count with the points that define them, as in most libraries.
    """
    if value[:2] != b"GP" or len(value) < 8:
        return None
    flags = value[3]
    kind, little = flags >> 1 & 7, flags & 1
    if flags & 0x10 or kind >= len(_ENVELOPE):
        return None
    if kind:
        try:
            box: Box = Struct("<4d" if little else ">4d").unpack_from(value, 8)
        except error:
            return None
        return box if box[0] == box[0] else None
    reader = _Reader(value, 8)
    try:
        reader.geometry(0)
    except (error, ValueError):
        return None
    return reader.box()


class _Reader:
    """Reads well-known binary, and keeps the bounds of its points."""

    def __init__(self, data: bytes, at: int) -> None:
        self._data, self._at = data, at
        self._xs: list[float] = []
        self._ys: list[float] = []

    def box(self) -> Box | None:
        """Return the bounds of what was read; None: there was no point."""
        return (min(self._xs), max(self._xs), min(self._ys), max(self._ys)) if self._xs else None

    def geometry(self, depth: int) -> None:
        """Read one geometry with all its parts. Raises struct.error, ValueError."""
        order = "<" if self._data[self._at : self._at + 1] == b"\x01" else ">"
        self._at += 1
        (kind,) = self._take(order + "I")
        dimensions = {0: 2, 1: 3, 2: 3, 3: 4}.get(kind // 1000)
        if dimensions is None or depth > _DEEPEST:
            raise ValueError("a geometry of an unknown kind")
        kind %= 1000
        if kind == 1:
            self._points(order, dimensions, 1)
        elif kind in _POINTS:
            self._points(order, dimensions, *self._take(order + "I"))
        elif kind in _RINGS:
            for _ in range(*self._take(order + "I")):
                self._points(order, dimensions, *self._take(order + "I"))
        elif kind in _PARTS:
            for _ in range(*self._take(order + "I")):
                self.geometry(depth + 1)
        else:
            raise ValueError("a geometry of an unknown kind")

    def _take(self, form: str) -> tuple[int, ...]:
        found = Struct(form)
        values = found.unpack_from(self._data, self._at)
        self._at += found.size
        return values

    def _points(self, order: str, dimensions: int, count: int) -> None:
        if count * dimensions * 8 > len(self._data) - self._at:
            raise ValueError("a geometry that is cut off")
        values = self._take(f"{order}{count * dimensions}d")
        for x, y in zip(values[::dimensions], values[1::dimensions], strict=True):
            if x == x and y == y:  # an empty point has NaN for both
                self._xs.append(x)
                self._ys.append(y)
