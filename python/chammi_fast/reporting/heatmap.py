"""Tables of shares as shaded squares: classes by model (the paper's Fig. 16), and confusion matrices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure as Drawing
from matplotlib.patches import Rectangle

from chammi_fast.reporting import drawing, words

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

_SQUARE_INCHES = 0.36
_LABEL_POINTS, _TITLE_POINTS = 8.5, 9
_BOLD = 1.13  # how much wider than regular letters
_LEAN_DEGREES = 50
_RISE, _REACH = np.sin(np.radians(_LEAN_DEGREES)), np.cos(np.radians(_LEAN_DEGREES))
_DARK_ENOUGH = 0.55
_SHOWN_LABEL = 22
_PAGE_INCHES = 10.5


@dataclass(frozen=True)
class Grid:
    """One table to draw.

    Attributes
    ----------
    title : above it
    rows, columns : what its lines are called
    shares : (R, C) float64 in [0, 1], NaN where there is nothing
    written : (R, C) what stands in the squares
    tips : (R, C) what the page says about them
    axes : what rows and columns are, in a word or two; "" for nothing said
    """

    title: str
    rows: Sequence[str]
    columns: Sequence[str]
    shares: np.ndarray
    written: Sequence[Sequence[str]]
    tips: Sequence[Sequence[str]]
    axes: tuple[str, str] = ("", "")


def draw_grids(grids: Sequence[Grid], text: drawing.Text, folder: Path) -> drawing.Figure:
    """Draw tables side by side as far as a page is wide, the others below.

    A square's colour is one hue, as strong as its share, so that it reads alike on light and dark pages.
    """
    tips: dict[str, str] = {}
    lines = _lines(grids)
    heights = [_height(line) for line in lines]
    with drawing.style():
        figure = Drawing(figsize=(max(map(_width, lines)), sum(heights)))
        top = sum(heights)
        for line, height in zip(lines, heights, strict=True):
            head = max(_head_inches(grid) for grid in line)
            left = 0.0
            for place, grid in enumerate(line):
                left += _label_inches(line, place)
                corner = (left, top - _title_inches(grid) - head, head)
                _draw_grid(figure, grid, corner, tips, named=not _repeats(line, place))
                left += _body_inches(grid)
            top -= height
        return drawing.save(figure, text, folder, tips)


def _lines(grids: Sequence[Grid]) -> list[list[Grid]]:
    lines: list[list[Grid]] = []
    for grid in grids:
        if lines and _width([*lines[-1], grid]) <= _PAGE_INCHES:
            lines[-1].append(grid)
        else:
            lines.append([grid])
    return lines


def _repeats(line: Sequence[Grid], place: int) -> bool:
    """Whether the names of a table's rows stand at the table to its left."""
    return place > 0 and not any(line[place].axes) and list(line[place].rows) == list(line[place - 1].rows)


def _label_inches(line: Sequence[Grid], place: int) -> float:
    if _repeats(line, place):
        return 0.12
    return max(_text_inches(name) for name in line[place].rows) + (0.34 if any(line[place].axes) else 0.14)


def _lean_inches(grid: Grid) -> float:
    """Room that the leaning names of columns need beyond the last square."""
    reach = [
        _REACH * _text_inches(name) - (len(grid.columns) - 0.5 - k) * _SQUARE_INCHES
        for k, name in enumerate(grid.columns)
    ]
    return float(max(0.1, *reach))


def _width(line: Sequence[Grid]) -> float:
    return 0.1 + sum(_label_inches(line, place) + _body_inches(grid) for place, grid in enumerate(line))


def _body_inches(grid: Grid) -> float:
    squares = _SQUARE_INCHES * len(grid.columns) + _lean_inches(grid)
    return max(squares, drawing.text_inches(grid.title, _TITLE_POINTS) * _BOLD + 0.15)


def _draw_grid(
    figure: Drawing, grid: Grid, place: tuple[float, float, float], tips: dict[str, str], *, named: bool
) -> None:
    width, height = figure.get_size_inches()
    across, down = _SQUARE_INCHES * len(grid.columns), _SQUARE_INCHES * len(grid.rows)
    left, top, head = place
    axes = figure.add_axes((left / width, (top - down) / height, across / width, down / height))
    axes.set_xlim(0, len(grid.columns))
    axes.set_ylim(len(grid.rows), 0)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, pad=3)
    axes.xaxis.tick_top()
    shown = [words.short(name, _SHOWN_LABEL) if named else "" for name in grid.rows]
    axes.set_yticks(np.arange(len(grid.rows)) + 0.5, shown)
    names = [words.short(name, _SHOWN_LABEL) for name in grid.columns]
    axes.set_xticks(np.arange(len(names)) + 0.5, names, rotation=_LEAN_DEGREES, ha="left", rotation_mode="anchor")
    for row, column in np.ndindex(grid.shares.shape):
        gid = f"square-{len(tips)}"
        tips[gid] = grid.tips[row][column]
        _draw_square(axes, (row, column), float(grid.shares[row, column]), grid.written[row][column], gid)
    figure.text(left / width, (top + head) / height, grid.title, fontweight="bold", va="center", fontsize=_TITLE_POINTS)
    down_means, across_means = grid.axes
    look: dict[str, Any] = {"color": drawing.MUTED, "fontsize": 7.5}
    figure.text((left + across / 2) / width, (top - down - 0.06) / height, across_means, va="top", ha="center", **look)
    edge = left - max(_text_inches(name) for name in grid.rows) - 0.2
    figure.text(edge / width, (top - down / 2) / height, down_means, rotation=90, va="center", ha="center", **look)


def _draw_square(axes: Axes, place: tuple[int, int], share: float, written: str, gid: str) -> None:
    row, column = place
    empty = np.isnan(share)
    axes.add_patch(
        Rectangle(
            (column + 0.03, row + 0.03),
            0.94,
            0.94,
            facecolor="none" if empty else (*_rgb(drawing.ACCENT), 0.04 + 0.96 * share),
            edgecolor=drawing.RULE if empty or share < 0.02 else "none",
            linewidth=0.5,
            gid=gid,
        )
    )
    if written:
        axes.text(
            column + 0.5,
            row + 0.5,
            written,
            ha="center",
            va="center",
            fontsize=6.5 if len(written) < 5 else 5.5,
            color="#ffffff" if share > _DARK_ENOUGH else drawing.INK,
        ).set_gid(f"{gid}-number")


def _rgb(colour: str) -> tuple[float, float, float]:
    return (int(colour[1:3], 16) / 255, int(colour[3:5], 16) / 255, int(colour[5:7], 16) / 255)


def _text_inches(name: str) -> float:
    return drawing.text_inches(words.short(name, _SHOWN_LABEL), _LABEL_POINTS) + 0.08


def _head_inches(grid: Grid) -> float:
    return float(max(_text_inches(name) for name in grid.columns) * _RISE + 0.16)


def _title_inches(grid: Grid) -> float:
    return 0.3 if grid.title else 0.05


def _height(line: Sequence[Grid]) -> float:
    foot = 0.38 if any(any(grid.axes) for grid in line) else 0.18
    head = max(_head_inches(grid) for grid in line)
    return max(_title_inches(grid) + _SQUARE_INCHES * len(grid.rows) for grid in line) + head + foot
