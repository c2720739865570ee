"""One field of cells, ready to be stained: masks of nucleus, cytoplasm and rim, in working pixels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from chammi_fast.synthetic.culture import Culture, culture, outline, soft
from chammi_fast.synthetic.textures import Plane, Shape, plane, smooth_noise


@dataclass(frozen=True)
class Body:
    """How the cells of an image are built; lengths in working pixels.

    Attributes
    ----------
    nucleus_px, cell_px : mean radius
    stretch : ratio of the long to the short axis, of nucleus and cell alike
    wobble : waviness of the rims, 0 for ellipses
    neighbours : cells around the one in the middle
    spacing_px : mean distance to them
    """

    nucleus_px: float
    cell_px: float
    stretch: float = 1.25
    wobble: float = 0.08
    neighbours: int = 5
    spacing_px: float = 120.0


@dataclass(frozen=True)
class Scene:
    """Cells of one image.

    Attributes
    ----------
    rng : the image's own generator
    culture : who owns which pixel
    nucleus_depth, cell_depth : (H, W) float32, signed distance inside the rims in pixels
    turn : direction of each cell's long axis in radians
    unit : a tenth of the nucleus's radius in pixels, the measure of all textures
    reach : the cell's radius in pixels
    """

    rng: np.random.Generator
    culture: Culture
    nucleus_depth: Plane
    cell_depth: Plane
    turn: float
    unit: float
    reach: float

    @property
    def shape(self) -> Shape:
        """Height and width in working pixels."""
        return self.culture.shape

    @cached_property
    def nucleus(self) -> Plane:
        """Mask of the nuclei in [0, 1]."""
        return soft(self.nucleus_depth, 2.0)

    @cached_property
    def cell(self) -> Plane:
        """Mask of the cells in [0, 1]."""
        return soft(self.cell_depth, 4.0)

    @cached_property
    def cytoplasm(self) -> Plane:
        """Mask of the cells without their nuclei in [0, 1]."""
        return self.cell * (1 - self.nucleus)

    @cached_property
    def near(self) -> Plane:
        """Thickness of the cell, in [0, 1]: 1 at the nucleus, falling towards the rim."""
        return plane(np.exp(np.minimum(self.nucleus_depth, 0) / np.float32(0.55 * self.reach)))

    def rim(self, width_px: float) -> Plane:
        """Band along the cells' outline in [0, 1]."""
        return plane(np.exp(-np.square(self.cell_depth / np.float32(width_px))))

    def noise(self, sigma_units: float) -> Plane:
        """Return smooth noise with the scale given in texture units."""
        return smooth_noise(self.rng, self.shape, sigma_units * self.unit)


def place(rng: np.random.Generator, body: Body) -> list[tuple[float, float]]:
    """Centres of the middle cell and its neighbours, in pixels from the image's centre."""
    jitter = 0.06 * body.spacing_px
    centres = [(float(rng.normal(0, jitter)), float(rng.normal(0, jitter)))]
    start = rng.uniform(0, 2 * np.pi)
    for position in range(body.neighbours):
        direction = start + 2 * np.pi * (position + rng.uniform(-0.3, 0.3)) / max(body.neighbours, 1)
        distance = body.spacing_px * rng.uniform(0.8, 1.5)
        centres.append((float(distance * np.sin(direction)), float(distance * np.cos(direction))))
    return centres


def build(rng: np.random.Generator, shape: Shape, body: Body, centres_px: list[tuple[float, float]]) -> Scene:
    """Grow one cell around each centre."""
    field = culture(rng, shape, centres_px)
    root = body.stretch**0.5
    turns = rng.uniform(0, np.pi, len(centres_px))
    sizes = rng.uniform(0.9, 1.1, len(centres_px))

    def rims(radius_px: float, wobble: float) -> list[Plane]:
        return [
            outline(rng, (radius_px * size * root, radius_px * size / root), turn, wobble)
            for size, turn in zip(sizes, turns, strict=True)
        ]

    nucleus = field.depth(rims(body.nucleus_px, body.wobble / 2))
    cell = np.minimum(field.depth(rims(body.cell_px, body.wobble * 2)), field.border - 1)
    return Scene(
        rng=rng,
        culture=field,
        nucleus_depth=np.minimum(nucleus, cell - 1),
        cell_depth=cell,
        turn=float(turns[0]),
        unit=body.nucleus_px / 10,
        reach=body.cell_px,
    )
