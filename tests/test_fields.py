"""Crops of fields against their definition in NumPy, and against torchvision."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from cell_crops import Cells, bounds, cuts, scaled
from chammi_fast.images import CropSettings, Field, Preprocess, cut_crops, load_crops, read_planes
from test_preprocess import triangle_weights

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

DTYPES = ["uint8", "uint16", "float32"]
# (H, W) of fields: larger than the crop, smaller, and thin ones that a crop reflects many times over
SIDES = [(40, 53), (7, 5), (1, 9), (1, 1)]
KEPT = Preprocess(size=None)


def noise(channels: int, height: int, width: int, dtype: str) -> NDArray[Any]:
    rng = np.random.default_rng(height * 100 + width)
    planes = rng.integers(0, 256 if dtype == "uint8" else 4096, (channels, height, width))
    return (planes / 7 if dtype == "float32" else planes).astype(dtype)


def corners(height: int, width: int) -> list[tuple[float, float]]:
    return [(0, 0), (width - 1, height - 1), ((width - 1) / 2, (height - 1) / 2), (-0.5, 0), (width - 0.51, height / 3)]


def field_of(cells: Cells) -> Field:
    objects = None if cells.objects is None else np.array(cells.objects)
    return Field(list(cells.planes), np.array(cells.centres), cells.illumination, cells.labels, objects)


def check_cuts(cells: Cells, settings: CropSettings) -> None:
    """Bit-identical, of the same type, and edges told."""
    batch = cut_crops(field_of(cells), settings, threads=1)
    size = settings.size_px
    height, width = cells.planes.shape[1:]
    for cell, status in enumerate(batch.status):
        top, left = cells.corner(cell, size)
        beyond = top < 0 or left < 0 or top + size > height or left + size > width
        assert batch.touches_edge[cell] == beyond
        assert status.code == ("edge" if beyond and settings.edge == "skip" else "ok")
        if status.ok:
            expected = cuts(cells, cell, settings)
            assert batch.images.dtype == expected.dtype
            np.testing.assert_array_equal(batch.images[cell], expected)
        else:
            assert not batch.images[cell].any()


@pytest.mark.parametrize("edge", ["reflect", "constant", "skip"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sides", SIDES, ids=str)
def test_cuts_are_those_of_numpy(
    sides: tuple[int, int], dtype: str, edge: Literal["reflect", "constant", "skip"]
) -> None:
    planes = noise(3, *sides, dtype)
    rng = np.random.default_rng(1)
    function = rng.uniform(0.5, 2, sides)
    plain = Cells(planes, corners(*sides))
    lit = replace(plain, illumination=[function, None, 1 / function])
    labelled = replace(plain, labels=rng.integers(0, 4, sides))
    for size in (1, 2, 9, 32):
        settings = CropSettings(size, edge)
        check_cuts(plain, settings)
        check_cuts(lit, settings)
        check_cuts(replace(labelled, objects=[1, 2, 3, 0, 7]), replace(settings, neighbours="mask"))
        check_cuts(labelled, replace(settings, neighbours="mask"))


@st.composite
def any_cells(draw: st.DrawFn) -> tuple[Cells, CropSettings]:
    height, width = draw(st.integers(1, 24)), draw(st.integers(1, 24))
    places = st.tuples(
        st.floats(-0.5, width - 0.5, exclude_max=True, width=32),
        st.floats(-0.5, height - 0.5, exclude_max=True, width=32),
    )
    planes = noise(draw(st.integers(1, 3)), height, width, draw(st.sampled_from(DTYPES)))
    labels = np.random.default_rng(draw(st.integers(0, 9))).integers(0, 4, (height, width))
    settings = CropSettings(
        draw(st.integers(1, 40)), draw(st.sampled_from(["reflect", "constant", "skip"])),
        neighbours=draw(st.sampled_from(["keep", "mask"])),
    )  # fmt: skip
    return Cells(planes, draw(st.lists(places, min_size=1, max_size=4)), labels=labels), settings


@given(any_cells())
def test_any_cuts_are_those_of_numpy(drawn: tuple[Cells, CropSettings]) -> None:
    check_cuts(*drawn)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", ["field", "crop", "range"])
@pytest.mark.parametrize("neighbours", ["keep", "mask"])
def test_scaling_is_that_of_numpy(
    dtype: str, scale: Literal["field", "crop", "range"], neighbours: Literal["keep", "mask"]
) -> None:
    rng = np.random.default_rng(2)
    for (sides, size), edge, lit in product([((40, 53), 9), ((7, 5), 31)], ("reflect", "constant"), (False, True)):
        function = rng.uniform(0.5, 2, sides)
        cells = Cells(
            noise(2, *sides, dtype), corners(*sides), [None, function] if lit else None, rng.integers(0, 4, sides)
        )
        settings = CropSettings(size, edge, scale, (1.5, 97.3), neighbours=neighbours)  # type: ignore[arg-type]
        batch = load_crops(field_of(cells), settings, KEPT, threads=1)
        if scale != "crop":
            np.testing.assert_array_equal(batch.bounds, bounds(cells, settings))
        for cell, image in enumerate(batch.images):
            np.testing.assert_allclose(image, scaled(cells, cell, settings), rtol=0, atol=1e-5)


@given(
    st.lists(st.integers(0, 65535), min_size=1, max_size=40),
    st.sampled_from(["uint16", "float32"]),
    st.floats(0, 99), st.floats(0.001, 100),
)  # fmt: skip
def test_percentiles_are_those_of_numpy(samples: list[int], dtype: str, low: float, step: float) -> None:
    plane = np.array([samples], dtype) * (1 if dtype == "uint16" else np.float32(-0.1))
    settings = CropSettings(1, percentiles=(low, min(low + step, 100.0)))
    batch = load_crops(Field([plane], np.zeros((1, 2))), settings, KEPT, threads=1)
    np.testing.assert_array_equal(batch.bounds, [np.percentile(plane.astype(np.float64), settings.percentiles)])


def test_a_narrow_range_far_from_zero_is_scaled_accurately() -> None:
    plane = (60000 + np.arange(64) % 11).reshape(8, 8).astype(np.uint16)
    cells = Cells(plane[None], [(4, 4)])
    for settings in (
        CropSettings(8, percentiles=(0.1, 98.3)),
        CropSettings(8, scale="range", range=(60000.3, 60009.9)),
    ):
        got = load_crops(field_of(cells), settings, KEPT).images[0]
        np.testing.assert_allclose(got, scaled(cells, 0, settings), rtol=0, atol=1e-6)


def test_a_channel_without_contrast_is_zero() -> None:
    plane = np.full((9, 9), 7, np.uint16)
    plane[0, 0] = 500
    for scale in ("field", "crop"):
        settings = CropSettings(3, scale=scale, percentiles=(1.5, 98.0))
        batch = load_crops(Field([plane], np.array([[5, 5]])), settings, KEPT)
        assert not batch.images.any()


def test_a_range_is_by_default_that_of_the_type() -> None:
    for dtype in ("uint8", "int16", "uint16", "float64"):
        plane = np.linspace(0, 100, 49).reshape(7, 7).astype(dtype)
        most = 1.0 if dtype == "float64" else float(np.iinfo(dtype).max)
        batch = load_crops(Field([plane], np.array([[3, 3]])), CropSettings(7, scale="range"), KEPT)
        np.testing.assert_array_equal(batch.bounds, [[0, most]])
        np.testing.assert_allclose(batch.images[0, 0], np.clip(plane / most, 0, 1), atol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("size", "side"), [(160, 224), (97, 64), (64, 64)])
def test_preprocessing_is_that_of_torchvision(dtype: str, size: int, side: int) -> None:
    torch = pytest.importorskip("torch")
    transforms = pytest.importorskip("torchvision.transforms")
    cells = Cells(noise(3, 180, 211, dtype), [(100, 90), (0, 179), (200.5, 100.49)])
    mean, std = [0.1, 0.2, 0.3], [0.05, 0.1, 0.2]
    resize = transforms.Resize(side, antialias=True)
    for scale, resized in product(("field", "crop"), ("shorter", "none")):
        settings = CropSettings(size, scale=scale)  # type: ignore[arg-type]
        how = Preprocess(side, mean, std, resize=resized)  # type: ignore[arg-type]
        batch = load_crops(field_of(cells), settings, how, threads=1)
        for cell, image in enumerate(batch.images):
            unit = torch.from_numpy(scaled(cells, cell, settings).astype(np.float32))
            square = resize(unit) if resized == "shorter" else transforms.CenterCrop(side)(unit)
            expected = transforms.Normalize(mean, std)(square).numpy()
            scale_of = np.array(std)[:, None, None]
            np.testing.assert_allclose(image * scale_of, expected * scale_of, rtol=0, atol=1e-5)


def test_planes_of_one_file_are_channels(tmp_path: Path) -> None:
    planes = noise(3, 30, 40, "uint16")
    tifffile.imwrite(tmp_path / "pages.tif", planes, photometric="minisblack")
    tifffile.imwrite(tmp_path / "samples.tif", planes.transpose(1, 2, 0), photometric="rgb")
    for channel, plane in enumerate(planes):
        tifffile.imwrite(tmp_path / f"{channel}.tif", plane)
    centres = np.array([[3, 4], [20, 20]])
    settings = CropSettings(16)
    expected = cut_crops(Field(list(planes), centres), settings).images
    for channels in (["pages.tif"], ["samples.tif"], ["0.tif", "1.tif", "2.tif"]):
        batch = cut_crops(Field([tmp_path / name for name in channels], centres), settings)
        np.testing.assert_array_equal(batch.images, expected)
    np.testing.assert_array_equal(cut_crops(Field([planes], centres), settings).images, expected)


def test_a_real_field_of_cell_painting(shared_data: Path) -> None:
    torch = pytest.importorskip("torch")
    transforms = pytest.importorskip("torchvision.transforms")
    paths = sorted((shared_data / "fields" / "pediatric_cellpainting_6ch").glob("*ch[2-6]*.tiff"))
    planes = np.stack([tifffile.imread(path) for path in paths])
    cells = Cells(planes, [(500.2, 499.5), (10, 1070), (1079.4, 0)])
    field = Field(paths, np.array(cells.centres))
    settings = CropSettings()
    for cell, image in enumerate(cut_crops(field, settings).images):
        np.testing.assert_array_equal(image, cuts(cells, cell, settings))
    batch = load_crops(field, settings, Preprocess(224))
    np.testing.assert_array_equal(batch.bounds, bounds(cells, settings))
    np.testing.assert_array_equal(batch.touches_edge, [False, True, True])
    for cell, image in enumerate(batch.images):
        unit = torch.from_numpy(scaled(cells, cell, settings).astype(np.float32))
        expected = transforms.Resize(224, antialias=True)(unit).numpy()
        np.testing.assert_allclose(image, expected, rtol=0, atol=1e-5)


def test_real_wells_with_masks(shared_data: Path) -> None:
    scipy = pytest.importorskip("scipy.ndimage")
    folder = shared_data / "fields" / "nf1_3ch"
    for well in ("B7_01", "D7_01", "H12_01"):
        paths = sorted(folder.glob(f"{well}_?_?_*_001.tif"))
        labels, count = scipy.label(tifffile.imread(next(folder.glob(f"{well}_*DAPI_001_MaskNuclei.tiff"))))
        middles = scipy.center_of_mass(labels > 0, labels, range(1, count + 1))
        cells = Cells(
            np.stack([tifffile.imread(path) for path in paths]), [(x, y) for y, x in middles], labels=labels,
            objects=list(range(1, count + 1)),
        )  # fmt: skip
        settings = CropSettings(96, "constant", neighbours="mask")
        field = replace(field_of(cells), channels=paths)
        batch = cut_crops(field, settings)
        assert all(status.ok for status in batch.status)
        for cell, image in enumerate(batch.images):
            np.testing.assert_array_equal(image, cuts(cells, cell, settings))
        resized = load_crops(field, settings, Preprocess(64))
        weights = triangle_weights(96, 64)
        for cell in range(0, count, 5):
            expected = weights @ scaled(cells, cell, settings) @ weights.T
            np.testing.assert_allclose(resized.images[cell], expected, rtol=0, atol=5e-5)
        assert len(read_planes(paths[0])) == 1
