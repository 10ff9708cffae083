"""Report benchmark figures as a table and as JSON; both mark missed targets."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from scripts.bench.extent import Extent

_FILE_WIDTH: Final = 140


@dataclass(frozen=True, slots=True)
class Target:
    """The bounds for a row's ratio, or for its value if the row has no ratio."""

    at_least: float | None = None
    at_most: float | None = None

    def is_met(self, figure: float) -> bool:
        """Return whether ``figure`` is within the bounds."""
        return (self.at_least is None or figure >= self.at_least) and (self.at_most is None or figure <= self.at_most)

    def __str__(self) -> str:
        bounds = ((">=", self.at_least), ("<=", self.at_most))
        return " and ".join(f"{sign} {bound:g}" for sign, bound in bounds if bound is not None)


@dataclass(frozen=True, slots=True)
class Row:
    """One measured value and, if it is compared with a baseline, the baseline and the ratio of the two.

    ``value`` and ``baseline`` have the same unit. ``name`` describes what was measured and how ``ratio`` is formed.
    """

    name: str
    value: float
    unit: str
    baseline: float | None = None
    ratio: float | None = None
    target: Target | None = None

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None if there is no target."""
        if self.target is None:
            return None
        return self.target.is_met(self.value if self.ratio is None else self.ratio)

    def as_json(self) -> dict[str, Any]:
        """Return the row for ``--json``, with unrounded figures and the target as text."""
        row = asdict(self)
        row["target"] = None if self.target is None else str(self.target)
        return row | {"met": self.met}


def compare(
    name: str, value: float, unit: str, baseline: float, *, at_least: float | None = None, at_most: float | None = None
) -> Row:
    """Return a row whose ratio is ``value / baseline``."""
    bounded = at_least is not None or at_most is not None
    return Row(name, value, unit, baseline, value / baseline, Target(at_least, at_most) if bounded else None)


class Report:
    """Collects rows, prints each part when it has been measured, and lists the missed targets at the end.

    The report is written to standard output, and the progress to standard error. In a smoke run, the targets are removed
    from the rows.
    """

    def __init__(self, title: str, extent: Extent = Extent.FULL) -> None:
        self.rows: list[Row] = []
        self._title, self._extent = title, extent
        self._out = Console(highlight=False)
        if not self._out.is_terminal:
            self._out.width = _FILE_WIDTH
        self._progress = Console(stderr=True, highlight=False)

    def log(self, text: str) -> None:
        """Print a line of progress to standard error."""
        self._progress.print(f"[dim]{text}[/dim]")

    def add_part(self, heading: str, measure: Callable[[], list[Row]], *, shown: int | None = None) -> None:
        """Call ``measure``, print the rows that it returns under ``heading``, and add them to the report.

        :param shown: how many rows to print, those with the highest ratios first. If None, all are printed in their order.
        """
        self.log(f"{heading} ...")
        rows = measure()
        if self._extent is Extent.SMOKE:
            rows = [replace(row, target=None) for row in rows]
        self.rows += rows
        if shown is not None and len(rows) > shown:
            heading = f"{heading}: the {shown} highest of {len(rows)} ratios"
            rows = sorted(rows, key=lambda row: row.ratio or 0.0, reverse=True)[:shown]
        self._out.print(_table(heading, rows))

    def finish(self, file: Path | None) -> int:
        """Write the rows as JSON to ``file`` (if it is not None), and print the missed targets.

        :returns: the exit code, which is 1 if a target is missed, otherwise 0.
        """
        if file is not None:
            file.write_text(json.dumps([row.as_json() for row in self.rows], indent=1) + "\n")
        targets = [row for row in self.rows if row.met is not None]
        missed = [row for row in targets if not row.met]
        if self._extent is Extent.SMOKE:
            self._out.print(f"{self._title}: {len(self.rows)} rows; a smoke run judges no targets.")
            return 0
        self._out.print(f"{self._title}: {len(targets) - len(missed)} of {len(targets)} targets met.")
        for row in missed:
            self._out.print(
                f"[red]MISSED[/red] {row.name}: {_number(row.value if row.ratio is None else row.ratio)}, target {row.target}"
            )
        return 1 if missed else 0


def _table(heading: str, rows: list[Row]) -> Table:
    table = Table(title=heading, title_justify="left", title_style="bold")
    table.add_column("what", overflow="fold", min_width=40)
    for name in ("value", "unit", "baseline", "ratio", "target"):
        table.add_column(name, justify="left" if name == "unit" else "right")
    table.add_column("")
    for row in rows:
        verdict = {None: "", True: "[green]met[/green]", False: "[red]MISSED[/red]"}[row.met]
        target = "" if row.target is None else str(row.target)
        table.add_row(
            row.name, _number(row.value), row.unit, _number(row.baseline), _number(row.ratio), target, verdict
        )
    return table


def _number(figure: float | None) -> str:
    if figure is None:
        return ""
    if abs(figure) >= 1000:
        return f"{figure:,.0f}"
    return f"{figure:.3g}"
