"""What the microscope adds: brightness, background, blur, noise and bleed-through, by plate, cell line or structure.

The constants of this file and of `painters` are the difficulty of the synthetic benchmark. A domain's look follows
from its name alone, so that a plate looks the same in every synthetic data set, whatever its seed.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from chammi_fast.synthetic.textures import Plane, blur, plane

if TYPE_CHECKING:
    from chammi_fast.chammi import DataSet

Tape: TypeAlias = npt.NDArray[np.uint8]

DOMAIN_SPREAD = 0.14  # standard deviation of log brightness between training domains
IMAGE_SPREAD = 0.22  # standard deviation of log brightness between images of one domain
BLUR_PX = 1.0  # mean blur of training domains, for an image 256 pixels high
BACKGROUND = {"Allen": 0.03, "HPA": 0.008, "CP": 0.075}  # mean of training domains, of the full range
FOCUS_SPREAD = 0.2  # standard deviation of log blur between images of one domain
NOISE = 0.018  # standard deviation of noise at full brightness, of the full range
HELD_OUT_SHIFT = 0.8  # how far the domains that no training image shows are dimmed, blurred and mixed; 0 for none


@dataclass(frozen=True)
class Look:
    """Technical traits of one plate, cell line or structure.

    Attributes
    ----------
    gain : brightness of each channel, near 1
    background : added everywhere, of the full range
    blur : sigma in 256ths of the image height
    noise : standard deviation at full brightness, of the full range
    bleed : share of each channel that shows in the next one
    size : of the cells, near 1
    """

    gain: tuple[float, ...]
    background: float
    blur: float
    noise: float
    bleed: float
    size: float


def look(domain: str, data_set: DataSet, *, novelty: float) -> Look:
    """Return the look that belongs to a domain's name; `novelty` above 0 puts it outside the range of the others."""
    rng = np.random.default_rng([zlib.crc32(f"{data_set.name}/{domain}".encode())])
    shift = HELD_OUT_SHIFT * novelty
    gain = np.exp(DOMAIN_SPREAD * rng.standard_normal(len(data_set.channels)) * (1 + shift) - 0.2 * shift)
    return Look(
        gain=tuple(float(value) for value in gain),
        background=float(BACKGROUND[data_set.name] * np.exp(rng.uniform(-0.4, 0.4)) * (1 + 0.5 * shift)),
        blur=float(BLUR_PX * np.exp(rng.uniform(-0.3, 0.3)) + 0.7 * shift),
        noise=float(NOISE * np.exp(rng.uniform(-0.4, 0.4)) * (1 + 0.5 * shift)),
        bleed=float(rng.uniform(0.0, 0.06) + 0.06 * shift),
        size=float(np.exp(rng.uniform(-0.06, 0.06)) * (1 - 0.12 * shift)),
    )


def expose(rng: np.random.Generator, planes: Plane, seen: Look, levels: tuple[float, ...]) -> Plane:
    """Stains (C, H, W), structures near 1, to light in [0, 1] before noise; `levels` is each channel's brightness."""
    gain = np.array(levels) * np.array(seen.gain) * np.exp(IMAGE_SPREAD * rng.standard_normal(len(levels)))
    light = planes * gain.astype(np.float32)[:, None, None]
    light = light + np.float32(seen.bleed) * np.roll(light, 1, axis=0)
    sigma = seen.blur * planes.shape[1] / 256
    return plane(
        blur(light, (sigma * np.exp(FOCUS_SPREAD * rng.standard_normal()),) * len(levels)) + np.float32(seen.background)
    )


def digitise(rng: np.random.Generator, light: Plane, seen: Look) -> Tape:
    """Light (C, H, W) in [0, 1] to a tape (H, C * W) uint8, with noise that grows with the square root of light."""
    channels, height, width = light.shape
    noise = rng.standard_normal((height, channels * width), dtype=np.float32)
    tape = np.maximum(light.transpose(1, 0, 2).reshape(height, channels * width), 0)
    tape = tape + noise * (np.sqrt(tape) + np.float32(0.1)) * np.float32(seen.noise)
    return np.asarray(np.clip(tape * np.float32(255) + np.float32(0.5), 0, 255), dtype=np.uint8)
