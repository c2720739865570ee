"""The tables behind the shaded figures: F1 by class and model, and confusion matrices."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from chammi_fast.reporting import words
from chammi_fast.reporting.heatmap import Grid
from chammi_fast.reporting.kinds import natural

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from chammi_fast.evaluation import ClassScores
    from chammi_fast.reporting.results import Result

MOST_CLASSES = 120
_MOST_COLUMNS = 24
_MOST_LABELS = 20


def class_grids(results: Sequence[Result], tasks: Sequence[str]) -> list[Grid]:
    """Return F1 of each task's classes (columns) by model (rows, ascending by mean macro F1 as in the paper)."""
    ordered = sorted(results, key=lambda one: np.mean([task.f1_macro for task in one.scores.tasks.values()]))
    names = [one.name for one in ordered]
    grids = []
    for task in tasks:
        scored = [one.scores.tasks[task].per_class if task in one.scores.tasks else {} for one in ordered]
        labels = _drawn_labels(scored)
        for start in range(0, len(labels), _MOST_COLUMNS):
            chosen = labels[start : start + _MOST_COLUMNS]
            shares = np.array([[found[one].f1 if one in found else np.nan for one in chosen] for found in scored])
            written = [[_short_share(share) for share in row] for row in shares]
            tips = [
                [_class_tip(name, task, label, found) for label in chosen]
                for name, found in zip(names, scored, strict=True)
            ]
            grids.append(Grid(words.task_title(task), names, chosen, shares, written, tips))
    return grids


def _drawn_labels(scored: Sequence[Mapping[str, ClassScores]]) -> list[str]:
    """Return a task's labels in natural order; of very many, those with the most cells."""
    cells = {label: found.n for per_class in scored for label, found in per_class.items()}
    kept = sorted(cells, key=lambda label: (-cells[label], label))[:MOST_CLASSES]
    return sorted(kept, key=natural)


def confusion_grid(result: Result, task: str) -> Grid:
    """Return how the cells of each true label (rows) are shared out over the predictions (columns)."""
    labels, counts = _most_frequent(*result.scores.confusion(task))
    tested = counts.sum(axis=1) > 0
    rows = [label for label, one in zip(labels, tested, strict=True) if one]
    counts = counts[tested]
    shares = counts / counts.sum(axis=1, keepdims=True)
    tips = [
        [
            f"{truth}\ntaken for {label}: {count:,} of {row.sum():,} cells ({count / row.sum():.0%})"
            for label, count in zip(labels, row.tolist(), strict=True)
        ]
        for truth, row in zip(rows, counts, strict=True)
    ]
    written = [[f"{count}" if count else "" for count in row] for row in counts.tolist()]
    title = f"{result.name}: {words.task_title(task)}"
    return Grid(title, rows, labels, shares, written, tips, ("true label", "taken for"))


def most_confused(result: Result, task: str) -> str:
    """Say in a sentence which label is most often taken for which other."""
    labels, counts = result.scores.confusion(task)
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    if not wrong.any():
        return f"{result.name} makes no mistake."
    truth, taken = np.unravel_index(np.argmax(wrong), wrong.shape)
    return (
        f"{result.name} most often takes {labels[truth]} for {labels[taken]}: {wrong[truth, taken]:,} of "
        f"{counts[truth].sum():,} cells."
    )


def _most_frequent(labels: list[str], counts: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Put the labels in natural order, and all but the most frequent ones together."""
    order = sorted(range(len(labels)), key=lambda place: natural(labels[place]))
    if len(labels) > _MOST_LABELS:
        frequency = counts.sum(axis=1) + counts.sum(axis=0)
        kept = set(np.argsort(-frequency, kind="stable")[: _MOST_LABELS - 1].tolist())
        others = [place for place in order if place not in kept]
        order = [place for place in order if place in kept]
        merged = np.zeros((len(order) + 1, len(order) + 1), dtype=np.int64)
        merged[:-1, :-1] = counts[np.ix_(order, order)]
        merged[-1, :-1] = counts[np.ix_(others, order)].sum(axis=0)
        merged[:-1, -1] = counts[np.ix_(order, others)].sum(axis=1)
        merged[-1, -1] = counts[np.ix_(others, others)].sum()
        return [*(labels[place] for place in order), f"{len(others)} others"], merged
    return [labels[place] for place in order], counts[np.ix_(order, order)]


def _class_tip(model: str, task: str, label: str, found: Mapping[str, ClassScores]) -> str:
    if label not in found:
        return f"{model}, {words.task_title(task)}\n{label}: not scored"
    one = found[label]
    return (
        f"{model}, {words.task_title(task)}\n{label}: F1 {one.f1:.3f}, precision {one.precision:.3f}, "
        f"recall {one.recall:.3f} ({words.plural(one.n, 'cell')})"
    )


def _short_share(share: float) -> str:
    """Write .87 for 0.87: the squares are small."""
    return "" if np.isnan(share) else "1" if share >= 0.995 else f"{share:.2f}"[1:]
