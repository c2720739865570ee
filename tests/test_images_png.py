"""PNG of every kind, against its definition and two other decoders."""

from __future__ import annotations

import io
import zlib
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from chammi_fast.errors import CorruptError, DecodeError, LimitError
from chammi_fast.images import probe, read_image, read_planes
from image_files import ADAM7, PNG_SIGNATURE, pack_samples, png_chunk, png_header, png_rows, write_png_of

Samples = NDArray[Any]
SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
KINDS = [(0, 1), (0, 2), (0, 4), (0, 8), (0, 16), (2, 8), (2, 16), (4, 8), (4, 16), (6, 8), (6, 16)]
many_examples = settings(max_examples=150)


@st.composite
def stored_pixels(draw: st.DrawFn, kinds: list[tuple[int, int]]) -> tuple[Samples, int, int]:
    """Samples as a PNG stores them, its colour type and its depth."""
    colour, depth = draw(st.sampled_from(kinds))
    shape = (draw(st.integers(1, 40)), draw(st.integers(1, 40)), SAMPLES[colour])
    dtype = np.uint16 if depth == 16 else np.uint8
    values = np.random.default_rng(draw(st.integers(0, 999))).integers(0, 2**depth, shape, dtype)
    return (values if shape[2] > 1 else values[..., 0]), colour, depth


FILTERS = st.lists(st.integers(0, 4), min_size=1, max_size=9)


@given(stored_pixels(KINDS), FILTERS, st.booleans())
@many_examples
def test_every_kind(case: tuple[Samples, int, int], filters: list[int], interlaced: bool) -> None:
    stored, colour, depth = case
    file = write_png_of(stored, colour, depth, filters, interlaced=interlaced)
    expected = stored * (255 // (2**depth - 1)) if depth < 8 else stored
    decoded = read_image(file)
    assert decoded.dtype == expected.dtype
    np.testing.assert_array_equal(decoded, expected)
    info = probe(file)
    assert (info.bits, info.interlaced, info.expanded, info.dtype) == (depth, interlaced, depth < 8, decoded.dtype.name)
    if colour in (0, 2):
        by_opencv = np.asarray(cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_UNCHANGED))
        np.testing.assert_array_equal(decoded, by_opencv[..., ::-1] if colour == 2 else by_opencv)


@given(stored_pixels([(3, 1), (3, 2), (3, 4), (3, 8)]), FILTERS, st.booleans(), st.integers(0, 256), st.integers(0, 99))
@many_examples
def test_palettes(
    case: tuple[Samples, int, int], filters: list[int], interlaced: bool, transparent: int, seed: int
) -> None:
    stored, colour, depth = case
    rng = np.random.default_rng(seed)
    palette = rng.integers(0, 256, (int(stored.max()) + 1, 3), np.uint8)
    alpha = rng.integers(0, 256, min(transparent, len(palette)), np.uint8)
    chunks = [(b"PLTE", palette.tobytes()), *([(b"tRNS", alpha.tobytes())] if alpha.size else [])]
    file = write_png_of(stored, colour, depth, filters, interlaced=interlaced, chunks=chunks)
    expected = palette[stored]
    if alpha.size:
        whole = np.concatenate([alpha, np.full(len(palette) - alpha.size, 255, np.uint8)])
        expected = np.concatenate([expected, whole[stored][..., None]], axis=-1)
    np.testing.assert_array_equal(read_image(file), expected)
    info = probe(file)
    assert (info.photometric, info.expanded, info.samples) == (3, True, expected.shape[2])
    by_pillow = np.asarray(Image.open(io.BytesIO(file)).convert("RGBA"))
    np.testing.assert_array_equal(by_pillow[..., : expected.shape[2]], expected)


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("interlaced", [False, True])
def test_a_transparent_colour_becomes_alpha(depth: int, interlaced: bool) -> None:
    rng = np.random.default_rng(1)
    dtype = np.uint16 if depth == 16 else np.uint8
    stored: Samples = rng.integers(0, 2, (9, 11, 3), dtype) * (257 if depth == 16 else 1)
    key = stored[4, 5]
    chunk = (b"tRNS", key.astype(">u2").tobytes())
    decoded = read_image(write_png_of(stored, 2, depth, [1, 4], interlaced=interlaced, chunks=[chunk]))
    np.testing.assert_array_equal(decoded[..., :3], stored)
    np.testing.assert_array_equal(decoded[..., 3] == 0, (stored == key).all(-1))
    assert set(np.unique(decoded[..., 3])) == {0, 2**depth - 1}


