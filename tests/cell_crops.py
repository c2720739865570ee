"""What cutting cells out of a field means, in NumPy: written from docs/crops.md, sharing nothing with the core."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from chammi_fast.images import CropBatch, CropSettings, Field, Preprocess

if TYPE_CHECKING:
    from collections.abc import Sequence

Array = np.ndarray[Any, np.dtype[Any]]


KEPT = Preprocess(size=None)
CROP = CropSettings(4, scale="range", range=(0, 255))


def numbered(number: int, cells: int, sides: tuple[int, int] = (9, 8)) -> Field:
    """A field of two channels whose pixels all are its number and the number after it."""
    planes = [np.full(sides, number + channel, np.uint8) for channel in range(2)]
    return Field(planes, np.full((cells, 2), 4.0))


def number_of(batch: CropBatch) -> float:
    assert len(np.unique(batch.images[:, 0])) == 1
    return round(float(batch.images[0, 0, 0, 0]) * 255)


@dataclass(frozen=True)
class Cells:
    """Planes of a field (C, H, W), and what is known of its cells."""

    planes: Array
    centres: Sequence[tuple[float, float]]
    illumination: Sequence[Array | None] | None = None
    labels: Array | None = None
    objects: Sequence[int] | None = None

    @property
    def corrected(self) -> list[Array]:
        functions = self.illumination or [None] * len(self.planes)
        if all(one is None for one in functions):
            return list(self.planes)
        floats = [plane.astype(np.float32) for plane in self.planes]
        return [
            plane if one is None else plane / one.astype(np.float32)
            for plane, one in zip(floats, functions, strict=True)
        ]

    def corner(self, cell: int, size: int) -> tuple[int, int]:
        x, y = self.centres[cell]
        return math.floor(y + 0.5) - size // 2, math.floor(x + 0.5) - size // 2


def window(plane: Array, corner: tuple[int, int], size: int, edge: str) -> Array:
    """Cut a square whose corner may lie anywhere."""
    wide = 2 * size + max(plane.shape)
    mode: Any = "reflect" if edge == "reflect" else "constant"
    padded = np.pad(plane, wide, mode=mode)
    top, left = corner[0] + wide, corner[1] + wide
    return padded[top : top + size, left : left + size]


def shown(cells: Cells, cell: int, settings: CropSettings) -> Array:
    """Return where a crop shows the field and no other object."""
    size, corner = settings.size_px, cells.corner(cell, settings.size_px)
    seen = window(np.ones(cells.planes.shape[1:], bool), corner, size, settings.edge)
    if settings.neighbours == "keep":
        return seen
    assert cells.labels is not None
    labels = window(cells.labels, corner, size, settings.edge)
    x, y = cells.centres[cell]
    own = cells.labels[math.floor(y + 0.5), math.floor(x + 0.5)] if cells.objects is None else cells.objects[cell]
    visible: Array = seen & ((labels == 0) | (labels == own))
    return visible


def cuts(cells: Cells, cell: int, settings: CropSettings) -> Array:
    """Return (C, size, size) samples."""
    corner = cells.corner(cell, settings.size_px)
    cut = [window(plane, corner, settings.size_px, settings.edge) for plane in cells.corrected]
    return np.where(shown(cells, cell, settings), np.stack(cut), 0).astype(cut[0].dtype)


def bounds(cells: Cells, settings: CropSettings) -> list[tuple[float, float]]:
    """Return what becomes 0 and 1 in each channel of a field."""
    if settings.scale == "range":
        whole = cells.planes.dtype.kind in "iu"
        return [settings.range or (0.0, float(np.iinfo(cells.planes.dtype).max) if whole else 1.0)] * len(cells.planes)
    return [tuple(np.percentile(plane.astype(np.float64), settings.percentiles)) for plane in cells.corrected]


def unit(samples: Array, low: float, high: float) -> Array:
    if high <= low:
        return np.zeros(samples.shape)
    return np.clip((samples.astype(np.float64) - low) / (high - low), 0, 1)


def scaled(cells: Cells, cell: int, settings: CropSettings) -> Array:
    """Return (C, size, size) numbers from 0 to 1, in double precision."""
    visible = shown(cells, cell, settings)
    samples = cuts(cells, cell, settings)
    if settings.scale == "crop":
        limits = [(channel[visible].min(), channel[visible].max()) if visible.any() else (0, 0) for channel in samples]
    else:
        limits = bounds(cells, settings)
    units = [unit(channel, float(low), float(high)) for channel, (low, high) in zip(samples, limits, strict=True)]
    return np.where(visible, np.stack(units), 0)
