"""Thin plate splines against SciPy's, by images that hold their own coordinates."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import Tensor  # noqa: E402

from chammi_fast.training.augment import bend, turn, warp  # noqa: E402


def seeded(seed: int = 0) -> Any:
    return torch.Generator().manual_seed(seed)


def coordinates(count: int, height: int, width: int) -> Tensor:
    """Images (count, 2, H, W) of each pixel's centre, x then y, in pixels from the left and upper edge."""
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    images: Tensor = torch.stack([x, y]).expand(count, -1, -1, -1)
    return images


def control_points(height: int, width: int) -> np.ndarray:
    return np.array([((i + 0.5) / 3 * width, (j + 0.5) / 3 * height) for j in range(3) for i in range(3)])


def sources_by_scipy(moves: np.ndarray, height: int, width: int) -> np.ndarray:
    """Where each pixel of the result comes from, (2, H, W) in pixels, for moves (9, 2) in heights."""
    interpolate = pytest.importorskip("scipy.interpolate")
    corners = np.array([(0.0, 0.0), (width, 0.0), (0.0, height), (width, height)])
    points = np.concatenate([control_points(height, width), corners])
    targets = points.copy()
    targets[:9] += moves * height
    spline = interpolate.RBFInterpolator(points, targets, kernel="thin_plate_spline", degree=1)
    places = coordinates(1, height, width)[0].reshape(2, -1).T.double().numpy()
    sources: np.ndarray = spline(places).T.reshape(2, height, width)
    return sources


@pytest.mark.parametrize(("height", "width"), [(33, 33), (24, 51), (50, 33)])
def test_warps_equal_scipys_spline(height: int, width: int) -> None:
    moves = (torch.rand(4, 9, 2, generator=seeded()) * 2 - 1) * 0.1
    found = bend(coordinates(4, height, width), moves).numpy()
    for image, one in zip(found, moves.numpy(), strict=True):
        expected = sources_by_scipy(one.astype(np.float64), height, width)
        low, high = np.array([0.5, 0.5]), np.array([width, height]) - 0.5
        # Beyond the outermost centres the image is reflected, which the next test covers.
        within = ((expected >= low[:, None, None]) & (expected <= high[:, None, None])).all(axis=0)
        assert 0.8 < within.mean() < 1
        np.testing.assert_allclose(image[:, within], expected[:, within], rtol=0, atol=1e-4)


def test_borders_are_reflected_at_the_edges_of_the_outermost_pixels() -> None:
    height, width = 24, 30
    moves = (torch.rand(1, 9, 2, generator=seeded(1)) * 2 - 1) * 0.1 + torch.tensor([-0.15, 0.2])
    image = torch.rand(1, 1, height, width, generator=seeded(2))
    found = bend(image, moves)[0, 0].numpy()
    pad = 12
    wide = np.pad(image[0, 0].double().numpy(), pad, mode="symmetric")
    x, y = sources_by_scipy(moves[0].double().numpy(), height, width) - 0.5 + pad
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    right, down = x - left, y - top
    expected = (1 - down) * ((1 - right) * wide[top, left] + right * wide[top, left + 1]) + down * (
        (1 - right) * wide[top + 1, left] + right * wide[top + 1, left + 1]
    )
    assert x.min() < pad - 2
    assert y.max() > pad + height + 1
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("height", "width"), [(27, 27), (27, 63), (63, 45)])
def test_a_control_point_shows_the_place_that_it_moves_to(height: int, width: int) -> None:
    """Sizes of three times an odd number have a pixel's centre at each control point."""
    moves = (torch.rand(5, 9, 2, generator=seeded()) * 2 - 1) * 0.1
    found = bend(coordinates(5, height, width), moves)
    for point, (x, y) in enumerate(control_points(height, width)):
        expected = torch.tensor([x, y]) + moves[:, point].double() * height
        torch.testing.assert_close(found[:, :, int(y), int(x)].double(), expected, rtol=0, atol=1e-4)


def test_a_move_is_in_heights_along_both_axes() -> None:
    """All points and no corner moved alike: near the middle of a wide image all moves by about that much."""
    found = bend(coordinates(1, 27, 81), torch.tensor([0.1, -0.05]).expand(1, 9, 2)) - coordinates(1, 27, 81)
    torch.testing.assert_close(found[0, :, 13, 40], torch.tensor([2.7, -1.35]), rtol=0, atol=1e-4)


