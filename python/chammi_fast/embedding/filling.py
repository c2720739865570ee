"""Stream images of a job through a network, into the shards of a run or to a caller."""

from __future__ import annotations

import platform
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from importlib import metadata
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet

import chammi_fast
from chammi_fast import _core
from chammi_fast.embedding.settings import Pace
from chammi_fast.files import source_of
from chammi_fast.runtime.form import describe
from chammi_fast.table import KEY_COLUMN, make_errors, make_part
from chammi_fast.urls import without_secrets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from chammi_fast.choosing import Files
    from chammi_fast.embedding.settings import EmbedSettings, Job
    from chammi_fast.embedding.work import Piece, Work
    from chammi_fast.images import ImageStatus
    from chammi_fast.model import BoundModel, Model
    from chammi_fast.runtime import Form

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


@dataclass(frozen=True)
class Order:
    """All that a run is, for whoever computes its shards.

    Attributes
    ----------
    files : of the model
    jobs : one per embedding table
    settings : how to embed
    """

    files: Files
    jobs: tuple[Job, ...]
    settings: EmbedSettings


@dataclass(frozen=True)
class Opened:
    """What a run's record says of a network that was opened for a job: builtin types only.

    Attributes
    ----------
    model : `chammi_fast.model.BoundModel.describe`
    channels : their tokens, in input order
    embedding_size : length of an embedding
    compiled_form : what decides the bits besides the model (`chammi_fast.runtime.form.describe`)
    versions, machine : of what computes it
    """

    model: dict[str, Any]
    channels: tuple[str, ...]
    embedding_size: int
    compiled_form: dict[str, Any]
    versions: dict[str, str]
    machine: dict[str, str]


class Sink(Protocol):
    """Where finished shards go."""

    def write(self, shard: int, part: pa.Table, errors: pa.Table) -> None:
        """Keep a shard's embedded rows and its failed ones."""

    def part(self, shard: int) -> Path:
        """Return the file of a shard that was finished before."""


class Embedder:
    """A network opened for one job of an order, and all that embeds the job's shards with it.

    Several threads may fill shards: one of them embeds, while the others read their first images.

    Raises
    ------
    ChannelError
        If the channels are not those of the model.
    BackendError, MissingExtraError
        If the backend cannot be opened.
    """

    def __init__(self, order: Order, job: Job, form: Form) -> None:
        self._job, self._settings = job, order.settings
        self._bound = order.files.of(form.precision).bind(job.channels, unknown=order.settings.unknown, form=form)
        batch_size = form.fixed_batch or order.settings.batch_size or USUAL_BATCH
        self._pace = pace_of(order.files.named, job, order.settings, batch_size)
        self._turn = threading.Lock()

    @property
    def opened(self) -> Opened:
        """What the run's record says of it."""
        backend = self._bound.backend
        return Opened(
            model=self._bound.describe(),
            channels=tuple(channel.token for channel in self._bound.channels),
            embedding_size=self._bound.embedding_size,
            compiled_form=describe(backend.form, backend.version, _core.isa()),
            versions=_versions(),
            machine={"processor": platform.machine(), "isa": _core.isa()},
        )

    def batches(self, shards: Sequence[int]) -> Iterator[EmbeddedBatch]:
        """Embed some shards, batch by batch, into nothing."""
        for piece in self._job.work.pieces(shards, self._pace, None):
            if piece.keys or piece.failures:
                batch = embed_piece(self._bound, piece, self._job.work.name)
                if self._settings.strict and batch.failures:
                    raise batch.failures[0][1].error()
                yield batch
            del piece  # or its batch would be kept while the next one is waited for

    def fill(
        self,
        shards: Sequence[int],
        sink: Sink,
        only: dict[int, set[str]] | None = None,
        progress: Callable[[int], None] = lambda _: None,
    ) -> str:
        """Embed some shards; the one before is written in the meantime.

        Parameters
        ----------
        only : shard -> keys of the rows that are to be embedded again; None for all rows
        progress : called with what was done so far (`Work.steps`) after every batch

        Returns
        -------
        The first failed image and what is wrong with it; empty where none failed.
        """
        filling = _Filling(sink, self._job.work, self._bound, self._settings, only)
        pieces = self._job.work.pieces(shards, self._pace, only)
        first = list(islice(pieces, 1))
        with ThreadPoolExecutor(1, thread_name_prefix="chammi-fast-write") as writer:
            with self._turn:
                while piece := first.pop() if first else next(pieces, None):
                    filling.add(piece, writer)
                    progress(filling.steps)
                    del piece  # or its batch would be kept while the next one is waited for
            filling.wait()
        return filling.first_cause


def pace_of(model: Model, job: Job, settings: EmbedSettings, batch_size: int) -> Pace:
    """Return how a job's images are read."""
    named = model.resolve(job.channels, unknown=settings.unknown)
    preprocess = replace(model.preprocess(named), mask=settings.mask)
    return Pace(preprocess, len(named), batch_size, settings.threads)


def first_images(model: Model, job: Job, settings: EmbedSettings) -> np.ndarray:
    """Load those of a job's first few images that can be read: (N, C, H, W) float32, N of 0 where none can."""
    return job.work.sample(pace_of(model, job, settings, SAMPLED_IMAGES))


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

    sink: Sink
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
            self.first_cause = self.first_cause or f"{without_secrets(key)}: {status.cause}"
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
        failures = [failure for batch in batches for failure in batch.failures]
        self.sink.write(shard, part, make_errors(shard, failures))

    def _with_older(self, shard: int, part: pa.Table) -> pa.Table:
        """Put rows that failed before in their places among those that did not; a row is there once."""
        older = parquet.read_table(source_of(self.sink.part(shard)))
        older = older.filter(pc.invert(pc.is_in(older[KEY_COLUMN], part[KEY_COLUMN])))
        joined = pa.concat_tables([older.cast(part.schema), part])  # Parquet has other names inside lists
        places = pc.index_in(joined[KEY_COLUMN], pa.array(self.work.keys(shard), pa.string()))
        return joined.take(pc.sort_indices(places))


def _versions() -> dict[str, str]:
    versions = {"chammi-fast": chammi_fast.__version__, "python": platform.python_version(), "numpy": np.__version__}
    for name in ("onnxruntime", "onnxruntime-gpu", "openvino", "onnx", "pyarrow"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions
