"""Batches: order, statuses, threads, bounded look-ahead, and giving up half-way."""

from __future__ import annotations

import gc
import os
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile

from chammi_fast.errors import (
    CorruptError,
    FileReadError,
    TapeShapeError,
    TruncatedError,
    UnsupportedFormatError,
)
from chammi_fast.images import Preprocess, load_batch, stream_batches
from image_files import write_png

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from chammi_fast.images import Batch

RAW = Preprocess(size=None)
SIDE = 6


def write_numbered(folder: Path, count: int) -> list[Path]:
    """Write tapes of two channels whose pixels are all the image's number and its complement."""
    paths = []
    for number in range(count):
        tape = np.repeat(np.array([[number, 255 - number]], np.uint8), SIDE, axis=1).repeat(SIDE, axis=0)
        paths.append(folder / f"{number}.png")
        paths[-1].write_bytes(write_png(tape))
    return paths


def numbers(batch: Batch) -> list[int]:
    assert (np.ptp(batch.images[:, 0], axis=(1, 2)) == 0).all()
    np.testing.assert_allclose(batch.images[:, 0] + batch.images[:, 1], 1, atol=1e-6)
    return [round(float(value) * 255) for value in batch.images[:, 0, 0, 0]]


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("look_ahead", [0, 1, 3])
@pytest.mark.parametrize("batch_size", [1, 4, 7, 100])
def test_order_is_kept(threads: int, look_ahead: int, batch_size: int, tmp_path: Path) -> None:
    paths = write_numbered(tmp_path, 30)
    options = {"batch_size": batch_size, "threads": threads, "look_ahead": look_ahead}
    batches = list(stream_batches(paths, SIDE, RAW, channels=2, **options))
    assert [number for batch in batches for number in numbers(batch)] == list(range(30))
    assert [len(batch.status) for batch in batches[:-1]] == [batch_size] * (len(batches) - 1)
    assert [status.path for batch in batches for status in batch.status] == [str(path) for path in paths]


def test_threads_give_identical_bytes(shared_data: Path) -> None:
    paths = sorted((shared_data / "tapes" / "pediatric_5ch_160").glob("*.png"))
    preprocess = Preprocess(mean=[0.1] * 5, std=[0.07] * 5)
    alone = load_batch(paths, 160, preprocess, threads=1)
    together = load_batch(paths, 160, preprocess, threads=4)
    assert alone.images.tobytes() == together.images.tobytes()
    streamed = stream_batches(paths, 160, preprocess, channels=5, batch_size=5, threads=3)
    assert np.concatenate([batch.images for batch in streamed]).tobytes() == alone.images.tobytes()


