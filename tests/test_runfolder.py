"""Runs that are stopped at any moment, and what they leave."""

from __future__ import annotations

import contextlib
import errno
import gc
import json
import shutil
import threading
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from chammi_fast.errors import OutputError, TableError
from chammi_fast.files import replacing
from chammi_fast.hashing import table_sha256
from chammi_fast.images import ImageStatus
from chammi_fast.ledger import IDENTITY, finished, write_shard
from chammi_fast.runfolder import RunFolder
from chammi_fast.table import make_errors, read_embeddings, read_errors

if TYPE_CHECKING:
    from collections.abc import Iterator

BAD = ImageStatus(path="x", code="truncated", byte_offset=7, cause="ends early")


def record(**other: str) -> dict[str, Any]:
    return {"identity": dict.fromkeys(IDENTITY, "same") | other}


def part(shard: int, rows: int = 2, value: float = 0.0) -> pa.Table:
    keys = [f"s{shard}r{i}" for i in range(rows)]
    vectors = pa.FixedSizeListArray.from_arrays(pa.array([value] * rows, pa.float32()), 1)
    return pa.table({"key": keys, "embedding": vectors})


def errors(shard: int, *keys: str) -> pa.Table:
    return make_errors(shard, [(key, BAD) for key in keys])


def run(folder: Path, shards: range = range(3), **options: Any) -> RunFolder:
    return RunFolder(folder, options.pop("record", record()), shards, **options)


def fill(folder: Path, shards: range = range(3), **options: Any) -> None:
    with run(folder, shards, **options) as one:
        for shard in one.todo:
            one.write(shard, part(shard), errors(shard, f"bad{shard}"))
        one.finish()


def fill_by_others(folder: Path) -> None:
    """Have each shard done by two, of whom one is late, and did worse."""
    with run(folder) as one:
        for shard in one.todo:
            entry = write_shard(folder, shard, part(shard), errors(shard, f"bad{shard}"), f"first{shard}-")
            one.enter(shard, entry)
            worse = errors(shard, f"bad{shard}", f"s{shard}r1")
            write_shard(folder, shard, part(shard, rows=1), worse, f"late{shard}-")
        one.finish()


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def reference(tmp_path: Path) -> dict[str, bytes]:
    fill(tmp_path / "reference")
    return files(tmp_path / "reference")


def test_a_finished_run_is_a_table(tmp_path: Path, reference: dict[str, bytes]) -> None:
    expected = ["errors.parquet", "ledger.json", "part-00000.parquet", "part-00001.parquet", "part-00002.parquet"]
    assert sorted(reference) == [*expected, "run.json"]
    table = read_embeddings(tmp_path / "reference")
    assert table["key"].to_pylist() == ["s0r0", "s0r1", "s1r0", "s1r1", "s2r0", "s2r1"]
    listed = read_errors(tmp_path / "reference").to_pylist()
    assert [(row["key"], row["shard"], row["byte_offset"]) for row in listed] == [
        ("bad0", 0, 7), ("bad1", 1, 7), ("bad2", 2, 7),
    ]  # fmt: skip
    assert json.loads(reference["run.json"]) == record()


def test_a_late_worker_changes_nothing(tmp_path: Path, reference: dict[str, bytes]) -> None:
    fill_by_others(tmp_path / "out")
    assert files(tmp_path / "out") == reference
    assert finished(tmp_path / "out").keys() == {0, 1, 2}


def test_what_was_done_is_not_done_again(tmp_path: Path, reference: dict[str, bytes]) -> None:
    out = tmp_path / "out"
    with pytest.raises(RuntimeError), run(out) as one:
        one.write(1, part(1), errors(1, "bad1"))
        raise RuntimeError
    with pytest.raises(TableError, match="not finished"):
        read_embeddings(out)
    with run(out) as two:
        assert two.todo == [0, 2]
    fill(out)
    assert files(out) == reference
    with run(out) as three:
        assert three.todo == []
        three.finish()
    assert files(out) == reference


class Killed(BaseException):
    """The end of a process at a chosen moment."""


