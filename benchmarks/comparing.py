"""Time several ways to the same answer in turns, so that a busy moment of the machine falls on all of them."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pytest_benchmark.fixture import BenchmarkFixture

OURS = "chammi-fast"
WARM_UPS = 1


@dataclass
class Turns:
    """Peers that are timed once each time `take` is called."""

    peers: Mapping[str, Callable[[], Any]]
    seconds: dict[str, list[float]] = field(default_factory=dict)

    def take(self) -> None:
        """Time every peer once."""
        for name, peer in self.peers.items():
            start = time.perf_counter()
            peer()
            self.seconds.setdefault(name, []).append(time.perf_counter() - start)


def compare(
    benchmark: BenchmarkFixture,
    ours: Callable[[], Any],
    peers: Mapping[str, Callable[[], Any]],
    *,
    rounds: int,
    images: int,
) -> None:
    """Time `ours` as the benchmark, and before each of its rounds every peer once.

    The result's ``extra_info`` holds the median seconds per image of every way, and how many times longer than ours
    each peer takes.
    """
    turns = Turns(peers)
    benchmark.pedantic(ours, setup=turns.take, rounds=rounds, warmup_rounds=WARM_UPS)  # type: ignore[no-untyped-call]
    if benchmark.stats is None:  # timing is disabled
        return
    own = benchmark.stats.stats.median
    medians = {OURS: own} | {name: statistics.median(times[WARM_UPS:]) for name, times in turns.seconds.items()}
    benchmark.extra_info["images"] = images
    benchmark.extra_info["seconds_per_image"] = {name: median / images for name, median in medians.items()}
    benchmark.extra_info["times_ours"] = {name: median / own for name, median in medians.items() if name != OURS}
