"""TIFF in every layout that tifffile writes, and in those that it does not, against the samples that went in."""

from __future__ import annotations

import io
import zlib
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from chammi_fast.errors import CorruptError, LimitError, TapeShapeError, TruncatedError
from chammi_fast.images import Preprocess, load_batch, probe, read_image, read_planes
from image_files import gray_tags, write_tiff

Samples = NDArray[Any]
DTYPES = ["u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8"]
COMPRESSIONS = [None, "lzw", "deflate", "adobe_deflate", "zstd", "packbits"]
PREDICTABLE = {"lzw", "deflate", "adobe_deflate", "zstd", "packbits"}
many_examples = settings(max_examples=250)


def image_of(dtype: str, shape: tuple[int, ...], seed: int, *, smooth: bool) -> Samples:
    """Any bytes at all, infinities and NaNs included, or a ramp that compresses."""
    if smooth:
        return (np.arange(int(np.prod(shape))).reshape(shape) % 97).astype(dtype)
    count = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.frombuffer(np.random.default_rng(seed).bytes(count), dtype).reshape(shape)


def assert_same(decoded: Samples, expected: Samples) -> None:
    assert decoded.dtype == expected.dtype
    assert decoded.shape == expected.shape
    assert decoded.tobytes() == expected.tobytes()  # NaNs too


@st.composite
def layouts(draw: st.DrawFn) -> tuple[Samples, dict[str, Any]]:
    """An image and how tifffile shall write it."""
    dtype = draw(st.sampled_from(DTYPES))
    depth = draw(st.sampled_from([1, 2, 3, 5]))
    height, width = draw(st.integers(1, 50)), draw(st.integers(1, 50))
    shape = (height, width) if depth == 1 else (height, width, depth)
    compression = draw(st.sampled_from(COMPRESSIONS))
    options: dict[str, Any] = {"compression": compression, "bigtiff": draw(st.booleans())}
    options["byteorder"] = draw(st.sampled_from("<>"))
    if compression in PREDICTABLE:
        options["predictor"] = draw(st.sampled_from([None, 3] if dtype[0] == "f" else [None, 2]))
    if depth > 1:
        options["planarconfig"] = draw(st.sampled_from(["contig", "separate"]))
    if draw(st.booleans()):
        options["tile"] = (16 * draw(st.integers(1, 4)), 16 * draw(st.integers(1, 4)))
    else:
        options["rowsperstrip"] = draw(st.integers(1, height))
    return image_of(dtype, shape, draw(st.integers(0, 99)), smooth=draw(st.booleans())), options


@given(layouts())
@many_examples
def test_every_layout_gives_the_samples_that_were_written(case: tuple[Samples, dict[str, Any]]) -> None:
    image, options = case
    planar = options.get("planarconfig") == "separate"
    file = io.BytesIO()
    tifffile.imwrite(
        file, np.moveaxis(image, -1, 0) if planar else image, photometric="minisblack", metadata=None, **options
    )
    assert_same(read_image(file.getvalue()), image)
    info = probe(file.getvalue())
    assert info.dtype == image.dtype.name
    assert info.bits == 8 * image.itemsize
    assert info.tile == options.get("tile")
    assert info.rows_per_strip == (0 if "tile" in options else options["rowsperstrip"])
    assert info.planar == planar
    assert info.predictor == (options.get("predictor") or 1)


