"""How near embeddings of a lower precision are to those in float32."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class Accuracy:
    """Cosines between images' embeddings in a lower precision and in float32.

    Attributes
    ----------
    worst, mean : over the images; an embedding that is not finite counts as -1
    images : how many were compared; 0 where the figures are those that were recorded when the file was quantised
    """

    worst: float
    mean: float
    images: int

    def __str__(self) -> str:
        compared = f"over {self.images} images" if self.images else "as recorded when it was quantised"
        return f"cosine to fp32 at worst {_shown(self.worst)}, on average {_shown(self.mean)} {compared}"


def compare(embeddings: np.ndarray, reference: np.ndarray) -> Accuracy:
    """Compare (N, D) embeddings with those in float32, N of at least 1; finite rows that are equal have cosine 1."""
    one, other = embeddings.astype(np.float64), reference.astype(np.float64)
    with np.errstate(all="ignore"):
        cosines = (one * other).sum(1) / np.sqrt((one * one).sum(1) * (other * other).sum(1))
    cosines = np.where((one == other).all(axis=1), 1.0, cosines)
    finite = np.isfinite(one).all(axis=1) & np.isfinite(cosines)
    cosines = np.where(finite, np.clip(cosines, -1.0, 1.0), -1.0)
    return Accuracy(worst=float(cosines.min()), mean=float(cosines.mean()), images=len(cosines))


def joined(parts: Sequence[Accuracy]) -> Accuracy:
    """Return the accuracy over all images of several comparisons."""
    images = sum(part.images for part in parts)
    mean = sum(part.mean * part.images for part in parts) / images
    return Accuracy(worst=min(part.worst for part in parts), mean=mean, images=images)


def _shown(cosine: float) -> str:
    """Write a cosine with the digits that tell it from 1, rounded down: it is not to look better than it is."""
    whole, _, digits = f"{np.floor(cosine * 1e6) / 1e6:.6f}".partition(".")
    return f"{whole}.{digits.rstrip('0').ljust(3, '0')}"
