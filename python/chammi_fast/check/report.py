"""What a check found, in sentences."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table
    from rich.tree import Tree

Severity: TypeAlias = Literal["ok", "note", "problem"]
_STYLES: dict[Severity, str] = {"ok": "green", "note": "yellow", "problem": "bold red"}
_EXAMPLES = 3


@dataclass(frozen=True)
class Finding:
    """One sentence about one data set or topic.

    Attributes
    ----------
    severity : "ok" as published; "note" differs from what is published, but can be embedded and scored; "problem"
        images or tasks will fail, or scores cannot be compared
    where : names of all that it is about, of which the sentence shows the first
    """

    severity: Severity
    text: str
    where: tuple[str, ...] = ()


@dataclass(frozen=True)
class DataSetReport:
    """Findings about one data set or topic.

    Attributes
    ----------
    table : figures, row by row, under the titles of the first row; empty for none
    """

    name: str
    findings: tuple[Finding, ...]
    table: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True)
class CheckReport:
    """Findings about a CHAMMI folder or a plate.

    Attributes
    ----------
    data : the folder or table
    data_sets : one report for each of the benchmark's data sets, in published order; or for each topic
    """

    data: str
    data_sets: tuple[DataSetReport, ...]

    @property
    def problems(self) -> int:
        """Number of problems over all data sets."""
        return self._count("problem")

    @property
    def notes(self) -> int:
        """Number of notes over all data sets."""
        return self._count("note")

    def to_json(self) -> str:
        """Return all of it as JSON: `data`, `problems`, `notes`, `parts` (name, table, findings)."""
        import msgspec

        counts = {"data": self.data, "problems": self.problems, "notes": self.notes}
        document = counts | {"parts": msgspec.to_builtins(self.data_sets)}
        return msgspec.json.format(msgspec.json.encode(document), indent=2).decode()

    def _count(self, severity: Severity) -> int:
        return sum(finding.severity == severity for report in self.data_sets for finding in report.findings)

    def render(self) -> Tree:
        """Return the report as a tree for a rich console."""
        from rich.text import Text
        from rich.tree import Tree

        counts = f"{plural(self.problems, 'problem')}, {plural(self.notes, 'note')}"
        tree = Tree(Text(f"{self.data}: {counts}", style="bold"))
        for report in self.data_sets:
            branch = tree.add(Text(report.name, style="bold"))
            if report.table:
                branch.add(_figures(report.table))
            for finding in report.findings:
                branch.add(Text.assemble((f"{finding.severity:<8}", _STYLES[finding.severity]), finding.text))
        return tree


def listed(names: Sequence[str]) -> str:
    """Join the first names and say how many more there are."""
    shown = ", ".join(names[:_EXAMPLES])
    more = len(names) - _EXAMPLES
    return f"{shown} and {more:,} more" if more > 0 else shown


def compared(what: str, found: int, published: int) -> Finding:
    """Compare a number of rows with the published one."""
    if found == published:
        return Finding("ok", f"{what}: {found:,} rows, as published.")
    return Finding("note", f"{what}: {found:,} rows; {published:,} are published.")


def _figures(rows: Sequence[Sequence[str]]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for place, title in enumerate(rows[0]):
        table.add_column(Text(title), justify="right" if place else "left", overflow="fold")
    for row in rows[1:]:
        table.add_row(*(Text(cell) for cell in row))  # brackets in a name are no markup
    return table


def plural(count: int, word: str) -> str:
    """Return "1 row", "2 rows"."""
    return f"{count:,} {word}{'' if count == 1 else 's'}"
