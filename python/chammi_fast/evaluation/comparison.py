"""Whether one model's scores differ from another's by more than chance: both predict the same rows."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from html import escape
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from chammi_fast.errors import EvaluationError
from chammi_fast.evaluation.confidence import Cells, Interval, Resampling
from chammi_fast.evaluation.metrics import averages
from chammi_fast.evaluation.predictions import by_task, label_codes
from chammi_fast.evaluation.scores import Scores, read_scores
from chammi_fast.extras import require
from chammi_fast.files import write_text
from chammi_fast.urls import as_path

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import pandas as pd
    from rich.table import Table

FORMAT_VERSION = 1
COMPARISON_FILE = "comparison.json"
# Sums of the same numbers in another order differ by less; what a permutation leaves as it was counts as equal.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Difference:
    """One measure of two models.

    Attributes
    ----------
    first, second : of the models
    difference : first minus second
    interval : of the difference, by bootstrap of rows within classes, both models' predictions of a row together
    p_value : of a permutation test: how often the difference would be as large, in either direction, if it were left to
        chance which model made which of a row's two predictions; None without resamples
    """

    first: float
    second: float
    difference: float
    interval: Interval | None
    p_value: float | None


@dataclass(frozen=True)
class Comparison:
    """Two models on the same test rows.

    Attributes
    ----------
    first, second : names of the models
    accuracy, f1_macro : task -> its difference
    averages : average, such as "CPS" -> the difference of its macro F1
    skipped : task -> why it is not compared
    """

    first: str
    second: str
    accuracy: dict[str, Difference] = field(default_factory=dict)
    f1_macro: dict[str, Difference] = field(default_factory=dict)
    averages: dict[str, Difference] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> str:
        """Return the document of ``comparison.json``."""
        document = {"format_version": FORMAT_VERSION} | asdict(self)
        return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    def to_pandas(self) -> pd.DataFrame:
        """Return one row per task or average and measure, as a pandas table.

        Raises
        ------
        MissingExtraError
            If pandas is not installed.
        """
        rows = [
            {"name": name, "measure": measure, **asdict(one), "low": bounds[0], "high": bounds[1]}
            for name, measure, one in self._all()
            for bounds in [(one.interval.low, one.interval.high) if one.interval else (None, None)]
        ]
        columns = ["name", "measure", "first", "second", "difference", "low", "high", "p_value"]
        table: pd.DataFrame = require("pandas", purpose="a pandas table").DataFrame(rows, columns=columns)
        return table.astype(dict.fromkeys(columns[2:], float))

    def _all(self) -> list[tuple[str, str, Difference]]:
        found = [(name, "accuracy", one) for name, one in self.accuracy.items()]
        found += [(name, "f1_macro", one) for name, one in (self.f1_macro | self.averages).items()]
        return found

    def _repr_html_(self) -> str:
        heading = "".join(f"<th>{escape(cell)}</th>" for cell in self._heading())
        body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in self._rows())
        notes = "".join(f"<li>{escape(f'{name}: {reason}')}</li>" for name, reason in self.skipped.items())
        table = f"<table><thead><tr>{heading}</tr></thead><tbody>{body}</tbody></table>"
        return table + (f"<ul>{notes}</ul>" if notes else "")

    def table(self) -> Table:
        """Return what a terminal shows: macro F1 of tasks and averages."""
        from rich.table import Table
        from rich.text import Text

        table = Table(title="Macro F1 of both, on the same images", title_justify="left")
        for place, heading in enumerate(self._heading()):
            table.add_column(Text(heading), justify="right" if place else "left")
        for row in self._rows():
            table.add_row(*(Text(cell) for cell in row))
        return table

    def _heading(self) -> tuple[str, ...]:
        return ("task", self.first, self.second, "difference", "95 % interval", "p")

    def _rows(self) -> list[tuple[str, ...]]:
        return [
            (
                name,
                f"{one.first:.3f}",
                f"{one.second:.3f}",
                f"{one.difference:+.3f}",
                "" if one.interval is None else f"{one.interval.low:+.3f} to {one.interval.high:+.3f}",
                "" if one.p_value is None else f"{one.p_value:.3f}",
            )
            for name, one in (self.f1_macro | self.averages).items()
        ]


def compare(
    first: Scores | str | Path,
    second: Scores | str | Path,
    *,
    names: tuple[str, str] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> Comparison:
    """Compare two models' predictions of the same test rows.

    Parameters
    ----------
    first, second : results, or folders that ``chammi-fast evaluate`` wrote
    names : what to call the models; by default their folders' names
    resamples : of the bootstrap, and permutations of the test; 0 for neither
    seed : of both

    Raises
    ------
    EvaluationError
        If a folder cannot be read, no task is in both, a task's rows or their true labels are not the same, or a key
        names several rows.
    """
    results = [one if isinstance(one, Scores) else read_scores(one) for one in (first, second)]
    called = names or (_name(first, "first"), _name(second, "second"))
    parts = [dict(by_task(one.predictions)) for one in results]
    shared = [task for task in parts[0] if task in parts[1]]
    if not shared:
        raise EvaluationError(f"{called[0]} and {called[1]} have no task in common.")
    resampling = Resampling(resamples, seed)
    accuracy, f1 = {}, {}
    for task in shared:
        cells = _paired(task, parts[0][task], parts[1][task])
        accuracy[task], f1[task] = _draw(cells, resampling, resampling.generator(task))
    means = _average(f1, {name: one.members for name, one in results[0].averages.items()})
    skipped = {task: f"only {called[place]} has it" for place in (0, 1) for task in parts[place] if task not in shared}
    return Comparison(
        first=called[0],
        second=called[1],
        accuracy=_differences_of(accuracy, resampling),
        f1_macro=_differences_of(f1, resampling),
        averages=_differences_of(means, resampling),
        skipped=skipped,
    )


def write_comparison(comparison: Comparison, out: str | Path) -> None:
    """Write ``comparison.json`` into the folder `out`.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    write_text(as_path(out) / COMPARISON_FILE, comparison.to_json())