def test_a_transparent_gray_is_ignored() -> None:
    stored = np.arange(16, dtype=np.uint8).reshape(4, 4)
    decoded = read_image(write_png_of(stored, 0, 4, chunks=[(b"tRNS", b"\0\x03")]))
    np.testing.assert_array_equal(decoded, stored * 17)


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGB", "RGBA", "I;16"])
def test_what_pillow_writes(mode: str) -> None:
    noise = np.random.default_rng(2).integers(0, 256, (31, 45, 3), np.uint8)
    image = (
        Image.fromarray(noise).convert("L").convert("I;16") if mode == "I;16" else Image.fromarray(noise).convert(mode)
    )
    file = io.BytesIO()
    image.save(file, "png")
    expected = np.asarray(image.convert("RGB") if mode == "P" else image)
    expected = expected.astype(np.uint8) * 255 if mode == "1" else expected
    np.testing.assert_array_equal(read_image(file.getvalue()), expected)


def test_colours_are_planes() -> None:
    palette = np.arange(12, dtype=np.uint8).reshape(4, 3)
    stored = np.arange(20, dtype=np.uint8).reshape(4, 5) % 4
    file = write_png_of(stored, 3, 2, interlaced=True, chunks=[(b"PLTE", palette.tobytes())])
    np.testing.assert_array_equal(read_planes(file), palette[stored].transpose(2, 0, 1))


INDICES = np.arange(20, dtype=np.uint8).reshape(4, 5) % 4
PLTE = (b"PLTE", bytes(range(12)))


@pytest.mark.parametrize(
    ("chunks", "cause"),
    [
        ([], "without a palette"),
        ([(b"PLTE", b"")], "palette of 0 bytes"),
        ([(b"PLTE", bytes(10))], "palette of 10 bytes for indices of 2 bits"),
        ([(b"PLTE", bytes(771))], "palette of 771 bytes for indices of 2 bits"),
        ([PLTE, PLTE], "palette of 12 bytes"),
        ([(b"PLTE", bytes(9))], "a colour beyond the 3 of its palette"),
        ([PLTE, (b"tRNS", b"\0"), (b"tRNS", b"\0")], "second transparency chunk"),
    ],
)
def test_palettes_that_contradict_the_image(chunks: list[tuple[bytes, bytes]], cause: str) -> None:
    for interlaced in (False, True):
        with pytest.raises(CorruptError, match=cause):
            read_image(write_png_of(INDICES, 3, 2, interlaced=interlaced, chunks=chunks))


def by_libpng(file: bytes) -> Samples:
    """Return what libpng, inside OpenCV, makes of colours."""
    decoded = np.asarray(cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_UNCHANGED))
    return decoded[..., [2, 1, 0, 3][: decoded.shape[2]]]


LONG = (b"PLTE", bytes(range(0, 240, 5)))
ALPHA = (b"tRNS", b"\1\2")


