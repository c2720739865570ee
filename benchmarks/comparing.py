"""Time several ways to the same answer in turns, so that a busy moment of the machine falls on all of them.

The figures of a record are ratios of wall time, from a quiet machine. The short form runs on machines that are not:
what it judges are ratios of processor time, which others' work hardly changes, and each gets a second chance.
"""

from __future__ import annotations

import math
import resource
import statistics
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pytest_benchmark.fixture import BenchmarkFixture

OURS = "chammi-fast"
WARM_UPS = 1
MOST_LOST = 0.2
TRIES = 4
# group -> peer -> how many times as long as ours it has to take, wherever the short form runs
LEAST: dict[str, dict[str, float]] = {
    "decode": {"Pillow": 1.0, "OpenCV": 1.0, "scikit-image": 1.0, "tifffile": 1.0, "imagecodecs": 0.75},
    "batch": {"plain Python": 2.0},
    "fields": {"tifffile, NumPy, torchvision": 1.2},
    "pipeline": {"plain pipeline": 1.2},
    "start-up": {"importing typer": 1 / 1.5, "importing NumPy": 1 / 1.5},
}


@dataclass
class Judgement:
    """Whether comparisons are judged, and by what.

    Attributes
    ----------
    released : benchmark -> peer -> how many times as long as ours it took when the last release was measured, on such a
        machine
    """

    wanted: bool = False
    released: dict[str, dict[str, float]] = field(default_factory=dict)


judgement = Judgement()  # `conftest` fills it


@dataclass(frozen=True)
class Way:
    """One way to an answer, and how many images it goes through each time it is run."""

    run: Callable[[], Any]
    images: int


@dataclass
class Turns:
    """Ways that are timed once each time `take` is called.

    Attributes
    ----------
    seconds, processor_seconds : name -> of every turn; those of child processes count where they have ended
    """

    ways: Mapping[str, Way]
    seconds: dict[str, list[float]] = field(default_factory=dict)
    processor_seconds: dict[str, list[float]] = field(default_factory=dict)

    def take(self) -> None:
        """Run every way once."""
        for name in self.ways:
            self.run(name)

    def run(self, name: str) -> None:
        """Run one way."""
        start, used = time.perf_counter(), _processor_s()
        self.ways[name].run()
        self.seconds.setdefault(name, []).append(time.perf_counter() - start)
        self.processor_seconds.setdefault(name, []).append(_processor_s() - used)

    def per_image(self, seconds: Mapping[str, list[float]], first: int) -> dict[str, float]:
        """Return each way's median for one image, over the turns from `first` on."""
        return {name: statistics.median(times[first:]) / self.ways[name].images for name, times in seconds.items()}


def _processor_s() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def passes(run: Callable[[], Any], seconds: float) -> int:
    """Return how often to repeat `run`, which has run before, to keep it busy for so long."""
    start = time.perf_counter()
    run()
    return math.ceil(seconds / (time.perf_counter() - start))


def compare(benchmark: BenchmarkFixture, ours: Way, peers: Mapping[str, Way], *, rounds: int) -> None:
    """Time `ours` as the benchmark, and before each of its rounds every peer once.

    The result's ``extra_info`` holds, for every way, the number of images and the median seconds for one of them, and
    how many times longer than ours each peer takes, by the clock and by the processors' time. The short form fails
    where that is too little (`judge`).
    """
    turns = Turns({OURS: ours, **peers})

    def take_peers() -> None:
        for name in peers:
            turns.run(name)

    benchmark.pedantic(turns.run, (OURS,), setup=take_peers, rounds=rounds, warmup_rounds=WARM_UPS)  # type: ignore[no-untyped-call]
    if benchmark.stats is None:  # timing is disabled
        return
    record(benchmark, turns, WARM_UPS)
    judge(benchmark, turns, rounds)


def record(benchmark: BenchmarkFixture, turns: Turns, first: int) -> None:
    """Put into the result what the turns from `first` on have measured."""
    seconds = turns.per_image(turns.seconds, first)
    benchmark.extra_info["images"] = {name: way.images for name, way in turns.ways.items()}
    benchmark.extra_info["seconds_per_image"] = seconds
    benchmark.extra_info["times_ours"] = _times_ours(seconds)
    benchmark.extra_info["times_ours_by_processor"] = _times_ours(turns.per_image(turns.processor_seconds, first))


def judge(benchmark: BenchmarkFixture, turns: Turns, rounds: int) -> None:
    """Fail where the short form finds ours too slow beside its peers, time after time: a machine may be busy once."""
    times = benchmark.extra_info["times_ours_by_processor"]
    fault, tries = too_slow(benchmark.group, benchmark.fullname, times), 0
    while fault and tries < TRIES:
        tries, first = tries + 1, len(turns.seconds[OURS])
        for _ in range(2 * rounds):
            turns.take()
        again = _times_ours(turns.per_image(turns.processor_seconds, first))
        benchmark.extra_info["times_ours_by_processor"] = again
        fault = too_slow(benchmark.group, benchmark.fullname, again)
    if fault:
        pytest.fail(fault, pytrace=False)


def too_slow(group: str | None, name: str, times: Mapping[str, float]) -> str:
    """Say what is wrong with how many times longer than ours its peers take; nothing where all is well.

    A loss is ours where it shows beside every peer: one peer alone may have become faster.
    """
    if not judgement.wanted:
        return ""
    for peer, least in LEAST.get(group or "", {}).items():
        if peer in times and times[peer] < least:
            return f"{name}: {peer} takes {times[peer]:.2f} times as long as ours, and should take {least:.2f}"
    before = {peer: one for peer, one in judgement.released.get(name, {}).items() if peer in times}
    kept = max((times[peer] / one for peer, one in before.items()), default=1.0)
    if kept < 1 - MOST_LOST:
        peer = max(before, key=lambda peer: times[peer] / before[peer])
        return (
            f"{name}: {peer} takes {times[peer]:.2f} times as long as ours, and took {before[peer]:.2f} at the release"
        )
    return ""


def _times_ours(seconds: Mapping[str, float]) -> dict[str, float]:
    return {name: one / seconds[OURS] for name, one in seconds.items() if name != OURS}
