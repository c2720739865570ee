"""How planes become network input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class Preprocess:
    """How the planes of an image become network input.

    Planes are scaled to [0, 1], resized, cropped and normalised, in this order, as torchvision's
    ``Resize(size, antialias=True)``, ``CenterCrop(size)`` and ``Normalize(mean, std)`` do. An image of floats that has
    NaN or an infinity where the output depends on it is corrupt, and so is one that becomes infinite in float32.

    Attributes
    ----------
    size : side of the square output in pixels; None keeps each image's height and width, without resize or crop
    mean, std : per channel of the output, of values in [0, 1]; None leaves values as they are
    resize : "shorter" makes the shorter side `size` (antialiased bilinear); "none" only crops, or pads smaller
        images with zeros before they are normalised
    value_range : samples that become 0 and 1, without clipping; by default 0 and the maximum of an integer
        type; floats are then taken as they are
    mask : what the last channel is, if it is a mask: "keep" treats it as any channel, "drop" leaves it out, "apply"
        sets the other channels to 0 on the scale of [0, 1] wherever the mask is 0, before resizing, and leaves it out
    """

    size: int | None = 224
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    resize: Literal["shorter", "none"] = "shorter"
    value_range: tuple[float, float] | None = None
    mask: Literal["keep", "drop", "apply"] = "keep"

    def __post_init__(self) -> None:
        if self.size is not None and not (_is_whole(self.size) and 1 <= self.size <= 16384):
            raise ValueError(f"size must be a whole number of pixels from 1 to 16384 or None, not {self.size!r}.")
        if self.resize not in ("shorter", "none"):
            raise ValueError(f"resize must be 'shorter' or 'none', not '{self.resize}'.")
        if self.mask not in ("keep", "drop", "apply"):
            raise ValueError(f"mask must be 'keep', 'drop' or 'apply', not '{self.mask}'.")
        if self.value_range is not None and not self.value_range[0] < self.value_range[1]:
            raise ValueError(f"value_range must rise, not {self.value_range}.")
        if self.std is not None and not all(deviation > 0 for deviation in self.std):
            raise ValueError(f"std must be positive, not {tuple(self.std)}.")
        if self.mean is not None and self.std is not None and len(self.mean) != len(self.std):
            raise ValueError(f"mean names {len(self.mean)} channels and std {len(self.std)}.")

    @property
    def channels(self) -> int | None:
        """Channels that mean and std are given for, or None where neither is."""
        named = self.mean if self.mean is not None else self.std
        return None if named is None else len(named)


def _is_whole(number: object) -> bool:
    return hasattr(number, "__index__")  # integers of Python and of NumPy