@pytest.mark.parametrize(
    ("chunks", "samples"),
    [
        ([LONG], 3),
        ([(b"PLTE", bytes(range(256)) * 3)], 3),
        ([LONG, ALPHA], 4),
        ([LONG, (b"tRNS", bytes(4))], 4),
        ([LONG, (b"tRNS", bytes(5))], 3),
        ([PLTE, (b"tRNS", bytes(5))], 3),
        ([PLTE, (b"tRNS", bytes(300))], 3),
        ([PLTE, (b"tRNS", b"")], 3),
        ([ALPHA, PLTE], 3),
        ([ALPHA, PLTE, ALPHA], 4),
        ([PLTE, (b"tRNS", bytes(5)), ALPHA], 4),
    ],
)
def test_what_is_too_much_of_a_palette_is_ignored_as_by_libpng(chunks: list[tuple[bytes, bytes]], samples: int) -> None:
    for interlaced in (False, True):
        file = write_png_of(INDICES, 3, 2, interlaced=interlaced, chunks=chunks)
        decoded = read_image(file)
        np.testing.assert_array_equal(decoded, by_libpng(file))
        assert decoded.shape == (4, 5, samples)
        assert probe(file).samples == samples


@pytest.mark.parametrize("data", [b"", bytes(2), bytes(5), bytes(7)])
def test_transparent_colours_of_the_wrong_length_are_ignored_as_by_libpng(data: bytes) -> None:
    file = write_png_of(np.zeros((2, 2, 3), np.uint8), 2, 8, chunks=[(b"tRNS", data)])
    np.testing.assert_array_equal(read_image(file), by_libpng(file))
    assert probe(file).samples == 3


def test_transparent_colours_of_the_wrong_checksum() -> None:
    image = np.zeros((2, 2, 3), np.uint8)
    good = write_png_of(image, 2, 8, chunks=[(b"tRNS", bytes(6))])
    at = good.index(b"tRNS") + 4
    with pytest.raises(CorruptError, match="checksum"):
        read_image(good[:at] + b"\x01" + good[at + 1 :])
    useless = write_png_of(image, 2, 8, chunks=[(b"tRNS", bytes(5))])
    np.testing.assert_array_equal(read_image(useless[:at] + b"\x01" + useless[at + 1 :]), image)


def interlaced_file(stream: bytes) -> bytes:
    parts = png_header(9, 9, 8, 0, interlace=1), png_chunk(b"IDAT", stream), png_chunk(b"IEND", b"")
    return PNG_SIGNATURE + b"".join(parts)


def test_interlaced_streams_too_short_too_long_or_with_a_bad_filter() -> None:
    image = np.arange(81, dtype=np.uint8).reshape(9, 9)
    good = write_png_of(image, 0, 8, interlaced=True)
    start = good.index(b"IDAT") + 4
    rows = zlib.decompressobj().decompress(good[start:])
    np.testing.assert_array_equal(read_image(interlaced_file(zlib.compress(rows))), image)
    for length in range(len(rows)):
        with pytest.raises(CorruptError, match=r"where|broken"):
            read_image(interlaced_file(zlib.compress(rows[:length])))
    with pytest.raises(CorruptError, match="too long"):
        read_image(interlaced_file(zlib.compress(rows + b"\0")))
    refused = 0
    for at in range(len(rows)):
        try:
            read_image(interlaced_file(zlib.compress(rows[:at] + b"\x07" + rows[at + 1 :])))
        except DecodeError as error:
            refused += 1
            assert "unknown filter" in error.cause
    assert refused == sum(len(image[top::down]) for top, left, down, right in ADAM7)


def test_limits_count_the_samples_given_out() -> None:
    file = write_png_of(INDICES, 3, 2, chunks=[PLTE])
    assert read_image(file, pixel_limit=60).shape == (4, 5, 3)
    with pytest.raises(LimitError):
        read_image(file, pixel_limit=59)
    with pytest.raises(LimitError):
        probe(PNG_SIGNATURE + png_header(2**31 - 1, 2**31 - 1, 1, 0, interlace=1))


def test_packing_of_the_encoder() -> None:
    assert pack_samples(np.array([[1, 0, 1, 1]], np.uint8), 1).tolist() == [[0b10110000]]
    assert pack_samples(np.array([[1, 2, 3]], np.uint8), 4).tolist() == [[0x12, 0x30]]
    assert png_rows(np.array([[5]], np.uint8), [0]) == b"\0\x05"
