"""What was measured against what was promised: a table for people, JSON for machines, a plot for the documentation.

Invariant: a row passes by its budget alone; the aim is shown, never counted.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.markup import escape
from rich.table import Table

HISTORY = "history.jsonl"
"""One line a run: when, on which machine, and the value of each row."""


@dataclass(frozen=True, slots=True)
class Budget:
    """``limit`` may not be passed in direction ``sense``; ``aim`` is what we would like."""

    sense: Literal["at least", "at most"]
    limit: float
    aim: float | None = None

    def met(self, value: float) -> bool:
        """Return whether ``value`` is within the budget."""
        return value >= self.limit if self.sense == "at least" else value <= self.limit

    def __str__(self) -> str:
        sign = ">=" if self.sense == "at least" else "<="
        return f"{sign} {self.limit:g}" + (f", aim {self.aim:g}" if self.aim is not None else "")


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the result. ``budget`` None: for the record; ``detail``: what is behind it; ``series``: to plot."""

    what: str
    value: float
    unit: str
    budget: Budget | None
    detail: str = ""
    series: dict[str, list[float]] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """True when the budget is met, or there is none."""
        return self.budget is None or self.budget.met(self.value)


def show(rows: Sequence[Row], console: Console | None = None, before: Mapping[str, float] | None = None) -> None:
    """Print the table; ``before``: what each row was the last time, see `last_values`."""
    table = Table(title="budgets, as measured here", title_justify="left", header_style="bold")
    for heading in ("what", "measured", "last time", "budget", "", "behind it"):
        table.add_column(heading, justify="right" if heading == "measured" else "left")
    for row in rows:
        verdict = "[green]pass[/green]" if row.ok else "[bold red]FAIL[/bold red]"
        table.add_row(
            escape(row.what),
            f"{row.value:.3g} {row.unit}".strip(),
            _last(row, before or {}),
            str(row.budget or "none"),
            verdict if row.budget else "",
            escape(row.detail),
        )
    (console or make_console()).print(table)


def _last(row: Row, before: Mapping[str, float]) -> str:
    """Return the last value of a row and how it changed since."""
    was = before.get(row.what)
    if was is None:
        return ""
    return f"{was:.3g} ({100 * (row.value / was - 1):+.0f} %)" if was else f"{was:.3g}"


def last_values(folder: Path) -> dict[str, float]:
    """Return the newest value of each row in the history of ``folder``, by its name."""
    file = folder / HISTORY
    lines = file.read_text().splitlines() if file.exists() else []
    found: dict[str, float] = {}
    for line in lines:
        found |= json.loads(line)["rows"]
    return found


def make_console() -> Console:
    """Return a console that is wide enough for the table where nobody's window says otherwise."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=150)


def save(rows: Sequence[Row], machine: dict[str, object], folder: Path) -> list[Path]:
    """Write ``results.json`` and ``results.png`` into ``folder``, and a line of its history; return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    text = {
        "machine": machine,
        "rows": [{**asdict(row), "budget": str(row.budget or "none"), "ok": row.ok} for row in rows],
    }
    (folder / "results.json").write_text(json.dumps(text, indent=1) + "\n")
    at = datetime.now(UTC).isoformat(timespec="seconds")
    line = {"at": at, "machine": machine, "rows": {row.what: round(row.value, 4) for row in rows}}
    with (folder / HISTORY).open("a") as history:
        history.write(json.dumps(line) + "\n")
    plot(rows, machine, folder / "results.png")
    return [folder / "results.json", folder / "results.png", folder / HISTORY]


def plot(rows: Sequence[Row], machine: dict[str, object], target: Path) -> None:
    """Draw how far each row is from its budget, the latency's distribution, and the cost per row."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot
    from matplotlib.ticker import LogLocator

    figure, (bars, latency, cost) = pyplot.subplots(1, 3, figsize=(16, 5), layout="constrained")
    _bars(bars, rows)
    for row in rows:
        if "latency_ms" in row.series:
            values = sorted(row.series["latency_ms"])
            latency.plot(values, [(n + 1) / len(values) for n in range(len(values))], color="tab:blue")
            break
    latency.set(xscale="log", xlabel="ms from commit until seen on another node", ylabel="share of commits")
    latency.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    latency.xaxis.set_major_formatter("{x:g}")
    latency.xaxis.set_minor_formatter("")
    latency.set_title("latency of one-row commits")
    for row in rows:
        if "rows" in row.series:
            cost.plot(row.series["rows"], row.series["microseconds"], marker="o", color="tab:blue")
    cost.set(xscale="log", xlabel="rows in the transaction", ylabel="microseconds per row")
    cost.set_ylim(0, 1.2 * max((us for row in rows for us in row.series.get("microseconds", ())), default=1.0))
    cost.set_title("cost per row until whole on another node")
    for axes in (latency, cost):
        axes.grid(visible=True, alpha=0.3)
    figure.suptitle(", ".join(f"{name} {value}" for name, value in machine.items()), fontsize=8, color="gray")
    figure.savefig(target, dpi=110)
    pyplot.close(figure)


def _bars(axes: Any, rows: Sequence[Row]) -> None:
    """Draw each row as the share of its budget that it uses: left of 1 is within."""
    budgets = [(row, row.budget) for row in rows if row.budget is not None]
    used = [
        row.value / budget.limit if budget.sense == "at most" else budget.limit / max(row.value, 1e-9)
        for row, budget in budgets
    ]
    colors = ["tab:green" if row.ok else "tab:red" for row, _ in budgets]
    axes.barh([row.what for row, _ in budgets], used, color=colors)
    axes.axvline(1.0, color="black", linewidth=1)
    axes.invert_yaxis()
    axes.set(xlabel="share of the budget that is used (left of the line is within)", title="budgets")
    axes.tick_params(axis="y", labelsize=8)