@given(st.sampled_from(DTYPES), st.sampled_from("<>"), st.booleans(), st.integers(2, 5), st.booleans())
@settings(max_examples=40)
def test_pages_of_every_type_are_channels(dtype: str, order: Any, big: bool, pages: int, tiled: bool) -> None:
    stack = image_of(dtype, (pages, 20, 13), pages, smooth=False)
    file = io.BytesIO()
    tifffile.imwrite(
        file, stack, photometric="minisblack", byteorder=order, bigtiff=big, compression="zlib",
        tile=(16, 16) if tiled else None,
    )  # fmt: skip
    assert_same(read_planes(file.getvalue()), stack)
    assert_same(read_image(file.getvalue(), pages - 1), stack[-1])
    assert probe(file.getvalue()).pages == pages


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
@pytest.mark.parametrize("order", "<>")
def test_floats_with_the_differences_of_integers(dtype: str, order: str) -> None:
    image = image_of(dtype, (5, 9), 1, smooth=False)
    whole = image.view(f"u{image.itemsize}")
    differences = np.diff(whole, axis=1, prepend=np.zeros((5, 1), whole.dtype)).astype(f"{order}u{image.itemsize}")
    tags = gray_tags(5, 9, bits=8 * image.itemsize, sample_format=3, compression=8, predictor=2)
    assert_same(read_image(write_tiff([zlib.compress(differences.tobytes())], tags, order)), image)


def test_ome_tiff_of_tiles(tmp_path: Path) -> None:
    stack = image_of("u2", (3, 70, 90), 1, smooth=False)
    tifffile.imwrite(tmp_path / "a.ome.tiff", stack, photometric="minisblack", tile=(32, 48), compression="zlib",
                     metadata={"axes": "CYX"}, bigtiff=True)  # fmt: skip
    assert_same(read_planes(tmp_path / "a.ome.tiff"), stack)


@given(st.sampled_from([9, 10, 11, 12, 13, 14, 15]), st.integers(1, 30), st.integers(1, 3), st.sampled_from("<>"))
@settings(max_examples=60)
def test_9_to_15_bits_are_native_values(bits: int, width: int, samples: int, order: str) -> None:
    image = np.random.default_rng(width).integers(0, 2**bits, (4, width * samples), np.uint16)
    each = np.unpackbits(image.astype(">u2").view(np.uint8).reshape(4, -1, 2), axis=-1)[..., 16 - bits :]
    rows = [np.packbits(row.ravel()).tobytes() for row in each]
    strips = [b"".join(rows[:3]), rows[3]]
    tags = gray_tags(4, width, bits=bits, samples=samples) | {278: (4, 3)}
    decoded = read_image(write_tiff(strips, tags, order))
    assert_same(decoded.reshape(4, -1), image)
    assert probe(write_tiff(strips, tags, order)).bits == bits


@given(st.integers(1, 40), st.integers(0, 3), st.sampled_from([1, 2]), st.sampled_from([1, 32773, 8]))
@settings(max_examples=80)
def test_one_bit_becomes_0_and_255(width: int, photometric: int, fill_order: int, compression: int) -> None:
    photometric = 1 if photometric == 2 else photometric
    image = np.random.default_rng(width).integers(0, 2, (5, width), np.uint8)
    packed = np.packbits(image, axis=1, bitorder="little" if fill_order == 2 else "big").tobytes()
    if compression == 32773:  # literal runs; the bits of the count turn round as well
        packed = bytes([len(packed) - 1]) + np.packbits(image, axis=1).tobytes()
        turned = np.packbits(np.unpackbits(np.frombuffer(packed, np.uint8)), bitorder="little").tobytes()
        packed = turned if fill_order == 2 else packed
    elif compression == 8:
        stream = zlib.compress(np.packbits(image, axis=1).tobytes())
        turned = np.packbits(np.unpackbits(np.frombuffer(stream, np.uint8)), bitorder="little").tobytes()
        packed = turned if fill_order == 2 else stream
    tags = gray_tags(5, width, bits=1, photometric=photometric, fill_order=fill_order, compression=compression)
    expected = {0: 255 * (1 - image), 1: 255 * image, 3: image}[photometric].astype(np.uint8)
    file = write_tiff([packed], tags)
    assert_same(read_image(file), expected)
    info = probe(file)
    assert (info.bits, info.expanded, info.inverted) == (1, photometric != 3, photometric == 0)


