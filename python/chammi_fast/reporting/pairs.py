"""Paired comparisons of models: which differences are more than chance."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

from chammi_fast.errors import EvaluationError
from chammi_fast.evaluation import compare

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chammi_fast.evaluation import Comparison
    from chammi_fast.reporting.results import Result

_ALL_PAIRS_UP_TO = 4


def compare_results(results: Sequence[Result]) -> tuple[list[Comparison], list[str]]:
    """Compare models two by two, or, where they are many, the first with each of the others; and say what could not be.

    Returns
    -------
    The comparisons, and remarks for the reader.
    """
    if len(results) < 2:
        return [], ["A comparison needs two results: name another folder with --results."]
    pairs = list(combinations(results, 2))
    remarks = []
    if len(results) > _ALL_PAIRS_UP_TO:
        pairs = [(results[0], other) for other in results[1:]]
        remarks.append(f"Compared are {results[0].name}, which was named first, and each of the others.")
    comparisons = []
    for first, second in pairs:
        try:
            comparison = compare(first.scores, second.scores, names=(first.name, second.name))
        except EvaluationError as error:
            remarks.append(f"{first.name} and {second.name} cannot be compared: {error}")
            continue
        comparisons.append(comparison)
        remarks += [f"{task}: not compared, {reason}." for task, reason in comparison.skipped.items()]
    return comparisons, list(dict.fromkeys(remarks))
