"""Broken, cut and absent files: each gives one typed error that names the place, never a crash."""

from __future__ import annotations

import io
import os
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from chammi_fast.errors import (
    CorruptError,
    DecodeError,
    FileReadError,
    TapeShapeError,
    TruncatedError,
)
from chammi_fast.images import probe, read_image, read_planes
from image_files import (
    PNG_SIGNATURE,
    png_chunk,
    png_header,
    png_rows,
    write_png,
    write_png_of,
)

if TYPE_CHECKING:
    from pathlib import Path

IMAGE = (np.arange(20 * 24).reshape(20, 24) * 7 % 251).astype(np.uint8)


def tiff(compression: str | None, dtype: type[np.uint8 | np.uint16] = np.uint8, **options: Any) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, IMAGE.astype(dtype), compression=compression, rowsperstrip=6, metadata=None, **options)
    return file.getvalue()


def tiff_of(image: np.ndarray, **options: Any) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, image, photometric="minisblack", metadata=None, **options)
    return file.getvalue()


FILES = {
    "png": write_png(IMAGE, [4, 1, 2, 3, 0], pieces=2),
    "png rgb 16": write_png(IMAGE.reshape(20, 8, 3).astype(np.uint16), [4]),
    "none": tiff(None),
    "lzw": tiff("lzw", predictor=2),
    "deflate": tiff("zlib", predictor=2),
    "zstd": tiff("zstd", np.uint16),
    "packbits": tiff("packbits", byteorder=">"),
    "bigtiff": tiff("zlib", np.uint16, bigtiff=True, byteorder=">", predictor=2),
    "tiles": tiff_of(IMAGE.astype(np.float32), compression="zlib", predictor=3, tile=(16, 16)),
    "one bit": tiff_of(IMAGE > 100, compression="packbits", rowsperstrip=6),
    "planar": tiff_of(IMAGE.reshape(2, 10, 24), planarconfig="separate", compression="lzw", tile=(16, 16)),
    "png indices": write_png_of(IMAGE % 14, 3, 4, [4], chunks=[(b"PLTE", bytes(range(42))), (b"tRNS", b"\x07\x08")]),
    "png interlaced": write_png_of(IMAGE, 0, 8, [4, 1, 2, 3, 0], interlaced=True),
}


def decode(data: bytes) -> None:
    """Decode in every way; any outcome is fine but one that is no typed error."""
    for read in (read_image, read_planes, lambda source: read_planes(source, 8), probe):
        try:
            read(data)
        except DecodeError as error:
            assert error.path == "<bytes>"
            assert error.cause
            assert error.byte_offset is None or 0 <= error.byte_offset < 2**64


@pytest.mark.parametrize("name", FILES)
def test_truncation_at_every_byte(name: str) -> None:
    data = FILES[name]
    whole = read_image(data)
    for length in range(len(data)):
        try:
            samples = read_image(data[:length])
        except (TruncatedError, CorruptError):
            continue
        # A TIFF may end in bytes that no strip needs; what is decoded is then all there.
        np.testing.assert_array_equal(samples, whole)
        assert not name.startswith("png")


@pytest.mark.parametrize("name", FILES)
def test_a_file_cut_within_its_pixels_is_called_truncated(name: str) -> None:
    # tifffile writes the directory first, so that the last strip ends the file; a PNG ends in 12 bytes of IEND
    cut = FILES[name][: -20 if name.startswith("png") else -5]
    with pytest.raises(TruncatedError, match="ends within"):
        read_image(cut)


@pytest.mark.parametrize("name", FILES)
def test_every_byte_corrupted(name: str) -> None:
    data = FILES[name]
    for at in range(len(data)):
        for flip in (0x01, 0x80, 0xFF):
            decode(data[:at] + bytes([data[at] ^ flip]) + data[at + 1 :])


@given(st.sampled_from(list(FILES)), st.data())
@settings(max_examples=300, deadline=None)
def test_random_mutations(name: str, data: st.DataObject) -> None:
    mutated = bytearray(FILES[name])
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(mutated) - 1))
        mutated[at : at + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=6))
        mutated = mutated or bytearray(b"\0")
    decode(bytes(mutated))


@given(st.binary(max_size=200), st.sampled_from([b"", PNG_SIGNATURE, b"II*\0", b"MM\0*", b"II*\0\x08\0\0\0"]))
@settings(max_examples=200, deadline=None)
def test_noise(noise: bytes, start: bytes) -> None:
    decode(start + noise)


def test_png_with_any_single_bit_of_a_critical_chunk_wrong_is_refused() -> None:
    data = FILES["png"]
    for at in range(8, len(data)):
        wrong = data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]
        with pytest.raises(DecodeError):
            read_image(wrong)


def test_png_checksums_are_blamed_at_their_chunk() -> None:
    data = bytearray(FILES["png"])
    at = data.index(b"IDAT")
    data[at + 6] ^= 1
    with pytest.raises(CorruptError, match="checksum") as caught:
        read_image(bytes(data))
    assert caught.value.byte_offset == at - 4


def test_png_stream_with_a_wrong_adler32_is_refused() -> None:
    stream = bytearray(zlib.compress(png_rows(IMAGE, [0])))
    stream[-1] ^= 1
    parts = png_header(20, 24, 8, 0), png_chunk(b"IDAT", bytes(stream)), png_chunk(b"IEND", b"")
    with pytest.raises(CorruptError, match="compressed data"):
        read_image(PNG_SIGNATURE + b"".join(parts))


def test_missing_files_directories_and_devices(tmp_path: Path) -> None:
    with pytest.raises(FileReadError, match="no such file") as caught:
        read_image(tmp_path / "absent.png")
    assert str(caught.value).startswith(str(tmp_path / "absent.png"))
    with pytest.raises(FileReadError, match="directory"):
        read_image(tmp_path)
    with pytest.raises(FileReadError, match="no such file"):
        read_image("")
    (tmp_path / "a").write_bytes(FILES["png"])
    with pytest.raises(FileReadError, match="no such file"):
        read_image(f"{tmp_path}/a\0.png")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FileReadError, match="regular"):
        read_image(tmp_path / "pipe")
    (tmp_path / "empty.png").touch()
    with pytest.raises(TruncatedError, match="empty"):
        read_image(tmp_path / "empty.png")


def test_names_that_are_no_text(tmp_path: Path) -> None:
    path = os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png")
    with open(path, "wb") as file:  # noqa: PTH123 - the point is a name that is not UTF-8
        file.write(FILES["png"])
    np.testing.assert_array_equal(read_image(path), IMAGE)


def test_pages_that_do_not_exist_and_pages_that_differ() -> None:
    for name in ("png", "none"):
        with pytest.raises(TapeShapeError, match="no page 1: it has 1"):
            read_image(FILES[name], 1)
        with pytest.raises(ValueError, match="page must be"):
            read_image(FILES[name], -1)
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        writer.write(np.zeros((4, 5), np.uint8))
        writer.write(np.zeros((4, 6), np.uint8))
    assert read_image(file.getvalue(), 1).shape == (4, 6)
    with pytest.raises(TapeShapeError, match="page 1 differs"):
        read_planes(file.getvalue())
