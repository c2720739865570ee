"""Lay embeddings out on a plane: UMAP fitted on training rows, all other rows projected (the paper's Fig. 15)."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from chammi_fast.extras import require

if TYPE_CHECKING:
    from types import ModuleType

    from chammi_fast.evaluation import Metric
    from chammi_fast.reporting.cells import Cells

FEWEST_ROWS = 10
_NEIGHBOURS = 15
_SEED = 0


@dataclass(frozen=True)
class Map:
    """Cells on a plane.

    Attributes
    ----------
    places : (N, 2) float32, one per cell
    fitted : number of cells that the map is made of
    by_training : whether these are the training cells alone
    metric : of the neighbours
    """

    cells: Cells
    places: np.ndarray
    fitted: int
    by_training: bool
    metric: Metric

    @property
    def parts(self) -> list[str]:
        """The parts of the data that the cells belong to, in the order of the results."""
        return [part for part in self.cells.part_order if (self.cells.parts == part).any()]


def map_cells(cells: Cells, metric: Metric) -> Map | None:
    """Lay cells out: by the training cells, or by all where too few train; None where there are too few at all."""
    fitted = cells.training
    by_training = len(fitted) >= FEWEST_ROWS
    if not by_training:
        fitted = np.arange(len(cells.keys))
    if len(fitted) < FEWEST_ROWS:
        return None
    return Map(cells, lay_out(cells.features, fitted, metric), len(fitted), by_training, metric)


def load_umap() -> ModuleType:
    """Import umap-learn, which warns of an optional package that it does not need.

    Raises
    ------
    MissingExtraError
        If it is not installed.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return require("umap", purpose="a report")


def lay_out(features: np.ndarray, fitted: np.ndarray, metric: Metric) -> np.ndarray:
    """Return a place for every row: (N, 2) float32.

    Parameters
    ----------
    features : (N, D) float32
    fitted : (F,) int64 rows that the map is made of, at least `FEWEST_ROWS`; the others are placed among them without
        changing it

    Raises
    ------
    MissingExtraError
        If umap-learn is not installed.
    """
    umap = load_umap()
    with warnings.catch_warnings():
        # They are about threads and compilation; none is about the rows.
        warnings.simplefilter("ignore")
        others = np.setdiff1d(np.arange(len(features)), fitted)
        model = umap.UMAP(
            n_neighbors=min(_NEIGHBOURS, len(fitted) - 1),
            metric="cosine" if metric == "cosine" else "euclidean",
            # The start of a small map by its spectrum fails where rows are equal.
            init="spectral" if len(fitted) > 4 * _NEIGHBOURS else "random",
            random_state=_SEED,
            n_jobs=1,
        )
        places = np.empty((len(features), 2), dtype=np.float32)
        places[fitted] = model.fit_transform(features[fitted])
        if others.size:
            places[others] = model.transform(features[others])
    return places
