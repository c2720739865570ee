"""TIFF that the core refuses, through tifffile and imagecodecs, in every way that images are read."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile

from chammi_fast.errors import (
    CorruptError,
    DecodeError,
    FileReadError,
    LimitError,
    TapeShapeError,
    UnsupportedFormatError,
)
from chammi_fast.images import Preprocess, fallback, load_batch, probe, read_image, read_planes, stream_batches
from image_files import gray_tags, write_png, write_tiff

if TYPE_CHECKING:
    from pathlib import Path

SMOOTH = np.add.outer(np.arange(64), np.arange(96)).astype(np.uint8)
RAW = Preprocess(size=None)


def encode(image: np.ndarray, compression: Any = "jpeg2000", **options: Any) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, image, compression=compression, photometric=options.pop("photometric", "minisblack"),
                     metadata=None, **options)  # fmt: skip
    return file.getvalue()


@pytest.mark.parametrize("compression", ["jpeg2000", "lerc", "png", "lzma"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_lossless_codecs(compression: str, dtype: type[np.uint8]) -> None:
    options = {"compressionargs": {"level": 1.0}} if compression == "jpegxr" else {}
    image = SMOOTH.astype(dtype) * (257 if dtype is np.uint16 else 1)
    decoded = read_image(encode(image, compression, **options))
    assert decoded.flags.c_contiguous
    assert decoded.flags.writeable
    np.testing.assert_array_equal(decoded, image)


def test_jpeg_of_colours_gives_colours() -> None:
    image = np.stack([SMOOTH, SMOOTH.T[:64].repeat(2, 1)[:, :96], SMOOTH], axis=-1)
    decoded = read_image(encode(image, "jpeg", photometric="rgb"))
    assert decoded.shape == image.shape
    assert abs(decoded.astype(int) - image).mean() < 4


def test_planar_samples_and_odd_depths() -> None:
    stack = np.stack([SMOOTH, SMOOTH // 2])
    data = encode(stack, "jpeg2000", planarconfig="separate")
    np.testing.assert_array_equal(read_image(data), np.moveaxis(stack, 0, -1))
    np.testing.assert_array_equal(read_planes(data), stack)
    nibbles = np.arange(12, dtype=np.uint8).reshape(2, 6)
    packed = (nibbles[:, ::2] << 4 | nibbles[:, 1::2]).tobytes()
    np.testing.assert_array_equal(read_image(write_tiff([packed], gray_tags(2, 6, bits=4))), nibbles)


def test_pages_samples_and_tapes_are_planes() -> None:
    stack = np.stack([SMOOTH, SMOOTH // 2, SMOOTH // 3])
    np.testing.assert_array_equal(read_planes(encode(stack)), stack)
    np.testing.assert_array_equal(read_image(encode(stack), 2), stack[2])
    np.testing.assert_array_equal(read_planes(encode(SMOOTH))[0], SMOOTH)
    np.testing.assert_array_equal(read_planes(encode(SMOOTH), 32), SMOOTH.reshape(64, 3, 32).transpose(1, 0, 2))
    with pytest.raises(TapeShapeError, match="not a multiple of the channel width 33"):
        read_planes(encode(SMOOTH), 33)
    with pytest.raises(TapeShapeError, match="one page of one sample"):
        read_planes(encode(stack), 32)
    with pytest.raises(TapeShapeError, match="no page 3"):
        read_image(encode(stack), 3)
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        writer.write(SMOOTH, compression="jpeg2000")
        writer.write(SMOOTH[:32], compression="jpeg2000")
    with pytest.raises(TapeShapeError, match="page 1 differs"):
        read_planes(file.getvalue())


def test_the_pixel_limit_holds() -> None:
    assert read_image(encode(SMOOTH), pixel_limit=SMOOTH.size).size
    for read in (read_image, read_planes):
        with pytest.raises(LimitError):
            read(encode(SMOOTH), pixel_limit=SMOOTH.size - 1)
    with pytest.raises(LimitError):
        read_planes(encode(np.stack([SMOOTH, SMOOTH])), pixel_limit=2 * SMOOTH.size - 1)


@pytest.mark.parametrize("compression", ["jpeg2000", "jpeg", "webp", "lerc", "lzma"])
def test_broken_streams_are_typed_errors(compression: str) -> None:
    image = np.stack([SMOOTH] * 3, -1) if compression == "webp" else SMOOTH
    data = encode(image, compression, photometric="rgb" if compression == "webp" else "minisblack")
    rng = np.random.default_rng(0)
    for _ in range(60):
        broken = bytearray(data[: rng.integers(len(data) // 2, len(data) + 1)])
        for _ in range(rng.integers(0, 4)):
            broken[rng.integers(len(broken))] ^= 1 << int(rng.integers(8))
        try:
            read_image(bytes(broken))
        except DecodeError as error:
            assert error.cause


def broken() -> bytes:
    """An image whose JPEG 2000 stream does not begin as one."""
    data = encode(SMOOTH)
    start = data.index(b"\xff\x4f\xff\x51")
    return data[:start] + bytes(4) + data[start + 4 :]


def test_a_broken_stream_is_corrupt_not_unsupported() -> None:
    with pytest.raises(CorruptError, match="tifffile cannot decode"):
        read_image(broken())


def test_batches_hold_what_either_decoded(tmp_path: Path) -> None:
    tapes = [SMOOTH, SMOOTH // 2, SMOOTH // 3, SMOOTH // 4, SMOOTH // 5]
    names = ["a.png", "b.tif", "c.png", "d.tif", "e.tif"]
    for name, tape in zip(names, tapes, strict=True):
        (tmp_path / name).write_bytes(write_png(tape) if name.endswith("png") else encode(tape))
    (tmp_path / "text.png").write_bytes(b"no image at all")
    (tmp_path / "broken.tif").write_bytes(broken())
    (tmp_path / "wide.tif").write_bytes(encode(SMOOTH[:, :64]))
    paths = [tmp_path / name for name in [*names[:3], "text.png", "broken.tif", "wide.tif", "absent.tif", *names[3:]]]
    how = Preprocess(size=40, mean=[0.1, 0.2, 0.3], std=[0.2, 0.3, 0.4])
    (tmp_path / "plain").mkdir()
    plain = []
    for name, tape in zip(names, tapes, strict=True):
        plain.append(tmp_path / "plain" / name)
        plain[-1].write_bytes(write_png(tape))
    expected = load_batch(plain, 32, how).images
    batch = load_batch(paths, 32, how)
    codes = ["ok", "ok", "ok", "unsupported", "corrupt", "shape", "missing", "ok", "ok"]
    assert [status.code for status in batch.status] == codes
    good = [status.ok for status in batch.status]
    np.testing.assert_array_equal(batch.images[good], expected)
    assert np.isnan(batch.images[np.logical_not(good)]).all()
    assert [status.path for status in batch.status] == [str(path) for path in paths]
    streamed = list(stream_batches(paths, [32] * len(paths), how, channels=3, batch_size=2))
    np.testing.assert_array_equal(np.concatenate([one.images for one in streamed]), batch.images)
    assert [status.code for one in streamed for status in one.status] == codes


def test_a_batch_that_only_the_others_decode_has_their_shape(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(encode(SMOOTH))
    (tmp_path / "b.tif").write_bytes(encode(SMOOTH[:60]))
    batch = load_batch([tmp_path / "a.tif", tmp_path / "b.tif"], 32, RAW)
    assert batch.images.shape == (2, 3, 64, 32)
    assert [status.code for status in batch.status] == ["ok", "shape"]
    np.testing.assert_allclose(batch.images[0, 2] * 255, SMOOTH[:, 64:], atol=1e-4)
    (status,) = load_batch([tmp_path / "a.tif"], 96, Preprocess(mask="drop")).status
    assert "mask is the only channel" in status.cause
    (status,) = load_batch([tmp_path / "a.tif"], 32, RAW, channels=2).status
    assert "3 channels where 2 are expected" in status.cause


@pytest.mark.parametrize("before", ["_is_tiff", "_translate"])
def test_a_file_that_vanished_since_the_core_read_it_fails_alone(
    before: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [tmp_path / f"{number}.tif" for number in range(3)]
    for path in paths:
        path.write_bytes(encode(SMOOTH))
    plain, looked = fallback.decode_planes, fallback._is_tiff

    def vanish(source: Any, *others: Any) -> Any:
        if before == "_is_tiff" and source == paths[1]:
            paths[1].unlink()
        return plain(source, *others)

    def vanish_later(source: Any) -> bool:
        found = looked(source)
        if before == "_translate" and source == paths[1]:
            paths[1].unlink()
        return found

    monkeypatch.setattr(fallback, "decode_planes", vanish)
    monkeypatch.setattr(fallback, "_is_tiff", vanish_later)
    batches = list(stream_batches(paths, None, RAW, channels=1, batch_size=1))
    codes = [batch.status[0].code for batch in batches]
    assert codes == ["ok", "unreadable", "ok"]
    assert "can no longer be read: No such file" in batches[1].status[0].cause
    assert isinstance(batches[1].status[0].error(), FileReadError)


def test_it_is_said_once(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fallback, "_announced", type(fallback._announced)())
    for _ in range(3):
        read_image(encode(SMOOTH))
    said = [record.getMessage() for record in caplog.records if record.name == "chammi_fast"]
    assert len(said) == 1
    assert "JPEG 2000" in said[0]
    assert "slower" in said[0]


@pytest.mark.usefixtures("without_fallback")
def test_without_the_extra_it_is_named(tmp_path: Path) -> None:
    data = encode(SMOOTH)
    for read in (read_image, read_planes):
        with pytest.raises(UnsupportedFormatError, match=r"JPEG 2000.*chammi-fast\[formats\]"):
            read(data)
    (tmp_path / "a.tif").write_bytes(data)
    (status,) = load_batch([tmp_path / "a.tif"], None).status
    assert status.code == "unsupported"


def test_what_is_no_tiff_is_not_tried() -> None:
    with pytest.raises(UnsupportedFormatError, match="neither PNG nor TIFF"):
        read_image(b"GIF89a" + bytes(20))
    with pytest.raises(UnsupportedFormatError, match="JPEG 2000"):
        probe(encode(SMOOTH))
