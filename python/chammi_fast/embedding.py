"""Embed images: manifest -> batches -> model -> embedding table."""

from __future__ import annotations

import platform
import time
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

import chammi_fast
from chammi_fast import _core
from chammi_fast.errors import ChannelError, DecodeError, ManifestError
from chammi_fast.manifest import Manifest, chammi_data_sets, chammi_manifest, table_manifest
from chammi_fast.model import Model, load_model
from chammi_fast.remote import StreamPlan, check_protocols, probe_any, stream_any
from chammi_fast.table import TableWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from chammi_fast.channels import UnknownPolicy
    from chammi_fast.images import Batch
    from chammi_fast.model import BoundModel

PROBED_IMAGES = 16


@dataclass(frozen=True)
class EmbedSettings:
    """How to embed.

    Attributes
    ----------
    backend, precision : see `chammi_fast.model.Model.bind`
    batch_size : images per network call; does not change the vectors
    threads : for decoding and for the network, each; 0 means one per usable CPU
    strict : stop at the first image that fails, instead of listing it
    npy : also write ``<model name>.npy``, (N, D) float32 in row order, NaN for a failed image
    mask : what to do with a mask in the tapes' last channel: "keep" it as a channel, "drop" it, or "apply" it
    unknown : what an unknown channel name means (`chammi_fast.channels.resolve_channels`)
    """

    backend: str = "onnxruntime"
    precision: str = "fp32"
    batch_size: int = 32
    threads: int = 0
    strict: bool = False
    npy: bool = False
    mask: Literal["keep", "drop", "apply"] = "keep"
    unknown: UnknownPolicy = "error"


@dataclass(frozen=True)
class EmbedReport:
    """What a run did for one data set.

    Attributes
    ----------
    name : of the data set or table
    folder : where the embedding table is
    images : rows of the manifest
    failed : images listed in ``errors.parquet``
    seconds : wall time
    first_cause : the first failed image and what is wrong with it; empty where none failed

    Where all images failed, nothing is written.
    """

    name: str
    folder: Path
    images: int
    failed: int
    seconds: float
    first_cause: str = ""


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
    jobs: list[tuple[Manifest, str, Path]]
    if manifest is not None:
        jobs = [(table_manifest(manifest, root=data, where=where), channels or "", out)]
    else:
        jobs = _chammi_jobs(model, Path(data or ""), data_sets, out)
    bound = [_bind(model, rows, names, settings) for rows, names, _ in jobs]
    reports = [
        _embed_table(one, rows, folder, settings, progress) for one, (rows, _, folder) in zip(bound, jobs, strict=True)
    ]
    if all(report.failed == report.images for report in reports):
        raise ManifestError(
            f"{jobs[0][0].origin}: none of its {reports[0].images} images could be embedded; the first: "
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


def _chammi_jobs(
    model: Model, data: Path, data_sets: Sequence[str] | None, out: Path
) -> list[tuple[Manifest, str, Path]]:
    present = chammi_data_sets(data)
    for name in data_sets or ():
        if name not in present:
            raise ManifestError(f"{data}: holds no data set '{name}'; it holds {', '.join(present)}.")
    jobs = []
    for name in dict.fromkeys(data_sets or present):
        if name not in model.spec.configurations:
            known = ", ".join(model.spec.configurations) or "none"
            raise ChannelError(f"{model.path}: has no configuration '{name}' (it has: {known}).")
        jobs.append((chammi_manifest(data, name), name, out / name))
    return jobs


def _bind(model: Model, rows: Manifest, channels: str, settings: EmbedSettings) -> BoundModel:
    bound = model.bind(
        channels,
        unknown=settings.unknown,
        backend=settings.backend,
        precision=settings.precision,
        threads=settings.threads,
    )
    planes = _planes_in_first_image(rows)
    expected = len(bound.channels) + (settings.mask != "keep")
    if planes is not None and planes != expected:
        mask = "" if settings.mask == "keep" else " and a mask"
        named = ", ".join(channel.token for channel in bound.channels)
        raise ChannelError(
            f"{rows.origin}: its images have {planes} channels, but {len(bound.channels)}{mask} are named ({named})."
        )
    return bound


def _planes_in_first_image(rows: Manifest) -> int | None:
    """Channels of the first image that can be probed; faults are left to the run, which lists them."""
    check_protocols(rows.paths)
    for row in range(min(PROBED_IMAGES, len(rows))):
        try:
            info = probe_any(rows.paths[row])
        except DecodeError:
            continue
        if rows.channel_widths is not None:
            width = rows.channel_widths[row]
            if width < 1 or info.width % width:
                continue
            return info.width // width
        return info.pages if info.pages > 1 else info.samples
    return None


def _embed_table(
    bound: BoundModel,
    rows: Manifest,
    folder: Path,
    settings: EmbedSettings,
    progress: Callable[[str, int, int], None] | None,
) -> EmbedReport:
    started, started_at = time.perf_counter(), datetime.now(UTC)
    writer = TableWriter(
        folder, rows.table, rows.keys, bound.embedding_size, npy_name=bound.name if settings.npy else None
    )
    with writer:
        _fill(writer, bound, rows, settings, progress)
        seconds = time.perf_counter() - started
        report = EmbedReport(rows.name, folder, len(rows), writer.failed, seconds, writer.first_cause)
        if writer.failed == len(rows):
            return report
        writer.finish(
            {
                "format_version": 1,
                "model": bound.describe(),
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
    plan = StreamPlan(
        rows.paths,
        rows.channel_widths,
        replace(bound.preprocess, mask=settings.mask),
        channels=len(bound.channels),
        batch_size=settings.batch_size,
        threads=settings.threads,
    )
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


def _vectors(bound: BoundModel, batch: Batch) -> np.ndarray:
    good = np.fromiter((status.ok for status in batch.status), dtype=bool, count=len(batch.status))
    if good.all():
        return bound.embed(batch.images)
    vectors = np.full((len(good), bound.embedding_size), np.nan, dtype=np.float32)
    if good.any():
        vectors[good] = bound.embed(batch.images[good])
    return vectors


def _versions() -> dict[str, str]:
    versions = {"chammi-fast": chammi_fast.__version__, "python": platform.python_version(), "numpy": np.__version__}
    for name in ("onnxruntime", "onnxruntime-gpu", "onnx", "pyarrow"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions
