"""Macro F1 of each task as a dot with its confidence interval, models one below the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.figure import Figure as Drawing
from matplotlib.lines import Line2D

from chammi_fast.reporting import drawing, words

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from matplotlib.axes import Axes

    from chammi_fast.evaluation.confidence import Interval

    Estimate = tuple[float, Interval | None]

_LINE_INCHES, _GAP_INCHES = 0.15, 0.16


def draw_intervals(models: Mapping[str, Mapping[str, Estimate]], text: drawing.Text, folder: Path) -> drawing.Figure:
    """Draw one row per task or average, one dot per model.

    Parameters
    ----------
    models : model to the name of a task or an average, to its macro F1 and interval
    """
    rows = list(dict.fromkeys(name for scores in models.values() for name in scores))
    row_inches = _LINE_INCHES * len(models) + _GAP_INCHES
    tips: dict[str, str] = {}
    with drawing.style():
        height = 0.75 + row_inches * len(rows) + 0.2 * len(models)
        figure = Drawing(figsize=(4.4, height), layout="constrained")
        axes = figure.add_subplot()
        handles = []
        for place, (model, scores) in enumerate(models.items()):
            colour, marker = drawing.kind_style(place)
            handles.append(Line2D([], [], color=colour, marker=marker, markersize=5))
            shift = (place - (len(models) - 1) / 2) * _LINE_INCHES / row_inches
            for name, estimate in scores.items():
                gid = f"dot-{len(tips)}"
                tips[gid] = f"{model}\n{words.task_title(name)}: {_said(estimate)}"
                _draw_dot(axes, rows.index(name) + shift, estimate, {"color": colour, "marker": marker, "gid": gid})
        _finish(axes, rows)
        drawing.add_legend(figure, handles, list(models), loc="outside lower left")
        return drawing.save(figure, text, folder, tips)


def _draw_dot(axes: Axes, height: float, estimate: Estimate, look: Mapping[str, str]) -> None:
    value, interval = estimate
    if interval is not None:
        axes.plot([interval.low, interval.high], [height, height], color=look["color"], linewidth=1.8, alpha=0.55)
    axes.plot([value], [height], markersize=5.5, linestyle="none", clip_on=False, **look)  # type: ignore[arg-type]


def _said(estimate: Estimate) -> str:
    value, interval = estimate
    return words.score(value) + (f" ({interval.level:.0%} interval {words.between(interval)})" if interval else "")


def _finish(axes: Axes, rows: list[str]) -> None:
    axes.set_yticks(range(len(rows)), [words.task_title(name) for name in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(0, 1)
    axes.set_xlabel("macro F1")
    axes.grid(axis="x", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    for edge in range(1, len(rows)):
        axes.axhline(edge - 0.5, color=drawing.RULE, linewidth=0.5)
