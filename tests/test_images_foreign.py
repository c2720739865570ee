"""What tifffile and imagecodecs must not do while they decode for us: talk, make up pixels, take what a file claims."""

from __future__ import annotations

import io
import logging
import struct
import threading
import tracemalloc
import warnings
from typing import TYPE_CHECKING, Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from chammi_fast.errors import CorruptError, DecodeError, LimitError, TruncatedError, UnsupportedFormatError
from chammi_fast.images import fallback, foreign, read_image, read_planes
from image_files import gray_tags, write_tiff
from test_images_fallback import SMOOTH, encode

if TYPE_CHECKING:
    from collections.abc import Callable

SOFTWARE, STRIP_OFFSETS, STRIP_BYTES = 305, 273, 279
COLOURS = np.stack([SMOOTH, SMOOTH.T[:64].repeat(2, 1)[:, :96], SMOOTH // 2], -1)


def entry(data: bytes, tag: int) -> int:
    """Return where a tag of a classic little-endian TIFF's first page stands."""
    at: int = struct.unpack_from("<I", data, 4)[0]
    (count,) = struct.unpack_from("<H", data, at)
    places = [at + 2 + 12 * i for i in range(count)]
    return next(place for place in places if struct.unpack_from("<H", data, place) == (tag,))


def patched(data: bytes, at: int, form: str, *values: int) -> bytes:
    changed = bytearray(data)
    struct.pack_into(form, changed, at, *values)
    return bytes(changed)


def with_value(data: bytes, tag: int, value: int) -> bytes:
    """Return the file with another value of a tag that has one."""
    at = entry(data, tag)
    return patched(data, at + 8, {3: "<H", 4: "<I"}[struct.unpack_from("<H", data, at + 2)[0]], value)


def with_odd_tag() -> bytes:
    """An image that is sound but for a tag of a type that does not exist, which tifffile logs as an error."""
    data = encode(SMOOTH, software="somebody's")
    return patched(data, entry(data, SOFTWARE) + 2, "<H", 99)


def test_nothing_is_said(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> None:
    data = with_odd_tag()
    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        assert len(tiff.pages) == 1
    assert [record.name for record in caplog.records] == ["tifffile"]  # it does talk
    caplog.clear()
    np.testing.assert_array_equal(read_image(data), SMOOTH)
    np.testing.assert_array_equal(read_planes(data)[0], SMOOTH)
    assert {record.name for record in caplog.records} <= {"chammi_fast"}
    assert capfd.readouterr().err == ""


def test_others_who_use_the_libraries_hear_them(caplog: pytest.LogCaptureFixture) -> None:
    loggers = [logging.getLogger(name) for name in ("tifffile", "imagecodecs")]

    def log() -> None:
        for logger in loggers:
            logger.error("from %s", threading.current_thread().name)

    with foreign.quiet():
        log()
        other = threading.Thread(target=log, name="another")
        other.start()
        other.join()
    log()
    assert [record.getMessage() for record in caplog.records] == ["from another"] * 2 + ["from MainThread"] * 2


def test_what_numpy_warns_of_is_not_said(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = tifffile.TiffPage.asarray

    def overflowing(page: Any, **options: Any) -> Any:
        np.array([1e300]).astype(np.float32)
        np.zeros(1) / 0
        return plain(page, **options)

    monkeypatch.setattr(tifffile.TiffPage, "asarray", overflowing)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(read_image(encode(SMOOTH)), SMOOTH)


@pytest.mark.parametrize(
    ("tag", "value", "cause"),
    [
        (STRIP_OFFSETS, 0, "strip or tile 0 of 1 is not in the file"),
        (STRIP_BYTES, 0, "strip or tile 0 of 1 is not in the file"),
        (STRIP_BYTES, 60000, "strip or tile 0 of 1 is not in the file"),
    ],
)
def test_strips_that_are_not_there_are_no_pixels(tag: int, value: int, cause: str) -> None:
    with pytest.raises(TruncatedError, match=cause):
        read_image(with_value(encode(SMOOTH), tag, value))


def test_strips_that_are_not_listed_are_no_pixels() -> None:
    data = encode(SMOOTH, rowsperstrip=16)
    at = entry(data, STRIP_OFFSETS)
    assert struct.unpack_from("<I", data, at + 4) == (4,)
    with pytest.raises(TruncatedError, match="strip or tile 3 of 4"):
        read_image(patched(data, at + 4, "<I", 3))


def test_a_jpeg_that_stops_is_no_image() -> None:
    data = encode(SMOOTH, "jpeg")
    size = data.rindex(b"\xff\xd9") - data.rindex(b"\xff\xd8")
    with pytest.raises(TruncatedError, match="the JPEG in strip or tile 0 has no end"):
        read_image(with_value(data, STRIP_BYTES, size // 2))


def one_strip(compression: str) -> bytes:
    """Return an image of a kind that WebP can hold too."""
    image, meaning = (COLOURS, "rgb") if compression == "webp" else (SMOOTH, "minisblack")
    return encode(image, compression, photometric=meaning, rowsperstrip=len(image))


def claim(compression: str) -> bytes:
    """Return an image whose strip claims to hold far more than belongs there."""
    data = one_strip(compression)
    if compression == "jpeg":
        return patched(data, data.index(b"\xff\xc0\x00\x0b") + 5, ">HH", 65500, 65500)
    if compression == "jpeg2000":
        return patched(data, data.index(b"\xff\x51") + 6, ">II", 1 << 17, 1 << 15)
    if compression == "png":
        return patched(data, data.index(b"IHDR") + 4, ">II", 1 << 16, 1 << 16)
    if compression == "lerc":
        return patched(data, data.index(b"Lerc2 ") + 14, "<ii", 1 << 16, 1 << 16)
    return patched(data, data.index(b"VP8L") + 9, "<I", 0x0FFFFFFF)


@pytest.mark.parametrize("compression", ["jpeg", "jpeg2000", "png", "lerc", "webp"])
def test_inner_images_get_no_memory_for_what_they_claim(compression: str) -> None:
    data = claim(compression)
    tracemalloc.start()
    try:
        with pytest.raises(CorruptError, match=r"strip or tile 0 holds an image of \d{9,} samples where"):
            read_image(data)
        assert tracemalloc.get_traced_memory()[1] < 10 << 20
    finally:
        tracemalloc.stop()


def test_jpeg_2000_of_countless_tiles_is_refused() -> None:
    data = encode(np.tile(SMOOTH, (8, 8)))
    tile = data.index(b"\xff\x51") + 22
    with pytest.raises(CorruptError, match="holds an image of"):
        read_image(patched(data, tile, ">II", 1, 1))


@pytest.mark.parametrize(
    ("compression", "write"),
    [
        (7, imagecodecs.jpeg8_encode),
        (34712, lambda image: imagecodecs.jpeg2k_encode(image, level=0, codecformat="j2k")),
        (34712, lambda image: imagecodecs.jpeg2k_encode(image, level=0, codecformat="jp2")),
        (34887, imagecodecs.lerc_encode),
        (34933, imagecodecs.png_encode),
    ],
)
@pytest.mark.parametrize("shape", [(40, 70), (300, 12), (40, 41, 3)])
def test_claims_are_read_off_the_headers(
    compression: int, write: Callable[[np.ndarray], bytes], shape: tuple[int, ...]
) -> None:
    count = foreign.READABLE[compression]
    assert count is not None
    image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    assert count(bytes(write(image))) == image.size


@pytest.mark.parametrize(
    ("kind", "options"), [("VP8 ", {}), ("VP8L", {"lossless": True}), ("VP8X", {"exif": b"Exif\0\0none"})]
)
def test_claims_of_webp(kind: str, options: dict[str, Any]) -> None:
    file = io.BytesIO()
    Image.fromarray(COLOURS[:33, :70]).save(file, "webp", **options)
    assert file.getvalue()[12:16] == kind.encode()
    count = foreign.READABLE[50001]
    assert count is not None
    assert count(file.getvalue()) == 4 * 33 * 70


@pytest.mark.parametrize("compression", [compression for compression, count in foreign.READABLE.items() if count])
def test_no_header_is_no_claim(compression: int) -> None:
    count = foreign.READABLE[compression]
    assert count is not None
    for length in range(40):
        assert count(bytes(length)) >= 0


def test_a_strip_of_odd_bits_is_not_longer_than_its_samples() -> None:
    strips = [bytes(1 << 20)]
    with pytest.raises(CorruptError, match="1048576 bytes long where 12 samples belong"):
        read_image(write_tiff(strips, gray_tags(2, 6, bits=4)))


def test_tiles_count_whole() -> None:
    data = encode(np.zeros((16, 600), np.uint8), tile=(256, 256))
    assert read_image(data, pixel_limit=3 << 16).shape == (16, 600)
    with pytest.raises(LimitError):
        read_image(data, pixel_limit=(3 << 16) - 1)


def test_pages_are_counted_only_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode(np.stack([SMOOTH] * 3))
    monkeypatch.setattr(fallback, "_MOST_PAGES", 3)
    assert len(read_planes(data)) == 3
    monkeypatch.setattr(fallback, "_MOST_PAGES", 2)
    for width in (None, 32):
        with pytest.raises(LimitError, match="more than 2 pages"):
            read_planes(data, width)


def test_jpeg_xr_is_refused() -> None:
    """Its decoder divides by zero on some broken streams, which ends the process."""
    with pytest.raises(UnsupportedFormatError):
        read_image(encode(SMOOTH, "jpegxr", compressionargs={"level": 1.0}))


@pytest.mark.parametrize("compression", ["jpeg2000", "jpeg", "webp", "lerc", "png", "lzma"])
def test_broken_headers_are_typed_errors_and_take_little(
    compression: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    data = one_strip(compression)
    start = struct.unpack_from("<I", data, entry(data, STRIP_OFFSETS) + 8)[0]
    rng = np.random.default_rng(0)
    tracemalloc.start()
    for _ in range(200):
        broken = bytearray(data)
        for place in rng.integers(start, min(start + 80, len(data)), 3):
            broken[place] = int(rng.choice([0, 127, 128, 255]))
        try:
            read_image(bytes(broken))
        except DecodeError as error:
            assert error.cause
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10 << 20
    assert {record.name for record in caplog.records} <= {"chammi_fast"}
    assert capfd.readouterr().err == ""