@pytest.fixture
def mixed(tmp_path: Path) -> list[Path]:
    """Two good tapes among every kind of failure."""
    good, *_ = write_numbered(tmp_path, 1)
    data = good.read_bytes()
    files = {
        "truncated.png": data[:-20],
        "corrupt.png": data[:40] + b"\xff" + data[41:],
        "text.png": b"no image at all",
        "wide.png": write_png(np.zeros((SIDE, 2 * SIDE + 1), np.uint8)),
        "three.png": write_png(np.zeros((SIDE, 3 * SIDE), np.uint8)),
        "tall.png": write_png(np.zeros((SIDE + 1, 2 * SIDE), np.uint8)),
        "colour.png": write_png(np.zeros((SIDE, SIDE, 3), np.uint8)),
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    return [good, tmp_path / "absent.png", tmp_path, *(tmp_path / name for name in files), good]


def test_one_bad_image_is_a_row_of_nan_and_a_status(mixed: list[Path]) -> None:
    batch = load_batch(mixed, SIDE, RAW)
    codes = [status.code for status in batch.status]
    assert codes == [
        "ok", "missing", "unreadable", "truncated", "corrupt", "unsupported", "shape", "shape", "shape", "shape", "ok",
    ]  # fmt: skip
    for image, status in zip(batch.images, batch.status, strict=True):
        assert np.isnan(image).all() != status.ok
    errors = [status.error() for status in batch.status if not status.ok]
    kinds = [FileReadError, FileReadError, TruncatedError, CorruptError, UnsupportedFormatError] + [TapeShapeError] * 4
    assert [type(error) for error in errors] == kinds
    assert [str(error).split(": ")[0] for error in errors] == [str(path) for path in mixed[1:-1]]
    assert "width of 13 pixels is not a multiple of the channel width 6" in str(errors[5])
    assert "has 3 channels where 2 are expected" in str(errors[6])
    assert "7 x 6 pixels" in str(errors[7])


def test_channels_are_those_of_the_first_image_that_can_be_decoded(mixed: list[Path]) -> None:
    order = [mixed[1], mixed[3], mixed[7], mixed[0]]
    batch = load_batch(order, SIDE, Preprocess(size=10))
    assert batch.images.shape == (4, 3, 10, 10)
    assert [status.ok for status in batch.status] == [False, False, True, False]
    batch = load_batch(order, SIDE, Preprocess(size=10), channels=2)
    assert batch.images.shape == (4, 2, 10, 10)
    assert [status.ok for status in batch.status] == [False, False, False, True]
    batch = load_batch(order, SIDE, Preprocess(size=10, mean=[0.5, 0.5]))
    assert batch.images.shape == (4, 2, 10, 10)


def test_a_batch_without_a_single_image(tmp_path: Path) -> None:
    batch = load_batch([tmp_path / "a", tmp_path / "b"], 5)
    assert batch.images.shape == (2, 0, 224, 224)
    assert [status.code for status in batch.status] == ["missing", "missing"]
    batch = load_batch([tmp_path / "a"], 5, channels=3)
    assert np.isnan(batch.images).all()
    assert batch.images.shape == (1, 3, 224, 224)
    assert load_batch([], 5, channels=3).images.shape == (0, 3, 224, 224)
    assert list(stream_batches([], 5, RAW, channels=3, batch_size=2)) == []


def test_channel_widths_can_differ(tmp_path: Path) -> None:
    widths = [4, 7, 9]
    paths = []
    for width in widths:
        paths.append(tmp_path / f"{width}.tif")
        tifffile.imwrite(paths[-1], np.full((5, 3 * width), width, np.uint8))
    tifffile.imwrite(tmp_path / "pages.tif", np.full((3, 5, 5), 11, np.uint8), photometric="minisblack")
    batch = load_batch([*paths, tmp_path / "pages.tif"], [*widths, None], Preprocess(size=8))
    assert batch.images.shape == (4, 3, 8, 8)
    np.testing.assert_allclose(batch.images[:, 0, 4, 4] * 255, [4, 7, 9, 11], rtol=1e-5)


def test_a_mask_alone_is_no_image(tmp_path: Path) -> None:
    (tmp_path / "one.png").write_bytes(write_png(np.ones((4, 4), np.uint8)))
    (status,) = load_batch([tmp_path / "one.png"], 4, Preprocess(mask="drop")).status
    assert "mask is the only channel" in status.cause


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"channel_width": 0}, "channel_width"),
        ({"channel_width": [3, 3]}, "1 images come with 2 channel widths"),
        ({"preprocess": Preprocess(mean=[0.1]), "channels": 3}, "mean and std name 1 channels where 3 are expected"),
        ({"threads": -1}, "threads"),
        ({"channels": -1}, "channels"),
    ],
)
def test_impossible_requests_are_refused(options: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        load_batch(["a.png"], **options)  # type: ignore[arg-type]


class CountedFolder:
    """Images that tell, by the time their file was last read, how far a stream has come."""

    def __init__(self, folder: Path, count: int) -> None:
        self.paths = write_numbered(folder, count)
        for path in self.paths:
            os.utime(path, (1, 1))

    def read(self) -> int:
        return sum(path.stat().st_atime > 1 for path in self.paths)

    def settled(self) -> int:
        """Wait until nothing more is read."""
        seen = -1
        while (now := self.read()) != seen:
            seen = now
            time.sleep(0.15)
        return seen


@pytest.fixture
def counted(tmp_path: Path) -> CountedFolder:
    folder = CountedFolder(tmp_path, 40)
    folder.paths[0].read_bytes()
    if folder.read() != 1:
        pytest.skip("this file system does not record when files are read")
    os.utime(folder.paths[0], (1, 1))
    return folder


@pytest.mark.parametrize("look_ahead", [0, 1, 2])
def test_look_ahead_is_bounded(look_ahead: int, counted: CountedFolder) -> None:
    stream = stream_batches(counted.paths, SIDE, RAW, channels=2, batch_size=4, threads=3, look_ahead=look_ahead)
    for taken in range(1, 5):
        next(stream)
        assert counted.settled() == 4 * (taken + look_ahead)


def test_an_abandoned_stream_stops(counted: CountedFolder) -> None:
    before = threading_count()
    stream = stream_batches(counted.paths, SIDE, RAW, channels=2, batch_size=2, threads=3, look_ahead=1)
    next(stream)
    assert threading_count() == before + 3
    del stream
    gc.collect()
    assert threading_count() == before
    assert counted.settled() <= 6


def test_a_stream_never_started_stops(tmp_path: Path) -> None:
    before = threading_count()
    stream = stream_batches(write_numbered(tmp_path, 9), SIDE, RAW, channels=2, batch_size=2, threads=3)
    del stream
    gc.collect()
    assert threading_count() == before


def threading_count() -> int:
    """Threads of this process, those of C++ included."""
    return len(os.listdir("/proc/self/task"))  # noqa: PTH208 - names are all that is needed


def test_memory_is_reused_and_bounded(tmp_path: Path) -> None:
    paths = write_numbered(tmp_path, 60)
    seen = set[int]()
    for batch in stream_batches(paths, SIDE, Preprocess(), channels=2, batch_size=2, look_ahead=2):
        seen.add(batch.images.__array_interface__["data"][0])
        del batch
    assert len(seen) <= 4


def test_batches_outlive_their_stream(tmp_path: Path) -> None:
    def first_two() -> Iterator[Batch]:
        stream = stream_batches(write_numbered(tmp_path, 9), SIDE, RAW, channels=2, batch_size=3)
        yield next(stream)
        yield next(stream)

    kept = list(first_two())
    gc.collect()
    assert [numbers(batch) for batch in kept] == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_can_let_go_of_a_stream(tmp_path: Path) -> None:
    stream = stream_batches(write_numbered(tmp_path, 9), SIDE, RAW, channels=2, batch_size=2, threads=2)
    next(stream)
    child = os.fork()
    if child == 0:
        refused = False
        try:
            next(stream)
        except RuntimeError:
            refused = True
        del stream
        gc.collect()
        os._exit(7 if refused else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert len(list(stream)) == 4
