"""Random images through independent encoders, and back."""

from __future__ import annotations

import io
import zlib
from typing import Literal

import cv2
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from PIL import Image

from chammi_fast.images import probe, read_image, read_planes
from image_files import gray_tags, write_png, write_tiff

Order = Literal["<", ">"]
Samples = NDArray[np.uint8 | np.uint16]
ORDERS: st.SearchStrategy[Order] = st.sampled_from(("<", ">"))
DTYPES = st.sampled_from([np.uint8, np.uint16])
# tifffile's names, and whether the compression takes a predictor
COMPRESSIONS = {None: False, "lzw": True, "deflate": True, "adobe_deflate": True, "zstd": True, "packbits": False}
many_examples = settings(max_examples=150, deadline=None)


@st.composite
def samples(draw: st.DrawFn, channels: tuple[int, ...] = (1,), side: int = 40) -> Samples:
    """Noise, or a smooth ramp that compresses; (H, W) or (H, W, S)."""
    dtype = draw(DTYPES)
    depth = draw(st.sampled_from(channels))
    shape = (draw(st.integers(1, side)), draw(st.integers(1, side)), *(() if depth == 1 else (depth,)))
    if draw(st.booleans()):
        ramp = np.add.outer(np.arange(shape[0]), np.arange(int(np.prod(shape[1:]))) * draw(st.integers(0, 9)))
        return ramp.reshape(shape).astype(dtype)
    return np.asarray(draw(arrays(dtype, shape)))


@given(samples((1, 2, 3, 5)), st.sampled_from(list(COMPRESSIONS)), st.data())
@many_examples
def test_tiff_of_every_layout(image: Samples, compression: str | None, data: st.DataObject) -> None:
    planar = image.ndim == 3 and data.draw(st.booleans(), label="planar")
    predictor = COMPRESSIONS[compression] and data.draw(st.booleans(), label="predictor")
    order = data.draw(ORDERS, label="byte order")
    file = io.BytesIO()
    tifffile.imwrite(
        file,
        np.moveaxis(image, -1, 0) if planar else image,
        photometric="minisblack",
        planarconfig=("separate" if planar else "contig") if image.ndim == 3 else None,
        compression=compression,
        predictor=2 if predictor else None,
        byteorder=order,
        rowsperstrip=data.draw(st.integers(1, image.shape[0]), label="rows per strip"),
        metadata=None,
    )
    decoded = read_image(file.getvalue())
    assert decoded.dtype == image.dtype
    np.testing.assert_array_equal(decoded, image)
    info = probe(file.getvalue())
    assert (info.height, info.width) == image.shape[:2]
    assert info.byte_order == {"<": "little", ">": "big"}[order]
    assert info.predictor == (2 if predictor else 1)
    assert info.planar == planar


