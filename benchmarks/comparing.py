"""Time several ways to the same answer in turns, so that a busy moment of the machine falls on all of them."""

from __future__ import annotations

import math
import statistics
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pytest_benchmark.fixture import BenchmarkFixture

OURS = "chammi-fast"
WARM_UPS = 1


@dataclass(frozen=True)
class Way:
    """One way to an answer, and how many images it goes through each time it is run."""

    run: Callable[[], Any]
    images: int


@dataclass
class Turns:
    """Peers that are timed once each time `take` is called."""

    peers: Mapping[str, Way]
    seconds: dict[str, list[float]] = field(default_factory=dict)

    def take(self) -> None:
        """Time every peer once."""
        for name, peer in self.peers.items():
            start = time.perf_counter()
            peer.run()
            self.seconds.setdefault(name, []).append(time.perf_counter() - start)


def passes(run: Callable[[], Any], seconds: float) -> int:
    """Return how often to repeat `run`, which has run before, to keep it busy for so long."""
    start = time.perf_counter()
    run()
    return math.ceil(seconds / (time.perf_counter() - start))


def compare(benchmark: BenchmarkFixture, ours: Way, peers: Mapping[str, Way], *, rounds: int) -> None:
    """Time `ours` as the benchmark, and before each of its rounds every peer once.

    The result's ``extra_info`` holds, for every way, the number of images and the median seconds for one of them, and
    how many times longer than ours each peer takes.
    """
    turns = Turns(peers)
    benchmark.pedantic(ours.run, setup=turns.take, rounds=rounds, warmup_rounds=WARM_UPS)  # type: ignore[no-untyped-call]
    if benchmark.stats is None:  # timing is disabled
        return
    seconds = {OURS: benchmark.stats.stats.median / ours.images}
    for name, times in turns.seconds.items():
        seconds[name] = statistics.median(times[WARM_UPS:]) / peers[name].images
    benchmark.extra_info["images"] = {OURS: ours.images} | {name: peer.images for name, peer in peers.items()}
    benchmark.extra_info["seconds_per_image"] = seconds
    benchmark.extra_info["times_ours"] = {name: one / seconds[OURS] for name, one in seconds.items() if name != OURS}
