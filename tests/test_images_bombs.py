"""Invented files that ask for far more work or memory than their bytes are worth: refused, whatever the pixel limit."""

from __future__ import annotations

import struct

import pytest

from chammi_fast.errors import CorruptError, DecodeError
from chammi_fast.images import probe, read_image, read_planes
from image_files import PNG_SIGNATURE, gray_tags, png_chunk, png_header, write_tiff

NO_LIMIT = 2**64 - 1


def directory(tags: dict[int, tuple[int, int, int]], following: int = 0) -> bytes:
    """Make a directory of (type, count, value or offset), little-endian."""
    entries = b"".join(struct.pack("<HHII", tag, *tags[tag]) for tag in sorted(tags))
    return struct.pack("<H", len(tags)) + entries + struct.pack("<I", following)


def gray(width: int, height: int, **other: tuple[int, int, int]) -> dict[int, tuple[int, int, int]]:
    names = {"bits": 258, "compression": 259, "offsets": 273, "samples": 277, "rows": 278, "counts": 279}
    tags = {256: (4, 1, width), 257: (4, 1, height), 258: (3, 1, 8), 262: (3, 1, 1), 273: (4, 1, 8), 279: (4, 1, 1)}
    return tags | {names[name]: value for name, value in other.items()}


def tiff(body: bytes, *directories: bytes) -> bytes:
    return b"II*\0" + struct.pack("<I", 8 + len(body)) + body + b"".join(directories)


def pages(body: bytes, count: int, tags: dict[int, tuple[int, int, int]]) -> bytes:
    """Make a file of `count` pages of the same tags."""
    start, each = 8 + len(body), len(directory(tags))
    links = [start + (i + 1) * each for i in range(count - 1)]
    return tiff(body, *(directory(tags, following) for following in [*links, 0]))


@pytest.mark.parametrize("limit", [2**61, 2**63 - 1, NO_LIMIT])
@pytest.mark.parametrize(
    "data",
    [
        tiff(b"A" * 64, directory(gray(2**31 - 1, 2**31 - 1, bits=(3, 1, 16), samples=(3, 1, 2)))),
        tiff(b"A" * 64, directory(gray(2**31 - 1, 2**31 - 1, bits=(3, 1, 64), rows=(4, 1, 2**30)))),
        pages(b"A" * 64, 9, gray(2**31 - 1, 2**31 - 1, bits=(3, 1, 64))),
        pages(b"A" * 64, 257, gray(2**28, 2**28)),
        pages(b"A" * 64, 256, gray(2**26, 2**27, bits=(3, 1, 64))),
        PNG_SIGNATURE + png_header(2**31 - 1, 2**31 - 1, 16, 6) + png_chunk(b"IDAT", b"x") + png_chunk(b"IEND", b""),
        PNG_SIGNATURE + png_header(2**28, 2**28, 16, 0) + png_chunk(b"IDAT", b"x") + png_chunk(b"IEND", b""),
    ],
    ids=["pixels", "strips", "stack", "stack of 2^64", "stack of 2^61", "png", "png of 2^57"],
)
def test_sizes_whose_bytes_cannot_be_counted(data: bytes, limit: int) -> None:
    for read in (read_image, read_planes):
        with pytest.raises((DecodeError, MemoryError)):
            read(data, pixel_limit=limit)


def test_counts_of_bigtiff_that_overflow_are_refused() -> None:
    header = b"II+\0" + struct.pack("<HHQ", 8, 0, 16)
    for count in (2**61, 2**61 + 1, 2**64 - 1):
        entry = struct.pack("<HHQQ", 273, 16, count, 0)
        with pytest.raises(DecodeError, match="beyond the end"):
            probe(header + struct.pack("<Q", 1) + entry + bytes(8))


def test_lists_longer_than_the_samples_are_not_read() -> None:
    # each of 20 000 pages says the same million of bit widths, of which only the first has a meaning
    data = pages(b"\x08" * 10**6, 20_000, gray(1, 1, bits=(1, 10**6, 8), offsets=(4, 1, 8)))
    assert read_planes(data).shape == (20_000, 1, 1)
    mixed = tiff(b"\x08\x08\x08\x10" * 4, directory(gray(1, 1, bits=(1, 8, 8))))
    assert read_image(mixed).shape == (1, 1)


def test_more_samples_than_the_format_can_count() -> None:
    with pytest.raises(CorruptError, match="65536 samples"):
        read_image(write_tiff([b"x"], gray_tags(1, 1) | {277: (4, 65536)}))


def test_directories_that_overlap() -> None:
    # directories of 65 535 entries begin every four bytes, each linked by zeros that stand behind all entries
    count = 200
    body = bytearray(struct.pack("<HH", 60_000, 0) * (count + 180_000))
    for i in range(count):
        end = 4 * i + 2 + 12 * 60_000
        body[end : end + 4] = struct.pack("<I", 8 + 4 * (i + 1))
    with pytest.raises(DecodeError, match="overlaps itself"):
        probe(b"II*\0" + struct.pack("<I", 8) + bytes(body))
