"""The radar of the paper's Fig. 5: one axis per task, one polygon per model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure as Drawing

from chammi_fast.reporting import drawing, words

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from matplotlib.lines import Line2D
    from matplotlib.projections.polar import PolarAxes

FEWEST_TASKS = 3
_DISC_INCHES = 2.7
_NAME_POINTS = 8.5
REFERENCE_STYLE = {"color": drawing.OTHER, "linestyle": (0, (4, 2))}
_DATA_SET_COLOURS = {"Allen": "#009e73", "HPA": "#cc79a7", "CP": "#d55e00"}


def draw_radar(
    models: Mapping[str, Mapping[str, float]],
    summaries: Mapping[str, str],
    reference: tuple[str, Mapping[str, float]] | None,
    text: drawing.Text,
    folder: Path,
) -> drawing.Figure:
    """Draw macro F1 of each task as distance from the centre.

    Parameters
    ----------
    models : model to task to macro F1; a task that a model lacks leaves a gap in its polygon
    summaries : what the legend adds to a model's name
    reference : name and scores of what all are compared with, drawn behind them
    """
    tasks = list(dict.fromkeys(task for scores in models.values() for task in scores))
    angles = {task: 2 * np.pi * place / len(tasks) for place, task in enumerate(tasks)}
    tips: dict[str, str] = {}
    with drawing.style():
        figure = _figure(tasks, len(models) + (reference is not None))
        axes: PolarAxes = figure.add_subplot(projection="polar")  # type: ignore[assignment]
        _lay_out(axes, angles)
        lines = []
        if reference is not None:
            lines.append(_polygon(axes, angles, reference, REFERENCE_STYLE, tips))
        for place, (name, scores) in enumerate(models.items()):
            colour, marker = drawing.kind_style(place)
            look = {"color": colour, "marker": marker, "markersize": 4, "linewidth": 1.6}
            lines.append(_polygon(axes, angles, (name, scores), look, tips))
            axes.fill(list(angles.values()), [scores.get(task, np.nan) for task in tasks], color=colour, alpha=0.07)
        names = ([reference[0]] if reference is not None else []) + [f"{name}{summaries[name]}" for name in models]
        drawing.add_legend(figure, lines, names, loc="lower center")
        return drawing.save(figure, text, folder, tips)


def _lay_out(axes: PolarAxes, angles: Mapping[str, float]) -> None:
    axes.set_theta_zero_location("N")
    axes.set_theta_direction(-1)
    axes.set_ylim(0, 1)
    axes.set_yticks([0.2, 0.4, 0.6, 0.8, 1.0], ["0.2", "0.4", "0.6", "0.8", "1"], color=drawing.MUTED, fontsize=7)
    axes.set_rlabel_position(180 / len(angles))
    axes.spines["polar"].set_color(drawing.RULE)
    axes.set_xticks(list(angles.values()), [""] * len(angles))
    for task, angle in angles.items():
        side = np.sin(angle)
        data_set, _, rest = task.partition("/")
        # As in the paper: colours name the data set of a generalisation task; the validation task of each is gray.
        known = _DATA_SET_COLOURS.get(data_set, drawing.INK) if rest != "Task_one" else drawing.MUTED
        axes.text(
            angle,
            1.09,
            words.task_title(task),
            color=known,
            ha="center" if abs(side) < 0.2 else "left" if side > 0 else "right",
            va="center",
        )


def _polygon(
    axes: PolarAxes,
    angles: Mapping[str, float],
    model: tuple[str, Mapping[str, float]],
    look: Mapping[str, object],
    tips: dict[str, str],
) -> Line2D:
    name, scores = model
    tasks = list(angles)
    values = [scores.get(task, np.nan) for task in tasks]
    (line,) = axes.plot([*angles.values(), 0], [*values, values[0]], **look)  # type: ignore[arg-type]
    for task, value in zip(tasks, values, strict=True):
        if not np.isnan(value):
            gid = f"radar-{len(tips)}"
            # Invisible and larger than the marker: something for a finger to hit.
            axes.plot([angles[task]], [value], "o", markersize=11, alpha=0, gid=gid)
            tips[gid] = f"{name}\n{words.task_title(task)}: {value:.3f}"
    return line


def _figure(tasks: Sequence[str], lines: int) -> Drawing:
    """Make room for the names of tasks at the sides and for a legend of some lines below."""
    side = max(drawing.text_inches(words.task_title(task), _NAME_POINTS) for task in tasks) + 0.2
    width, foot = _DISC_INCHES + 2 * side, 0.2 * lines + 0.6
    height = _DISC_INCHES + foot + 0.4
    figure = Drawing(figsize=(width, height))
    edges = {"left": side / width, "right": 1 - side / width, "top": 1 - 0.4 / height, "bottom": foot / height}
    figure.subplots_adjust(**edges)
    return figure
