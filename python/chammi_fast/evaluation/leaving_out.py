"""Nearest neighbours of a task's rows: among the training rows, and the task's own rows of all other groups."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from chammi_fast.evaluation.neighbours import Found, Grouped, References, nearest, nearest_in_other_groups

if TYPE_CHECKING:
    from chammi_fast.evaluation.space import Space


@dataclass(frozen=True)
class Members:
    """Rows of a space, ascending where they are references.

    Attributes
    ----------
    rows : (n,) int64
    groups : (n,) int64 of each, where groups are left out one at a time
    kinds : (n,) int64 of each, where rows are not compared with rows of their own kind
    """

    rows: np.ndarray
    groups: np.ndarray | None = None
    kinds: np.ndarray | None = None

    def by_kind(self, places: np.ndarray) -> Grouped:
        """Return some of the rows with their kinds."""
        if self.kinds is None:
            raise ValueError("these rows have no kinds")
        return Grouped(self.rows[places], self.kinds[places])


def nearest_allowed(
    space: Space, queries: Members, training: Members, others: Members, k: int, prepared: References | None = None
) -> Found:
    """Find each query's k nearest among the training rows, and among the others if these have groups.

    Groups are left out one at a time: the training rows are a reference of every group, so they are searched once, and
    only the others are searched by group.

    Parameters
    ----------
    prepared : the training rows, if they are at hand
    """
    if queries.kinds is None:
        found = nearest(space, queries.rows, prepared or References.of(space, training.rows, k), k)
        if queries.groups is not None and others.groups is not None:
            asked, own = Grouped(queries.rows, queries.groups), Grouped(others.rows, others.groups)
            found = found.merged(nearest_in_other_groups(space, asked, own, k))
        return found
    everybody, all_training = np.arange(len(queries.rows)), np.arange(len(training.rows))
    found = nearest_in_other_groups(space, queries.by_kind(everybody), training.by_kind(all_training), k)
    if queries.groups is not None and others.groups is not None:
        for group in np.unique(queries.groups):
            own_places, rest = np.flatnonzero(queries.groups == group), np.flatnonzero(others.groups != group)
            among_others = nearest_in_other_groups(space, queries.by_kind(own_places), others.by_kind(rest), k)
            found.put(own_places, found.part(own_places).merged(among_others))
    return found
