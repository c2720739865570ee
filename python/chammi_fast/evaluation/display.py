"""Scores for people: on a terminal, in a notebook, as a pandas table."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any, Literal

from chammi_fast.extras import require

_DIAGNOSTICS_HEADING: tuple[tuple[str, Literal["left", "right"]], ...] = (
    ("question", "left"),
    ("task", "left"),
    ("test images", "right"),
    ("accuracy", "right"),
    ("baseline", "right"),
)

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Group
    from rich.table import Table

    from chammi_fast.evaluation.confidence import Interval
    from chammi_fast.evaluation.scores import Scores


def scores_table(scores: Scores) -> Group:
    """Return what a terminal shows: the scores as a table, and beneath it everything a reader must know."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title(scores), title_justify="left")
    table.add_column("task")
    for heading in ("test images", "accuracy", "macro F1", "95 % interval"):
        table.add_column(heading, justify="right")
    for name, task in scores.tasks.items():
        interval = _bounds(task.intervals.get("f1_macro"))
        table.add_row(Text(name), f"{task.n:,}", f"{task.accuracy:.3f}", f"{task.f1_macro:.3f}", interval)
    if scores.averages:
        table.add_section()
    for name, average in scores.averages.items():
        row = (Text(name), "", "", f"{average.f1_macro:.3f}", _bounds(average.interval))
        table.add_row(*row, style="bold" if name == "CPS" else None)
    more = [_diagnostics_table(scores)] if _diagnostics(scores) else []
    return Group(table, *more, *(Text(remark) for remark in remarks(scores)))


def title(scores: Scores) -> str:
    """Say in a few words how labels were predicted."""
    provenance = scores.provenance
    sample = "" if provenance.sample is None else f", a quick look at {provenance.sample:,} rows of each task"
    if provenance.classifier == "sgd":
        return f"Scores of a linear classifier (SGD){sample}"
    return f"{provenance.k}-nearest-neighbour scores ({provenance.metric}){sample}"


def _diagnostics(scores: Scores) -> list[tuple[str, ...]]:
    """Return what was asked for, by task: question, task, images, accuracy, and what to compare it with.

    That is the accuracy of always naming the most frequent value, or the task's accuracy without exclusion.
    """
    rows: list[tuple[str, ...]] = [
        (f"predicting {column}", task, f"{one.n:,}", f"{one.accuracy:.3f}", f"{one.majority:.3f}")
        for column, tasks in scores.diagnostics.predicting.items()
        for task, one in tasks.items()
    ]
    rows += [
        (f"without same {column}", task, f"{one.n:,}", f"{one.accuracy:.3f}", f"{scores.tasks[task].accuracy:.3f}")
        for column, tasks in scores.diagnostics.excluding_same.items()
        for task, one in tasks.items()
    ]
    return rows


def _diagnostics_table(scores: Scores) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(title="Batch effects", title_justify="left")
    for heading, justify in _DIAGNOSTICS_HEADING:
        table.add_column(heading, justify=justify)
    for row in _diagnostics(scores):
        table.add_row(*(Text(cell) for cell in row))
    return table


def remarks(scores: Scores) -> list[str]:
    """Return what a reader must know beside the numbers, a sentence each."""
    found = [f"{name or 'scores'}: skipped, {reason}" for name, reason in scores.skipped.items()]
    if scores.provenance.benchmark.startswith("CHAMMI") and scores.cps_reason is not None:
        found.append(f"no CPS: {scores.cps_reason}")
    for name, missing in scores.missing.items():
        if missing:
            found.append(f"{_prefix(name)}{missing:,} images had no embedding and were left out")
    found.extend(
        f"{_prefix(name)}features have no keys: matched with the table by position only"
        for name, joined in scores.joined.items()
        if joined == "position"
    )
    found.extend(
        f"{name}: no training image has the label {', '.join(labels)}"
        for name, labels in scores.labels_unseen_in_training.items()
    )
    found.extend(
        f"{name}: no row outside their group has the label {', '.join(labels)}"
        for name, labels in scores.labels_in_one_group.items()
    )
    found.extend(
        f"{name}: a single test image has the label {', '.join(labels)}, so that its F1 hangs on that image"
        for name, labels in scores.labels_occurring_once.items()
    )
    found.extend(
        f"{name}: {count} of the classifier's fits had not converged after 100 passes"
        for name, count in scores.unconverged.items()
    )
    found.extend(f"{question}: skipped, {reason}" for question, reason in scores.diagnostics.skipped.items())
    return found


def data_frame(scores: Scores) -> pd.DataFrame:
    """Return one row per task and average: kind, n, accuracy and macro F1 with the bounds of their intervals."""
    pandas = require("pandas", purpose="a pandas table")
    rows: list[dict[str, Any]] = []
    for name, task in scores.tasks.items():
        row = {"name": name, "kind": "task", "n": task.n, "accuracy": task.accuracy, "f1_macro": task.f1_macro}
        for measure, interval in task.intervals.items():
            row |= {f"{measure}_low": interval.low, f"{measure}_high": interval.high}
        rows.append(row)
    for name, average in scores.averages.items():
        row = {"name": name, "kind": "average", "f1_macro": average.f1_macro}
        if average.interval is not None:
            row |= {"f1_macro_low": average.interval.low, "f1_macro_high": average.interval.high}
        rows.append(row)
    columns = [f"{measure}{end}" for measure in ("accuracy", "f1_macro") for end in ("", "_low", "_high")]
    table: pd.DataFrame = pandas.DataFrame(rows, columns=["name", "kind", "n", *columns])
    return table.astype({"n": "Int64"} | dict.fromkeys(columns, float))


def html_table(scores: Scores) -> str:
    """Return what a notebook shows."""
    rows: list[tuple[str, ...]] = [
        (name, f"{task.n:,}", f"{task.accuracy:.3f}", f"{task.f1_macro:.3f}", _bounds(task.intervals.get("f1_macro")))
        for name, task in scores.tasks.items()
    ]
    rows += [
        (name, "", "", f"{average.f1_macro:.3f}", _bounds(average.interval))
        for name, average in scores.averages.items()
    ]
    html = _html(title(scores), ("task", "test images", "accuracy", "macro F1", "95 % interval"), rows)
    if diagnostics := _diagnostics(scores):
        html += _html("Batch effects", tuple(heading for heading, _ in _DIAGNOSTICS_HEADING), diagnostics)
    notes = "".join(f"<li>{escape(remark)}</li>" for remark in remarks(scores))
    return html + (f"<ul>{notes}</ul>" if notes else "")


def _html(caption: str, heading: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in heading)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _bounds(interval: Interval | None) -> str:
    return "" if interval is None else f"{interval.low:.3f} to {interval.high:.3f}"


def _prefix(name: str) -> str:
    return f"{name}: " if name else ""
