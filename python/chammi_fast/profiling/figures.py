"""Figures of profiles, to be drawn in `chammi_fast.drawing.style`: plates as heat maps, how replicates correlate."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from chammi_fast.extras import require
from chammi_fast.profiling.aggregation import COUNT_COLUMN

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from chammi_fast.profiling.pairs import Correlations
    from chammi_fast.profiling.wells import Profiles

_WELL = re.compile(r"([A-Z]{1,2})0*([0-9]{1,2})")
MOST_PLATES = 12
_LAYOUTS = ((8, 12), (16, 24), (32, 48))


def well_place(text: str) -> tuple[int, int] | None:
    """Return row and column, from 0, of a well such as "B03"; None for a text that is no well."""
    match = _WELL.fullmatch(text.strip().upper())
    if match is None or int(match[2]) == 0:
        return None
    letters = match[1]
    row = ord(letters[-1]) - 65 + (26 if len(letters) == 2 else 0)
    return row, int(match[2]) - 1


def plate_image(wells: list[str], values: np.ndarray) -> np.ndarray | None:
    """Return the mean of each well's values in its place on the smallest usual plate, NaN where there is none.

    Returns
    -------
    (rows, columns) float64; None if no text is a well
    """
    found: dict[tuple[int, int], list[float]] = {}
    for well, value in zip(wells, values.tolist(), strict=True):
        place = well_place(well)
        if place is not None:
            found.setdefault(place, []).append(value)
    if not found:
        return None
    rows, columns = (1 + max(place[axis] for place in found) for axis in (0, 1))
    shape = next((one for one in _LAYOUTS if rows <= one[0] and columns <= one[1]), (rows, columns))
    image = np.full(shape, np.nan)
    for one, several in found.items():
        image[one] = np.mean(several)
    return image


def draw_plates(profiles: Profiles, plate: str, well: str) -> Figure | None:
    """Draw each plate's profiles by size (root mean square) and number of cells; None where wells are unknown."""
    names = set(profiles.metadata.column_names)
    if well not in names:
        return None
    wells = [str(value) for value in profiles.metadata[well].to_pylist()]
    plates = np.array(
        [str(value) for value in profiles.metadata[plate].to_pylist()] if plate in names else [""] * len(wells)
    )
    measures = {"size of the profile": np.sqrt(np.mean(profiles.matrix.astype(np.float64) ** 2, axis=1))}
    if COUNT_COLUMN in names:
        measures["cells"] = profiles.metadata[COUNT_COLUMN].to_numpy().astype(np.float64)
    images: list[tuple[str, list[np.ndarray]]] = []
    for name in np.unique(plates)[:MOST_PLATES]:
        rows = np.flatnonzero(plates == name)
        drawn = [plate_image([wells[row] for row in rows], values[rows]) for values in measures.values()]
        if drawn[0] is not None:
            images.append((str(name), [one for one in drawn if one is not None]))
    return _plates_figure(images, list(measures)) if images else None


def _plates_figure(images: list[tuple[str, list[np.ndarray]]], titles: list[str]) -> Figure:
    figure, all_axes = _subplots(len(images), len(titles), (5.2 * len(titles), 3.2 * len(images)))
    for (name, panels), axes in zip(images, all_axes, strict=True):
        for panel, title, axis in zip(panels, titles, axes, strict=True):
            shown = axis.imshow(panel, aspect="equal", cmap="viridis")
            axis.set_title(f"{name} {title}".strip(), fontsize=9)
            rows, columns = panel.shape
            axis.set_xticks(range(0, columns, 2), [str(column + 1) for column in range(0, columns, 2)], fontsize=6)
            axis.set_yticks(range(0, rows, 2), [_letters(row) for row in range(0, rows, 2)], fontsize=6)
            figure.colorbar(shown, ax=axis, shrink=0.8)
    return figure


def _letters(row: int) -> str:
    return chr(65 + row) if row < 26 else "A" + chr(65 + row - 26)


def draw_correlations(found: Correlations, column: str) -> Figure:
    """Draw how pairs of replicates correlate, beside pairs that are none."""
    figure, axes = _subplots(1, 1, (6, 3.6))
    axis = axes[0, 0]
    bins = np.linspace(-1, 1, 61)
    drawn = f" of {found.pairs:,}" if found.pairs > len(found.together) else ""
    for values, label, of in ((found.random, "other pairs", ""), (found.together, "replicates", drawn)):
        told = f"median {np.median(values):.2f}, n = {len(values):,}{of}" if len(values) else "none"
        axis.hist(values, bins, density=bool(len(values)), alpha=0.6, label=f"{label} ({told})")
    axis.set_xlabel("Pearson correlation of two profiles")
    axis.set_ylabel("density")
    axis.set_title(f"Replicates by {column}", fontsize=10)
    axis.legend(fontsize=8)
    return figure


def _subplots(rows: int, columns: int, inches: tuple[float, float]) -> tuple[Figure, np.ndarray]:
    matplotlib = require("matplotlib.figure", purpose="drawing figures")
    figure: Figure = matplotlib.Figure(figsize=inches, layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)