@dataclass(frozen=True)
class _Drawn:
    """A measure of both models, and (R,) differences of resampled rows and of exchanged predictions."""

    first: float
    second: float
    resampled: np.ndarray
    exchanged: np.ndarray

    def difference(self, resampling: Resampling) -> Difference:
        """Return the difference with its interval and p-value."""
        observed = self.first - self.second
        if not resampling.resamples:
            return Difference(self.first, self.second, observed, None, None)
        as_large = np.count_nonzero(np.abs(self.exchanged) >= abs(observed) - _ROUNDING)
        # The observed assignment is one of those that chance could have made, too.
        p_value = (int(as_large) + 1) / (resampling.resamples + 1)
        return Difference(self.first, self.second, observed, resampling.interval(self.resampled), p_value)


def _differences_of(drawn: Mapping[str, _Drawn], resampling: Resampling) -> dict[str, Difference]:
    return {name: one.difference(resampling) for name, one in drawn.items()}


def _average(drawn: Mapping[str, _Drawn], definition: Mapping[str, tuple[str, ...]]) -> dict[str, _Drawn]:
    first = averages({name: one.first for name, one in drawn.items()}, definition)
    second = averages({name: one.second for name, one in drawn.items()}, definition)
    resampled = averages({name: one.resampled for name, one in drawn.items()}, definition)
    exchanged = averages({name: one.exchanged for name, one in drawn.items()}, definition)
    return {name: _Drawn(first[name], second[name], resampled[name], exchanged[name]) for name in first}


def _paired(task: str, first: pa.Table, second: pa.Table) -> Cells:
    """Count rows by truth and both predictions."""
    for one in (first, second):
        # Features joined by position may belong to a table that names a file once per cell.
        counts = pc.value_counts(one["key"])
        repeated = counts.filter(pc.greater(counts.field("counts"), 1)).field("values")
        if len(repeated):
            raise EvaluationError(
                f"{task}: '{repeated[0].as_py()}' names several rows, which cannot be matched between two results: "
                "give each row a file_path of its own and evaluate again."
            )
    places = pc.index_in(first["key"], value_set=second["key"].combine_chunks())
    if places.null_count or len(first) != len(second):
        raise EvaluationError(f"{task}: the two results are not about the same rows ({_odd_one(first, second)}).")
    second = second.take(places)
    other = pc.index(pc.equal(first["truth"], second["truth"]), pa.scalar(value=False)).as_py()
    if other >= 0:
        labels = " and ".join(f"'{one['truth'][other].as_py()}'" for one in (first, second))
        raise EvaluationError(f"{task}: '{first['key'][other].as_py()}' has two true labels, {labels}.")
    codes, _ = label_codes(first["truth"], first["predicted"], second["predicted"])
    return Cells.of(*codes)


def _odd_one(first: pa.Table, second: pa.Table) -> str:
    for one, other, place in ((first, second, "first"), (second, first, "second")):
        alone = one.filter(pc.invert(pc.is_in(one["key"], value_set=other["key"].combine_chunks())))
        if alone.num_rows:
            return f"only the {place} has '{alone['key'][0].as_py()}'"
    return f"{len(first)} and {len(second)} rows"


def _draw(cells: Cells, resampling: Resampling, random: np.random.Generator) -> tuple[_Drawn, _Drawn]:
    """Return what is needed to compare accuracy and macro F1."""
    first, second = (cells.measure(cells.counts[None, :], model) for model in (0, 1))
    resampled = _differences(cells, cells.bootstrap(resampling.resamples, random))
    exchanged = _differences(*cells.exchanged(resampling.resamples, random))
    accuracy, f1 = (
        _Drawn(float(one[0]), float(other[0]), moved, swapped)
        for one, other, moved, swapped in zip(first, second, resampled, exchanged, strict=True)
    )
    return accuracy, f1


def _differences(cells: Cells, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    (first_accuracy, first_f1), (second_accuracy, second_f1) = (cells.measure(counts, model) for model in (0, 1))
    return first_accuracy - second_accuracy, first_f1 - second_f1


def _name(result: Scores | str | Path, default: str) -> str:
    return default if isinstance(result, Scores) else as_path(result).resolve().name
