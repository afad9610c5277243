"""This session's change sets in flight: captured, and not back in the order yet.

Invariant: the log is cleared up to a change set only once that one and all before it are back. One that never lands
takes the later ones with it: they clear nothing, so the log still names all their rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import takewhile

from harmonylite.changes.reassembler import Fragment
from harmonylite.db.apply.own_change_sets import Flight
from harmonylite.db.capture.capture import Outgoing
from harmonylite.db.tracking.tracked_table import TrackedTable


class Flights:
    """The flights of ``session``, the oldest first."""

    def __init__(self, session: str) -> None:
        self._session = session
        self._at: dict[int, Flight] = {}
        self._back: set[int] = set()

    def __bool__(self) -> bool:
        return bool(self._at)

    def clear(self) -> None:
        """Forget all: what comes back of them is like a change set of an earlier session."""
        self._at.clear()
        self._back.clear()

    def begin(self, number: int, flight: Flight) -> None:
        """Record that change set ``number`` is in flight."""
        self._at[number] = flight

    def forget(self, number: int) -> None:
        """Record that change set ``number`` will never land."""
        self._at = {other: flight for other, flight in self._at.items() if other < number}
        self._back &= self._at.keys()

    def coming(self, own: Iterable[Fragment]) -> dict[int, Flight]:
        """Return the flights among ``own``, change sets of this node that come back, by number."""
        numbers = {fragment.id.number for fragment in own if fragment.id.session == self._session}
        return {number: flight for number, flight in self._at.items() if number in numbers}

    def landing(self, own: Iterable[Fragment]) -> dict[int, Flight]:
        """Return the flights, by number, up to which all are back with ``own``: the log is cleared up to those.

        With several shards, a change set may be back before an earlier one.
        """
        back = self._back | self.coming(own).keys()
        return dict(takewhile(lambda each: each[0] in back, self._at.items()))

    def land(self, own: Iterable[Fragment]) -> list[Flight]:
        """Record that ``own`` came back; return what `landing` did."""
        landing = self.landing(own)
        self._back = (self._back | self.coming(own).keys()) - landing.keys()
        self._at = {number: flight for number, flight in self._at.items() if number not in landing}
        return list(landing.values())

    def staying(self, own: Iterable[Fragment]) -> list[Outgoing]:
        """Return what stays in flight when ``own`` is back, where there are several: see `Pending`."""
        numbers = self._back | self.coming(own).keys()
        several = len(self._at.keys() - self._back) > 1
        if not several:
            return []
        return [flight.out for number, flight in self._at.items() if number not in numbers and flight.out is not None]

    def check(self, tables: Mapping[int, TrackedTable]) -> None:
        """Forget several flights if ``tables``, by number, are not those that they were captured from."""
        if len(self._at) > 1 and not all(self._fits(flight, tables) for flight in self._at.values()):
            self.clear()

    def in_the_air(self, tables: Mapping[int, TrackedTable]) -> list[Outgoing] | None:
        """Return the change sets that are not back yet; None if it is unclear what their rows are now.

        That is when ``tables``, by number, are not those of then, or a fold may give new rows other numbers.
        """
        found = []
        for number, flight in self._at.items():
            if number not in self._back and flight.out is not None:
                counted = {table.shape.name for table in flight.tables.values() if table.shape.identity}
                if not self._fits(flight, tables) or any(flight.out.tables.get(name) for name in counted):
                    return None
                found.append(flight.out)
        return found

    @staticmethod
    def _fits(flight: Flight, tables: Mapping[int, TrackedTable]) -> bool:
        then = {table.shape.name: table for table in flight.tables.values()}
        names = flight.out.tables if flight.out is not None else {}
        return all(name in then and tables.get(then[name].id) is then[name] for name in names)
