"""The demo's output: on a terminal with colour and a spinner, piped as plain lines.

Invariant: every text is printed once and stays on the screen; a spinner is never the only sign of something.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager

from rich.console import Console, RenderableType
from rich.markup import escape
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table


class DemoConsole:
    """Writes to ``console``, by default standard output."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False)
        self._steps = 0

    def title(self, headline: str, text: str) -> None:
        """Print the headline."""
        self._console.print(Panel(f"[bold]{escape(headline)}[/bold]\n{escape(text)}", expand=False, padding=(0, 2)))

    def step(self, headline: str, text: str = "") -> None:
        """Print the next numbered headline."""
        self._steps += 1
        self._console.print(f"\n[bold cyan]{self._steps}. {escape(headline)}[/bold cyan]")
        if text:
            self._indented(f"[dim]{escape(text)}[/dim]")

    def fact(self, who: str, what: str, style: str = "bold") -> None:
        """Print one fact; a second line is aligned with the first."""
        grid = Table.grid(padding=(0, 1))
        grid.add_column(min_width=7, no_wrap=True)
        grid.add_row(f"[{style}]{escape(who)}[/{style}]", escape(what))
        self._indented(grid)

    def claim(self, holds: bool, what: str) -> None:
        """Print whether something is true."""
        self.fact("ok" if holds else "not ok", what, "green" if holds else "bold red")

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print rows under headings."""
        table = Table(*columns, header_style="bold", padding=(0, 1))
        for row in rows:
            table.add_row(*map(escape, row))
        self._indented(table)

    def command(self, line: str, output: str = "") -> None:
        """Print a command on one line, however long, and its output."""
        self._console.print(f"   [bold]$ {escape(line)}[/bold]", soft_wrap=True)
        for text in output.splitlines():
            self._console.print(f"   {text}", markup=False, soft_wrap=True)

    def _indented(self, what: RenderableType) -> None:
        self._console.print(Padding(what, (0, 0, 0, 3), expand=False))

    def waiting(self, what: str) -> AbstractContextManager[object]:
        """Show a spinner while the block runs; nothing if output is piped."""
        return self._console.status(escape(what))
