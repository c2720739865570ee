"""What images and batches cost: memory that is given back, and files that are read no more than needed."""

from __future__ import annotations

import ctypes
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile

from chammi_fast.errors import LimitError, UnsupportedFormatError
from chammi_fast.images import Preprocess, load_batch, probe, read_image, stream_batches
from image_files import PNG_SIGNATURE, write_png
from test_batch_callers import open_stream

MIB = 2**20


def process_fact(file: str, name: str) -> int:
    """Return a number that the system keeps about this process."""
    path = Path("/proc/self") / file
    if not path.exists():
        pytest.skip(f"this system has no {path}")
    return next(int(line.split()[1]) for line in path.read_text().splitlines() if line.startswith(name + ":"))


def resident() -> int:
    return process_fact("status", "VmRSS") * 1024


def bytes_read() -> int:
    return process_fact("io", "rchar")


def test_threads_give_back_what_large_images_needed(tmp_path: Path) -> None:
    large, small = tmp_path / "large.png", tmp_path / "small.png"
    large.write_bytes(write_png(np.zeros((7000, 6000), np.uint8)))
    small.write_bytes(write_png(np.zeros((20, 20), np.uint8)))
    how = Preprocess(size=32)
    for _ in stream_batches([small] * 8, None, how, channels=1, batch_size=2, threads=2):
        pass
    before = resident()
    stream = stream_batches([large] * 2 + [small] * 40, None, how, channels=1, batch_size=2, threads=2, look_ahead=1)
    for _ in range(10):
        batch = next(stream)
    assert batch.status[0].ok
    assert resident() - before < 40 * MIB
    stream.close()  # type: ignore[attr-defined]


def test_images_that_fail_before_the_first_sound_one_are_read_once(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (300, 1000), np.uint8)
    data = write_png(noise)
    (tmp_path / "broken.png").write_bytes(data[:-50])
    (tmp_path / "sound.png").write_bytes(data)
    before = bytes_read()
    batch = load_batch([tmp_path / "broken.png"] * 10 + [tmp_path / "sound.png"], None, Preprocess(), threads=1)
    read = bytes_read() - before
    assert [status.ok for status in batch.status] == [False] * 10 + [True]
    assert read < 11.5 * len(data)


@pytest.mark.parametrize("threads", [1, 3])
def test_the_image_that_a_batch_takes_its_shape_from_is_read_once(threads: int, tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(6)]
    images = np.random.default_rng(0).integers(0, 256, (6, 300, 1000), np.uint8)
    for path, image in zip(paths, images, strict=True):
        path.write_bytes(write_png(image))
    for how in (Preprocess(size=None), Preprocess(size=300, resize="none", mask="keep")):
        before = bytes_read()
        batch = load_batch(paths, 500, how, threads=threads, flips=[True, False] * 3)
        assert bytes_read() - before < 6.5 * len(paths[0].read_bytes())
        expected = images.reshape(6, 300, 2, 500).swapaxes(1, 2) / 255
        expected[::2] = expected[::2, ..., ::-1]
        if how.size is not None:
            expected = expected[..., 100:400]
        np.testing.assert_allclose(batch.images, expected, rtol=0, atol=1e-6)


def test_a_stream_stops_while_it_looks_for_a_sound_image(tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    path.write_bytes(write_png(np.random.default_rng(0).integers(0, 256, (500, 2000), np.uint8)))
    before = bytes_read()
    stream = open_stream([path] * 500, mask="drop", channels=0, batch_size=500, look_ahead=1)
    while bytes_read() - before < path.stat().st_size:
        time.sleep(0.001)
    stream.close()
    assert bytes_read() - before < 300 * path.stat().st_size


def test_what_is_no_image_is_not_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "zeros.png"
    with path.open("wb") as file:
        file.truncate(2048 * MIB)
    before = bytes_read()
    for read in (probe, read_image):
        with pytest.raises(UnsupportedFormatError, match="neither PNG nor TIFF"):
            read(path)
    assert load_batch([path], channels=1).status[0].code == "unsupported"
    assert bytes_read() - before < MIB


@pytest.mark.parametrize("start", [PNG_SIGNATURE, b"II*\0", b"MM\0+"])
def test_files_larger_than_the_pixel_limit_allows_are_not_read(start: bytes, tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.write(start)
        file.truncate(3072 * MIB)
    before = bytes_read()
    with pytest.raises(LimitError, match=r"3221225472 bytes, more than the 2214592512 that the pixel limit allows"):
        probe(path)
    assert load_batch([path], channels=1).status[0].code == "limit"
    assert bytes_read() - before < MIB


def test_a_page_does_not_hold_its_file(tmp_path: Path) -> None:
    path = tmp_path / "pages.tif"
    tifffile.imwrite(path, np.zeros((30, MIB), np.uint8).reshape(30, 1024, 1024), photometric="minisblack")
    read_image(path)
    before = resident()
    held = [read_image(path, page) for page in range(30)]
    ctypes.CDLL(None).malloc_trim(0)  # gaps between what is held are the allocator's
    assert resident() - before < 60 * MIB  # 900 if each held it
    assert len(held) == 30


def test_a_small_image_does_not_hold_what_a_large_one_needed(tmp_path: Path) -> None:
    large, small = tmp_path / "large.tif", tmp_path / "small.tif"
    tifffile.imwrite(large, np.zeros((3000, 5000), np.uint8), compression="zlib", compressionargs={"level": 0})
    tifffile.imwrite(small, np.ones((100, 100), np.uint8))
    read_image(large)
    before = resident()
    held = []
    for _ in range(20):
        read_image(large)
        held.append(read_image(small))
    assert resident() - before < 60 * MIB
    assert all((image == 1).all() for image in held)
