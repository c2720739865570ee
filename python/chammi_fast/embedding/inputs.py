"""What to embed, as the user names it, and the jobs that come of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from chammi_fast.embedding.settings import Job
from chammi_fast.embedding.work import ManifestWork
from chammi_fast.errors import ChannelError, ManifestError
from chammi_fast.images import CropSettings
from chammi_fast.manifest import chammi_data_sets, chammi_manifest, table_manifest
from chammi_fast.urls import as_path

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from chammi_fast.embedding.settings import EmbedSettings
    from chammi_fast.model import Model
    from chammi_fast.plates import Plate


@dataclass(frozen=True)
class Inputs:
    """What to embed; see `chammi_fast.embed`.

    Raises
    ------
    ChammiFastError
        If something would be ignored, or cannot mean anything.
    """

    data: str | Path | None = None
    data_sets: Sequence[str] | None = None
    manifest: str | Path | None = None
    channels: str | None = None
    where: str | None = None
    plate: Plate | None = None
    crops: CropSettings | None = None

    def __post_init__(self) -> None:
        if self.plate is not None:
            self._check_plate(self.plate)
        elif self.crops is not None:
            raise ManifestError("crops are cut out of a plate's fields: name a plate.")
        elif self.manifest is None:
            self._check_chammi()
        elif self.channels is None:
            raise ChannelError(f"{self.manifest}: name its channels in image order, such as channels='nucleus,er'.")
        elif self.data_sets:
            raise ManifestError("a data set is a part of a CHAMMI folder: choose the rows of a table with where.")

    def _check_plate(self, plate: Plate) -> None:
        if self.channels is None:
            raise ChannelError(
                f"{plate.origin}: say which channel of the model each of its channels is, such as "
                f"channels='{plate.channels[0]}=nucleus'; its channels are {', '.join(plate.channels)}."
            )
        if any(value is not None for value in (self.data, self.data_sets, self.manifest, self.where)):
            raise ManifestError("a plate is embedded by itself: leave out data, data_sets, manifest and where.")

    def _check_chammi(self) -> None:
        if self.data is None:
            raise ManifestError("name what to embed: a CHAMMI folder, a table of images (manifest), or a plate.")
        if self.channels is not None or self.where is not None:
            raise ManifestError("channels and where belong to a table of your own: name it as manifest.")
        if isinstance(self.data_sets, str):
            raise ManifestError(f"data_sets is a list of names, such as ['{self.data_sets}'].")

    def jobs(self, model: Model, out: Path, settings: EmbedSettings) -> list[Job]:
        """Return a job for each embedding table.

        Raises
        ------
        ChammiFastError
            If a table cannot be read, or its images do not have the channels.
        """
        if self.plate is not None:
            if settings.mask != "keep":
                raise ManifestError(f"mask='{settings.mask}' is for tapes: a plate's images have no mask channel.")
            from chammi_fast.embedding.plate_work import PlateWork  # and all of plates, which tables do without

            named = model.resolve(self.channels or "", unknown=settings.unknown)
            plate = self.plate.select([channel.source for channel in named])
            return [Job(PlateWork(plate, self.crops or CropSettings()), self.channels or "", out)]
        if self.manifest is not None:
            if self.data is not None and not as_path(self.data).is_dir():
                raise ManifestError(f"{self.data}: no such folder.")
            table = table_manifest(self.manifest, root=self.data, where=self.where)
            jobs = [Job(ManifestWork(table), self.channels or "", out)]
        else:
            jobs = _chammi_jobs(model, as_path(self.data or ""), self.data_sets, out)
        for job in jobs:
            _check_channels(model, job, settings)
        return jobs


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
