"""Invented files that ask for far more work or memory than their bytes are worth: refused, whatever the pixel limit."""

from __future__ import annotations

import struct
import zlib
from itertools import accumulate
from typing import TYPE_CHECKING

import imagecodecs
import numpy as np
import pytest

from chammi_fast.errors import CorruptError, DecodeError, LimitError
from chammi_fast.images import probe, read_image, read_planes
from image_files import PNG_SIGNATURE, gray_tags, png_chunk, png_header, write_tiff

if TYPE_CHECKING:
    from collections.abc import Callable

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


def deflate_blocks(count: int, last: bytes) -> bytes:
    """Make a zlib stream of `last` behind stored blocks that hold nothing."""
    stored = b"\x01" + struct.pack("<HH", len(last), len(last) ^ 0xFFFF) + last
    return b"\x78\x01" + b"\0\0\0\xff\xff" * count + stored + struct.pack(">I", zlib.adler32(last))


def lzw_clears(count: int) -> bytes:
    """Make an LZW stream of clear codes only, 8 of them in 9 bytes."""
    return int("100000000" * 8, 2).to_bytes(9, "big") * (count // 8)


# each is far longer than what it gives, and gives one byte at its end (LZW: none)
IDLE = {
    "packbits": (32773, b"\x80" * 300_000 + b"\0\x07"),
    "lzw": (5, lzw_clears(300_000)),
    "deflate": (8, deflate_blocks(60_000, b"\x07")),
    "zstd": (50000, b"\x50\x2a\x4d\x18\0\0\0\0" * 40_000 + imagecodecs.zstd_encode(b"\x07")),
}


@pytest.mark.parametrize("fill_order", [1, 2])
@pytest.mark.parametrize("name", IDLE)
def test_strips_that_share_much_that_gives_nothing(name: str, fill_order: int) -> None:
    compression, packed = IDLE[name]
    if fill_order == 2:
        packed = bytes(int(f"{byte:08b}"[::-1], 2) for byte in packed)
    count = 20_000
    body = packed + struct.pack("<I", 8) * count + struct.pack("<I", len(packed)) * count
    lists = {273: (4, count, 8 + len(packed)), 279: (4, count, 8 + len(packed) + 4 * count)}
    tags = gray(1, count, compression=(3, 1, compression), rows=(4, 1, 1)) | lists | {266: (3, 1, fill_order)}
    with pytest.raises(CorruptError, match=r"shares too many bytes|holds 0 bytes"):
        read_image(tiff(body, directory(tags)))
    one = gray(1, 1, compression=(3, 1, compression)) | {279: (4, 1, len(packed)), 266: (3, 1, fill_order)}
    with pytest.raises(CorruptError, match=r"shares too many bytes|holds 0 bytes"):
        read_planes(pages(packed, count, one))


def test_strips_may_share_bytes_that_are_worth_their_pixels() -> None:
    packed = zlib.compress(bytes(range(200)))
    body = packed + struct.pack("<I", 8) * 100 + struct.pack("<I", len(packed)) * 100
    lists = {273: (4, 100, 8 + len(packed)), 279: (4, 100, 8 + len(packed) + 400)}
    data = tiff(body, directory(gray(200, 100, compression=(3, 1, 8), rows=(4, 1, 1)) | lists))
    np.testing.assert_array_equal(read_image(data), np.tile(np.arange(200, dtype=np.uint8), (100, 1)))


def tiled(height: int, width: int, side: int) -> bytes:
    """Make a TIFF all of whose tiles are the same zeros."""
    packed = zlib.compress(bytes(side * side), 9)
    count = -(-height // side) * -(-width // side)
    body = packed + struct.pack("<I", 8) * count + struct.pack("<I", len(packed)) * count
    tags = gray(width, height, compression=(3, 1, 8))
    del tags[273], tags[279]
    tags |= {322: (4, 1, side), 323: (4, 1, side), 324: (4, count, 8 + len(packed))}
    return tiff(body, directory(tags | {325: (4, count, 8 + len(packed) + 4 * count)}))


def test_tiles_that_hold_far_more_than_their_image() -> None:
    for read in (read_image, read_planes, probe):
        with pytest.raises(LimitError, match="far more than their image"):
            read(tiled(1, 2**20, 4096))
    assert read_image(tiled(1, 5000, 512)).shape == (1, 5000)
    assert probe(tiled(1, 5000, 512)).tile == (512, 512)


def tile_tags(side: int, packed: int, at: int, **other: tuple[int, int, int]) -> dict[int, tuple[int, int, int]]:
    """Make the tags of a page of 10 x 10 pixels in one tile of that side, deflated unless `other` says so."""
    tags = gray(10, 10, **({"compression": (3, 1, 8)} | other))
    del tags[273], tags[279]
    return tags | {322: (4, 1, side), 323: (4, 1, side), 324: (4, 1, at), 325: (4, 1, packed)}


def small_pages(packed: list[bytes], side: int) -> bytes:
    """Make a stack of pages of 10 x 10 pixels, each in a tile of its own of that side."""
    places = list(accumulate(map(len, packed), initial=8))
    each = len(directory(tile_tags(side, 0, 0)))
    links = [*(places[-1] + (i + 1) * each for i in range(len(packed) - 1)), 0]
    made = [
        directory(tile_tags(side, len(tile), at), link) for tile, at, link in zip(packed, places, links, strict=False)
    ]
    return tiff(b"".join(packed), *made)


def test_stacks_of_small_pages_in_large_tiles_are_sound_however_long_they_are() -> None:
    blank = zlib.compress(bytes(512 * 512), 9)
    assert read_planes(small_pages([blank] * 1400, 512)).shape == (1400, 10, 10)


def test_what_small_pages_have_outside_the_image_may_be_as_long_as_it_is() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (300, 128, 128), np.uint8)
    tiles = [zlib.compress(tile.tobytes()) for tile in noise]
    np.testing.assert_array_equal(read_planes(small_pages(tiles, 128)), noise[:, :10, :10])


def test_pages_that_share_a_tile_are_not_worth_any_amount_of_work() -> None:
    packed = zlib.compress(bytes(2**20), 9)
    data = pages(packed, 10_000, tile_tags(1024, len(packed), 8))
    with pytest.raises(LimitError, match="tiles of 1024 x 1024 pixels hold far more than their image") as error:
        read_planes(data, pixel_limit=2**20)
    at = error.value.byte_offset
    assert at is not None
    assert struct.unpack_from("<HHI", data, at - 8) == (324, 4, 1)  # the entry that lists the tiles, of a later page
    assert at > 8 + len(packed) + 50 * len(directory(tile_tags(1024, 0, 0)))


@pytest.mark.parametrize("name", ["none", "deflate"])
def test_pages_that_share_a_tile_of_noise_may_not_decode_it_again_and_again(name: str) -> None:
    code, encode = CODECS[name]
    packed = bytes(encode(np.random.default_rng(0).bytes(256 * 256)))

    def sharing(count: int) -> bytes:
        return pages(packed, count, tile_tags(256, len(packed), 8, compression=(3, 1, code)))

    with pytest.raises(CorruptError, match="tile 0 shares too many bytes"):
        read_planes(sharing(600))
    assert read_planes(sharing(1)).shape == (1, 10, 10)


@pytest.mark.parametrize("name", ["deflate", "zstd"])
def test_tiles_are_not_filled_up_as_last_strips_are(name: str) -> None:
    code, encode = CODECS[name]
    side, little = 4096, 2**26
    for more in (24, little, little + 1):
        packed = bytes(encode(bytes(side * side + more)))
        data = pages(packed, 1, tile_tags(side, len(packed), 8, compression=(3, 1, code)))
        if more <= little:
            assert not read_image(data).any()
        else:
            with pytest.raises(CorruptError, match="tile 0 is broken or too long"):
                read_image(data)


RAW = bytes(range(240)) * 2
MORE = b"\x05" * 24 * 44
CODECS: dict[str, tuple[int, Callable[[bytes], bytes | bytearray]]] = {
    "none": (1, bytes),
    "lzw": (5, imagecodecs.lzw_encode),
    "deflate": (8, zlib.compress),
    "packbits": (32773, imagecodecs.packbits_encode),
    "zstd": (50000, imagecodecs.zstd_encode),
}


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("rows", [20, 64, 2**32 - 1])
@pytest.mark.parametrize(("inside", "behind"), [(b"", b""), (b"\x05", b""), (MORE, b""), (b"", b"\x07" * 9)])
def test_bytes_behind_those_of_the_image_are_ignored(name: str, rows: int, inside: bytes, behind: bytes) -> None:
    code, encode = CODECS[name]
    data = write_tiff([bytes(encode(RAW + inside) + behind)], gray_tags(20, 24, compression=code) | {278: (4, rows)})
    assert read_image(data).tobytes() == RAW
    tall = {278: (4, min(8 * rows, 2**32 - 1))}
    bits = write_tiff([bytes(encode(RAW + inside) + behind)], gray_tags(160, 24, compression=code, bits=1) | tall)
    unpacked = np.unpackbits(np.frombuffer(RAW, np.uint8)).reshape(160, 24) * 255
    np.testing.assert_array_equal(read_image(bits), unpacked)


def test_bytes_behind_the_image_are_part_of_the_checksum() -> None:
    stream = zlib.compress(RAW + MORE)
    with pytest.raises(CorruptError, match="broken"):
        read_image(write_tiff([stream[:-1] + b"\0"], gray_tags(20, 24, compression=8)))


def test_pixels_of_several_zstandard_frames() -> None:
    stream = bytes(imagecodecs.zstd_encode(RAW[:100]) + imagecodecs.zstd_encode(RAW[100:]))
    assert read_image(write_tiff([stream], gray_tags(20, 24, compression=50000))).tobytes() == RAW
    with pytest.raises(CorruptError, match="holds 100 bytes"):
        read_image(write_tiff([stream[:-9]], gray_tags(20, 24, compression=50000)))
