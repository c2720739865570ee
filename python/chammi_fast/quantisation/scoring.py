"""How much the scores of labelled images change by quantisation."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pyarrow import parquet

from chammi_fast.evaluation import Scores, evaluate
from chammi_fast.table import KEY_COLUMN, make_part, part_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from chammi_fast.embedding.inputs import Inputs
    from chammi_fast.quantisation.judging import Judge, Verdict


@dataclass(frozen=True)
class Labels:
    """Columns of a labelled table, as for `chammi_fast.evaluate`."""

    label: str | None = None
    split: str | None = None
    group: str | None = None


@dataclass(frozen=True)
class Change:
    """A task's accuracy by the reference's embeddings, and by those of a quantised network in one backend."""

    backend: str
    task: str
    images: int
    before: float
    after: float


@dataclass(frozen=True)
class Scoring:
    """Scores the images that were measured.

    Attributes
    ----------
    before : by the reference's embeddings
    """

    judge: Judge
    inputs: Inputs
    labels: Labels
    before: Scores

    @classmethod
    def of(cls, judge: Judge, inputs: Inputs, labels: Labels) -> Scoring:
        """Score the reference's embeddings.

        Raises
        ------
        EvaluationError
            If the images cannot be scored: a column is missing, say, or none of them is for training.
        """
        return cls(judge, inputs, labels, _scores(judge, judge.references, inputs, labels))

    def changes(self, verdicts: Sequence[Verdict]) -> list[Change]:
        """Score the embeddings of each backend."""
        found = []
        for form in self.judge.forms:
            embeddings = [verdict.embeddings for verdict in verdicts if verdict.backend == form.backend]
            after = _scores(self.judge, embeddings, self.inputs, self.labels)
            found += [
                Change(form.backend, name, task.n, task.accuracy, after.tasks[name].accuracy)
                for name, task in self.before.tasks.items()
            ]
        return found


def _scores(judge: Judge, embeddings: Sequence[np.ndarray], inputs: Inputs, labels: Labels) -> Scores:
    """Write embedding tables for a moment, which is what can be scored."""
    own = inputs.manifest is not None
    with tempfile.TemporaryDirectory() as folder:
        for case, vectors in zip(judge.cases, embeddings, strict=True):
            if not case.stands_in:
                rows = case.rows()
                home = Path(folder) if own else Path(folder) / case.name
                home.mkdir(exist_ok=True)
                part = make_part(rows[KEY_COLUMN].to_pylist(), rows.drop_columns(KEY_COLUMN), vectors)
                parquet.write_table(part, home / part_name(0))
        return evaluate(
            data=None if own else inputs.data,
            features=folder,
            manifest=inputs.manifest,
            label=labels.label,
            split=labels.split,
            group=labels.group,
            where=inputs.where,
            resamples=0,
            allow_missing=True,
        )
