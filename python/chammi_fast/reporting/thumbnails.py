"""Small pictures of cells, as they go into a page: one strip per cell, its channels side by side."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from chammi_fast.images import Preprocess, load_batch
from chammi_fast.urls import is_url

if TYPE_CHECKING:
    from collections.abc import Sequence

SIDE_PX = 48
_QUALITY = 70
_BATCH = 256
_SHOWN_RANGE = (0.5, 99.8)  # percentiles of all cells' pixels that become black and white


@dataclass(frozen=True)
class Thumbnails:
    """Pictures of some cells.

    Attributes
    ----------
    strips : one per cell: a data URI of a WebP, `SIDE_PX` high and `channels` times as wide; "" where there is none
    channels : in each strip
    missing : why the first of those without a picture has none; "" where all have one
    """

    strips: tuple[str, ...]
    channels: int
    missing: str = ""


def make_thumbnails(paths: Sequence[str], widths: Sequence[int] | None, *, drop_mask: bool = False) -> Thumbnails:
    """Read images and shrink them: the shorter side to `SIDE_PX`, then the middle square.

    Each channel has one range of brightness for all cells, so that a dim cell looks dim.

    Parameters
    ----------
    paths : of the images
    widths : of a channel in each, in pixels; None where they are no tapes
    drop_mask : leave the last channel out, which is a mask
    """
    if not paths or is_url(paths[0]):
        return Thumbnails(("",) * len(paths), 0, "the images are not on this machine")
    settings = Preprocess(size=SIDE_PX, mask="drop" if drop_mask else "keep")
    planes: list[np.ndarray | None] = []
    cause, channels = "", None
    for start in range(0, len(paths), _BATCH):
        chosen = slice(start, start + _BATCH)
        batch = load_batch(paths[chosen], None if widths is None else widths[chosen], settings, channels=channels)
        if any(status.ok for status in batch.status):
            channels = batch.images.shape[1]
        planes += [image if one.ok else None for image, one in zip(batch.images, batch.status, strict=True)]
        cause = cause or next((f"{one.path}: {one.cause}" for one in batch.status if not one.ok), "")
    found = [image for image in planes if image is not None]
    if not found:
        return Thumbnails(("",) * len(paths), 0, cause)
    low, high = _range(np.stack(found))
    strips = tuple("" if image is None else _strip(image, low, high) for image in planes)
    return Thumbnails(strips, found[0].shape[0], cause)


def _range(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Black and white of each channel of (N, C, S, S) float32: (C, 1, 1) each."""
    low, high = np.percentile(images.transpose(1, 0, 2, 3).reshape(images.shape[1], -1), _SHOWN_RANGE, axis=1)
    return low[:, None, None], np.maximum(high, low + 1e-6)[:, None, None]


def _strip(image: np.ndarray, low: np.ndarray, high: np.ndarray) -> str:
    shades = np.clip((image - low) / (high - low), 0, 1) * 255
    written = io.BytesIO()
    Image.fromarray(np.hstack(list(shades.round().astype(np.uint8)))).save(written, "WEBP", quality=_QUALITY, method=4)
    return "data:image/webp;base64," + base64.b64encode(written.getvalue()).decode("ascii")
