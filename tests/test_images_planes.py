"""Tapes, pages and samples as channel planes."""

from __future__ import annotations

import io

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from chammi_fast import _core
from chammi_fast.errors import TapeShapeError
from chammi_fast.images import probe, read_image, read_planes, refold
from image_files import write_png


@given(
    st.integers(1, 20), st.integers(1, 20), st.integers(1, 6),
    st.sampled_from([np.uint8, np.uint16, np.int32, np.float16, np.float64]), st.booleans(),
)  # fmt: skip
def test_refold_equals_numpy(height: int, width: int, channels: int, dtype: type[np.uint8], strided: bool) -> None:
    tape = np.random.default_rng(height).integers(0, 128, (height, width * channels * 2)).astype(dtype)
    tape = tape[:, ::2] if strided else tape[:, : width * channels]
    planes = refold(tape, channel_width=width)
    assert planes.flags.c_contiguous
    assert planes.flags.owndata
    assert planes.dtype == dtype
    for channel in range(channels):
        np.testing.assert_array_equal(planes[channel], tape[:, channel * width : (channel + 1) * width])


def test_refold_refuses_what_is_no_tape() -> None:
    with pytest.raises(TapeShapeError, match="width of 10 pixels is not a multiple of the channel width 4"):
        refold(np.zeros((3, 10), np.uint8), channel_width=4)
    for width in (0, -5, 11):
        with pytest.raises(TapeShapeError):
            refold(np.zeros((3, 10), np.uint8), channel_width=width)
    with pytest.raises(ValueError, match=r"\(3, 10, 1\)"):
        refold(np.zeros((3, 10, 1), np.uint8), channel_width=5)
    with pytest.raises(ValueError, match="complex64"):
        refold(np.zeros((3, 10), np.complex64), channel_width=5)


def test_the_core_itself_refuses_what_is_no_tape() -> None:
    tape = np.zeros((3, 10), np.uint8)
    for wrong, width in [(tape, 0), (tape, 4), (tape[None], 5), (tape[:, ::2], 5), (tape[:0, 0], 1), (np.array(0), 1)]:
        with pytest.raises(ValueError, match="tape"):
            _core.refold(wrong, width)
    for dtype in (object, np.complex64, "S3", "V16", np.longdouble):
        with pytest.raises(ValueError, match="numbers"):
            _core.refold(np.zeros((3, 10), dtype), 5)
    with pytest.raises(ValueError, match=r"2\*\*32"):
        _core.refold(np.zeros((0, 2**32), np.uint8), 1)
    with pytest.raises(TypeError):
        _core.use_isa(None)  # type: ignore[arg-type]


def test_a_channel_width_means_a_tape() -> None:
    tape = np.arange(60, dtype=np.uint16).reshape(5, 12)
    data = write_png(tape, [4])
    np.testing.assert_array_equal(read_planes(data, 4), tape.reshape(5, 3, 4).transpose(1, 0, 2))
    np.testing.assert_array_equal(read_planes(data), tape[None])
    with pytest.raises(TapeShapeError, match="width of 12 pixels is not a multiple of the channel width 5"):
        read_planes(data, 5)
    with pytest.raises(ValueError, match="channel_width"):
        read_planes(data, 0)


def test_samples_are_channels_where_there_is_one_page() -> None:
    image = np.arange(90, dtype=np.uint8).reshape(5, 6, 3)
    for data in (write_png(image), tiff(image, photometric="rgb")):
        np.testing.assert_array_equal(read_planes(data), image.transpose(2, 0, 1))
        with pytest.raises(TapeShapeError, match="a tape is one page of one sample"):
            read_planes(data, 3)


def test_pages_are_channels_where_there_are_several() -> None:
    stack = np.arange(90, dtype=np.uint8).reshape(3, 5, 6)
    data = tiff(stack, photometric="minisblack")
    np.testing.assert_array_equal(read_planes(data), stack)
    assert probe(data).pages == 3
    with pytest.raises(TapeShapeError, match="a tape is one page"):
        read_planes(data, 3)
    coloured = tiff(np.zeros((2, 5, 6, 3), np.uint8), photometric="rgb")
    with pytest.raises(TapeShapeError, match="2 pages of 3 samples"):
        read_planes(coloured)
    assert read_image(coloured, 1).shape == (5, 6, 3)


def test_what_is_returned_is_owned_by_the_caller() -> None:
    data = write_png(np.arange(60, dtype=np.uint8).reshape(5, 12))
    first = read_image(data)
    first[:] = 9
    second = read_image(data)
    assert (first == 9).all()
    assert second[0, 3] == 3
    assert first.flags.writeable
    assert first.flags.c_contiguous


def tiff(samples: np.ndarray, **options: str) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, samples, compression="zlib", **options)  # type: ignore[arg-type]
    return file.getvalue()
