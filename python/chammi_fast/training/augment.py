"""Augmentation of batches of images: thin plate splines and mirroring; each image by itself, its channels alike."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own name for it

if TYPE_CHECKING:
    from torch import Tensor

SIDE = 3  # control points along each axis
MOVED = SIDE * SIDE


def turn(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror square images (N, C, S, S) top to bottom and along the diagonal, each with probability 1/2.

    With the left-to-right mirroring of the loader these are the eight ways to lay an image down: what is seen through a
    microscope has no upright position.
    """
    upside_down, across = torch.rand(2, len(images), 1, 1, 1, generator=generator).to(images.device) < 0.5
    images = torch.where(upside_down, images.flip(2), images)
    return torch.where(across, images.transpose(2, 3), images)


def warp(images: Tensor, generator: torch.Generator, probability: float, displacement: float = 0.1) -> Tensor:
    """Warp images by random thin plate splines, each with a probability.

    Each control point of a chosen image (see `bend`) moves along both axes by U(-displacement, displacement) x the
    image's height. The generator gives as many numbers whatever is chosen. Source: the CHAMMI paper's TPS, in its
    intent: 3 x 3 points and the fixed corners, one warp for all channels.

    Parameters
    ----------
    images : (N, C, H, W) float32
    generator : on any device
    probability : of an image to be warped
    displacement : in heights of the image

    Returns
    -------
    (N, C, H, W) float32, a copy; images that were not chosen are the same bit by bit
    """
    draws = torch.rand(len(images), 1 + 2 * MOVED, generator=generator, device=generator.device)
    chosen = draws[:, 0] < probability
    moves = (2 * draws[chosen, 1:] - 1) * displacement
    result = images.clone()
    if len(moves):
        rows = chosen.nonzero()[:, 0].to(images.device)
        result[rows] = bend(images[rows], moves.view(-1, MOVED, 2).to(images.device))
    return result


def bend(images: Tensor, moves: Tensor) -> Tensor:
    """Warp images by the thin plate splines that move their control points.

    The nine control points lie strictly inside the image, at 1/6, 1/2 and 5/6 of its width and height; its four outer
    corners are fixed points of the spline besides. Where a control point lies, the result shows the input at the place
    that the point moves to. Sampling is bilinear; beyond its edges the image is reflected, the outermost pixel
    repeated. Without moves the result is the image, but for the rounding of float32 coordinates.

    Parameters
    ----------
    images : (N, C, H, W) float32
    moves : (N, 9, 2) float32, along x and along y in heights of the image; control points row by row from the top

    Returns
    -------
    (N, C, H, W) float32
    """
    count, _, height, width = images.shape
    in_grid_units = torch.tensor([2 * height / width, 2.0], device=images.device)  # a grid spans -1 to 1
    with torch.autocast(images.device.type, enabled=False):
        offsets = _influence(height, width, images.device) @ (moves * in_grid_units)
        grid = _centres(height, width, images.device) + offsets.view(count, height, width, 2)
        return F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def _centres(height: int, width: int, device: torch.device) -> Tensor:
    """Return the pixels' centres as grid_sample counts them: (H, W, 2) float32, x and y from -1 to 1."""
    y, x = (torch.arange(1 - size, size, 2, device=device) / size for size in (height, width))
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=2)


@lru_cache(maxsize=8)
def _influence(height: int, width: int, device: torch.device) -> Tensor:
    """Return how far each pixel's source follows each control point: (H * W, 9) float32.

    A spline is linear in its values. The control points are fixed places of the *result*, so that every image of a size
    shares one system: its solutions for a unit move of each point are all that a warp needs, and since a thin plate
    spline reproduces planes exactly, it may act on the moves alone.
    """
    aspect = width / height
    inside = (torch.arange(SIDE, dtype=torch.float64) + 0.5) / SIDE
    corners = torch.tensor([(0, 0), (1, 0), (0, 1), (1, 1)], dtype=torch.float64)
    points = torch.cat([torch.cartesian_prod(inside, inside).flip(1), corners]) * torch.tensor([aspect, 1.0])
    system = torch.zeros(len(points) + 3, len(points) + 3, dtype=torch.float64)
    system[:-3] = _basis(points, points)
    system[-3:, :-3] = system[:-3, -3:].T
    weights: Tensor = torch.linalg.solve(system, torch.eye(len(system), MOVED, dtype=torch.float64))
    y, x = (torch.arange(size, dtype=torch.float64).add(0.5) / height for size in (height, width))
    return (_basis(torch.cartesian_prod(y, x).flip(1), points) @ weights).float().to(device)


def _basis(places: Tensor, points: Tensor) -> Tensor:
    """Return r^2 log r of each place to each point, then 1, x and y: (places, points + 3) float64."""
    squares = (places[:, None] - points).square().sum(dim=2)
    radial = torch.special.xlogy(squares, squares) / 2
    return torch.cat([radial, torch.ones_like(places[:, :1]), places], dim=1)