@pytest.mark.parametrize("shape", [(2, 3, 64, 64), (3, 1, 40, 96), (1, 5, 96, 40)])
def test_no_displacement_is_the_identity(shape: tuple[int, ...]) -> None:
    images = torch.rand(shape, generator=seeded())
    torch.testing.assert_close(bend(images, torch.zeros(shape[0], 9, 2)), images, rtol=0, atol=1e-5)
    torch.testing.assert_close(warp(images, seeded(), 1.0, displacement=0.0), images, rtol=0, atol=1e-5)


def test_moves_are_uniform_within_the_displacement() -> None:
    side = 27
    shown = warp(coordinates(500, side, side), seeded(), 1.0, displacement=0.1)
    moves = []
    for x, y in control_points(side, side):
        moves.append(shown[:, :, int(y), int(x)] - torch.tensor([x, y]))
    found = torch.stack(moves).double() / side  # (9, 500, 2)
    assert found.abs().max() <= 0.1 + 1e-5
    assert found.abs().max() > 0.0995
    assert found.mean((1,)).abs().max() < 0.012  # of each point and axis: 4 standard errors are 0.0103
    np.testing.assert_allclose(found.std((1,)), 0.1 / 3**0.5, rtol=0.1)
    each = found.permute(0, 2, 1).reshape(18, 500).numpy()
    assert np.abs(np.corrcoef(each) - np.eye(18)).max() < 0.2


def test_the_probability_is_each_images_own_and_others_keep_their_bits() -> None:
    images = torch.rand(400, 1, 12, 12, generator=seeded())
    before = images.clone()
    found = warp(images, seeded(), 0.3)
    assert torch.equal(images, before)
    kept = (found == images).flatten(1).all(dim=1)
    assert 0.62 < kept.double().mean() < 0.78
    assert torch.equal(warp(images, seeded(), 0.0), images)
    assert not (warp(images, seeded(), 1.0) == images).flatten(1).all(dim=1).any()
    changed = ~kept
    assert torch.equal(found[changed], warp(images, seeded(), 1.0)[changed])


def test_all_channels_of_an_image_are_warped_alike_and_images_differently() -> None:
    images = torch.rand(1, 1, 20, 28, generator=seeded()).expand(6, 5, 20, 28)
    found = warp(images, seeded(), 1.0)
    assert torch.equal(found, found[:, :1].expand_as(found))
    assert len({tuple(image[0].flatten().tolist()) for image in found}) == 6


def test_the_same_generator_gives_the_same_images() -> None:
    images = torch.rand(8, 3, 20, 20, generator=seeded())
    assert torch.equal(warp(images, seeded(3), 0.5), warp(images, seeded(3), 0.5))
    assert not torch.equal(warp(images, seeded(3), 0.5), warp(images, seeded(4), 0.5))
    assert torch.equal(turn(images, seeded(3)), turn(images, seeded(3)))
    states = []
    for probability in (0.0, 1.0):
        generator = seeded()
        warp(images, generator, probability)
        states.append(generator.get_state())
    assert torch.equal(states[0], states[1])


def test_autocast_does_not_round_the_places() -> None:
    images = torch.rand(2, 2, 40, 40, generator=seeded())
    with torch.autocast("cpu", torch.bfloat16):
        found = warp(images, seeded(), 1.0)
    assert torch.equal(found, warp(images, seeded(), 1.0))


def test_turns_mirror_along_the_vertical_and_the_diagonal() -> None:
    images = torch.rand(400, 2, 4, 4, generator=seeded())
    found, original = turn(images, seeded()).numpy(), images.numpy()
    upside_down = original[:, :, ::-1]
    ways = [original, upside_down, original.swapaxes(2, 3), upside_down.swapaxes(2, 3)]
    chosen = np.stack([(found == way).all(axis=(1, 2, 3)) for way in ways])
    assert (chosen.sum(0) == 1).all()
    assert ((chosen.mean(1) > 0.18) & (chosen.mean(1) < 0.32)).all()


@pytest.mark.gpu
def test_a_gpu_gives_the_same_images() -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    images = torch.rand(8, 3, 64, 96, generator=seeded())
    expected = warp(images, seeded(), 0.5)
    torch.testing.assert_close(warp(images.cuda(), seeded(), 0.5).cpu(), expected, rtol=0, atol=1e-4)
    assert torch.equal(turn(images.cuda(), seeded()).cpu(), turn(images, seeded()))
