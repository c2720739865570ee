"""Results folders: what an evaluation left in each, and what to call them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from chammi_fast.errors import ReportError
from chammi_fast.evaluation import read_scores
from chammi_fast.urls import as_path

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from chammi_fast.evaluation import Metric, Scores


@dataclass(frozen=True)
class Result:
    """One evaluation.

    Attributes
    ----------
    name : what the report calls it
    features : the folder of embedding tables that was scored; None where it is gone
    """

    name: str
    folder: Path
    scores: Scores
    features: Path | None

    @property
    def metric(self) -> Metric:
        """The metric of its neighbours; of a linear classifier, which has none, cosine."""
        return "l2" if self.scores.metric == "l2" else "cosine"


def read_results(folders: Sequence[str | Path]) -> list[Result]:
    """Read results folders, and give each the shortest name that tells it from the others.

    Raises
    ------
    ReportError
        If there is none, or one is named twice.
    EvaluationError
        If one does not hold the results of an evaluation.
    """
    paths = [as_path(folder) for folder in folders]
    if not paths:
        raise ReportError("name at least one folder of results.")
    return [
        Result(name, path, scores := read_scores(path), _features(path, scores.features))
        for name, path in zip(folder_names(paths, "results"), paths, strict=True)
    ]


def folder_names(folders: Sequence[Path], what: str) -> list[str]:
    """Give each folder the shortest name that tells it from the others.

    Raises
    ------
    ReportError
        If one is named twice.
    """
    paths = [folder.resolve() for folder in folders]
    repeated = next((path for place, path in enumerate(paths) if path in paths[:place]), None)
    if repeated is not None:
        raise ReportError(f"{repeated}: is named twice among the {what}.")
    depth = 1
    while True:
        names = ["/".join(path.parts[-depth:]) or str(path) for path in paths]
        if len(set(names)) == len(names):
            return names
        depth += 1


def _features(results: Path, written: str) -> Path | None:
    if not written:
        return None
    # An evaluation names its folder as it was called: from where it ran, which is above its results as a rule.
    candidates = [as_path(written), *(parent / written for parent in results.resolve().parents)]
    return next((path for path in candidates if path.is_dir()), None)
