"""One embedding table: stream a run's images through a network into the shards of its folder."""

from __future__ import annotations

import platform
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from importlib import metadata
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet

import chammi_fast
from chammi_fast import _core
from chammi_fast.embedding.settings import EmbedReport, Pace
from chammi_fast.errors import OutputError
from chammi_fast.files import replacing
from chammi_fast.runfolder import RunFolder, recorded, sha256_of
from chammi_fast.runtime.form import describe
from chammi_fast.table import KEY_COLUMN, embedding_matrix, make_errors, make_part, read_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from chammi_fast.choosing import Files
    from chammi_fast.embedding.settings import EmbedSettings, Job
    from chammi_fast.embedding.work import Piece, Work
    from chammi_fast.images import ImageStatus
    from chammi_fast.model import BoundModel, Model
    from chammi_fast.runtime.choice import Choice

SAMPLED_IMAGES = 16
USUAL_BATCH = 32


@dataclass(frozen=True)
class EmbeddedBatch:
    """Embedded images.

    Attributes
    ----------
    name : of the data set, table or plate
    keys : one per embedded image
    rows : their metadata, (N, ...)
    vectors : (N, D) float32
    failures : keys of images, or of fields, that could not be read, each with what is wrong
    """

    name: str
    keys: Sequence[str]
    rows: pa.Table
    vectors: np.ndarray
    failures: tuple[tuple[str, ImageStatus], ...]


def pace_of(model: Model, job: Job, settings: EmbedSettings, batch_size: int) -> Pace:
    """Return how a job's images are read."""
    named = model.resolve(job.channels, unknown=settings.unknown)
    preprocess = replace(model.preprocess(named), mask=settings.mask)
    return Pace(preprocess, len(named), batch_size, settings.threads)


def first_images(model: Model, job: Job, settings: EmbedSettings) -> np.ndarray:
    """Load those of a job's first few images that can be read: (N, C, H, W) float32, N of 0 where none can."""
    return job.work.sample(pace_of(model, job, settings, SAMPLED_IMAGES))


def embed_table(
    files: Files, choice: Choice, job: Job, settings: EmbedSettings, progress: Callable[[str, int, int], None] | None
) -> EmbedReport:
    """Embed one table of images, or what is missing of it; nothing is left where all of them fail."""
    started = time.perf_counter()
    form, work = choice.taken.form, job.work
    bound = files.of(form.precision).bind(job.channels, unknown=settings.unknown, form=form)
    shards = settings.shards_of(work.shards)
    with RunFolder(
        job.folder, _record(bound, choice, job, settings), shards, settings.overwrite, bool(settings.shard)
    ) as run:
        only = _reopened(run) if settings.retry_errors else None
        todo = set(run.todo)
        before, begun = run.rows, work.steps([shard for shard in shards if shard not in todo])
        pace = pace_of(files.named, job, settings, form.fixed_batch or settings.batch_size or USUAL_BATCH)
        filling = _Filling(run, work, bound, settings, only)
        if run.todo:
            with ThreadPoolExecutor(1, thread_name_prefix="chammi-fast-write") as writer:
                for piece in work.pieces(run.todo, pace, only):
                    filling.add(piece, writer)
                    if progress is not None:
                        progress(work.name, begun + filling.steps, work.steps(shards))
                    del piece  # or its batch would be kept while the next one is waited for
                filling.wait()
        total, failed = run.rows, sum(entry.failed for entry in run.done.values())
        run.record |= {"images": total, "failed": failed}
        run.finish()
        if settings.npy and failed < total:
            _write_npy(job.folder / f"{files.named.path.stem}.npy", run, work, bound.embedding_size)
    cause = filling.first_cause or _first_cause(job.folder)
    return EmbedReport(work.name, job.folder, total, failed, before, time.perf_counter() - started, choice, cause)


def stream_vectors(files: Files, choice: Choice, job: Job, settings: EmbedSettings) -> Iterator[EmbeddedBatch]:
    """Embed one table of images, batch by batch, into nothing."""
    form = choice.taken.form
    bound = files.of(form.precision).bind(job.channels, unknown=settings.unknown, form=form)
    pace = pace_of(files.named, job, settings, form.fixed_batch or settings.batch_size or USUAL_BATCH)
    for piece in job.work.pieces(settings.shards_of(job.work.shards), pace, None):
        if piece.keys or piece.failures:
            batch = embed_piece(bound, piece, job.work.name)
            if settings.strict and batch.failures:
                raise batch.failures[0][1].error()
            yield batch
        del piece  # or its batch would be kept while the next one is waited for


def embed_piece(bound: BoundModel, piece: Piece, name: str) -> EmbeddedBatch:
    """Embed those images of a piece that could be read."""
    good = np.fromiter((one.ok for one in piece.status), dtype=bool, count=len(piece.status))
    failed = tuple((key, one) for key, one in zip(piece.keys, piece.status, strict=True) if not one.ok)
    whole = not failed
    return EmbeddedBatch(
        name=name,
        keys=piece.keys if whole else [key for key, ok in zip(piece.keys, good.tolist(), strict=True) if ok],
        rows=piece.rows if whole else piece.rows.filter(pa.array(good)),
        vectors=bound.embed(piece.images if whole else piece.images[good]),
        failures=(*failed, *piece.failures),
    )


