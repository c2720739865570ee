"""What is cut out of fields of view, and how."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from chammi_fast.images.status import ImageStatus, Source, name_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

Channel: TypeAlias = "Source | NDArray[Any]"
"""A channel's image file or its bytes, or (H, W) samples; or the same of all channels, (C, H, W)."""


@dataclass(frozen=True, eq=False)
class Field:
    """One field of view of a plate, and its cells.

    Attributes
    ----------
    channels : one image of one plane for each channel; or a single one with all of them, as pages or samples
    centres_px : (N, 2) numbers: x and y of each cell in pixels, whole numbers being the centres of pixels
    illumination : for each channel (H, W) numbers above 0 that its samples are divided by, or None
    labels : (H, W) whole numbers: the object that each pixel belongs to, 0 for none
    objects : (N,) whole numbers: the label of each cell; by default that of the pixel at its centre
    """

    channels: Sequence[Channel]
    centres_px: NDArray[np.floating[Any]]
    illumination: Sequence[NDArray[np.floating[Any]] | None] | None = None
    labels: NDArray[np.integer[Any]] | None = None
    objects: NDArray[np.integer[Any]] | None = None

    def name(self, channel: int = 0) -> str:
        """Return what a channel is called in statuses."""
        if channel >= len(self.channels):
            return "<labels>"
        source = self.channels[channel]
        return "<array>" if isinstance(source, np.ndarray) else name_of(source)


@dataclass(frozen=True)
class CropSettings:
    """How cells are cut out of a field, and what becomes 0 and 1.

    Attributes
    ----------
    size_px : side of the square around each cell
    edge : what lies beyond the field: its reflection (as ``numpy.pad(mode="reflect")``), zeros ("constant"), or cells
        that reach there are left out ("skip")
    scale : "field" scales each channel from two of its percentiles in the whole field to [0, 1], "crop" from its least
        and greatest sample in each crop, "range" from the same range everywhere. What lies beyond is clipped.
    percentiles : for "field", from 0 to 100, interpolated as by ``numpy.percentile``
    range : for "range"; by default from 0 to the greatest number of an integer type, and for floats from 0 to 1
    neighbours : "mask" sets pixels of other objects to 0, which takes the field's labels
    """

    size_px: int = 160
    edge: Literal["reflect", "constant", "skip"] = "reflect"
    scale: Literal["field", "crop", "range"] = "field"
    percentiles: tuple[float, float] = (0.1, 99.9)
    range: tuple[float, float] | None = None
    neighbours: Literal["keep", "mask"] = "keep"

    def __post_init__(self) -> None:
        if not (hasattr(self.size_px, "__index__") and 1 <= self.size_px <= 16384):
            raise ValueError(f"size_px must be a whole number from 1 to 16384, not {self.size_px!r}.")
        for name, value, known in (
            ("edge", self.edge, ("reflect", "constant", "skip")),
            ("scale", self.scale, ("field", "crop", "range")),
            ("neighbours", self.neighbours, ("keep", "mask")),
        ):
            if value not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, not '{value}'.")
        if not 0 <= self.percentiles[0] < self.percentiles[1] <= 100:
            raise ValueError(f"percentiles must rise and lie between 0 and 100, not {self.percentiles}.")
        if self.range is not None and not (self.range[0] < self.range[1] and np.isfinite(self.range).all()):
            raise ValueError(f"range must rise, not {self.range}.")
        if self.range is not None and self.scale != "range":
            raise ValueError(f"a range is for scale='range', not '{self.scale}'.")


@dataclass(frozen=True)
class CropBatch:
    """Cells of one field.

    Attributes
    ----------
    images : (N, C, S, S) float32 in the order of the field's cells; those that failed or are left out are NaN. The cuts
        alone are (N, C, size_px, size_px) of the samples' type, and 0 instead of NaN.
    touches_edge : (N,) whether a crop reaches beyond the field
    status : one per cell; codes are those of images, "outside" (the centre is not in the field) and "edge" (left out)
    field : the field's place among those that were given
    field_status : what became of the field itself
    first : the place of the first of these cells among the field's
    bounds : (C, 2) samples of each channel that became 0 and 1; (0, 2) where that is decided crop by crop, or the field
        failed
    """

    images: NDArray[Any]
    touches_edge: NDArray[np.bool_]
    status: tuple[ImageStatus, ...]
    field: int
    field_status: ImageStatus
    first: int
    bounds: NDArray[np.float64]
