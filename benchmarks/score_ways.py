"""Ways to score the nine tasks: ours, the bare Faiss searches that they need, and one Faiss index per group."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import faiss
import numpy as np

from chammi_fast.chammi import SPLIT_COLUMN, TRAIN
from chammi_fast.evaluation.benchmark import chammi
from chammi_fast.evaluation.confidence import Resampling
from chammi_fast.evaluation.features import Joined
from chammi_fast.evaluation.scores import Scores
from chammi_fast.evaluation.scoring import Method, score_joined
from chammi_fast.evaluation.tasks import plan

if TYPE_CHECKING:
    from chammi_size import Rows


def ours(sets: list[Rows]) -> Scores:
    """Do all of it: select rows, prepare, search, settle near-ties in float64, score, draw intervals."""
    scores = Scores()
    for one in sets:
        numbers = np.arange(one.table.num_rows)
        joined = Joined(one.data_set.name, Path("table.csv"), one.table, numbers, one.features, "key", 0)
        scores = scores.joined_with(score_joined(joined, plan(joined, chammi()), Method(), Path("features")))
    return scores.completed(chammi(), Resampling())


def one_index_per_group(sets: list[Rows]) -> dict[str, np.ndarray]:
    """Go the plain way of the published code: gather and normalise the references, build an index, search it.

    Returns
    -------
    Task -> (Q,) int64 nearest rows.
    """
    found = {}
    for one in sets:
        training = one.rows(TRAIN)
        for task in one.data_set.tasks:
            tested = one.rows(task.name)
            groups = one.groups[tested] if task.leave_out else np.zeros(len(tested), dtype=np.int64)
            winners = np.empty(len(tested), dtype=np.int64)
            for group in np.unique(groups):
                own = groups == group
                references = np.concatenate([training, tested[~own]])
                winners[own] = references[_indexed_search(one.features, tested[own], references)]
            found[f"{one.data_set.name}/{task.name}"] = winners
    return found


def _indexed_search(features: np.ndarray, queries: np.ndarray, references: np.ndarray) -> np.ndarray:
    reference, query = features[references], features[queries]
    faiss.normalize_L2(reference)
    faiss.normalize_L2(query)
    index = faiss.IndexFlatIP(reference.shape[1])
    index.add(reference)
    nearest: np.ndarray = index.search(query, 1)[1][:, 0]
    return nearest


@dataclass(frozen=True)
class Searches:
    """Unit vectors in the order that searches want, so that nothing but searching is left: queries and references."""

    pairs: list[tuple[np.ndarray, np.ndarray]]

    @classmethod
    def of(cls, sets: list[Rows]) -> Searches:
        """Order rows by task and group; the training rows are searched once for all groups."""
        pairs = []
        for one in sets:
            names = [TRAIN, *(task.name for task in one.data_set.tasks)]
            splits = np.searchsorted(np.array(names), one.table[SPLIT_COLUMN].to_numpy(), sorter=np.argsort(names))
            splits = np.argsort(names)[splits]
            order = np.lexsort((one.groups, splits))
            unit = one.features[order]
            faiss.normalize_L2(unit)
            starts = np.searchsorted(splits[order], np.arange(len(names) + 1))
            training = unit[starts[0] : starts[1]]
            for task, start, stop in zip(one.data_set.tasks, starts[1:], starts[2:], strict=False):
                tested, groups = unit[start:stop], one.groups[order][start:stop]
                pairs.append((tested, training))
                for group in np.unique(groups) if task.leave_out else ():
                    low, high = np.searchsorted(groups, [group, group + 1])
                    others = (tested[:low], tested[high:])
                    pairs += [(tested[low:high], part) for part in others if len(part)]
        return cls(pairs)

    def run(self) -> list[Any]:
        """Search, one neighbour each."""
        return [faiss.knn(query, reference, 1, faiss.METRIC_INNER_PRODUCT) for query, reference in self.pairs]


def definition(one: Rows, task: str, queries: np.ndarray) -> np.ndarray:
    """Return the nearest rows of some of a task's rows: the highest cosine in float64, of equals the lowest row."""
    left_out = any(other.name == task and other.leave_out for other in one.data_set.tasks)
    tested = one.rows(task)
    unit = one.features.astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    winners = np.empty(len(queries), dtype=np.int64)
    for place, query in enumerate(queries.tolist()):
        others = tested[one.groups[tested] != one.groups[query]] if left_out else tested[:0]
        references = np.sort(np.concatenate([one.rows(TRAIN), others]))
        cosines = (unit[references] * unit[query]).sum(axis=1)
        winners[place] = references[cosines.argmax()]
    return winners
