"""Uncompressed TIFF: pixels that stand in the file as they are wanted are not copied, which nobody may notice."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chammi_fast.errors import CorruptError, DecodeError, TruncatedError
from chammi_fast.images import Preprocess, load_batch, read_image, read_planes
from test_images_bombs import directory, gray, tiff

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

WIDTH, ROWS = 6, 4
START = 8  # of a file's body
KINDS = {"u": 1, "i": 2, "f": 3}


def lengths(height: int, dtype: np.dtype[Any]) -> list[int]:
    """Bytes of each strip of four rows."""
    return [min(ROWS, height - top) * WIDTH * dtype.itemsize for top in range(0, height, ROWS)]


def strips_at(starts: list[int], counts: list[int], body: bytes, height: int, dtype: np.dtype[Any]) -> bytes:
    """Make a TIFF of strips of four rows that begin at `starts` of the body, or, without counts, say no lengths."""
    offsets = [START + start for start in starts]
    several = len(starts) > 1
    lists = struct.pack(f"<{len(offsets + counts)}I", *offsets, *counts) if several else b""
    end = START + len(body)
    tags = gray(WIDTH, height, bits=(3, 1, 8 * dtype.itemsize), rows=(4, 1, ROWS))
    tags |= {339: (3, 1, KINDS[dtype.kind]), 273: (4, len(offsets), end if several else offsets[0])}
    del tags[279]
    if counts:
        tags[279] = (4, len(counts), end + 4 * len(offsets) if several else counts[0])
    return tiff(body + lists, directory(tags))


@st.composite
def layouts(draw: st.DrawFn) -> tuple[int, list[int], np.dtype[Any]]:
    """Draw a height, where strips begin, most often one behind the other, and a type."""
    dtype = np.dtype(draw(st.sampled_from(["<u1", "<u2", "<i4", "<f4", "<f8", "<u8"])))
    height = draw(st.integers(1, 3 * ROWS))
    whole = ROWS * WIDTH * dtype.itemsize
    count = len(lengths(height, dtype))
    first = draw(st.integers(0, 16))
    starts = [first + i * whole for i in range(count)]
    if draw(st.integers(0, 2)) == 0:
        starts[draw(st.integers(0, count - 1))] = draw(st.integers(0, 2 * whole))
    return height, draw(st.sampled_from([starts, starts, starts[::-1]])), dtype


@given(layouts(), st.sampled_from([0, 5, None]), st.integers(0, 2**32 - 1))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_strips_anywhere(tmp_path: Path, layout: Any, more: int | None, seed: int) -> None:
    height, starts, dtype = layout
    needed = lengths(height, dtype)
    body = np.random.default_rng(seed).integers(1, 60, 16 + 3 * ROWS * WIDTH * 8, np.uint8).tobytes()
    counts = [] if more is None else [length + more for length in needed]
    data = strips_at(starts, counts, body, height, dtype)
    stored = b"".join(body[start : start + length] for start, length in zip(starts, needed, strict=True))
    expected = np.frombuffer(stored, dtype).reshape(height, WIDTH)
    path = tmp_path / "a.tif"
    path.write_bytes(data)
    for source in (data, path):
        image = read_image(source)
        assert image.dtype == dtype
        np.testing.assert_array_equal(image, expected)
        np.testing.assert_array_equal(read_planes(source)[0], expected)
        np.testing.assert_array_equal(read_planes(source, 2), expected.reshape(height, 3, 2).swapaxes(0, 1))
    if dtype.itemsize < 4:
        scale = np.iinfo(dtype).max
        batch = load_batch([data, path], None, Preprocess(size=None), threads=1).images
        np.testing.assert_allclose(batch, [[expected / scale]] * 2, rtol=0, atol=1e-6)


def test_lengths_that_are_too_short_and_files_that_end_early(tmp_path: Path) -> None:
    dtype = np.dtype("<u2")
    needed = lengths(2 * ROWS, dtype)
    starts = [0, needed[0]]
    body = bytes(range(sum(needed)))
    for counts in ([needed[0] - 1, needed[1]], [needed[0], needed[1] - 1]):
        with pytest.raises(CorruptError, match=f"holds {needed[0] - 1} bytes where {needed[0]} are needed"):
            read_image(strips_at(starts, counts, body, 2 * ROWS, dtype))
    with pytest.raises(CorruptError, match="strip 1 is empty"):
        read_image(strips_at(starts, [needed[0], 0], body, 2 * ROWS, dtype))
    with pytest.raises(DecodeError):
        read_image(strips_at([-START, needed[0]], needed, body, 2 * ROWS, dtype))
    path = tmp_path / "cut.tif"
    size = len(strips_at(starts, needed, body, 2 * ROWS, dtype))
    for first in (2**20, size - START - needed[0] - 1):
        path.write_bytes(strips_at([first, first + needed[0]], needed, body, 2 * ROWS, dtype))
        for read in (read_image, read_planes):
            with pytest.raises(TruncatedError):
                read(path)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("options", [{}, {"byteorder": ">"}, {"rowsperstrip": 7}, {"photometric": "miniswhite"}])
def test_arrays_are_owned_by_who_asked(dtype: type[np.uint8], options: dict[str, Any], tmp_path: Path) -> None:
    image = np.arange(50 * 40).reshape(50, 40).astype(dtype)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, image, **options)
    data = path.read_bytes()
    before = bytes(bytearray(data))
    sources: list[Path | bytes] = [path, data]
    first: list[NDArray[Any]] = [read(source) for read in (read_image, read_planes) for source in sources]
    kept = [one.copy() for one in first]
    for one in first:
        assert one.flags.writeable
        assert one.flags.c_contiguous
        assert one.flags.aligned
        one[...] = one + dtype(1)
    second = [read(source) for read in (read_image, read_planes) for source in sources]
    for one, other in zip(second, kept, strict=True):
        np.testing.assert_array_equal(one, other)
    for one, other in zip(first, kept, strict=True):
        np.testing.assert_array_equal(one, other + dtype(1))
    assert data == before == path.read_bytes()
