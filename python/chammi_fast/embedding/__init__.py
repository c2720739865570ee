"""Embed images: manifest -> batches -> model -> embedding table."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from chammi_fast.choosing import Task, find_files, settle
from chammi_fast.embedding.filling import embed_table, first_images
from chammi_fast.embedding.settings import EmbedReport, EmbedSettings, Job
from chammi_fast.embedding.work import ManifestWork
from chammi_fast.errors import ChannelError, ManifestError
from chammi_fast.manifest import chammi_data_sets, chammi_manifest, table_manifest
from chammi_fast.model import Model, load_model
from chammi_fast.runfolder import recorded
from chammi_fast.runtime import AUTO
from chammi_fast.runtime.accuracy import Accuracy
from chammi_fast.runtime.choice import Candidate, Choice

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from chammi_fast.choosing import Files

__all__ = ["EmbedReport", "EmbedSettings", "embed"]


def embed(  # noqa: PLR0913 - the public face: each argument is one decision of the user's
    model: str | Path | Model,
    *,
    out: str | Path,
    data: str | Path | None = None,
    data_sets: Sequence[str] | None = None,
    manifest: str | Path | None = None,
    channels: str | None = None,
    where: str | None = None,
    settings: EmbedSettings | None = None,
    progress: Callable[[str, int, int], None] | None = None,
    told: Callable[[str], None] = lambda _: None,
) -> list[EmbedReport]:
    """Embed a CHAMMI folder, or any table of images.

    Parameters
    ----------
    model : a model file, "demo", or a loaded `Model`
    out : folder for the results: one embedding table per data set of `data`, or one for `manifest`
    data : a CHAMMI folder; together with `manifest`, the folder that the table's relative paths start from
    data_sets : which of the folder's data sets; all by default
    manifest : a CSV or Parquet table with `file_path`, and `channel_width` where the images are tapes
    channels : the table's channels in image order, in the channel grammar
    where : keep only these rows of `manifest`
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
    _check_choice(data, data_sets, manifest, channels, where)
    model = model if isinstance(model, Model) else load_model(model)
    out = Path(out)
    if manifest is not None:
        jobs = [Job(ManifestWork(table_manifest(manifest, root=data, where=where)), channels or "", out)]
    else:
        jobs = _chammi_jobs(model, Path(data or ""), data_sets, out)
    for job in jobs:
        _check_channels(model, job, settings)
    files = find_files(model, settings.precision)
    tasks = [Task(job.channels, settings.unknown, partial(first_images, model, job, settings)) for job in jobs]
    choice = _continued(files, jobs, settings)
    if choice is None:
        choice = settle(files, tasks, settings.wish, settings.min_cosine, told)
    reports = [embed_table(files, choice, job, settings, progress) for job in jobs]
    if all(report.failed == report.images for report in reports):
        raise ManifestError(
            f"{jobs[0].work.origin}: none of its {reports[0].images} images could be embedded; the first: "
            f"{reports[0].first_cause}."
        )
    return reports


def _check_choice(
    data: str | Path | None,
    data_sets: Sequence[str] | None,
    manifest: str | Path | None,
    channels: str | None,
    where: str | None,
) -> None:
    """Refuse arguments that would be ignored, or that cannot mean anything."""
    if manifest is None:
        if data is None:
            raise ManifestError("name what to embed: a CHAMMI folder (data) or a table of images (manifest).")
        if channels is not None or where is not None:
            raise ManifestError("channels and where belong to a table of your own: name it as manifest.")
        if isinstance(data_sets, str):
            raise ManifestError(f"data_sets is a list of names, such as ['{data_sets}'].")
    elif channels is None:
        raise ChannelError(f"{manifest}: name its channels in image order, such as channels='nucleus,er'.")
    elif data_sets:
        raise ManifestError("a data set is a part of a CHAMMI folder: choose the rows of a table with where.")


def _chammi_jobs(model: Model, data: Path, data_sets: Sequence[str] | None, out: Path) -> list[Job]:
    present = chammi_data_sets(data)
    for name in data_sets or ():
        if name not in present:
            raise ManifestError(f"{data}: holds no data set '{name}'; it holds {', '.join(present)}.")
    jobs = []
    for name in dict.fromkeys(data_sets or present):
        if name not in model.spec.configurations:
            known = ", ".join(model.spec.configurations) or "none"
            raise ChannelError(f"{model.path}: has no configuration '{name}' (it has: {known}).")
        jobs.append(Job(ManifestWork(chammi_manifest(data, name)), name, out / name))
    return jobs


def _continued(files: Files, jobs: Sequence[Job], settings: EmbedSettings) -> Choice | None:
    """Return the form of the run that is gone on with: all of a run is computed in one, whatever is fastest now."""
    ours = {model.sha256: model for model in (files.floating, files.quantised) if model is not None}
    for job in jobs:
        said = None if settings.overwrite else recorded(job.folder)
        form = None if said is None or said["identity"]["model_sha256"] not in ours else said.get("compiled_form")
        if said is None or form is None:
            continue
        wish = settings.wish
        wished = {"backend": wish.backend, "device": wish.device, "precision": wish.precision}
        if all(value in (AUTO, form[name]) for name, value in wished.items()):
            names = (*wished, "fixed_batch")
            accuracy = said["accuracy"]
            return Choice(
                Candidate(
                    replace(wish, **{name: form[name] for name in names}),
                    accuracy=None if accuracy is None else Accuracy(**accuracy),
                ),
                remembered=True,
            )
    return None


def _check_channels(model: Model, job: Job, settings: EmbedSettings) -> None:
    named = model.resolve(job.channels, unknown=settings.unknown)
    planes = job.work.planes()
    expected = len(named) + (settings.mask != "keep")
    if planes is not None and planes != expected:
        mask = "" if settings.mask == "keep" else " and a mask"
        tokens = ", ".join(channel.token for channel in named)
        raise ChannelError(
            f"{job.work.origin}: its images have {planes} channels, but {len(named)}{mask} are named ({tokens})."
        )
