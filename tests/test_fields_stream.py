"""Streams of fields: order, threads, bounded look-ahead, and giving up half-way."""

from __future__ import annotations

import gc
import os
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile

from cell_crops import CROP, KEPT, number_of, numbered
from chammi_fast import _core
from chammi_fast.images import CropSettings, Field, Preprocess, load_crops, stream_crops

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chammi_fast._core import LoadedCrops


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("look_ahead", [0, 1, 3])
@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_order_is_kept(threads: int, look_ahead: int, batch_size: int) -> None:
    counts = [3, 0, 9, 1, 4, 0, 0, 8]
    fields = (numbered(number, cells) for number, cells in enumerate(counts))
    batches = list(stream_crops(fields, CROP, KEPT, batch_size=batch_size, threads=threads, look_ahead=look_ahead))
    expected = [
        (number, first, min(batch_size, cells - first))
        for number, cells in enumerate(counts)
        for first in range(0, max(cells, 1), batch_size)
    ]
    assert [(batch.field, batch.first, len(batch.images)) for batch in batches] == expected
    assert all(number_of(batch) == batch.field for batch in batches if len(batch.images))
    assert all(batch.images.shape[1:] == (2, 4, 4) and batch.field_status.ok for batch in batches)
    assert all(len(batch.status) == len(batch.touches_edge) == len(batch.images) for batch in batches)


def test_threads_give_identical_bytes(shared_data: Path) -> None:
    paths = sorted((shared_data / "fields" / "pediatric_cellpainting_6ch").glob("*ch[2-6]*.tiff"))
    field = Field(paths, np.random.default_rng(3).uniform(0, 1079, (30, 2)))
    how = Preprocess(96, [0.1] * 5, [0.07] * 5)
    alone = load_crops(field, CropSettings(), how, threads=1)
    together = load_crops(field, CropSettings(), how, threads=4)
    assert alone.images.tobytes() == together.images.tobytes()
    streamed = list(stream_crops([field, field], CropSettings(), how, batch_size=7, threads=3))
    twice = np.concatenate([batch.images for batch in streamed])
    assert twice.tobytes() == 2 * alone.images.tobytes()


class Taken:
    """Fields that tell how many of them were asked for."""

    def __init__(self, count: int) -> None:
        self.count, self.taken = count, 0

    def __iter__(self) -> Iterator[Field]:
        for number in range(self.count):
            self.taken += 1
            yield numbered(number, 6)


@pytest.mark.parametrize("look_ahead", [0, 1, 3])
def test_fields_are_taken_as_they_are_needed(look_ahead: int) -> None:
    fields = Taken(20)
    stream = stream_crops(fields, CROP, KEPT, batch_size=3, threads=2, look_ahead=look_ahead)
    assert fields.taken == 0
    for number in range(5):
        assert next(stream).field == number
        assert fields.taken == number + 1 + look_ahead
        assert next(stream).field == number
        assert fields.taken == number + 2 + look_ahead


def threads_now() -> int:
    """Threads of this process, those of C++ included."""
    return len(os.listdir("/proc/self/task"))  # noqa: PTH208 - names are all that is needed


def test_an_abandoned_stream_stops() -> None:
    before = threads_now()
    stream = stream_crops(Taken(9), CROP, KEPT, batch_size=2, threads=3)
    next(stream)
    assert threads_now() == before + 3
    del stream
    gc.collect()
    assert threads_now() == before


def test_an_error_of_the_fields_own_is_passed_on_and_ends_the_stream() -> None:
    def fields() -> Iterator[Field]:
        yield numbered(0, 3)
        yield numbered(1, 3)
        raise KeyError("a table of its own")

    before = threads_now()
    with pytest.raises(KeyError, match="a table of its own"):
        list(stream_crops(fields(), CROP, KEPT, look_ahead=1))
    assert threads_now() == before


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_can_let_go_of_a_stream() -> None:
    stream = stream_crops(Taken(9), CROP, KEPT, batch_size=2, threads=2)
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
        os._exit(0 if refused else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert next(stream).field == 0


def test_batches_outlive_their_stream() -> None:
    batches = list(stream_crops((numbered(number, 5) for number in range(9)), CROP, KEPT, batch_size=2))
    gc.collect()
    assert [number_of(batch) for batch in batches] == [number for number in range(9) for _ in range(3)]


def test_memory_of_batches_is_used_again() -> None:
    seen = set[int]()
    for batch in stream_crops((numbered(1, 9) for _ in range(20)), CROP, KEPT, batch_size=2, look_ahead=2):
        seen.add(batch.images.__array_interface__["data"][0])
        del batch
    assert len(seen) <= 4


class Watched:
    """A stream of the core that tells how many of some objects are alive whenever it is asked for the next batch."""

    def __init__(self, stream: _core.Crops, seen: list[weakref.ref[Any]], alive: list[int]) -> None:
        self.stream, self.seen, self.alive = stream, seen, alive
        self.push, self.close = self.stream.push, self.stream.close

    def next(self) -> LoadedCrops | None:
        self.alive.append(sum(one() is not None for one in self.seen))
        return self.stream.next()


@pytest.mark.parametrize("kind", ["plain", "otherwise", "broken"])
def test_a_batch_that_was_dropped_is_gone_before_the_next_one_is_waited_for(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.tif"
    if kind != "plain":
        pytest.importorskip("imagecodecs")
    tifffile.imwrite(path, np.zeros((20, 20), np.uint16), compression=None if kind == "plain" else "lzma")
    if kind == "broken":
        path.write_bytes(path.read_bytes()[:-1] + b"?")
    seen: list[weakref.ref[Any]] = []
    alive: list[int] = []
    crops = _core.Crops
    monkeypatch.setattr(_core, "Crops", lambda options: Watched(crops(options), seen, alive))
    for batch in stream_crops([Field([path], np.zeros((3, 2)))] * 2, CROP, KEPT, batch_size=1):
        seen += [weakref.ref(batch), weakref.ref(batch.images)]
        del batch
    assert len(seen) == 12
    assert len(alive) >= 7
    assert set(alive) == {0}


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="this system does not say what a process takes")
def test_memory_does_not_grow_with_fields() -> None:
    side, count = 1024, 40
    field = numbered(1, 20, (side, side))
    taken = [resident_bytes() for _ in stream_crops([field] * count, CROP, KEPT, batch_size=20)]
    decoded = side * side * 2 * 4
    assert taken[-1] - taken[5] < 6 * decoded
