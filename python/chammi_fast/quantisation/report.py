"""What a quantisation gave, for people to read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from rich.console import Group
    from rich.table import Table

    from chammi_fast.quantisation.scoring import Change
    from chammi_fast.quantisation.searching import Result
    from chammi_fast.runtime import Form

NAMED_LAYERS = 6


@dataclass(frozen=True)
class QuantiseReport:
    """What was quantised, and what it costs.

    Attributes
    ----------
    model, path : the reference and the quantised file
    sizes : of these two, in bytes
    result : its layers, and how near it stays to the reference
    rates : images per second of the network alone, on this machine
    changes : of task scores
    remarks : sentences on what could not be measured
    seconds : that it took
    """

    model: Path
    path: Path
    sizes: tuple[int, int]
    result: Result
    rates: Mapping[Form, float]
    changes: tuple[Change, ...]
    remarks: tuple[str, ...]
    seconds: float

    @property
    def table(self) -> Group:
        """What a terminal shows."""
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        backends = list(dict.fromkeys(verdict.backend for verdict in self.result.verdicts))
        table = Table(title=f"{self.path.name} beside {self.model.name}", title_justify="left")
        table.add_column("")
        for backend in backends:
            table.add_column(backend, justify="right")
        self._add_rates(table, backends)
        self._add_verdicts(table, backends)
        self._add_changes(table, backends)
        return Group(table, *(Text(sentence) for sentence in (*self._sentences(), *self.remarks)))

    def _add_rates(self, table: Table, backends: list[str]) -> None:
        found = {(form.backend, form.precision): rate for form, rate in self.rates.items()}
        for precision in sorted({form.precision for form in self.rates}, key=("fp32", "bf16", "fp16", "int8").index):
            cells = []
            for backend in backends:
                rate, plain = found.get((backend, precision)), found[backend, "fp32"]
                times = f" ({rate / plain:.2f} x fp32)" if rate is not None and precision != "fp32" else ""
                cells.append("" if rate is None else f"{rate:,.1f}{times}")
            table.add_row(f"images/s, {precision}", *cells)
        table.add_section()

    def _add_verdicts(self, table: Table, backends: list[str]) -> None:
        found = {(verdict.backend, verdict.case): verdict for verdict in self.result.verdicts}
        for case in dict.fromkeys(verdict.case for verdict in self.result.verdicts):
            several = [found[backend, case] for backend in backends]
            worst = (f"{verdict.accuracy.worst:.5f}" for verdict in several)
            if several[0].agreement is None:
                table.add_row(f"{case}, worst cosine", *worst)
                continue
            table.add_row(f"{case}, worst cosine", *worst)
            table.add_row("  mean cosine", *(f"{verdict.accuracy.mean:.5f}" for verdict in several))
            shares = (verdict.agreement or 0.0 for verdict in several)
            table.add_row("  same nearest neighbour", *(f"{share:.2%}" for share in shares))
        table.add_section()

    def _add_changes(self, table: Table, backends: list[str]) -> None:
        found = {(change.backend, change.task): change for change in self.changes}
        for task in dict.fromkeys(change.task for change in self.changes):
            several = [found[backend, task] for backend in backends]
            cells = (f"{one.before:.3f} -> {one.after:.3f} ({one.after - one.before:+.3f})" for one in several)
            table.add_row(f"{task} ({several[0].images:,}), accuracy", *cells)

    def _sentences(self) -> list[str]:
        result, (before, after), kept = self.result, self.sizes, self.result.kept_titles
        names = ", ".join(kept[:NAMED_LAYERS]) + (f" and {len(kept) - NAMED_LAYERS} more" * (len(kept) > NAMED_LAYERS))
        measured = {one.case: one.accuracy.images for one in result.verdicts if one.agreement is not None}
        images = ", ".join(f"{count:,} images of {case}" for case, count in measured.items())
        size = f"{self.path}: {after / 1e6:.1f} MB, {after / before:.0%} of {before / 1e6:.1f} MB"
        share = f"{len(result.layers) - len(kept)} of {len(result.layers)} layers in 8 bits by {result.tool}, "
        share += f"{result.share:.1%} of the multiplications; float32 besides the stem: {names or 'none'}"
        trials = "candidate" if result.trials == 1 else "candidates"
        took = f"{result.trials} {trials} measured on {images}; {self.seconds:.0f} s in all"
        stands_in = "* on images of other channels" if any(one.agreement is None for one in result.verdicts) else ""
        return [sentence for sentence in (stands_in, size, share, took) if sentence]
