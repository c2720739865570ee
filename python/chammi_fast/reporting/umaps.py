"""UMAPs side by side: one line per model, one panel per part of the data (the paper's Fig. 15)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure as Drawing
from matplotlib.lines import Line2D

from chammi_fast.reporting import drawing, words
from chammi_fast.reporting.cells import TRAINING, UNTESTED
from chammi_fast.reporting.kinds import Kinds

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

    from chammi_fast.reporting.projection import Map

_PANEL_INCHES, _PAGE_INCHES = 2.6, 8.0
_HEADING: dict[str, Any] = {"color": drawing.MUTED, "va": "bottom", "fontsize": 7.5}
_LINE_INCHES, _LEGEND_LINE_INCHES = 0.45, 0.19


def draw_umaps(maps: Sequence[Map], column: str | None, text: drawing.Text, folder: Path) -> drawing.Figure:
    """Draw every part of a data set in a panel of its own, before the training cells (or untested ones) in gray.

    Parameters
    ----------
    maps : one per model
    column : of batches that tells the colours apart; None for labels
    """
    parts = list(dict.fromkeys(part for one in maps for part in one.parts))
    values = [one.cells.values(column) for one in maps]
    kinds = Kinds.of(np.concatenate(values))
    panel = min(_PANEL_INCHES, _PAGE_INCHES / len(parts))
    width = len(parts) * panel + 0.1
    longest = max(len(words.short(name, 24)) for name in kinds.shown)
    lines = -(-len(kinds.shown) // max(1, int(width / (0.42 + 0.075 * longest))))
    columns = -(-len(kinds.shown) // lines)
    legend_inches = _LEGEND_LINE_INCHES * lines + 0.15
    height = len(maps) * (panel + _LINE_INCHES) + legend_inches
    with drawing.style():
        figure = Drawing(figsize=(width, height))
        grid = figure.subplots(
            len(maps),
            len(parts),
            squeeze=False,
            gridspec_kw={"left": 0.05 / width, "right": 1 - 0.05 / width, "wspace": 0.04}
            | {"top": 1 - _LINE_INCHES / height, "bottom": legend_inches / height}
            | {"hspace": _LINE_INCHES / panel},
        )
        for line, one, kind in zip(grid, maps, values, strict=True):
            line[0].set_title(words.short(one.cells.model, 40), loc="left", fontweight="bold", pad=16)
            for axes, part in zip(line, parts, strict=True):
                masks = (one.cells.parts == part, np.isin(one.cells.parts, (TRAINING, UNTESTED)))
                _draw_panel(axes, one.places, (kinds.places(kind), kinds), masks)
                axes.text(0, 1.02, words.part_title(part), transform=axes.transAxes, **_HEADING)
        _add_legend(figure, kinds, columns)
        return drawing.save(figure, text, folder)


def _draw_panel(
    axes: Axes, places: np.ndarray, coloured: tuple[np.ndarray, Kinds], masks: tuple[np.ndarray, np.ndarray]
) -> None:
    (kind_places, kinds), (part, others) = coloured, masks
    size = float(np.clip(4000 / max(len(places), 1), 2, 12))
    # Thousands of vector points would make a slow page; the panel is a picture, its words are not.
    look: dict[str, Any] = {"linewidths": 0, "rasterized": True}
    if (part != others).any():
        axes.scatter(places[others, 0], places[others, 1], s=size * 0.8, color=drawing.OTHER, alpha=0.3, **look)
    for kind in np.unique(kind_places[part]):
        colour, marker = kinds.looks[kind]
        x, y = places[part & (kind_places == kind)].T
        axes.scatter(x, y, s=size, color=colour, marker=marker, alpha=0.8, **look)
    low, high = places.min(axis=0), places.max(axis=0)
    margin = 0.04 * np.maximum(high - low, 1e-6)
    axes.set_xlim(low[0] - margin[0], high[0] + margin[0])
    axes.set_ylim(low[1] - margin[1], high[1] + margin[1])
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(True)
    axes.spines[:].set_color(drawing.RULE)


def _add_legend(figure: Drawing, kinds: Kinds, columns: int) -> None:
    handles = [
        Line2D([], [], color=colour, marker=marker, linestyle="none", markersize=4.5) for colour, marker in kinds.looks
    ]
    drawing.add_legend(figure, handles, kinds.shown, loc="lower left", columns=columns)
