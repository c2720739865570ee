"""Files that contradict themselves, ask for too much, or are of kinds that are not read: refused by a sentence each."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
import tifffile

from chammi_fast.errors import CorruptError, LimitError, UnsupportedFormatError
from chammi_fast.images import read_image, read_planes
from image_files import (
    PNG_SIGNATURE,
    gray_tags,
    png_chunk,
    png_header,
    png_rows,
    write_tiff,
)
from test_images_hostile import FILES, IMAGE


def png_of(stream: bytes, header: bytes | None = None, *extra: bytes) -> bytes:
    header = header or png_header(20, 24, 8, 0)
    return PNG_SIGNATURE + header + b"".join(extra) + png_chunk(b"IDAT", stream) + png_chunk(b"IEND", b"")


ROWS = png_rows(IMAGE, [0])


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (png_of(zlib.compress(ROWS[:-1])), "holds 499 bytes where 500 are needed"),
        (png_of(zlib.compress(ROWS + b"x")), "broken or too long"),
        (png_of(zlib.compress(b"\x05" + ROWS[1:])), "row 0 of the PNG has an unknown filter"),
        (png_of(zlib.compress(ROWS[:475] + b"\x09" + ROWS[476:])), "row 19 of the PNG has an unknown filter"),
        (png_of(b""), "broken"),
        (png_of(zlib.compress(ROWS), png_header(0, 24, 8, 0)), "holds no image"),
        (png_of(zlib.compress(ROWS), png_header(20, 24, 8, 5)), "does not exist"),
        (png_of(zlib.compress(ROWS), None, png_chunk(b"ABCD", b"")), "out of place"),
        (png_of(zlib.compress(ROWS), None, png_header(20, 24, 8, 0)), "out of place"),
        (PNG_SIGNATURE + png_header(20, 24, 8, 0) + png_chunk(b"IEND", b""), "without an IDAT"),
        (PNG_SIGNATURE + png_chunk(b"IDAT", zlib.compress(ROWS)), "header"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_png_that_contradicts_itself(data: bytes, cause: str) -> None:
    with pytest.raises(CorruptError, match=cause):
        read_image(data)


def test_png_with_other_chunks_between_the_pixels_is_refused() -> None:
    stream = zlib.compress(ROWS)
    split = png_chunk(b"IDAT", stream[:50]) + png_chunk(b"tEXt", b"a\0b") + png_chunk(b"IDAT", stream[50:])
    with pytest.raises(CorruptError, match="between"):
        read_image(PNG_SIGNATURE + png_header(20, 24, 8, 0) + split + png_chunk(b"IEND", b""))


def test_png_ancillary_chunks_are_skipped() -> None:
    data = png_of(zlib.compress(ROWS), None, png_chunk(b"tEXt", b"a\0b"), png_chunk(b"tRNS", b"\0\x01"))
    np.testing.assert_array_equal(read_image(data), IMAGE)


@pytest.mark.parametrize(
    ("data", "feature"),
    [
        (write_tiff([b"x"], gray_tags(20, 24, compression=7)), "JPEG"),
        (write_tiff([b"x"], gray_tags(20, 24, compression=34925)), "LZMA"),
        (write_tiff([b"x"], gray_tags(20, 24, compression=12345)), "compression 12345"),
        (write_tiff([b"x"], gray_tags(20, 24, bits=4)), "4-bit"),
        (write_tiff([b"x"], gray_tags(20, 24, bits=24)), "24-bit"),
        (write_tiff([b"x"], gray_tags(20, 24, bits=12, sample_format=2)), "12-bit samples of format 2"),
        (write_tiff([b"x"], gray_tags(20, 24, bits=64, sample_format=6)), "complex"),
        (write_tiff([b"x"], gray_tags(20, 24, depth=5)), "depth 5"),
        (write_tiff([b"x"], gray_tags(20, 24, compression=5, predictor=2, bits=12)), "predictor 2 for 12-bit"),
        (write_tiff([b"x"], gray_tags(20, 24, photometric=6)), "photometric interpretation 6"),
        (write_tiff([b"x"], gray_tags(20, 24, compression=5, predictor=3)), "predictor 3"),
        (write_tiff([b"\x00\x01abc"], gray_tags(20, 24, compression=5)), "LZW"),
        (b"GIF89a" + bytes(20), "neither PNG nor TIFF"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.usefixtures("without_fallback")
def test_unsupported_features_are_named(data: bytes, feature: str) -> None:
    with pytest.raises(UnsupportedFormatError, match=feature):
        read_image(data)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("lacking", [(0, 0), (0, 120), (128, 0)])
def test_sparse_files_are_refused_where_they_lack_a_strip(order: str, big: bool, lacking: tuple[int, int]) -> None:
    kind, size, word = (16, 8, "Q") if big else (4, 4, "I")
    start = 16 if big else 8
    offsets, counts = [start, start, lacking[0], start], [120, 120, lacking[1], 120]
    lists = struct.pack(f"{order}8{word}", *offsets, *counts)
    tags = {tag: (kind if field == 4 else field, value) for tag, (field, value) in gray_tags(20, 24).items()}
    placed = tags | {278: (kind, 5), 273: (kind, start + 480), 279: (kind, start + 480 + 4 * size)}
    data = bytearray(write_tiff([bytes(480) + lists], placed, order, big=big))
    for tag in (273, 279):  # the lists have four values
        entry = struct.pack(f"{order}HH{word}", tag, kind, 1)
        at = data.rindex(entry)
        data[at : at + len(entry)] = struct.pack(f"{order}HH{word}", tag, kind, 4)
    with pytest.raises(CorruptError, match="TIFF strip 2 is empty") as error:
        read_image(bytes(data))
    assert error.value.byte_offset == start + 480 + size * (2 if lacking[0] == 0 else 6)


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (write_tiff([bytes(480)], gray_tags(20, 24) | {278: (4, 5)}), "names 1 strips where its size needs 4"),
        (write_tiff([bytes(480)], gray_tags(20, 24) | {278: (4, 0)}), "0 rows per strip"),
        (write_tiff([bytes(480)], gray_tags(20, 24) | {257: (4, 0)}), "holds no image"),
        (write_tiff([bytes(479)], gray_tags(20, 24)), "holds 479 bytes where 480 are needed"),
        (write_tiff([b""], gray_tags(20, 24)), "empty"),
        (write_tiff([zlib.compress(bytes(480))[:-1] + b"\0"], gray_tags(20, 24, compression=8)), "broken"),
        (write_tiff([b"\xff\xff\xff\xff"], gray_tags(20, 24, compression=5)), "broken"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_tiff_that_contradicts_itself(data: bytes, cause: str) -> None:
    with pytest.raises(CorruptError, match=cause):
        read_image(data)


def test_a_chain_of_pages_that_loops_is_refused() -> None:
    data = write_tiff([bytes(480)], gray_tags(20, 24))
    start = struct.unpack("<I", data[4:8])[0]
    with pytest.raises(CorruptError, match="loops"):
        read_planes(write_tiff([bytes(480)], gray_tags(20, 24), next_page=start))


@pytest.mark.parametrize(
    "data",
    [
        png_of(b"x", png_header(2**20, 2**20, 16, 0)),
        write_tiff([b"x"], gray_tags(1, 1) | {256: (4, 2**31), 257: (4, 2**31)}),
        write_tiff([b"x"], gray_tags(1, 1, samples=65535) | {256: (4, 2**32 - 1), 257: (4, 2**32 - 1)}),
    ],
    ids=["png", "square", "all ones"],
)
def test_sizes_beyond_the_limit_are_refused_before_memory_is_asked_for(data: bytes) -> None:
    with pytest.raises(LimitError, match="pixel limit"):
        read_image(data)


def test_the_pixel_limit_can_be_set() -> None:
    with pytest.raises(LimitError):
        read_image(FILES["png"], pixel_limit=479)
    assert read_image(FILES["png"], pixel_limit=480).shape == IMAGE.shape
    stack = io.BytesIO()
    tifffile.imwrite(stack, np.zeros((3, 10, 10), np.uint8), photometric="minisblack")
    assert read_image(stack.getvalue(), pixel_limit=100).shape == (10, 10)
    with pytest.raises(LimitError, match="3 pages"):
        read_planes(stack.getvalue(), pixel_limit=299)


def test_a_small_png_that_promises_much_is_refused_early() -> None:
    with pytest.raises(CorruptError, match="far less"):
        read_image(png_of(zlib.compress(bytes(1000)), png_header(16000, 16000, 8, 0)))
