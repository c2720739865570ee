"""Cells from images of them: label images, binary masks, and outlines drawn as lines."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from chammi_fast.errors import DecodeError, ManifestError
from chammi_fast.extras import require
from chammi_fast.files import local_copy
from chammi_fast.images import ImageStatus, read_image
from chammi_fast.plates.cells import Cells, Labels
from chammi_fast.urls import is_local

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

MaskKind: TypeAlias = Literal["auto", "labels", "binary", "outlines"]
IMAGE_SUFFIXES = (".tif", ".tiff", ".png")
_BY_CORNERS = np.ones((3, 3), dtype=np.bool_)
_LINE_WIDTH_PX = 1.5


@dataclass(frozen=True)
class Masks:
    """Where images of the cells are, and how to read them.

    Attributes
    ----------
    where : folder or pattern (`chammi_fast.plates.patterns`) of one image per field
    kind : "labels": a pixel's value is its object's number; "binary": objects are what is not 0 and hangs together,
        corners included; "outlines": objects are what lines enclose, together with their lines; "auto": an image of
        several samples has outlines, one whose only value beside 0 is 255, the largest of its type, or 1 in several
        pieces is binary, others have labels
    smallest_px : objects of a binary mask or a drawing that have fewer pixels are left out
    """

    where: str | Path
    kind: MaskKind = "auto"
    smallest_px: int = 50


def read_mask(path: Path, masks: Masks) -> Cells:
    """Read the cells of one field from an image.

    Raises
    ------
    DecodeError
        If the image is missing or cannot be read.
    ManifestError
        If it is none of the kinds.
    MissingExtraError
        If SciPy is not installed.
    """
    try:
        with local_copy(path) as local:
            image = np.asarray(read_image(local))
    except DecodeError as error:
        if is_local(path):
            raise
        raise replace(ImageStatus.of(error), path=str(path)).error() from None
    except OSError as error:
        raise ManifestError(f"{path}: cannot be read: {error.strerror or error}.") from None
    kind = _kind_of(image) if masks.kind == "auto" else masks.kind
    if kind == "outlines":
        return cells_of(from_outlines(image, smallest_px=masks.smallest_px))
    if image.ndim != 2 or image.dtype.kind not in "ui":
        raise ManifestError(f"{path}: is no image of {kind}: it is {image.shape} {image.dtype}.")
    if kind == "binary":
        return cells_of(from_binary(image, smallest_px=masks.smallest_px))
    if image.size and not 0 <= int(image.min()) <= int(image.max()) <= np.iinfo(np.int32).max:
        raise ManifestError(f"{path}: holds labels from {image.min()} to {image.max()}; they must be 0 to 2147483647.")
    return cells_of(image.astype(np.int32))


def from_binary(mask: npt.NDArray[Any], *, smallest_px: int) -> Labels:
    """Give numbers to what hangs together in a mask, (H, W), row by row from the top."""
    labels, _ = _ndimage().label(mask != 0, structure=_BY_CORNERS)
    return _without_small(labels.astype(np.int32), smallest_px)


def from_outlines(drawing: npt.NDArray[Any], *, smallest_px: int) -> Labels:
    """Give numbers to what lines enclose, (H, W) or (H, W, S), where all that is not black belongs to a line.

    What touches the image's border is background, and so are cells that the border cuts off. Objects whose lines
    touch stay apart.
    """
    ndimage = _ndimage()
    lines = drawing != 0 if drawing.ndim == 2 else (drawing != 0).any(axis=-1)
    regions, _ = ndimage.label(~lines)
    open_ones = np.unique(np.concatenate([regions[0], regions[-1], regions[:, 0], regions[:, -1]]))
    regions[np.isin(regions, open_ones)] = 0
    # A line's pixels go to the nearest inside, so that boxes and masks hold the whole object.
    distance, nearest = ndimage.distance_transform_edt(regions == 0, return_indices=True)
    grown = np.where(lines & (distance <= _LINE_WIDTH_PX), regions[tuple(nearest)], regions)
    return _without_small(grown.astype(np.int32), smallest_px)


def cells_of(labels: Labels) -> Cells:
    """Return the objects of a label image, (H, W), in the order of their numbers."""
    ndimage = _ndimage()
    numbers = np.unique(labels[labels != 0]).astype(np.int64)
    if not len(numbers):
        return Cells(numbers, np.empty((0, 2)), np.empty((0, 4), dtype=np.int32), labels)
    # Consecutive numbers first: a label of two billion must not cost two billion boxes.
    dense = np.searchsorted(numbers, labels) + 1
    dense[labels == 0] = 0
    centres = np.array(ndimage.center_of_mass(dense != 0, dense, np.arange(1, len(numbers) + 1)))[:, ::-1]
    boxes = [(x.start, y.start, x.stop, y.stop) for y, x in ndimage.find_objects(dense)]
    return Cells(numbers, np.ascontiguousarray(centres), np.array(boxes, dtype=np.int32), labels)


def _kind_of(image: npt.NDArray[Any]) -> MaskKind:
    if image.ndim == 3:
        return "outlines"
    values = np.unique(image)
    marks = [int(value) for value in values if value != 0]
    full = np.iinfo(image.dtype).max if image.dtype.kind in "ui" else 1
    if marks == [1] and full != 1:
        # A label image of a field with one object; were it a mask, that would be object 1 as well.
        return "labels" if _ndimage().label(image, structure=_BY_CORNERS)[1] == 1 else "binary"
    return "binary" if len(marks) == 1 and marks[0] in {255, full} else "labels"


def _without_small(labels: Labels, smallest_px: int) -> Labels:
    """Remove small objects and number the others 1, 2, ..."""
    sizes = np.bincount(labels.ravel())
    keep = sizes >= smallest_px
    keep[0] = False
    numbers = np.where(keep, np.cumsum(keep), 0).astype(np.int32)
    return numbers[labels]


def _ndimage() -> Any:
    return require("scipy", purpose="finding cells in masks").ndimage