@dataclass
class _Filling:
    """The shard that is being filled; the one before it is written in the meantime."""

    run: RunFolder
    work: Work
    bound: BoundModel
    settings: EmbedSettings
    only: dict[int, set[str]] | None
    steps: int = 0
    first_cause: str = ""
    _batches: list[EmbeddedBatch] = field(default_factory=list)
    _writing: Future[None] | None = None

    def add(self, piece: Piece, writer: ThreadPoolExecutor) -> None:
        batch = embed_piece(self.bound, piece, self.work.name)
        for key, status in batch.failures:
            if self.settings.strict:
                raise status.error()
            self.first_cause = self.first_cause or f"{key}: {status.cause}"
        self._batches.append(batch)
        self.steps += piece.steps
        if piece.last:
            self.wait()
            self._writing = writer.submit(self._write, piece.shard, self._batches)
            self._batches = []

    def wait(self) -> None:
        """Wait until the last shard is written."""
        if self._writing is not None:
            self._writing.result()

    def _write(self, shard: int, batches: list[EmbeddedBatch]) -> None:
        keys = [key for batch in batches for key in batch.keys]
        rows = pa.concat_tables([batch.rows for batch in batches])
        vectors = np.concatenate([batch.vectors for batch in batches]).astype(self.settings.store, copy=False)
        part = make_part(keys, rows, vectors)
        if self.only is not None:
            part = self._with_older(shard, part)
        self.run.write(shard, part, make_errors([failure for batch in batches for failure in batch.failures]))

    def _with_older(self, shard: int, part: pa.Table) -> pa.Table:
        """Put rows that failed before in their places among those that did not; a row is there once."""
        older = parquet.read_table(self.run.part(shard))
        older = older.filter(pc.invert(pc.is_in(older[KEY_COLUMN], part[KEY_COLUMN])))
        joined = pa.concat_tables([older, part.cast(older.schema)])
        places = pc.index_in(joined[KEY_COLUMN], pa.array(self.work.keys(shard), pa.string()))
        return joined.take(pc.sort_indices(places))


def _reopened(run: RunFolder) -> dict[int, set[str]]:
    """Open the shards that have failed rows once more; return these rows' keys."""
    if run.todo:
        raise OutputError(f"{run.folder}: holds no finished run whose failed images could be tried again.")
    failed = run.failed()
    run.reopen(failed)
    return failed


def _record(bound: BoundModel, choice: Choice, job: Job, settings: EmbedSettings) -> dict[str, Any]:
    """Return what ``run.json`` says; without times, so that a run that was stopped leaves the same as another."""
    accuracy, backend, work = choice.taken.accuracy, bound.backend, job.work
    form = describe(backend.form, backend.version, _core.isa())
    said = None if settings.overwrite else recorded(job.folder)
    absent = work.absent() if said is None else said.get("absent", [])  # a run is known by what it began with
    return {
        "format_version": 2,
        "model": bound.describe(),
        "compiled_form": form,
        "accuracy": None if accuracy is None else asdict(accuracy),
        "source": {"name": work.name, "table": str(work.origin), "root": str(work.root)},
        "absent": absent,
        "shard": settings.shard or None,
        "identity": {
            "model_sha256": bound.model.sha256,
            "spec_sha256": sha256_of(msgspec.to_builtins(bound.model.spec)),
            "channels": [channel.token for channel in bound.channels],
            "compiled_form": form,
            "inputs_sha256": work.sha256(absent),
            "settings": {"mask": settings.mask, "store": settings.store, "shards": work.shards} | work.settings(),
        },
        "settings": asdict(settings),
        "versions": _versions(),
        "machine": {"processor": platform.machine(), "isa": _core.isa()},
    }


def _write_npy(path: Path, run: RunFolder, work: Work, size: int) -> None:
    """Write the vectors as MorphEm does: (N, D) float32 in row order, NaN for a failed image."""
    keys = {shard: work.keys(shard) for shard in sorted(run.done)}
    header = {"descr": "<f4", "fortran_order": False, "shape": (sum(map(len, keys.values())), size)}
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for shard, names in keys.items():
            part = parquet.read_table(run.part(shard))
            places = pc.index_in(part[KEY_COLUMN], pa.array(names, pa.string())).to_numpy()
            rows = np.full((len(names), size), np.nan, dtype="<f4")
            if len(part):
                rows[places] = embedding_matrix(part)
            file.write(rows.tobytes())


def _first_cause(folder: Path) -> str:
    errors = read_errors(folder).slice(0, 1).to_pylist()
    return f"{errors[0]['key']}: {errors[0]['cause']}" if errors else ""


def _versions() -> dict[str, str]:
    versions = {"chammi-fast": chammi_fast.__version__, "python": platform.python_version(), "numpy": np.__version__}
    for name in ("onnxruntime", "onnxruntime-gpu", "openvino", "onnx", "pyarrow"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions
