"""Number the values that queries and references share, where rows of the same plate, say, are not compared."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow.compute as pc

from chammi_fast.errors import EvaluationError
from chammi_fast.evaluation.features import text_column

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pyarrow as pa


class Exclusion:
    """Groups of rows that share the values, read as text, of some columns: those of the queries, and all others.

    Parameters
    ----------
    columns : one at least
    queries : with these columns
    origin : of the queries, for messages

    Attributes
    ----------
    groups : (Q,) int64 group of each query

    Raises
    ------
    EvaluationError
        If one is empty in a row, or is neither text nor numbers.
    """

    def __init__(self, columns: Sequence[str], queries: pa.Table, origin: Path) -> None:
        self.columns = tuple(columns)
        self._values = [text_column(queries, column, origin).unique() for column in self.columns]
        self._steps: list[np.ndarray] = []
        groups = np.zeros(queries.num_rows, dtype=np.int64)
        for column, values in zip(self.columns, self._values, strict=True):
            # Numbered anew after each column, so that the numbers stay small.
            pairs = groups * len(values) + _places(queries, column, values, origin)
            known, groups = np.unique(pairs, return_inverse=True)
            self._steps.append(known)
        self.groups: np.ndarray = groups.astype(np.int64)

    def of(self, references: pa.Table, origin: Path) -> np.ndarray:
        """Return the group of each reference: (n,) int64; those in no query's group share one of their own.

        Raises
        ------
        EvaluationError
            If a column is empty in a row, or is neither text nor numbers.
        """
        groups = np.zeros(references.num_rows, dtype=np.int64)
        alone = np.zeros(references.num_rows, dtype=bool)
        for column, values, known in zip(self.columns, self._values, self._steps, strict=True):
            places = _places(references, column, values, origin)
            pairs = groups * len(values) + places
            groups = np.minimum(np.searchsorted(known, pairs), len(known) - 1)
            alone |= (places < 0) | (known[groups] != pairs)
        groups[alone] = len(self._steps[-1])
        return groups


def _places(table: pa.Table, column: str, values: pa.Array, origin: Path) -> np.ndarray:
    """(n,) int64 places of a column's texts among `values`; -1 where they are not."""
    texts = text_column(table, column, origin)
    if texts.null_count:
        raise EvaluationError(f"{origin}: column '{column}' is empty in some rows, but tells which are not compared.")
    places: np.ndarray = pc.fill_null(pc.index_in(texts, value_set=values), -1).to_numpy(zero_copy_only=False)
    return places.astype(np.int64)
