"""Cells side by side: who owns a pixel, and how deep it lies inside its cell and its nucleus."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from chammi_fast.synthetic.textures import Plane, Shape, plane, smooth_noise

if TYPE_CHECKING:
    from collections.abc import Sequence

ANGLES = 512
RADII = 64
BEND = 0.03  # of borders between cells, relative to half the image's height


@lru_cache(maxsize=16)
def _pixel_centres(shape: Shape) -> tuple[Plane, Plane]:
    """(H, 1) rows and (1, W) columns in pixels, counted from the image's centre."""
    rows = np.arange(shape[0], dtype=np.float32) - np.float32((shape[0] - 1) / 2)
    columns = np.arange(shape[1], dtype=np.float32) - np.float32((shape[1] - 1) / 2)
    return rows[:, None], columns[None, :]


def outline(rng: np.random.Generator, radii_px: tuple[float, float], turn: float, wobble: float) -> Plane:
    """Radius in pixels at each of `ANGLES` angles: an ellipse turned by `turn` radians with a wavy rim."""
    angles = np.linspace(-np.pi, np.pi, ANGLES, endpoint=False)
    long, short = radii_px
    radius = long * short / np.hypot(short * np.cos(angles - turn), long * np.sin(angles - turn))
    for wave in (2, 3, 4, 5, 7):
        radius *= 1 + wobble / wave * rng.standard_normal() * np.cos(wave * angles + rng.uniform(0, 2 * np.pi))
    return radius.astype(np.float32)


@dataclass(frozen=True)
class Culture:
    """Polar coordinates of each pixel about the nearest cell centre.

    Attributes
    ----------
    owner : (H, W) int, index of the nearest cell
    radius : (H, W) float32, distance from that cell's centre in pixels
    angle : (H, W) int, direction from that centre, 0 to `ANGLES` - 1
    border : (H, W) float32, distance in pixels from the line midway to the second nearest centre
    """

    owner: npt.NDArray[np.intp]
    radius: Plane
    angle: npt.NDArray[np.intp]
    border: Plane

    @property
    def shape(self) -> Shape:
        """Height and width in pixels."""
        return self.radius.shape[0], self.radius.shape[1]

    def depth(self, outlines: Sequence[Plane]) -> Plane:
        """Signed distance in pixels, about, inside each pixel's own outline (one per cell)."""
        table = np.stack(list(outlines))
        return plane(table[self.owner, self.angle] - self.radius)

    def along(self, turn: float) -> tuple[Plane, Plane]:
        """Coordinates in pixels along and across the direction `turn` from the owner's centre."""
        table = np.linspace(-np.pi, np.pi, ANGLES, endpoint=False).astype(np.float32) - np.float32(turn)
        return self.radius * np.cos(table)[self.angle], self.radius * np.sin(table)[self.angle]

    def rays(self, rng: np.random.Generator, sigmas: tuple[float, float], reach_px: float) -> Plane:
        """Noise stretched along the radius of each cell: `sigmas` in angle steps and in 64ths of `reach_px`."""
        table = smooth_noise(rng, (ANGLES, RADII), sigmas)
        ring = np.minimum(self.radius * np.float32(RADII / reach_px), RADII - 1).astype(np.intp)
        wander = smooth_noise(rng, self.shape, min(self.shape) / 16) * np.float32(ANGLES / 60)
        return plane(table[(self.angle + wander.astype(np.intp)) % ANGLES, ring])


def culture(rng: np.random.Generator, shape: Shape, centres_px: Sequence[tuple[float, float]]) -> Culture:
    """Divide an image of `shape` among cells at `centres_px`, (row, column) from the image's centre."""
    rows, columns = _warped(rng, shape)
    owner = np.zeros(shape, np.intp)
    nearest, second = np.full(shape, np.float32(np.inf)), np.full(shape, np.float32(1e8))
    for cell, (y, x) in enumerate(centres_px):
        squared = np.square(rows - np.float32(y)) + np.square(columns - np.float32(x))
        owner[squared < nearest] = cell
        second = np.minimum(second, np.maximum(nearest, squared))
        nearest = np.minimum(nearest, squared)
    nearest = np.sqrt(nearest)
    border = plane((np.sqrt(second) - nearest) / 2)
    places = np.array(centres_px, dtype=np.float32)
    direction = np.arctan2(rows - places[owner, 0], columns - places[owner, 1])
    angle = ((direction + np.float32(np.pi)) * np.float32(ANGLES / (2 * np.pi))).astype(np.intp) % ANGLES
    return Culture(owner=owner, radius=nearest, angle=angle, border=border)


def _warped(rng: np.random.Generator, shape: Shape) -> tuple[Plane, Plane]:
    """Pixel coordinates (H, W) bent by slow waves, so that no border between cells is straight."""
    rows, columns = _pixel_centres(shape)
    reach = np.float32(min(shape) / 2)

    def waves(places: Plane) -> Plane:
        parts = [
            np.sin(places * np.float32(wave * np.pi / reach) + np.float32(rng.uniform(0, 2 * np.pi)))
            * np.float32(BEND * rng.standard_normal() / wave)
            for wave in (2, 3, 5, 8)
        ]
        return plane(reach * sum(parts))

    return plane(rows + waves(columns)), plane(columns + waves(rows))


def soft(depth: Plane, width_px: float) -> Plane:
    """Turn depth in pixels into a mask in [0, 1] whose edge is `width_px` wide."""
    return plane(np.clip(depth / np.float32(width_px) + np.float32(0.5), 0, 1))
