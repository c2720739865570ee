"""Batches of images that are given as bytes, as an object store hands them over."""

from __future__ import annotations

import gc
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile

from chammi_fast import _core
from chammi_fast.images import Preprocess, load_batch, probe, read_image, stream_batches
from image_files import write_png
from test_batch_callers import open_stream

if TYPE_CHECKING:
    from pathlib import Path

SIDE = 12
HOW = Preprocess(size=8, mean=[0.1, 0.2], std=[0.3, 0.4])


def write_mixed(folder: Path, count: int) -> list[Path]:
    """Write tapes of two channels as PNG and TIFF, some of which only other libraries decode."""
    paths = []
    for number in range(count):
        tape = np.random.default_rng(number).integers(0, 256, (SIDE, 2 * SIDE), np.uint8)
        paths.append(folder / f"{number}.image")
        if number % 3 == 0:
            paths[-1].write_bytes(write_png(tape))
        elif number % 3 == 1:
            tifffile.imwrite(paths[-1], tape, compression="lzw")
        else:
            tifffile.imwrite(paths[-1], tape, compression="jpeg2000", compressionargs={"level": 0})
    return paths


def test_bytes_give_what_their_files_give(tmp_path: Path) -> None:
    paths = write_mixed(tmp_path, 12)
    expected = load_batch(paths, SIDE, HOW)
    assert all(status.ok for status in expected.status)
    data = [path.read_bytes() for path in paths]
    mixed: list[Any] = [one if number % 2 else path for number, (path, one) in enumerate(zip(paths, data, strict=True))]
    ways: list[Any] = [data, mixed, tuple(data), np.array(mixed, object)]
    for sources in ways:
        batch = load_batch(sources, SIDE, HOW)
        np.testing.assert_array_equal(batch.images, expected.images)
        names = ["<bytes>" if isinstance(source, bytes) else str(source) for source in sources]
        assert [status.path for status in batch.status] == names
        streamed = stream_batches(sources, [SIDE] * 12, HOW, channels=2, batch_size=5, threads=3)
        np.testing.assert_array_equal(np.concatenate([one.images for one in streamed]), expected.images)


def test_failures_of_bytes_are_those_of_files(tmp_path: Path) -> None:
    good = write_png(np.ones((SIDE, 2 * SIDE), np.uint8))
    cut, odd = good[:-20], write_png(np.ones((4, 5), np.uint8))
    broken = [b"", b"II*", cut, good[:40] + b"\xff" + good[41:], b"no image at all", odd]
    paths = [tmp_path / str(number) for number in range(len(broken))]
    for path, content in zip(paths, broken, strict=True):
        path.write_bytes(content)
    expected = load_batch([*paths, good], SIDE, HOW)
    batch = load_batch([*broken, good], SIDE, HOW)
    facts = [[(one.code, one.byte_offset, one.cause) for one in found.status] for found in (batch, expected)]
    assert facts[0] == facts[1]
    codes = ["truncated", "truncated", "truncated", "corrupt", "unsupported", "shape", "ok"]
    assert [code for code, _, _ in facts[0]] == codes
    assert str(batch.status[4].error()) == "<bytes>: the file is neither PNG nor TIFF (at byte 0)"


def test_bytes_are_kept_until_the_stream_has_read_them() -> None:
    images = [np.full((4, 4), number, np.uint8) for number in range(40)]
    sources: list[bytes] = [write_png(image) for image in images]
    stream: Any = open_stream(sources, batch_size=2, size=4)
    held = [sys.getrefcount(source) for source in sources]
    while sources:
        sources.pop()
    gc.collect()
    churn = [bytes([255]) * 70 for _ in range(1000)]  # would take the place of what was given up
    seen = []
    while (batch := stream.next()) is not None:
        seen += [round(float(value) * 255) for value in batch[0][:, 0, 0, 0]]
    assert seen == list(range(40))
    assert len(churn) == 1000
    assert min(held) >= 3


def test_bytes_are_not_copied_and_are_let_go() -> None:
    data = write_png(np.zeros((4, 4), np.uint8))
    before = sys.getrefcount(data)
    stream = open_stream([data] * 10)
    assert sys.getrefcount(data) == before + 10
    assert stream.next() is not None
    del stream
    assert sys.getrefcount(data) == before


@pytest.mark.parametrize("source", [5, None, 1.5, bytearray(b"abc"), ["a"]])
def test_what_is_neither_a_path_nor_bytes(source: Any) -> None:
    for ask in (read_image, probe, lambda one: load_batch([one])):
        with pytest.raises(TypeError, match=r"expected str, bytes or os\.PathLike"):
            ask(source)
    with pytest.raises(TypeError, match=r"os\.PathLike"):
        _core.decode(source, 0, 1)


def test_names_that_are_not_unicode(tmp_path: Path) -> None:
    image = np.arange(30, dtype=np.uint8).reshape(5, 6)
    name = str(tmp_path / "caf\udce9.png")
    with open(name, "wb") as file:  # noqa: PTH123
        file.write(write_png(image))
    np.testing.assert_array_equal(read_image(name), image)
    assert load_batch([name]).status[0].ok
    assert load_batch(["a\0b.png"]).status[0].code == "missing"
