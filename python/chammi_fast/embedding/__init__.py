"""Embed images: manifest -> batches -> model -> embedding table."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from chammi_fast.choosing import find_files
from chammi_fast.embedding.executors import LocalExecutor
from chammi_fast.embedding.filling import EmbeddedBatch, Embedder, Order
from chammi_fast.embedding.inputs import Inputs
from chammi_fast.embedding.merging import MergeReport, merge
from chammi_fast.embedding.planning import Plan, make_plan, settle_run
from chammi_fast.embedding.running import embed_table
from chammi_fast.embedding.settings import EmbedReport, EmbedSettings
from chammi_fast.errors import ManifestError
from chammi_fast.model import Model, load_model
from chammi_fast.urls import as_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from chammi_fast.embedding.executors import Executor
    from chammi_fast.embedding.settings import Job
    from chammi_fast.images import CropSettings
    from chammi_fast.plates import Plate

__all__ = [
    "EmbedReport",
    "EmbedSettings",
    "EmbeddedBatch",
    "MergeReport",
    "Plan",
    "embed",
    "embed_batches",
    "merge",
    "plan",
]


def embed(  # noqa: PLR0913 - the public face: each argument is one decision of the user's
    model: str | Path | Model,
    *,
    out: str | Path,
    data: str | Path | None = None,
    data_sets: Sequence[str] | None = None,
    manifest: str | Path | None = None,
    channels: str | None = None,
    where: str | None = None,
    plate: Plate | None = None,
    crops: CropSettings | None = None,
    save: str | Path | None = None,
    settings: EmbedSettings | None = None,
    executor: Executor | None = None,
    progress: Callable[[str, int, int], None] | None = None,
    told: Callable[[str], None] = lambda _: None,
) -> list[EmbedReport]:
    """Embed a CHAMMI folder, any table of images, or the cells of a plate.

    Parameters
    ----------
    model : a model file, "demo", or a loaded `Model`
    out : folder for the results: one embedding table per data set of `data`, or one for `manifest`
    data : a CHAMMI folder; together with `manifest`, the folder that the table's relative paths start from
    data_sets : which of the folder's data sets; all by default
    manifest : a CSV or Parquet table with `file_path`, and `channel_width` where the images are tapes
    channels : the table's channels in image order, in the channel grammar
    where : keep only these rows of `manifest`
    plate : fields of view, whose cells are cut out as they are read; `channels` says which channel of the model each of
        its channels is (``DNA=nucleus,ER=er``)
    crops : how its cells are cut out
    save : folder for the crops as 8-bit tapes and a table of them, for those who want files; nothing needs it
    executor : who embeds the shards, such as a `chammi_fast.RayExecutor`; by default this process
    progress : called with (name, images done, images in all) after every batch
    told : called with a sentence about how the network will be run, before it is

    Returns
    -------
    One report per embedding table.

    Raises
    ------
    ChammiFastError
        If nothing can be done; under ``settings.strict`` also for the first image that fails.
    """
    settings = settings or EmbedSettings()
    inputs = Inputs(data, data_sets, manifest, channels, where, plate, crops)
    model = model if isinstance(model, Model) else load_model(model)
    jobs = inputs.jobs(model, as_path(out), settings)
    files = find_files(model, settings.precision)
    order = Order(files, tuple(jobs), settings)
    with (executor or LocalExecutor()).gather(order, told) as team:
        if save is not None:
            _save_crops(order, save, progress)
        reports = [embed_table(order, team, job, progress) for job in jobs]
    if not settings.shard:  # a part without rows is a part, and its run goes on
        _refuse_nothing(jobs[0], reports)
    return reports


def _save_crops(order: Order, folder: str | Path, progress: Callable[[str, int, int], None] | None) -> None:
    from chammi_fast.embedding.plate_work import PlateWork
    from chammi_fast.embedding.saving import save_crops  # imports Pillow, which a run does without

    job, settings = order.jobs[0], order.settings
    if not isinstance(job.work, PlateWork):
        raise ManifestError("crops are saved of a plate: name a plate.")

    channels = len(order.files.named.resolve(job.channels, unknown=settings.unknown))
    save_crops(job.work, channels, folder, threads=settings.threads, progress=progress)


def _refuse_nothing(first: Job, reports: Sequence[EmbedReport]) -> None:
    if not any(report.images for report in reports):
        raise ManifestError(f"{first.work.origin}: there are no cells to embed.")
    if all(report.images and report.failed == report.images for report in reports):
        raise ManifestError(
            f"{first.work.origin}: none of its {reports[0].images} images could be embedded; the first: "
            f"{reports[0].first_cause}."
        )


def embed_batches(  # noqa: PLR0913 - as `embed`
    model: str | Path | Model,
    *,
    data: str | Path | None = None,
    data_sets: Sequence[str] | None = None,
    manifest: str | Path | None = None,
    channels: str | None = None,
    where: str | None = None,
    plate: Plate | None = None,
    crops: CropSettings | None = None,
    settings: EmbedSettings | None = None,
    told: Callable[[str], None] = lambda _: None,
) -> Iterator[EmbeddedBatch]:
    """Embed as `embed` does, and yield the batches instead of writing them, for a loop of one's own.

    Rows come in the order of the table; nothing is written, and nothing can be gone on with.

    Raises
    ------
    ChammiFastError
        As `embed`.
    """
    settings = settings or EmbedSettings()
    if settings.retry_errors:
        raise ManifestError("retry_errors goes on with a run that was written: use embed.")
    inputs = Inputs(data, data_sets, manifest, channels, where, plate, crops)
    model = model if isinstance(model, Model) else load_model(model)
    jobs = inputs.jobs(model, Path(), settings)
    files = find_files(model, settings.precision)
    choice = settle_run(files, jobs, replace(settings, overwrite=True), told)
    order = Order(files, tuple(jobs), settings)
    opened = (Embedder(order, job, choice.taken.form) for job in jobs)
    shards = (settings.shards_of(job.work.shards) for job in jobs)
    return (batch for embedder, some in zip(opened, shards, strict=True) for batch in embedder.batches(some))


def plan(  # noqa: PLR0913 - as `embed`
    model: str | Path | Model,
    *,
    out: str | Path,
    data: str | Path | None = None,
    data_sets: Sequence[str] | None = None,
    manifest: str | Path | None = None,
    channels: str | None = None,
    where: str | None = None,
    plate: Plate | None = None,
    crops: CropSettings | None = None,
    settings: EmbedSettings | None = None,
    told: Callable[[str], None] = lambda _: None,
) -> Plan:
    """Settle how a run will be computed, for processes and machines that share it (`EmbedSettings.plan`).

    Parameters
    ----------
    out : the plan's file (JSON)
    model, data, data_sets, manifest, channels, where, plate, crops, settings, told : as for `embed`

    Raises
    ------
    ChammiFastError
        As `embed` does before it reads images; and if the file cannot be written.
    """
    settings = settings or EmbedSettings()
    inputs = Inputs(data, data_sets, manifest, channels, where, plate, crops)
    model = model if isinstance(model, Model) else load_model(model)
    jobs = inputs.jobs(model, as_path(out).parent, settings)
    return make_plan(as_path(out), find_files(model, settings.precision), jobs, settings, told)
