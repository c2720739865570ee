"""A quick look: a few rows that stand for all."""

from __future__ import annotations

import zlib
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from chammi_fast.evaluation.tasks import Plan


def sample_plan(plan: Plan, size: int, seed: int) -> Plan:
    """Keep at most about `size` training rows, and as many of each task.

    Labels, and groups that are left out, keep their shares, and each label at least one row. The draw of a task depends
    on the seed and its name alone.
    """
    training = plan.training[_draw(plan.labels[plan.training], size, seed, "")]
    tasks = []
    for task in plan.tasks:
        strata = plan.labels[task.rows]
        if task.groups is not None:
            strata = strata * (int(task.groups.max()) + 1) + task.groups
        kept = _draw(strata, size, seed, task.name)
        groups = None if task.groups is None else task.groups[kept]
        tasks.append(replace(task, rows=task.rows[kept], groups=groups))
    return replace(plan, training=training, tasks=tuple(tasks))


def _draw(strata: np.ndarray, size: int, seed: int, name: str) -> np.ndarray:
    """Return places, ascending: `size` in equal steps through the shuffled strata, and one of each stratum missed."""
    if len(strata) <= size:
        return np.arange(len(strata))
    random = np.random.default_rng([seed, zlib.crc32(name.encode())])
    shuffled = random.permutation(len(strata))
    order = shuffled[np.argsort(strata[shuffled], kind="stable")]
    steps = np.arange(size) * len(strata) // size
    firsts = np.unique(strata[order], return_index=True)[1]
    missed = firsts[~np.isin(strata[order[firsts]], strata[order[steps]])]
    return np.sort(order[np.concatenate([steps, missed])])
