"""Images behind URLs, in fsspec's file system in memory."""

from __future__ import annotations

import gc
import threading
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import csv

import chammi_fast
from chammi_fast.errors import FileReadError, ManifestError, MissingExtraError, UnsupportedFormatError
from chammi_fast.images import Preprocess, load_batch
from chammi_fast.remote import StreamPlan, check_protocols, probe_any, stream_any
from chammi_fast.table import embedding_matrix, read_embeddings, read_errors
from chammi_fast.urls import is_url
from image_files import write_png

if TYPE_CHECKING:
    from collections.abc import Iterator

fsspec = pytest.importorskip("fsspec")
SIDE = 24
RAW = Preprocess(size=None)


@pytest.fixture
def store() -> Iterator[Any]:
    """An empty object store."""
    system = fsspec.filesystem("memory")
    system.store.clear()
    yield system
    system.store.clear()


def tape(number: int) -> bytes:
    return write_png(np.random.default_rng(number).integers(0, 256, (SIDE, 2 * SIDE), np.uint8))


def fill(store: Any, local: Path, count: int) -> tuple[list[str], list[str]]:
    """Write tapes to the store and, the same ones, to a folder; every third URL is a local path."""
    urls, paths = [], []
    for number in range(count):
        paths.append(str(local / f"{number}.png"))
        Path(paths[-1]).write_bytes(tape(number))
        store.pipe_file(f"/cells/{number}.png", tape(number))
        urls.append(paths[-1] if number % 3 == 2 else f"memory://cells/{number}.png")
    return urls, paths


def plan_of(paths: list[str], **changes: object) -> StreamPlan:
    plan = StreamPlan(paths, [SIDE] * len(paths), Preprocess(size=16), channels=2, batch_size=4, threads=2)
    return replace(plan, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("look_ahead", [0, 1, 3])
@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_urls_give_what_local_files_give(look_ahead: int, batch_size: int, store: Any, tmp_path: Path) -> None:
    urls, paths = fill(store, tmp_path, 11)
    expected = load_batch(paths, SIDE, Preprocess(size=16))
    batches = list(stream_any(plan_of(urls, look_ahead=look_ahead, batch_size=batch_size)))
    np.testing.assert_array_equal(np.concatenate([batch.images for batch in batches]), expected.images)
    assert [status.path for batch in batches for status in batch.status] == urls
    assert all(status.ok for batch in batches for status in batch.status)


def test_widths_belong_to_their_rows(store: Any, tmp_path: Path) -> None:
    urls, paths = fill(store, tmp_path, 5)
    widths = [SIDE, 2 * SIDE, SIDE, SIDE, 2 * SIDE]
    batches = stream_any(plan_of(urls, channel_widths=widths, batch_size=2))
    status = [one for batch in batches for one in batch.status]
    assert [one.code for one in status] == ["ok", "shape", "ok", "ok", "shape"]
    assert [one.path for one in status] == urls
    assert not any(is_url(path) for path in paths)


def test_what_cannot_be_fetched_is_a_status(store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    urls, _ = fill(store, tmp_path, 3)
    store.pipe_file("/cells/broken.png", tape(0)[:60])
    fetch = type(store).cat_file

    def cat_file(self: Any, path: str, **options: object) -> object:
        if path.endswith("secret.png"):
            raise PermissionError("not yours\nat all")
        return fetch(self, path, **options)

    monkeypatch.setattr(type(store), "cat_file", cat_file)
    wrong = [f"memory://cells/{name}.png" for name in ("absent", "broken", "secret")]
    (batch,) = stream_any(plan_of([*urls, *wrong], batch_size=6))
    assert [one.code for one in batch.status] == ["ok"] * 3 + ["missing", "truncated", "unreadable"]
    assert np.isnan(batch.images[3:]).all()
    assert not np.isnan(batch.images[:3]).any()
    assert [one.path for one in batch.status[3:]] == wrong
    assert batch.status[5].cause == "the file cannot be fetched: access is denied"
    with pytest.raises(FileReadError, match=r"memory://cells/absent\.png: there is no such file"):
        raise batch.status[3].error()


def test_fetching_ahead_is_bounded(store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(store, tmp_path, 12)
    fetched = set[str]()
    fetch = type(store).cat_file

    def cat_file(self: Any, path: str, **options: object) -> object:
        fetched.add(path)
        return fetch(self, path, **options)

    monkeypatch.setattr(type(store), "cat_file", cat_file)
    stream = stream_any(plan_of([f"memory://cells/{number}.png" for number in range(12)], batch_size=2, look_ahead=1))
    next(stream)
    assert len(fetched) <= 4
    next(stream)
    assert len(fetched) <= 6


def test_an_abandoned_stream_leaves_nothing(store: Any, tmp_path: Path) -> None:
    urls, _ = fill(store, tmp_path, 12)
    before = threading.active_count()
    stream = stream_any(plan_of(urls, batch_size=2))
    next(stream)
    del stream
    gc.collect()
    assert threading.active_count() == before


def test_what_was_fetched_is_given_back(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    image = tape(0)
    size = 2**20

    def cat_file(self: Any, path: str, **options: object) -> bytes:
        return image + bytes(size)  # what follows a PNG is ignored

    monkeypatch.setattr(type(store), "cat_file", cat_file)
    urls = [f"memory://cells/{number}.png" for number in range(60)]
    tracemalloc.start()
    for batch in stream_any(plan_of(urls, batch_size=2, look_ahead=1)):
        assert all(status.ok for status in batch.status)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 10 * size


def test_probing(store: Any, tmp_path: Path) -> None:
    fill(store, tmp_path, 1)
    assert probe_any("memory://cells/0.png") == probe_any(str(tmp_path / "0.png"))
    with pytest.raises(FileReadError, match=r"memory://cells/7\.png"):
        probe_any("memory://cells/7.png")
    store.pipe_file("/cells/text.png", b"no image at all")
    with pytest.raises(UnsupportedFormatError, match=r"memory://cells/text\.png: the file is neither"):
        probe_any("memory://cells/text.png")


def test_protocols_are_checked_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ManifestError, match="nosuch:// is no protocol"):
        check_protocols(["a.png", "nosuch://a"])

    def lacking(protocol: str) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec, "get_filesystem_class", lacking)
    with pytest.raises(MissingExtraError, match="s3:// needs another package: Install s3fs"):
        next(stream_any(plan_of(["s3://a/b.png"])))
    check_protocols(["a.png", "/b.png"])


def test_embedding_a_table_of_urls(store: Any, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    urls, paths = fill(store, tmp_path, 5)
    absent = "memory://cells/absent.png"
    for name, listed in (("urls", [*urls, absent]), ("paths", paths)):
        csv.write_csv(pa.table({"file_path": listed, "channel_width": [SIDE] * len(listed)}), tmp_path / f"{name}.csv")
        chammi_fast.embed("demo", manifest=tmp_path / f"{name}.csv", channels="CP/nucleus,CP/er", out=tmp_path / name)
    fetched, local = (embedding_matrix(read_embeddings(tmp_path / name)) for name in ("urls", "paths"))
    np.testing.assert_array_equal(fetched[:5], local)
    assert read_errors(tmp_path / "urls")["key"].to_pylist() == [absent]