@contextlib.contextmanager
def killed_after(moment: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every change of the file system may be the last one; what comes after it, clean-up included, never happens."""
    steps, dead = 0, False

    def mortal(function: Any) -> Any:
        def wrapped(*arguments: Any, **keywords: Any) -> Any:
            nonlocal steps, dead
            steps += 1
            if dead or steps > moment:
                dead = True
                raise Killed
            return function(*arguments, **keywords)

        return wrapped

    with monkeypatch.context() as patch, contextlib.suppress(Killed):
        for owner, name in (
            (Path, "replace"), (Path, "unlink"), (Path, "mkdir"), (Path, "touch"), (Path, "rmdir"),
            (Path, "write_text"), (parquet, "write_table"), (shutil, "rmtree"),
        ):  # fmt: skip
            patch.setattr(owner, name, mortal(getattr(owner, name)))
        yield
    with warnings.catch_warnings(action="ignore", category=ResourceWarning):
        gc.collect()  # as the end of a process does, this lets go of the lock


@pytest.mark.parametrize(
    ("filling", "moment"), [(fill, moment) for moment in range(60)] + [(fill_by_others, moment) for moment in range(90)]
)
def test_a_run_that_is_stopped_at_any_step_ends_in_the_same_files(
    tmp_path: Path, reference: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, filling: Any, moment: int
) -> None:
    out = tmp_path / "out"
    with killed_after(moment, monkeypatch):
        filling(out)
    filling(out)
    left = {name: content for name, content in files(out).items() if not name.startswith(".")}
    assert left == reference


def retry(folder: Path) -> None:
    with run(folder, range(2)) as one:
        assert one.todo == []
        one.reopen(one.failed())
        for shard in one.todo:
            assert len(parquet.read_table(one.part(shard))) == 2
            one.write(shard, part(shard, rows=3), errors(shard))
        one.finish()


@pytest.mark.parametrize("moment", range(42))
def test_a_second_try_that_is_stopped_at_any_step_ends_in_the_same_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    for name in ("whole", "out"):
        fill(tmp_path / name, range(2))
    retry(tmp_path / "whole")
    with killed_after(moment, monkeypatch):
        retry(tmp_path / "out")
    retry(tmp_path / "out")
    left = {name: content for name, content in files(tmp_path / "out").items() if not name.startswith(".")}
    assert left == files(tmp_path / "whole")


@pytest.mark.parametrize(
    "first", ["run.json", "ledger.json", "publishing", "errors-00000.parquet", "errors-00002.parquet"]
)
def test_a_run_that_is_stopped_while_it_tidies_up_leaves_a_table(
    tmp_path: Path, reference: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    """Files of a folder are removed in any order, and the process may end after each of them."""
    out = tmp_path / "out"

    def remove_one(folder: Path, **_: object) -> None:
        (folder / first).unlink(missing_ok=True)
        raise Killed

    with monkeypatch.context() as patch, contextlib.suppress(Killed):
        patch.setattr(shutil, "rmtree", remove_one)
        fill(out)
    with warnings.catch_warnings(action="ignore", category=ResourceWarning):
        gc.collect()
    fill(out)
    assert files(out) == reference
    assert len(read_embeddings(out)) == 6


def test_parts_in_one_folder_add_up(tmp_path: Path, reference: dict[str, bytes]) -> None:
    out = tmp_path / "out"
    fill(out, range(1))
    fill(out, range(1, 3))
    assert files(out) == reference
    with run(out, range(1)) as one:
        one.reopen(one.failed())
        assert one.todo == [0]
        one.write(0, part(0), errors(0, "bad0"))
        one.finish()
    assert files(out) == reference


def test_a_shard_that_is_opened_and_not_done_again_stays(tmp_path: Path, reference: dict[str, bytes]) -> None:
    out = tmp_path / "out"
    fill(out)
    with run(out) as one:
        one.reopen([0, 1])
        one.write(1, part(1), errors(1, "bad1"))
        one.finish()
    assert files(out) == reference


def test_a_part_of_a_run_is_published_without_rows(tmp_path: Path) -> None:
    for shards in (range(0), range(1)):
        out = tmp_path / f"{len(shards)}"
        for _ in range(2):
            with run(out, shards, keep_empty=True) as one:
                for shard in one.todo:
                    one.write(shard, part(shard, rows=0), errors(shard, "bad0"))
                one.finish()
            assert (out / "run.json").is_file()
            assert not (out / ".run").exists()
            assert finished(out).keys() == set(shards)
            assert len(read_errors(out)) == len(shards)


@pytest.mark.parametrize("damage", [b"", b"PAR1 cut"])
@pytest.mark.parametrize("finished", [True, False])
def test_a_damaged_shard_is_done_again(
    tmp_path: Path, reference: dict[str, bytes], damage: bytes, finished: bool
) -> None:
    out = tmp_path / "out"
    if finished:
        fill(out)
    else:
        with run(out) as one:
            one.write(1, part(1), errors(1, "bad1"))
    (out / ("part-00001.parquet" if finished else ".run/part-00001.parquet")).write_bytes(damage)
    with run(out) as one:
        assert one.todo == ([1] if finished else [0, 1, 2])
    fill(out)
    assert files(out) == reference


@pytest.mark.parametrize("key", IDENTITY)
@pytest.mark.parametrize("finished", [True, False])
def test_another_run_is_refused_with_the_reason(tmp_path: Path, key: str, finished: bool) -> None:
    out = tmp_path / "out"
    if finished:
        fill(out)
    else:
        with run(out) as one:
            one.write(0, part(0), errors(0))
    before = files(out)
    what = "a table" if finished else "an unfinished run"
    with pytest.raises(OutputError, match=f"holds {what} of another {IDENTITY[key]}: .* --overwrite"):
        run(out, record=record(**{key: "other"}))
    assert files(out) == before
    fill(out, range(1), record=record(**{key: "other"}), overwrite=True)
    assert sorted(files(out)) == ["errors.parquet", "ledger.json", "part-00000.parquet", "run.json"]


def test_parts_of_another_origin_are_not_replaced(tmp_path: Path) -> None:
    parquet.write_table(pa.table({"file_path": ["mine"]}), tmp_path / "part-0.parquet")
    with pytest.raises(OutputError, match="another origin"):
        run(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["part-0.parquet"]


def test_nothing_is_left_of_a_run_that_did_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), run(tmp_path / "out"):
        raise RuntimeError
    with run(tmp_path / "out") as one:
        for shard in one.todo:
            one.write(shard, part(shard, rows=0), errors(shard, f"bad{shard}"))
        one.finish()
    assert list(tmp_path.iterdir()) == []


def test_two_runs_do_not_write_into_one_folder(tmp_path: Path) -> None:
    with run(tmp_path / "out") as one:
        with pytest.raises(OutputError, match="another run is writing"):
            run(tmp_path / "out")
        one.write(0, part(0), errors(0))


def test_failed_rows_are_tried_again(tmp_path: Path) -> None:
    fill(tmp_path)
    with run(tmp_path) as one:
        assert one.failed() == {0: {"bad0"}, 1: {"bad1"}, 2: {"bad2"}}
        one.reopen([1])
        assert one.todo == [1]
        assert len(parquet.read_table(one.part(1))) == 2
        one.write(1, part(1, rows=3), errors(1))
        one.finish()
    assert [row["key"] for row in read_errors(tmp_path).to_pylist()] == ["bad0", "bad2"]
    assert len(read_embeddings(tmp_path)) == 7


@pytest.mark.parametrize("listed", [True, False])
def test_a_second_try_that_is_stopped_goes_on(tmp_path: Path, listed: bool) -> None:
    fill(tmp_path)
    with run(tmp_path) as one:
        one.reopen([1])
        one.write(1, part(1, rows=3), errors(1))
        if not listed:  # stopped between the part and the ledger
            (tmp_path / ".run" / "ledger.json").unlink()
    with run(tmp_path) as two:
        assert two.todo == []
        assert two.failed().get(1, set()) == (set() if listed else {"bad1"})
        assert len(parquet.read_table(two.part(1))) == (3 if listed else 2)


def test_an_unwritable_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file"):
        run(tmp_path / "file" / "out")


def test_a_damaged_ledger_is_named(tmp_path: Path) -> None:
    fill(tmp_path)
    (tmp_path / "ledger.json").write_text("{")
    with pytest.raises(TableError, match=r"ledger\.json: is damaged"):
        run(tmp_path)


def test_a_table_is_known_by_its_rows(tmp_path: Path) -> None:
    one = pa.table({"a": ["x", "y"], "b": [1, None]})
    assert table_sha256(one) == table_sha256(pa.concat_tables([one.slice(0, 1), one.slice(1)]))
    assert table_sha256(one) != table_sha256(one.set_column(1, "b", pa.array([1, 2])))


def test_chunks_do_not_decide_bytes(tmp_path: Path) -> None:
    """Parquet ends pages and dictionaries where chunks end, and chunks are batches."""
    keys = [f"{number:0>400}" for number in range(4096)]
    whole = pa.table({"key": keys})
    entries = []
    for name, rows in (("a", 32), ("b", 100), ("c", 4096)):
        (tmp_path / name / ".run").mkdir(parents=True)
        chunked = pa.concat_tables([whole.slice(first, rows) for first in range(0, len(keys), rows)])
        entries.append(write_shard(tmp_path / name, 0, chunked, errors(0)).sha256)
    assert len(set(entries)) == 1


def test_a_run_that_replaces_a_half_published_one_stays_hidden(
    tmp_path: Path, reference: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path / "out")
    other = record(inputs_sha256="other")

    def published(folder: Path) -> bool:
        with contextlib.suppress(TableError):
            return len(read_embeddings(folder)) > 0
        return False

    with monkeypatch.context() as patch:
        patch.setattr("chammi_fast.runfolder.move", mortal_move := Moves(1))
        with contextlib.suppress(Killed):
            fill(tmp_path / "out", record=other, overwrite=True)
    assert mortal_move.moved == 1
    with warnings.catch_warnings(action="ignore", category=ResourceWarning):
        gc.collect()
    assert not published(tmp_path / "out")
    with run(tmp_path / "out", overwrite=True) as third:
        assert not published(tmp_path / "out")
        for shard in third.todo:
            third.write(shard, part(shard), errors(shard, f"bad{shard}"))
            assert not published(tmp_path / "out")
        third.finish()
    assert files(tmp_path / "out") == reference


class Moves:
    """Moves so many files; then the process ends."""

    def __init__(self, most: int) -> None:
        self.moved, self._most, self._lock = 0, most, threading.Lock()

    def __call__(self, path: Path, target: Path) -> None:
        with self._lock:
            if self.moved == self._most:
                raise Killed
            self.moved += 1
        path.replace(target)


def test_parts_that_appear_while_they_are_listed_are_no_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / "out")
    late = tmp_path / "out" / "part-00002.parquet"
    late.rename(tmp_path / "late")
    glob = Path.glob

    def listing(folder: Path, pattern: str) -> list[Path]:
        found = list(glob(folder, pattern))
        if (tmp_path / "late").exists():
            (tmp_path / "late").rename(late)
        return found

    monkeypatch.setattr(Path, "glob", listing)
    with pytest.raises(TableError, match="its run is not finished"):
        read_embeddings(tmp_path / "out")
    assert len(read_embeddings(tmp_path / "out")) == 6


def test_what_a_killed_process_was_writing_is_removed(tmp_path: Path, reference: dict[str, bytes]) -> None:
    fill(tmp_path / "out", range(2))
    (tmp_path / "out" / f".errors.parquet.{'0' * 32}.tmp").write_text("half")
    fill(tmp_path / "out")
    assert files(tmp_path / "out") == reference


def test_files_of_others_are_left_alone(tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / ".cache.tmp").mkdir(parents=True)
    (out / ".mine.tmp").write_text("mine")
    with replacing(out / "scores.json") as theirs:
        theirs.write_text("{}")
        fill(out)
    assert (out / "scores.json").read_text() == "{}"
    assert (out / ".mine.tmp").read_text() == "mine"


def test_a_list_of_failed_rows_that_cannot_be_read_for_now_is_not_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path / "out")
    read = Path.read_bytes

    def failing(path: Path) -> bytes:
        if path.name == "errors.parquet":
            raise OSError(errno.EIO, "Input/output error")
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", failing)
    with pytest.raises(OutputError, match=r"errors\.parquet: cannot be read: Input/output error"):
        run(tmp_path / "out")


@pytest.mark.parametrize("published", [True, False])
@pytest.mark.parametrize("damage", ["gone", "cut", "short"])
def test_a_shard_whose_failed_rows_are_lost_is_done_again(
    damage: str, published: bool, tmp_path: Path, reference: dict[str, bytes]
) -> None:
    out = tmp_path / "out"
    if published:
        fill(out)
        listed = out / "errors.parquet"
    else:
        with run(out) as one:
            one.write(0, part(0), errors(0, "bad0"))
        listed = out / ".run" / "errors-00000.parquet"
    if damage == "gone":
        listed.unlink()
    elif damage == "cut":
        listed.write_bytes(listed.read_bytes()[:-9])
    else:
        parquet.write_table(errors(0), listed)
    with run(out) as two:
        assert two.todo == [0, 1, 2]
    fill(out)
    assert files(out) == reference
