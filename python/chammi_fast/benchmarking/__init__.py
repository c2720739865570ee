"""How fast this machine embeds these images, and what limits it."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from chammi_fast.benchmarking.image_sets import synthetic_sets, users_sets
from chammi_fast.benchmarking.limits import find_limit
from chammi_fast.benchmarking.measuring import fastest, load, measure_search, measure_set, try_forms
from chammi_fast.benchmarking.report import BenchReport
from chammi_fast.choosing import find_files
from chammi_fast.model import Model, load_model
from chammi_fast.runtime import AUTO

if TYPE_CHECKING:
    from collections.abc import Callable

    from chammi_fast.embedding.inputs import Inputs

__all__ = ["BenchReport", "BenchSettings", "bench"]


@dataclass(frozen=True)
class BenchSettings:
    """What is measured.

    Attributes
    ----------
    images : of each data set; 0 for a usual number
    min_cosine : to float32, of the form that is taken for whole runs
    run_s : how long a whole run over a data set is to take, about
    """

    images: int = 0
    min_cosine: float = 0.999
    run_s: float = 5.0


def bench(
    model: str | Path | Model,
    inputs: Inputs | None = None,
    settings: BenchSettings | None = None,
    told: Callable[[str], None] = lambda _: None,
) -> BenchReport:
    """Measure every stage of embedding on this machine, with all of its usable processors.

    Parameters
    ----------
    model : a model file, "demo", or a loaded `Model`
    inputs : images to measure with; by default painted ones
    told : called with what is being measured, a few words

    Raises
    ------
    ChammiFastError
        If the model or the images cannot be read, or no way to run the network is accurate enough.
    """
    settings = settings or BenchSettings()
    model = model if isinstance(model, Model) else load_model(model)
    files = find_files(model, AUTO)
    with tempfile.TemporaryDirectory() as folder:
        told("reading images" if inputs else "painting cells")
        if inputs is None:
            images = synthetic_sets(model, Path(folder) / "CHAMMI", settings.images)
        else:
            images = users_sets(inputs, model, settings.images)
        sets = [load(model, one) for one in images]
        told("every way to run the network")
        tried = try_forms(files, sets)
        taken = fastest(tried, settings.min_cosine, str(model.path))
        reports = []
        for one in sets:
            told(f"stages and a whole run of {one.images.name}")
            reports.append(measure_set(files, taken, one, settings.run_s))
    told("search")
    channels = max(report.channels for report in reports) if model.spec.per_channel else 1
    return BenchReport(
        model=model.path,
        model_sha256=model.sha256,
        synthetic=inputs is None,
        sets=tuple(reports),
        tried=tried,
        taken=taken,
        search=measure_search(max(report.rows for report in reports), channels * model.spec.embedding_size),
        limit=find_limit([one.seconds for one in reports], [one.kind for one in reports], tried, taken),
    )
