"""A resource: what is opened, used and closed, and so can be in an ``async with``.

Invariant: nothing starts in a constructor; anyone who enters has an open resource, and anyone who leaves a closed one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self


class Resource(ABC):
    """Base of everything that holds something open for as long as a block runs."""

    @abstractmethod
    async def open(self) -> None:
        """Start; whatever fails leaves nothing behind."""

    @abstractmethod
    async def aclose(self) -> None:
        """End; safe to call twice, and before `open`."""

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