def test_one_bit_in_tiles_and_samples() -> None:
    image = np.random.default_rng(3).integers(0, 2, (37, 51)).astype(bool)
    file = io.BytesIO()
    tifffile.imwrite(file, image, tile=(16, 32), photometric="minisblack", compression="zlib")
    assert_same(read_image(file.getvalue()), image.astype(np.uint8) * 255)


def test_padding_of_the_last_strip_is_left_out_where_rows_are_unpacked_elsewhere() -> None:
    image = np.random.default_rng(3).integers(0, 2, (7, 12), np.uint8)
    padded = np.vstack([image, np.ones((1, 12), np.uint8)])
    strips = [zlib.compress(np.packbits(padded[top : top + 4], axis=1).tobytes()) for top in (0, 4)]
    tags = gray_tags(7, 12, compression=8, bits=1) | {278: (4, 4)}
    assert_same(read_image(write_tiff(strips, tags)), image * 255)


def imagej(pages: int, said: int, *, rows: int = 6, order: str = ">", dtype: str = "u2") -> tuple[bytes, Samples]:
    """A stack as ImageJ writes it beyond 4 GB, and tifffile on request: one directory, pages one behind the other."""
    stack = image_of(dtype, (pages, 6, 7), pages, smooth=False)
    data = stack.astype(f"{order}{dtype}").tobytes()
    page = 6 * 7 * stack.itemsize
    text = f"ImageJ=1.53t\nimages={said}\nchannels={said}\nhyperstack=true\n".encode()
    tags = gray_tags(6, 7, bits=8 * stack.itemsize, sample_format=3 if dtype[0] == "f" else 1) | {278: (4, rows)}
    strips = [data] if rows == 6 else [data[: page // 2], data[page // 2 :]]  # the last one holds the other pages too
    return write_tiff(strips, tags, order, description=text), stack


@pytest.mark.parametrize("rows", [6, 3])
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("dtype", ["u1", "u2", "f4"])
def test_imagej_stacks_of_one_directory(rows: int, order: str, dtype: str) -> None:
    data, stack = imagej(4, 4, rows=rows, order=order, dtype=dtype)
    assert probe(data).pages == 4
    assert_same(read_planes(data), stack)
    for page in range(4):
        assert_same(read_image(data, page), stack[page])
    with pytest.raises(TapeShapeError, match="no page 4: it has 4"):
        read_image(data, 4)


def test_imagej_pages_that_the_file_does_not_hold_are_not_believed_in() -> None:
    data, stack = imagej(1, 900)
    assert probe(data).pages == 1
    assert_same(read_image(data), stack[0])
    for said in (0, 99999999999):
        data, stack = imagej(3, said)
        assert probe(data).pages == 1


def test_pages_that_tifffile_lists_are_not_counted_twice() -> None:
    stack = image_of("u2", (4, 6, 7), 0, smooth=False)
    file = io.BytesIO()
    tifffile.imwrite(file, stack, imagej=True, metadata={"axes": "CYX"})
    assert_same(read_planes(file.getvalue()), stack)


@pytest.mark.parametrize("resize", ["shorter", "none"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_types_are_scaled_by_their_maximum_and_floats_kept(
    dtype: str, resize: Literal["shorter", "none"], tmp_path: Path
) -> None:
    rng = np.random.default_rng(5)
    most = np.iinfo(dtype).max if dtype[0] != "f" else 1
    values = rng.uniform(0 if dtype[0] == "u" else -1, 1, (2, 33, 40)) * (float(most) * 0.999)
    tifffile.imwrite(tmp_path / "a.tif", values.astype(dtype), photometric="minisblack")
    tifffile.imwrite(tmp_path / "b.tif", (values.astype(dtype) / float(most)).astype("f4"), photometric="minisblack")
    how = Preprocess(size=24, resize=resize, mean=[0.1, 0.2], std=[0.5, 0.25])
    batch = load_batch([tmp_path / "a.tif", tmp_path / "b.tif"], None, how)
    assert all(status.ok for status in batch.status)
    np.testing.assert_allclose(batch.images[0], batch.images[1], rtol=0, atol=1e-5)
    ranged = Preprocess(size=24, resize=resize, value_range=(-float(most), float(most)))
    plain = Preprocess(size=24, resize=resize)
    wide = load_batch([tmp_path / "a.tif"], None, ranged).images[0]
    unit = load_batch([tmp_path / "a.tif"], None, plain).images[0]
    np.testing.assert_allclose(wide, (unit + 1) / 2, rtol=0, atol=1e-5)


TILES = gray_tags(20, 24, tile_width=16, tile_height=16)
LARGE = (4, 2**31)


@pytest.mark.parametrize(
    ("tags", "error", "cause"),
    [
        (TILES | {322: (3, 0)}, CorruptError, "tiles of 16 x 0"),
        (TILES | {323: (3, 0)}, CorruptError, "tiles of 0 x 16"),
        (TILES, CorruptError, "names 1 tiles where its size needs 4"),
        (TILES | {322: LARGE, 323: LARGE}, LimitError, "a tile of 2147483648 x 2147483648"),
        (TILES | {322: (4, 2**31 - 1), 323: (4, 2**31 - 1)}, LimitError, "pixel limit"),
        (TILES | {322: (4, 2**14), 323: (4, 2**14)}, CorruptError, "tile 0 holds 480 bytes where 268435456"),
        (gray_tags(20, 24, tile_width=16), CorruptError, "tiles of 0 x 16"),
        (gray_tags(20, 24, tile_width=32, tile_height=32), CorruptError, "tile 0 holds 480 bytes where 1024"),
        (gray_tags(20, 24, fill_order=3), CorruptError, "fill order 3"),
        (gray_tags(20, 24, planar=3), CorruptError, "planar configuration 3"),
    ],
)
def test_impossible_layouts(tags: dict[int, tuple[int, int]], error: type[Exception], cause: str) -> None:
    for big in (False, True):
        with pytest.raises(error, match=cause):
            read_image(write_tiff([bytes(480)], tags, big=big))


@pytest.mark.parametrize(
    ("tags", "error"),
    [
        ({273: (16, 2**64 - 1)}, TruncatedError),
        ({273: (16, 2**63)}, TruncatedError),
        ({279: (16, 2**64 - 1)}, TruncatedError),
        ({256: (16, 2**64 - 1)}, LimitError),
        ({256: (16, 2**32), 257: (16, 2**32)}, LimitError),
        ({277: (16, 2**60)}, LimitError),
        ({278: (16, 2**64 - 1)}, None),
        ({322: (16, 2**32), 323: (16, 2**32)}, LimitError),
    ],
    ids=str,
)
def test_numbers_of_64_bits_do_not_overflow(tags: dict[int, tuple[int, int]], error: type[Exception] | None) -> None:
    short = tags.get(279) is not None
    data = write_tiff([bytes(100 if short else 480)], gray_tags(20, 24) | tags, big=True)
    if error is None:
        assert read_image(data).shape == (20, 24)
        return
    with pytest.raises(error):
        read_image(data, pixel_limit=2**64 - 1 if error is not LimitError else 2**28)


def test_bigtiff_directories_beyond_the_file() -> None:
    good = write_tiff([bytes(480)], gray_tags(20, 24), big=True)
    assert read_image(good).shape == (20, 24)
    for start in (2**64 - 1, 2**64 - 8, len(good) - 4, len(good)):
        with pytest.raises(TruncatedError):
            read_image(good[:8] + start.to_bytes(8, "little") + good[16:])
    directory = int.from_bytes(good[8:16], "little")
    for entries in (2**64 - 1, 2**63, 2**32, 2**60 + 1):
        with pytest.raises(TruncatedError):
            read_image(good[:directory] + entries.to_bytes(8, "little") + good[directory + 8 :])
    with pytest.raises(CorruptError, match="8 bytes"):
        read_image(good[:4] + b"\x04" + good[5:])
    with pytest.raises(TruncatedError):
        read_image(good[:12])
