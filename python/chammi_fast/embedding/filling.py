"""One embedding table: stream a table's images through a network into it."""

from __future__ import annotations

import platform
import time
from dataclasses import asdict, replace
from datetime import UTC, datetime
from importlib import metadata
from typing import TYPE_CHECKING

import numpy as np

import chammi_fast
from chammi_fast import _core
from chammi_fast.embedding.settings import EmbedReport
from chammi_fast.remote import StreamPlan, stream_any
from chammi_fast.runtime.form import describe
from chammi_fast.table import TableWriter

if TYPE_CHECKING:
    from collections.abc import Callable

    from chammi_fast.choosing import Files
    from chammi_fast.embedding.settings import EmbedSettings, Job
    from chammi_fast.images import Batch, Preprocess
    from chammi_fast.manifest import Manifest
    from chammi_fast.model import BoundModel, Model
    from chammi_fast.runtime.choice import Choice

SAMPLED_IMAGES = 16
USUAL_BATCH = 32


def first_images(model: Model, job: Job, settings: EmbedSettings) -> np.ndarray:
    """Load those of a table's first few images that can be read: (N, C, H, W) float32, N of 0 where none can."""
    named = model.resolve(job.channels, unknown=settings.unknown)
    plan = _plan(job.rows, model.preprocess(named), len(named), settings, SAMPLED_IMAGES)
    for batch in stream_any(plan.first(SAMPLED_IMAGES)):
        images: np.ndarray = batch.images[_good(batch)]
        return images
    return np.empty((0, len(named), 1, 1), np.float32)


def embed_table(
    files: Files, choice: Choice, job: Job, settings: EmbedSettings, progress: Callable[[str, int, int], None] | None
) -> EmbedReport:
    """Embed one table of images; nothing is left where all of them fail."""
    started, started_at = time.perf_counter(), datetime.now(UTC)
    form, rows = choice.taken.form, job.rows
    bound = files.of(form.precision).bind(job.channels, unknown=settings.unknown, form=form)
    npy_name = files.named.path.stem if settings.npy else None
    writer = TableWriter(job.folder, rows.table, rows.keys, bound.embedding_size, npy_name, settings.store)
    with writer:
        _fill(writer, bound, rows, settings, progress)
        seconds = time.perf_counter() - started
        report = EmbedReport(rows.name, job.folder, len(rows), writer.failed, seconds, choice, writer.first_cause)
        if writer.failed == len(rows):
            return report
        accuracy = choice.taken.accuracy
        writer.finish(
            {
                "format_version": 1,
                "model": bound.describe(),
                "compiled_form": describe(bound.backend.form, bound.backend.version, _core.isa()),
                "accuracy": None if accuracy is None else asdict(accuracy),
                "source": {"name": rows.name, "table": str(rows.origin), "root": str(rows.root)},
                "settings": asdict(settings),
                "images": len(rows),
                "failed": writer.failed,
                "started_at": started_at.isoformat(timespec="seconds"),
                "seconds": round(seconds, 3),
                "versions": _versions(),
                "machine": {"processor": platform.machine(), "isa": _core.isa()},
            }
        )
    return report


def _fill(
    writer: TableWriter,
    bound: BoundModel,
    rows: Manifest,
    settings: EmbedSettings,
    progress: Callable[[str, int, int], None] | None,
) -> None:
    batch_size = bound.backend.form.fixed_batch or settings.batch_size or USUAL_BATCH
    plan = _plan(rows, bound.preprocess, len(bound.channels), settings, batch_size)
    finished = 0
    for batch in stream_any(plan):
        if settings.strict:
            for status in batch.status:
                if not status.ok:
                    raise status.error()
        writer.add(_vectors(bound, batch), batch.status)
        finished += len(batch.status)
        if progress is not None:
            progress(rows.name, finished, len(rows))
        del batch  # or it would be kept while the next one is waited for


def _plan(
    rows: Manifest, preprocess: Preprocess, channels: int, settings: EmbedSettings, batch_size: int
) -> StreamPlan:
    return StreamPlan(
        rows.paths,
        rows.channel_widths,
        replace(preprocess, mask=settings.mask),
        channels=channels,
        batch_size=batch_size,
        threads=settings.threads,
    )


def _good(batch: Batch) -> np.ndarray:
    return np.fromiter((status.ok for status in batch.status), dtype=bool, count=len(batch.status))


def _vectors(bound: BoundModel, batch: Batch) -> np.ndarray:
    good = _good(batch)
    if good.all():
        return bound.embed(batch.images)
    vectors = np.full((len(good), bound.embedding_size), np.nan, dtype=np.float32)
    if good.any():
        vectors[good] = bound.embed(batch.images[good])
    return vectors


def _versions() -> dict[str, str]:
    versions = {"chammi-fast": chammi_fast.__version__, "python": platform.python_version(), "numpy": np.__version__}
    for name in ("onnxruntime", "onnxruntime-gpu", "openvino", "onnx", "pyarrow"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions
