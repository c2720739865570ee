"""Search a table on a cluster: Ray's tasks take a stretch of its parts each, and their exact answers are merged."""

from __future__ import annotations

import contextlib
import os
import platform
from collections import Counter, deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chammi_fast import __version__
from chammi_fast.errors import ClusterError
from chammi_fast.evaluation.streaming import unwatched

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import ModuleType

    from chammi_fast.cluster.hands import Share
    from chammi_fast.evaluation.neighbours import Found
    from chammi_fast.evaluation.streaming import Quest

RETRIES = 3
"""Times that a task is started again whose worker or node is lost."""

_BLOCKS = 4  # of a task at most, so that reading ahead pays and a lost worker costs little
_TASKS_PER_WORKER = 4


def search(ray: ModuleType, quest: Quest, share: Share, most: int, done: Callable[[int], None] = unwatched) -> Found:
    """Find the nearest rows of all parts of the references.

    Parameters
    ----------
    share : what each task owns of its node
    most : tasks at a time; 0 for as many as the cluster has room for
    done : called with how many more rows were searched

    Raises
    ------
    ClusterError
        If workers are lost again and again, or have another version of this package.
    """
    room = max(1, sum(share.fits(node["Resources"]) for node in ray.nodes() if node["Alive"]))
    # Ray's own retries know no end where it is memory that a worker lacks.
    task = ray.remote(_search).options(
        num_cpus=share.cpus, num_gpus=share.gpus, max_retries=0, scheduling_strategy="SPREAD"
    )
    shared, sizes = ray.put(quest), quest.part_sizes()
    rows = min(_BLOCKS * quest.block_rows, sum(sizes) // (_TASKS_PER_WORKER * room))
    waiting = deque(stretches(sizes, rows))
    under_way: dict[Any, range] = {}
    lost: Counter[range] = Counter()
    found = quest.nothing()
    try:
        while waiting or under_way:
            while waiting and len(under_way) < (most or _TASKS_PER_WORKER * room):
                parts = waiting.popleft()
                under_way[task.remote(shared, parts, share.cpus, str(Path.cwd()), __version__)] = parts
            (answered, *_), _ = ray.wait(list(under_way), num_returns=1)
            parts = under_way.pop(answered)
            try:
                found = found.merged(ray.get(answered))
                done(sum(sizes[part] for part in parts))
            except ray.exceptions.RayTaskError as error:
                raise error.cause from None
            except ray.exceptions.RayError as error:
                lost[parts] += 1
                if lost[parts] > RETRIES:
                    why = next(line.strip() for line in f"{error}\nit is lost".splitlines() if line.strip())
                    raise ClusterError(f"a search ended its workers {RETRIES + 1} times: {why.rstrip('.')}.") from None
                waiting.appendleft(parts)
    finally:
        for one in under_way:
            ray.cancel(one)
    return found


def stretches(sizes: Sequence[int], rows: int) -> list[range]:
    """Cut parts of so many rows each into stretches of about so many rows; at least a part each."""
    cut, start, held = [], 0, 0
    for part, size in enumerate(sizes):
        if part > start and held + size > rows:
            cut.append(range(start, part))
            start, held = part, 0
        held += size
    return [*cut, range(start, len(sizes))]


def _search(quest: Quest, parts: range, threads: int, folder: str, version: str) -> Found:
    """Search some parts, in a process of the cluster."""
    if version != __version__:
        raise ClusterError(
            f"node {platform.node()} has chammi-fast {__version__}, and the driver {version}: install the same on all "
            "nodes."
        )
    with contextlib.suppress(OSError):  # a table of an absolute path or a URL does not need it
        os.chdir(folder)
    return quest.search(parts, threads)
