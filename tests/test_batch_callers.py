"""Batches asked for by several threads, while others run, by hostile files, and by impossible numbers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile

from chammi_fast import _core
from chammi_fast.images import Preprocess, load_batch, stream_batches
from image_files import write_png

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

SIZE = 16


def open_stream(sources: Sequence[Path | bytes], **changes: Any) -> _core.Stream:
    options: Any = {
        "size": SIZE, "resize": True, "value_range": None, "mask": "keep", "mean": [], "std": [], "channels": 1,
        "batch_size": 1, "threads": 2, "look_ahead": 0, "pixel_limit": 2**28,
    }  # fmt: skip
    return _core.Stream(sources, [0], options | changes)


def run_together(work: Callable[[], None], threads: int) -> None:
    callers = [threading.Thread(target=work) for _ in range(threads)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()


@pytest.fixture
def numbered(tmp_path: Path) -> list[Path]:
    """Images whose pixels are all the image's number."""
    paths = [tmp_path / f"{number}.png" for number in range(200)]
    for number, path in enumerate(paths):
        path.write_bytes(write_png(np.full((4, 4), number, np.uint8)))
    return paths


@pytest.mark.parametrize("look_ahead", [0, 1, 5])
def test_each_batch_goes_to_one_of_several_callers(look_ahead: int, numbered: list[Path]) -> None:
    stream = open_stream(numbered * 3, look_ahead=look_ahead)
    seen: list[int] = []

    def take() -> None:
        while (batch := stream.next()) is not None:
            seen.append(round(float(batch[0].mean()) * 255))

    run_together(take, 4)
    assert sorted(seen) == sorted(list(range(200)) * 3)


def test_a_stream_can_be_closed_by_several_callers_while_others_wait(numbered: list[Path]) -> None:
    for _ in range(20):
        stream = open_stream(numbered, threads=3)
        roles = iter([stream.close, stream.close, stream.next, stream.next])
        lock = threading.Lock()

        def act(roles: Any = roles, lock: threading.Lock = lock) -> None:
            with lock:
                role = next(roles)
            role()

        run_together(act, 4)
        assert stream.next() is None


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_can_drop_batches(numbered: list[Path]) -> None:
    kept = []
    for batch in stream_batches(numbered, None, Preprocess(size=SIZE), channels=1, batch_size=4, threads=2):
        kept.append(batch)
        if len(kept) == 3:
            break
    child = os.fork()
    if child == 0:
        kept.clear()
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert len(kept) == 3


@pytest.mark.parametrize("options", [{"batch_size": 2**64 - 1}, {"batch_size": 2, "look_ahead": 2**32 - 1}])
def test_more_than_there_are_means_all(options: dict[str, int], numbered: list[Path]) -> None:
    stream = open_stream(numbered[:5], **options)
    sizes = []
    while (batch := stream.next()) is not None:
        sizes.append(len(batch[0]))
    assert sizes == ([5] if "look_ahead" not in options else [2, 2, 1])
    choice: Any = {"batch_size": 3} | {name: 2 * number for name, number in options.items()}
    batches = list(stream_batches(numbered[:5], None, Preprocess(size=SIZE), channels=1, **choice))
    assert sum(len(batch.status) for batch in batches) == 5


@pytest.mark.parametrize("size", [SIZE * SIZE, None])
def test_one_image_does_not_decide_on_more_memory_than_there_is(size: int | None, tmp_path: Path) -> None:
    hostile, small = tmp_path / "hostile.tif", tmp_path / "small.png"
    side, samples = (1, 60000) if size is not None else (700, 100)
    tifffile.imwrite(
        hostile, np.zeros((side, side, samples), np.uint8), photometric="minisblack", planarconfig="contig"
    )
    small.write_bytes(write_png(np.full((6, 6), 51, np.uint8)))
    paths = [hostile] + [small] * 60
    batch = load_batch(paths, None, Preprocess(size=size))
    assert [status.code for status in batch.status] == ["limit"] + ["ok"] * 60
    assert batch.images.shape == (61, 1, size or 6, size or 6)
    assert np.isnan(batch.images[0]).all()
    np.testing.assert_allclose(batch.images[1:], 0.2, rtol=1e-5)
    assert f"61 images of {samples} channels" in batch.status[0].cause


