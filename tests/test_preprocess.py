"""Preprocessing against torchvision, and against its definition in float64 NumPy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import pytest
import tifffile

from chammi_fast.images import Batch, Preprocess, load_batch

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    Planes = NDArray[np.uint8 | np.uint16]

# (H, W, C): CHAMMI's three, odd ones, thin ones, smaller than the crop, exactly the crop, one pixel off
SIZES = [
    (238, 374, 3), (512, 512, 4), (160, 160, 5), (97, 131, 2), (225, 223, 1), (224, 224, 2), (33, 500, 2),
    (700, 37, 2), (1081, 721, 1), (5, 7, 2), (1, 50, 1), (448, 449, 1), (224, 300, 1),
]  # fmt: skip
DTYPES = [np.uint8, np.uint16]
# PyTorch, which is to be equalled to 1e-5, places samples in single precision; the definition below does not.
SINGLE_PRECISION = 5e-5


def noise(height: int, width: int, channels: int, dtype: type[np.uint8 | np.uint16]) -> Planes:
    rng = np.random.default_rng(height * 1000 + width)
    return rng.integers(0, np.iinfo(dtype).max, (channels, height, width), dtype, endpoint=True)


def load(planes: Planes, how: Preprocess, folder: Path) -> NDArray[np.float32]:
    """Write planes as a tape and load it."""
    channels, height, width = planes.shape
    tape = planes.transpose(1, 0, 2).reshape(height, channels * width)
    tifffile.imwrite(folder / "tape.tif", tape)
    batch = load_batch([folder / "tape.tif"], width, how)
    assert batch.status[0].ok, batch.status[0].cause
    assert batch.images.dtype == np.float32
    image: NDArray[np.float32] = batch.images[0]
    return image


def triangle_weights(inputs: int, outputs: int) -> NDArray[np.float64]:
    """(outputs, inputs) weights of antialiased bilinear interpolation, half-pixel centres, cut off and normalised."""
    ratio = inputs / outputs
    reach = max(ratio, 1.0)
    centres = (np.arange(outputs) + 0.5) * ratio
    distance = np.abs(np.arange(inputs) + 0.5 - centres[:, None]) / reach
    weights = np.maximum(1 - distance, 0)
    weights /= weights.sum(axis=1, keepdims=True)
    return weights


def resized_sides(height: int, width: int, size: int) -> tuple[int, int]:
    if height <= width:
        return size, int(size * width / height)
    return int(size * height / width), size


def centre_crop(planes: NDArray[np.floating], size: int) -> NDArray[np.floating]:
    short = [max(size - side, 0) for side in planes.shape[1:]]
    planes = np.pad(planes, [(0, 0), *((missing // 2, missing - missing // 2) for missing in short)])
    top, left = (round((side - size) / 2) for side in planes.shape[1:])
    return planes[:, top : top + size, left : left + size]


def definition(unit: NDArray[np.floating], size: int, *, resize: bool) -> NDArray[np.floating]:
    if resize:
        height, width = resized_sides(unit.shape[1], unit.shape[2], size)
        unit = triangle_weights(unit.shape[1], height) @ unit @ triangle_weights(unit.shape[2], width).T
    return centre_crop(unit, size)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_equals_torchvision(size: tuple[int, int, int], dtype: type[np.uint8], tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    transforms = pytest.importorskip("torchvision.transforms")
    planes = noise(*size, dtype)
    unit = torch.from_numpy(planes.astype(np.float32) / np.iinfo(dtype).max)
    mean = [0.1 + 0.05 * channel for channel in range(len(planes))]
    std = [0.06 + 0.02 * channel for channel in range(len(planes))]
    for side in (224, 64):
        cropped = transforms.CenterCrop(side)(transforms.Resize(side, antialias=True)(unit))
        got = load(planes, Preprocess(size=side), tmp_path)
        np.testing.assert_allclose(got, cropped.numpy(), rtol=0, atol=1e-5)
        expected = transforms.Normalize(mean, std)(cropped).numpy()
        got = load(planes, Preprocess(size=side, mean=mean, std=std), tmp_path)
        np.testing.assert_allclose(got * np.array(std)[:, None, None], expected * np.array(std)[:, None, None],
                                   rtol=0, atol=1e-5)  # fmt: skip
        got = load(planes, Preprocess(size=side, resize="none", mean=mean, std=std), tmp_path)
        expected = transforms.Normalize(mean, std)(transforms.CenterCrop(side)(unit)).numpy()
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("resize", ["shorter", "none"])
def test_equals_the_definition(size: tuple[int, int, int], resize: Literal["shorter", "none"], tmp_path: Path) -> None:
    planes = noise(*size, np.uint8)
    for side in (224, 63):
        expected = definition(planes / 255, side, resize=resize == "shorter")
        got = load(planes, Preprocess(size=side, resize=resize), tmp_path)
        assert got.shape == (len(planes), side, side)
        np.testing.assert_allclose(got, expected, rtol=0, atol=SINGLE_PRECISION)


@pytest.mark.parametrize(("short", "size"), [(1, 8), (2, 1)])
@pytest.mark.parametrize("upright", [False, True])
def test_strips_longer_than_single_precision_can_count(short: int, size: int, upright: bool, tmp_path: Path) -> None:
    length = 2**25 + 2**20
    line = (np.arange(length, dtype=np.uint32) * 37 % 251).astype(np.uint8)
    planes = line[None, None].repeat(short, axis=1)
    got = load(planes.transpose(0, 2, 1) if upright else planes, Preprocess(size=size), tmp_path)[0]
    reach = max(short / size, 1)
    expected = []
    for output in range(size):
        centre = (round((size * length // short - size) / 2) + output + 0.5) * short / size
        near = np.arange(int(centre - reach) - 1, int(centre + reach) + 2)
        weights = np.maximum(1 - abs(near + 0.5 - centre) / reach, 0)
        expected.append(weights @ line[near] / weights.sum() / 255)
    np.testing.assert_allclose(got.T if upright else got, [expected] * size, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("excess", "start"), [(0, 0), (1, 0), (2, 1), (3, 2), (4, 2), (5, 2), (6, 3), (7, 4)])
def test_the_crop_starts_at_half_the_excess_rounded_half_to_even(excess: int, start: int, tmp_path: Path) -> None:
    planes = np.arange(10 + excess, dtype=np.uint8)[None, None].repeat(10 + excess, axis=1)
    got = load(planes, Preprocess(size=10, resize="none"), tmp_path) * 255
    assert round(float(got[0, 0, 0])) == start
    got = load(planes.transpose(0, 2, 1), Preprocess(size=10, resize="none"), tmp_path) * 255
    assert round(float(got[0, 0, 0])) == start


def test_padding_is_zero_before_normalisation(tmp_path: Path) -> None:
    planes = np.full((1, 3, 4), 255, np.uint8)
    got = load(planes, Preprocess(size=8, resize="none", mean=[0.5], std=[0.25]), tmp_path)[0]
    expected = np.full((8, 8), -2.0)
    expected[2:5, 2:6] = 2
    np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_without_a_size_images_keep_theirs(tmp_path: Path) -> None:
    planes = noise(31, 47, 3, np.uint16)
    got = load(planes, Preprocess(size=None), tmp_path)
    np.testing.assert_allclose(got, planes / 65535, rtol=0, atol=1e-7)


def test_a_value_range_maps_its_ends_to_0_and_1_without_clipping(tmp_path: Path) -> None:
    planes = np.array([[[100, 1100, 600], [0, 2100, 65535]]], np.uint16)
    got = load(planes, Preprocess(size=None, value_range=(100, 1100)), tmp_path)
    np.testing.assert_allclose(got, [[[0, 1, 0.5], [-0.1, 2, 65.435]]], rtol=1e-6, atol=1e-7)
    resized = load(noise(160, 160, 1, np.uint8), Preprocess(value_range=(-5, 300)), tmp_path)
    unit: NDArray[np.float64] = (noise(160, 160, 1, np.uint8) + np.float64(5)) / 305
    expected = definition(unit, 224, resize=True)
    np.testing.assert_allclose(resized, expected, rtol=0, atol=SINGLE_PRECISION)


@pytest.mark.parametrize("value_range", [None, (10.5, 200.25)])
def test_mask_policies(value_range: tuple[float, float] | None, tmp_path: Path) -> None:
    planes = noise(60, 80, 4, np.uint8)
    planes[3] = np.where(planes[3] > 90, planes[3], 0)
    low, high = value_range or (0, 255)
    unit = (planes - low) / (high - low)

    def loaded(mask: Literal["keep", "drop", "apply"], channels: int) -> NDArray[np.float32]:
        mean, std = [0.3] * channels, [0.5] * channels
        got = load(planes, Preprocess(56, mean, std, value_range=value_range, mask=mask), tmp_path)
        assert got.shape == (channels, 56, 56)
        return got * 0.5 + 0.3

    kept = definition(unit, 56, resize=True)
    np.testing.assert_allclose(loaded("keep", 4), kept, rtol=0, atol=SINGLE_PRECISION)
    np.testing.assert_allclose(loaded("drop", 3), kept[:3], rtol=0, atol=SINGLE_PRECISION)
    applied = definition(unit[:3] * (planes[3:] != 0), 56, resize=True)
    np.testing.assert_allclose(loaded("apply", 3), applied, rtol=0, atol=SINGLE_PRECISION)


def test_pages_and_samples_are_channels(tmp_path: Path) -> None:
    planes = noise(50, 40, 3, np.uint16)
    expected = load(planes, Preprocess(size=32), tmp_path)
    tifffile.imwrite(tmp_path / "pages.tif", planes, photometric="minisblack")
    tifffile.imwrite(tmp_path / "samples.tif", np.moveaxis(planes, 0, -1), photometric="rgb", compression="zlib")
    tifffile.imwrite(tmp_path / "planar.tif", planes, photometric="rgb", planarconfig="separate")
    tifffile.imwrite(tmp_path / "masked.tif", planes[:2], photometric="minisblack")
    names = ["pages.tif", "samples.tif", "planar.tif"]
    batch: Batch = load_batch([tmp_path / name for name in names], preprocess=Preprocess(size=32))
    assert all(status.ok for status in batch.status)
    for image in batch.images:
        np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"size": 0}, "size"),
        ({"size": 20000}, "size"),
        ({"size": 32.5}, "size must be a whole number .* not 32.5"),
        ({"size": "224"}, "size must be a whole number"),
        ({"resize": "longer"}, "resize"),
        ({"mask": "invert"}, "mask"),
        ({"value_range": (5, 5)}, "value_range"),
        ({"std": [0.1, 0]}, "std"),
        ({"mean": [0.1], "std": [1, 1]}, "mean names 1 channels and std 2"),
    ],
)
def test_impossible_settings_are_refused(options: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Preprocess(**options)  # type: ignore[arg-type]