@given(st.lists(st.integers(0, 255), min_size=2, max_size=5, unique=True), DTYPES, ORDERS)
@settings(max_examples=30, deadline=None)
def test_pages_are_read_alone_and_as_channels(values: list[int], dtype: type[np.uint8], order: Order) -> None:
    stack = np.stack([np.arange(12, dtype=dtype).reshape(3, 4) + np.array(value // 2, dtype) for value in values])
    file = io.BytesIO()
    tifffile.imwrite(file, stack, photometric="minisblack", byteorder=order, compression="zlib")
    for page, expected in enumerate(stack):
        np.testing.assert_array_equal(read_image(file.getvalue(), page), expected)
    np.testing.assert_array_equal(read_planes(file.getvalue()), stack)


@given(samples((1, 2, 3, 4), side=70), st.lists(st.integers(0, 4), min_size=1, max_size=20), st.integers(1, 4))
@many_examples
def test_png_of_every_filter(image: Samples, filters: list[int], pieces: int) -> None:
    decoded = read_image(write_png(image, filters, pieces))
    assert decoded.dtype == image.dtype
    np.testing.assert_array_equal(decoded, image)


@pytest.mark.parametrize("filters", [[4], [3], [4, 3], [0, 4, 4], [1, 2, 3, 4, 0], [2, 2, 2, 2, 2, 2, 4]])
@pytest.mark.parametrize("height", [1, 2, 15, 16, 17, 18, 32, 33, 49])
@pytest.mark.parametrize("width", [1, 15, 16, 47, 48, 49, 63, 64, 65, 160])
def test_png_rows_around_the_sizes_of_blocks(filters: list[int], height: int, width: int) -> None:
    image = np.random.default_rng(height * width).integers(0, 256, (height, width), np.uint8)
    np.testing.assert_array_equal(read_image(write_png(image, filters)), image)


@pytest.mark.parametrize("width", range(1, 40))
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_running_sums_around_the_sizes_of_blocks(width: int, dtype: type[np.uint8]) -> None:
    image = np.random.default_rng(width).integers(0, np.iinfo(dtype).max, (3, width)).astype(dtype)
    file = io.BytesIO()
    tifffile.imwrite(file, image, compression="zlib", predictor=2)
    np.testing.assert_array_equal(read_image(file.getvalue()), image)
    if dtype is np.uint8:
        np.testing.assert_array_equal(read_image(write_png(image, [1])), image)


@given(samples((1, 3, 4), side=60))
@settings(max_examples=40, deadline=None)
def test_png_by_opencv(image: Samples) -> None:
    encoded = cv2.imencode(".png", image)[1].tobytes()
    expected = image if image.ndim == 2 else image[..., [2, 1, 0, 3][: image.shape[2]]]
    np.testing.assert_array_equal(read_image(encoded), expected)


@given(samples(side=60))
@settings(max_examples=40, deadline=None)
def test_png_and_tiff_by_pillow(image: Samples) -> None:
    for kind, options in [("png", {}), ("tiff", {"compression": "tiff_lzw"}), ("tiff", {"compression": "raw"})]:
        file = io.BytesIO()
        Image.fromarray(image).save(file, kind, **options)
        np.testing.assert_array_equal(read_image(file.getvalue()), image)


@pytest.mark.parametrize("size", [100, 5000, 300_000])
@pytest.mark.parametrize("values", [2, 40, 256])
def test_lzw_through_full_tables(size: int, values: int) -> None:
    image = np.random.default_rng(size).integers(0, values, (1, size), np.uint8)
    for pattern in (image, np.zeros_like(image), np.sort(image)):
        file = io.BytesIO()
        tifffile.imwrite(file, pattern, compression="lzw")
        np.testing.assert_array_equal(read_image(file.getvalue()), pattern)


def test_a_last_strip_filled_up_to_full_height_is_cut() -> None:
    image = np.arange(35, dtype=np.uint8).reshape(7, 5)
    padded = np.vstack([image, np.full((1, 5), 77, np.uint8)])
    strips = [zlib.compress(padded[top : top + 4].tobytes()) for top in (0, 4)]
    tags = gray_tags(7, 5, compression=8) | {278: (4, 4)}
    np.testing.assert_array_equal(read_image(write_tiff(strips, tags)), image)


def test_white_is_zero_is_turned_round_for_8_bits_only() -> None:
    image = np.arange(12, dtype=np.uint8).reshape(3, 4)
    file = write_tiff([image.tobytes()], gray_tags(3, 4, photometric=0))
    np.testing.assert_array_equal(read_image(file), 255 - image)
    assert probe(file).inverted
    wide = image.astype(np.uint16) * 1000
    file = write_tiff([wide.tobytes()], gray_tags(3, 4, photometric=0, bits=16))
    np.testing.assert_array_equal(read_image(file), wide)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("omitted", [278, 279])
def test_strips_without_byte_counts_or_rows_per_strip(order: str, omitted: int) -> None:
    image = np.arange(12, dtype=np.uint16).reshape(3, 4)
    file = write_tiff([image.astype(f"{order}u2").tobytes()], gray_tags(3, 4, bits=16), order, omit=omitted)
    np.testing.assert_array_equal(read_image(file), image)