def test_too_little_memory_is_the_status_of_all_images(numbered: list[Path]) -> None:
    batch = load_batch(numbered[:3], None, Preprocess(), channels=2**31)
    assert [status.code for status in batch.status] == ["limit"] * 3
    assert "memory" in batch.status[0].cause
    assert batch.images.shape == (3, 0, 224, 224)


def test_several_failures_before_the_first_sound_image_keep_their_causes(tmp_path: Path, numbered: list[Path]) -> None:
    (tmp_path / "cut.png").write_bytes(numbered[7].read_bytes()[:-30])
    colour = tmp_path / "colour.png"
    colour.write_bytes(write_png(np.zeros((4, 4, 3), np.uint8)))
    paths = [tmp_path / "absent.png", tmp_path / "cut.png", colour, numbered[7], colour]
    batch = load_batch(paths, None, Preprocess(size=None), channels=1, threads=3)
    assert [status.code for status in batch.status] == ["missing", "truncated", "shape", "ok", "shape"]
    assert batch.status[2].cause == batch.status[4].cause == "the image has 3 channels where 1 are expected"
    np.testing.assert_array_equal(np.isnan(batch.images).all((1, 2, 3)), [True, True, True, False, True])


def test_whole_numbers_of_any_kind_are_channel_widths(tmp_path: Path) -> None:
    path = tmp_path / "tape.png"
    path.write_bytes(write_png(np.arange(60, dtype=np.uint8).reshape(5, 12)))
    side: Any = np.int64(3)
    widths: list[Any] = [np.int64(4), np.uint8(4), [np.int64(4)], np.array([4])]
    for width in widths:
        batch = load_batch([path], width, Preprocess(size=side))
        assert batch.images.shape == (1, 3, 3, 3)
    with pytest.raises(TypeError):
        load_batch([path], 4.5)  # type: ignore[arg-type]


@pytest.mark.parametrize("path", ["a.png", b"a.png", os.fspath])
def test_one_path_is_no_list_of_paths(path: Any, tmp_path: Path) -> None:
    one: Any = tmp_path if callable(path) else path
    with pytest.raises(TypeError, match="sources is a list of paths or bytes"):
        load_batch(one)
    with pytest.raises(TypeError, match="sources is a list of paths or bytes"):
        stream_batches(one, None, Preprocess(), channels=1, batch_size=1)


def test_the_core_refuses_settings_that_contradict_each_other(numbered: list[Path]) -> None:
    for change in ({"mean": [0.1, 0.2]}, {"std": [0.1, 0.2]}):
        with pytest.raises(ValueError, match="mean and std"):
            open_stream(numbered[:1], **change)
    with pytest.raises(ValueError, match="channel widths"):
        _core.Stream(numbered[:3], [4, 4], {})  # type: ignore[typeddict-item]


def test_other_python_threads_run_while_a_batch_is_awaited(tmp_path: Path) -> None:
    ticks = 0
    done = threading.Event()

    def tick() -> None:
        nonlocal ticks
        while not done.is_set():
            ticks += 1
            time.sleep(0.001)

    worker = threading.Thread(target=tick)
    worker.start()
    image = tmp_path / "large.png"
    image.write_bytes(write_png(np.random.default_rng(0).integers(0, 256, (1500, 3000), np.uint8), [4]))
    start = ticks
    load_batch([image] * 8, 1000, threads=1)
    progress = ticks - start
    done.set()
    worker.join()
    assert progress > 3


def test_control_c_interrupts_a_wait(tmp_path: Path) -> None:
    image = tmp_path / "large.png"
    image.write_bytes(write_png(np.zeros((2000, 2000), np.uint8)))
    program = f"""
import sys
from chammi_fast.images import load_batch
print("waiting", flush=True)
try:
    load_batch([{str(image)!r}] * 2000, 1000, threads=1)
except KeyboardInterrupt:
    sys.exit(42)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"waiting\n"
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 42
