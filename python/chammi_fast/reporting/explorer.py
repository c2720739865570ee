"""The map of cells that one can walk over: what the page's script needs to know about each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from bokeh.core.types import ID
from bokeh.embed import json_item
from bokeh.models import ColumnDataSource, HoverTool, PanTool, Range1d, TapTool
from bokeh.plotting import figure

from chammi_fast.reporting import words
from chammi_fast.reporting.cells import TRAINING, UNTESTED
from chammi_fast.reporting.kinds import Kinds
from chammi_fast.reporting.thumbnails import SIDE_PX, Thumbnails, make_thumbnails

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chammi_fast.evaluation import Metric
    from chammi_fast.reporting.cells import Cells
    from chammi_fast.reporting.projection import Map

NEIGHBOURS = 5


def payload(maps: Sequence[Map]) -> tuple[dict[str, Any], list[str]]:
    """Return what the page's script reads, and remarks for the reader."""
    data_sets: dict[str, dict[str, Any]] = {}
    places: dict[str, dict[str, int]] = {}
    remarks = []
    for data_set in dict.fromkeys(one.cells.data_set for one in maps):
        own = [one.cells for one in maps if one.cells.data_set == data_set]
        keys, thumbnails = _thumbnails(own)
        places[data_set] = {key: place for place, key in enumerate(keys)}
        data_sets[data_set] = {
            "channels": own[0].channels if len(own[0].channels) == thumbnails.channels else [],
            "channelCount": thumbnails.channels,
            "keys": keys,
            "strips": thumbnails.strips,
        }
        absent = sum(not strip for strip in thumbnails.strips)
        if absent:
            where = f"{data_set}: " if data_set else ""
            remarks.append(f"{where}{absent:,} of {len(keys):,} cells have no picture: {thumbnails.missing}.")
    described = [_describe(one, places[one.cells.data_set]) for one in maps]
    return {"side": SIDE_PX, "dataSets": data_sets, "maps": described}, remarks


def plot() -> dict[str, Any]:
    """Return the empty plot that the page's script fills, as a document for Bokeh's script."""
    columns = ("x", "y", "colour", "marker", "size", "alpha")
    source = ColumnDataSource({name: [] for name in columns}, name="cells")
    links = ColumnDataSource({name: [] for name in ("x0", "y0", "x1", "y1")}, name="links")
    chosen = ColumnDataSource({name: [] for name in ("x", "y", "size", "width")}, name="chosen")
    # Axes of a UMAP have no meaning; the script gives both one unit, so that distances are not distorted.
    drawn = figure(name="map", tools="", toolbar_location=None, sizing_mode="stretch_both")
    drawn.x_range, drawn.y_range = Range1d(start=0, end=1), Range1d(start=0, end=1)
    drawn.axis.visible = False
    drawn.grid.visible = False
    drawn.outline_line_color = None
    drawn.background_fill_color = drawn.border_fill_color = None
    drawn.min_border = 6
    drawn.segment("x0", "y0", "x1", "y1", source=links, line_color="#8a929a", line_width=1.2)
    dots = drawn.scatter(
        "x",
        "y",
        source=source,
        size="size",
        marker="marker",
        fill_color="colour",
        fill_alpha="alpha",
        line_color=None,
    )
    dots.selection_glyph = dots.nonselection_glyph = None
    drawn.scatter("x", "y", source=chosen, size="size", fill_color=None, line_color="#8a929a", line_width="width")
    # Not the wheel: it would keep a reader from scrolling past the map.
    drawn.add_tools(PanTool(), TapTool(renderers=[dots]), HoverTool(renderers=[dots], tooltips=None))
    return dict(json_item(drawn, ID("map-plot")))


def _thumbnails(own: Sequence[Cells]) -> tuple[list[str], Thumbnails]:
    """Picture each cell that any of a data set's maps shows, once."""
    paths: dict[str, str] = {}
    widths: dict[str, int] = {}
    for cells in own:
        for row in cells.shown.tolist():
            key = cells.keys[row]
            paths.setdefault(key, cells.paths[row])
            if cells.widths is not None:
                widths.setdefault(key, cells.widths[row])
    listed = [widths[key] for key in paths] if len(widths) == len(paths) else None
    return list(paths), make_thumbnails(list(paths.values()), listed, drop_mask=own[0].drop_mask)


def _describe(one: Map, places: dict[str, int]) -> dict[str, Any]:
    cells, shown = one.cells, one.cells.shown
    keys = [cells.keys[row] for row in shown.tolist()]
    own = {key: place for place, key in enumerate(keys)}
    decided = [cells.neighbours[row] for row in shown.tolist()]
    xy = one.places[shown].astype(float).round(3)
    tested = np.where(cells.predicted == cells.labels, "right", "wrong")
    outcome = np.where(np.isin(cells.parts, (TRAINING, UNTESTED)), "not tested", tested)
    parts = [words.part_title(part) for part in cells.parts]
    fields = [("label", cells.labels), ("part of the data", parts), ("right or wrong", outcome), *cells.batches.items()]
    return {
        "model": cells.model,
        "dataSet": cells.data_set,
        "total": cells.total,
        "x": xy[:, 0].tolist(),
        "y": xy[:, 1].tolist(),
        "cell": [places[key] for key in keys],
        "fields": [_field(title, np.asarray(values, dtype=object)[shown]) for title, values in fields],
        "predicted": cells.predicted[shown].tolist(),
        "decidedBy": [own.get(key, -1) for key in decided],
        "decidedKey": decided,
        "similarity": [None if np.isnan(value) else round(float(value), 4) for value in cells.similarities[shown]],
        "neighbours": _nearest(cells.features[shown], one.metric).tolist(),
    }


def _field(title: str, values: np.ndarray) -> dict[str, Any]:
    kinds = Kinds.of(values)
    return {
        "title": title,
        "names": kinds.shown,
        "looks": [{"colour": colour, "marker": _MARKERS[marker]} for colour, marker in kinds.looks],
        "kind": kinds.places(values).tolist(),
        "values": [str(value) for value in values],
    }


_MARKERS = {"o": "circle", "^": "triangle", "s": "square", "D": "diamond"}


def _nearest(features: np.ndarray, metric: Metric) -> np.ndarray:
    """(S, K) int64 nearest of (S, D) features, themselves excluded, nearest first."""
    values = features.astype(np.float64)
    if metric == "cosine":
        lengths = np.linalg.norm(values, axis=1, keepdims=True)
        values = values / np.where(lengths > 0, lengths, 1)
    squares = (values * values).sum(axis=1)
    distances = squares[:, None] + squares[None] - 2 * values @ values.T
    np.fill_diagonal(distances, np.inf)
    return np.argsort(distances, axis=1, kind="stable")[:, : min(NEIGHBOURS, len(values) - 1)]
