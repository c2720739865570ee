"""How many processors this process may use."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

GROUPS, MOUNTED = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


def usable_cpus() -> int:
    """Return the number of processors that this process may run on, at least 1.

    A container's or a job's share of processor time counts, rounded up: more threads than that only wait.
    """
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cpu_quota(GROUPS, MOUNTED)
    return cpus if quota is None else min(cpus, quota)


@cache
def cpu_quota(groups: Path, mounted: Path) -> int | None:
    """Return the processor time that Linux's control groups grant, in processors, rounded up; None without a limit.

    Parameters
    ----------
    groups : lists the process's groups (``/proc/self/cgroup``, man 7 cgroups)
    mounted : where the groups are mounted; ``cpu.max`` of version 2, ``cpu.cfs_quota_us`` of version 1
    """
    try:
        lines = groups.read_text().splitlines()
    except OSError:
        return None
    quotas = []
    for line in lines:
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers and "cpu" not in controllers.split(","):
            continue
        root = mounted / "cpu" if controllers else mounted
        inner = Path(path.lstrip("/"))
        # The groups around this one limit it, too; inside a container, the path may be the host's.
        quotas += [_quota(root / folder) for folder in (inner, *inner.parents)]
    return min((quota for quota in quotas if quota is not None), default=None)


def _quota(folder: Path) -> int | None:
    for names in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
        try:
            words = " ".join((folder / name).read_text() for name in names).split()
            quota, period = int(words[0]), int(words[1])
        except (OSError, ValueError, IndexError):  # none here, or "max"
            continue
        if quota > 0 and period > 0:
            return -(-quota // period)
    return None
