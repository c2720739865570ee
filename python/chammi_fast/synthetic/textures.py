"""Noise fields, blur and scattered points: the raw material of synthetic cells, all float32 (H, W)."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Sequence

Plane: TypeAlias = npt.NDArray[np.float32]
Shape: TypeAlias = tuple[int, int]


def plane(values: Any) -> Plane:
    """Return any array as float32."""
    return np.asarray(values, dtype=np.float32)


@lru_cache(maxsize=16)
def _squared_frequencies(shape: Shape) -> tuple[Plane, Plane]:
    """Squared frequencies in cycles per pixel, (H, 1) and (1, W // 2 + 1)."""
    rows = np.fft.fftfreq(shape[0]).astype(np.float32) ** 2
    columns = np.fft.rfftfreq(shape[1]).astype(np.float32) ** 2
    return rows[:, None], columns[None, :]


def _gaussian(shape: Shape, sigmas_px: tuple[float, float]) -> Plane:
    """Transfer function of a Gaussian blur on the half spectrum, (H, W // 2 + 1)."""
    rows, columns = _squared_frequencies(shape)
    factor = np.float32(-2 * np.pi**2)
    across = np.exp(factor * np.float32(sigmas_px[1] ** 2) * columns)
    return plane(np.exp(factor * np.float32(sigmas_px[0] ** 2) * rows) * across)


def smooth_noise(rng: np.random.Generator, shape: Shape, sigma_px: float | tuple[float, float]) -> Plane:
    """Periodic Gaussian noise of mean 0 and standard deviation 1, correlated over about `sigma_px` (rows, columns)."""
    sigmas = sigma_px if isinstance(sigma_px, tuple) else (sigma_px, sigma_px)
    parts = rng.standard_normal((2, shape[0], shape[1] // 2 + 1), dtype=np.float32)
    spectrum = (parts[0] + np.complex64(1j) * parts[1]) * _gaussian(shape, sigmas)
    spectrum[0, 0] = 0
    field = np.fft.irfft2(spectrum, s=shape)
    return plane(field / field.std())


def ridges(noise: Plane, width: float) -> Plane:
    """Thin curves, in [0, 1], where `noise` crosses zero: fibres and membranes seen from above."""
    return plane(np.exp(-np.square(noise / np.float32(width))))


def blur(planes: Plane, sigmas_px: Sequence[float]) -> Plane:
    """Gaussian blur of (C, H, W) with one sigma per channel; borders are reflected by at most 16 pixels."""
    pad = min(16, min(planes.shape[1:]) // 4)
    padded = np.pad(planes, ((0, 0), (pad, pad), (pad, pad)), mode="reflect")
    shape = (padded.shape[1], padded.shape[2])
    transfer = np.stack([_gaussian(shape, (sigma, sigma)) for sigma in sigmas_px])
    blurred = np.fft.irfft2(np.fft.rfft2(padded) * transfer, s=shape)
    return plane(blurred[:, pad:-pad, pad:-pad])


def puncta(rng: np.random.Generator, density: Plane, count: int, sigma_px: float) -> Plane:
    """`count` round spots of about `sigma_px`, placed with probability in proportion to `density`; peaks near 1."""
    total = np.cumsum(density, dtype=np.float64)
    places = np.searchsorted(total, rng.random(count) * total[-1])
    spots = np.zeros(density.size, dtype=np.float32)
    brightness = rng.uniform(0.5, 1.3, count).astype(np.float32) * np.float32(2 * np.pi * sigma_px**2)
    np.add.at(spots, np.minimum(places, density.size - 1), brightness)
    shape = (density.shape[0], density.shape[1])
    spectrum = np.fft.rfft2(spots.reshape(shape)) * _gaussian(shape, (sigma_px, sigma_px))
    return plane(np.maximum(np.fft.irfft2(spectrum, s=shape), 0))


def double_size(planes: Plane) -> Plane:
    """(C, H, W) to (C, 2H, 2W), bilinear, half-sample centred."""
    for axis in (1, 2):
        before = np.concatenate([planes.take([0], axis), planes.take(range(planes.shape[axis] - 1), axis)], axis)
        after = np.concatenate([planes.take(range(1, planes.shape[axis]), axis), planes.take([-1], axis)], axis)
        pair = np.stack([planes * 0.75 + before * 0.25, planes * 0.75 + after * 0.25], axis + 1)
        shape = list(planes.shape)
        shape[axis] *= 2
        planes = pair.reshape(shape)
    return planes
