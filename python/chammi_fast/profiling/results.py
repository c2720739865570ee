"""What a run of `chammi_fast.profile` gives back, and its files."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any

from pyarrow import csv, parquet

import chammi_fast
from chammi_fast.embedding_table import make_anndata
from chammi_fast.extras import require
from chammi_fast.files import replacing, write_text
from chammi_fast.profiling.figures import draw_correlations, draw_plates
from chammi_fast.profiling.pairs import correlations
from chammi_fast.urls import as_path

if TYPE_CHECKING:
    from pathlib import Path

    import anndata
    import numpy as np
    import pandas as pd
    import pyarrow as pa

    from chammi_fast.profiling.judging import Judgement
    from chammi_fast.profiling.settings import Judging, Processing
    from chammi_fast.profiling.wells import Profiles

PROFILES_FILE = "profiles.parquet"
AGGREGATED_FILE = "aggregated.parquet"
ANNDATA_FILE = "profiles.h5ad"
SUMMARY_FILE = "profile.json"
_OPTIONAL = (
    *("replicability.csv", "mechanism.csv"),
    *("plates.png", "plates.svg", "replicates.png", "replicates.svg"),
)
_PACKAGES = ("numpy", "pyarrow", "pycytominer", "copairs", "anndata")


@dataclass(frozen=True)
class ProfileResult:
    """Profiles, and what they are worth.

    Attributes
    ----------
    profiles : normalised, selected and whitened as was asked
    aggregated : as they were before
    controls : which of them are controls, (N,) bool, or None
    replicability, mechanism : None where they were not asked for
    nearest : how often the nearest profile of another plate is a replicate (`plate`, `other`, `profiles`, `accuracy`),
        or None
    cells : rows of the embedding table; None where profiles were read
    notes : a sentence for each thing that was left out
    processing, judging : the settings
    source : what was read
    """

    profiles: Profiles
    aggregated: Profiles
    controls: np.ndarray | None
    replicability: Judgement | None
    mechanism: Judgement | None
    nearest: pa.Table | None
    cells: int | None
    notes: tuple[str, ...]
    processing: Processing
    judging: Judging
    source: str

    def to_pandas(self) -> pd.DataFrame:
        """Return the profiles as pycytominer and copairs want them: metadata, then one column per feature."""
        require("pandas", purpose="a pandas table")
        frame: pd.DataFrame = self.profiles.to_table().to_pandas()
        return frame

    def to_anndata(self) -> anndata.AnnData:
        """Return the profiles as an AnnData object: numbers in X, metadata in obs."""
        library = require("anndata", purpose="an AnnData object")
        return make_anndata(library, self.profiles.matrix, self.profiles.metadata, self.profiles.features)

    def summary(self) -> dict[str, Any]:
        """Return what ``profile.json`` holds."""
        return {
            "format_version": 1,
            "source": self.source,
            "cells": self.cells,
            "profiles": len(self.profiles),
            "controls": None if self.controls is None else int(self.controls.sum()),
            "features": {"before": len(self.aggregated.features), "after": len(self.profiles.features)},
            "processing": asdict(self.processing) | {"sphere": self.processing.whitening},
            "judging": asdict(self.judging),
            "replicability": _told(self.replicability),
            "mechanism": _told(self.mechanism),
            "nearest": None if self.nearest is None else self.nearest.to_pylist(),
            "notes": list(self.notes),
            "versions": {"chammi-fast": chammi_fast.__version__} | _versions(),
        }

    def write(self, folder: str | Path) -> list[Path]:
        """Write the tables, the AnnData file, the rankings, the figures and the summary; return the files.

        Raises
        ------
        OutputError
            If a file cannot be written.
        MissingExtraError
            If anndata or matplotlib is not installed.
        """
        folder = as_path(folder)
        written = [folder / AGGREGATED_FILE, folder / PROFILES_FILE]
        for path, profiles in zip(written, (self.aggregated, self.profiles), strict=True):
            with replacing(path) as temporary:
                parquet.write_table(profiles.to_table(), temporary, compression="zstd")
        written.append(folder / ANNDATA_FILE)
        with replacing(written[-1]) as temporary:
            self.to_anndata().write_h5ad(temporary)
        for name, judgement in (("replicability", self.replicability), ("mechanism", self.mechanism)):
            if judgement is not None:
                written.append(folder / f"{name}.csv")
                with replacing(written[-1]) as temporary:
                    csv.write_csv(judgement.ranking, temporary)
        written += self._draw(folder)
        written.append(folder / SUMMARY_FILE)
        write_text(written[-1], json.dumps(self.summary(), indent=1) + "\n")
        # What an earlier run was asked for, and this one was not, is not of these profiles.
        for name in _OPTIONAL:
            if folder / name not in written:
                (folder / name).unlink(missing_ok=True)
        return written

    def _draw(self, folder: Path) -> list[Path]:
        require("matplotlib", purpose="drawing figures")
        from chammi_fast.drawing import save_files, style

        written: list[Path] = []
        with style():
            plates = draw_plates(self.profiles, self.processing.plate, self.processing.well)
            if plates is not None:
                written += save_files(plates, folder / "plates")[:2]
            if self.replicability is not None:
                pairs = correlations(self.profiles, self.controls, self.judging)
                drawn = draw_correlations(pairs, self.replicability.column)
                written += save_files(drawn, folder / "replicates")[:2]
        return written


def _told(judgement: Judgement | None) -> dict[str, Any] | None:
    if judgement is None:
        return None
    return {
        "column": judgement.column,
        "against": judgement.against,
        "groups": judgement.ranking.num_rows,
        "mean_average_precision": judgement.mean,
        "found": judgement.found,
    }


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
