"""Paint one field of a synthetic plate: 16-bit images of five stains, and where its nuclei are."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from chammi_fast.chammi import CP
from chammi_fast.synthetic.looks import Look, expose, look
from chammi_fast.synthetic.painters import EFFECTS, LEVELS, cell_painting
from chammi_fast.synthetic.scene import Body, Scene, build
from chammi_fast.synthetic.textures import Plane, plane, smooth_noise

if TYPE_CHECKING:
    from pathlib import Path

# In the order of `cell_painting`, and numbered as on a microscope of the JUMP consortium.
CHANNELS = {"DNA": 5, "ER": 4, "RNA": 3, "AGP": 2, "Mito": 1}
DARK = 120.0  # what a camera shows without light
FULL = 9000.0  # of a stain as bright as it gets, in the middle of the field
ELECTRONS = 0.5  # per count: the fewer, the more noise
DOSE_SPREAD = 0.08  # standard deviation of an effect's strength between fields
VIGNETTE = 0.45  # how much darker the corners are, with the channel's own waves on top
SMALLEST_NUCLEUS = 0.3  # of the usual area: what is cut off more than that is no cell


@dataclass(frozen=True)
class FieldSubject:
    """What a field shows.

    Attributes
    ----------
    mechanism : a key of `EFFECTS`
    strength : of the effect, from 0 for none to 1
    gain : brightness by the well's position, near 1
    size : of the cells by the well's position, near 1
    """

    mechanism: str
    strength: float
    gain: float
    size: float


@dataclass(frozen=True)
class PaintedField:
    """One field.

    Attributes
    ----------
    planes : (C, H, W) uint16 in the order of `CHANNELS`
    labels : (H, W) int32, nuclei numbered as in `centres_px` from 1, and 0 elsewhere
    centres_px : (N, 2) float64, x and y of the nuclei's centroids
    """

    planes: npt.NDArray[np.uint16]
    labels: npt.NDArray[np.int32]
    centres_px: npt.NDArray[np.float64]


def plate_look(plate: str, size_px: int) -> Look:
    """Return the technical traits of a plate, which follow from its name alone."""
    seen = look(plate, CP, novelty=0.0)
    return replace(seen, blur=0.65 * seen.blur * 256 / size_px)  # blur is in 256ths of the height


def illumination(rng: np.random.Generator, size_px: int) -> Plane:
    """(H, W) float32 from 1: by how much a pixel of one channel is to be divided, as CellProfiler has it."""
    places = np.linspace(-1, 1, size_px, dtype=np.float32)
    shift = rng.uniform(-0.15, 0.15, 2)
    distance = np.square(places[:, None] - shift[0]) + np.square(places[None, :] - shift[1])
    waves = smooth_noise(rng, (size_px, size_px), size_px / 3)
    light = np.exp(-VIGNETTE * distance / 2 + 0.03 * waves)
    return plane(light / light.min())


def paint_field(
    rng: np.random.Generator, subject: FieldSubject, seen: Look, *, size_px: int, cells: int, functions: Plane
) -> PaintedField:
    """Paint a field of about so many cells; `functions` is the illumination of each channel, (C, H, W)."""
    effect = EFFECTS[subject.mechanism]
    dose = max(subject.strength * (1 + DOSE_SPREAD * rng.standard_normal()), 0.0)
    spacing = size_px / np.sqrt(cells)
    size = seen.size * subject.size
    body = Body(
        nucleus_px=0.2 * spacing * size * (1 + dose * effect.nucleus),
        cell_px=0.55 * spacing * size * (1 + dose * effect.cell),
        stretch=1.25 * (1 + dose * effect.stretch),
        wobble=0.09,
    )
    scene = build(rng, (size_px, size_px), body, _centres(rng, size_px, cells))
    light = expose(rng, np.stack(cell_painting(scene, effect, dose)), seen, LEVELS["CP"])
    labels, centres = _nuclei(scene, body)
    return PaintedField(_counts(rng, light * np.float32(subject.gain) * functions), labels, centres)


def write_image(path: Path, samples: npt.NDArray[np.uint16], compression: str) -> None:
    """Write a TIFF of 16 bits, with LZW or without compression."""
    Image.fromarray(samples).save(path, format="TIFF", compression="tiff_lzw" if compression == "lzw" else None)


def _centres(rng: np.random.Generator, size_px: int, cells: int) -> list[tuple[float, float]]:
    """Rows and columns from the image's centre: a grid whose points wander, with some cells left out."""
    side = int(np.ceil(np.sqrt(cells)))
    step = size_px / side
    rows, columns = np.divmod(rng.permutation(side * side)[: max(cells + int(rng.integers(-2, 3)), 1)], side)
    grid = (np.stack([rows, columns], axis=1) + 0.5) * step - size_px / 2
    centres = grid + rng.uniform(-0.27, 0.27, grid.shape) * step
    return [(float(y), float(x)) for y, x in centres]


def _nuclei(scene: Scene, body: Body) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float64]]:
    """Label image and centroids of the nuclei that are large enough to be found."""
    owner = np.where(scene.nucleus_depth > 0, scene.culture.owner + 1, 0)
    areas = np.bincount(owner.ravel())
    areas[0] = 0
    kept = np.flatnonzero(areas >= SMALLEST_NUCLEUS * np.pi * body.nucleus_px**2)
    numbers = np.zeros(len(areas), dtype=np.int32)
    numbers[kept] = np.arange(1, len(kept) + 1)
    labels = numbers[owner]
    rows, columns = np.indices(owner.shape)
    sums = [np.bincount(labels.ravel(), weights=each.ravel(), minlength=len(kept) + 1)[1:] for each in (columns, rows)]
    counts = np.bincount(labels.ravel(), minlength=len(kept) + 1)[1:]
    return labels, np.stack(sums, axis=1) / counts[:, None]


def _counts(rng: np.random.Generator, light: Any) -> npt.NDArray[np.uint16]:
    """Light in [0, 1] to what a camera of 16 bits counts, with shot and read-out noise."""
    counts = np.maximum(light, 0) * np.float32(FULL)
    noise = rng.standard_normal(counts.shape, dtype=np.float32) * np.sqrt(counts / np.float32(ELECTRONS) + 25)
    return np.asarray(np.clip(counts + noise * np.float32(ELECTRONS) + DARK + 0.5, 0, 65535), dtype=np.uint16)
