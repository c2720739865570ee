"""How fast the nodes of a cluster are, and which shards take long."""

from __future__ import annotations

import math
import statistics
from collections import deque
from dataclasses import dataclass, field
from functools import partial

_FEW = 4  # nodes that are told one by one
_SLOW = 3.0  # times the median
_SHORTEST_S = 30.0
_LATELY = 1000  # shards


@dataclass
class Rates:
    """Shards that were embedded, by node.

    Attributes
    ----------
    images, seconds : address of a node -> images of its finished shards, and what they took its workers together
    workers : address of a node -> workers that it has now
    """

    images: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    workers: dict[str, int] = field(default_factory=dict)
    _took: deque[float] = field(default_factory=partial(deque, maxlen=_LATELY))

    def add(self, address: str, images: int, seconds: float) -> None:
        """Count a finished shard."""
        self.images[address] = self.images.get(address, 0) + images
        self.seconds[address] = self.seconds.get(address, 0.0) + seconds
        self._took.append(seconds)

    @property
    def slow_s(self) -> float:
        """How long a shard may be under way before it is a straggler."""
        return max(_SHORTEST_S, _SLOW * self.usual_s) if len(self._took) > 2 else math.inf

    @property
    def usual_s(self) -> float:
        """What a shard takes."""
        return statistics.median(self._took) if self._took else 0.0

    def __str__(self) -> str:
        rates = {
            address: images / self.seconds[address] * (self.workers.get(address) or 1)
            for address, images in self.images.items()
            if self.seconds[address] > 0
        }
        there = {address: rate for address, rate in rates.items() if self.workers.get(address, 1)}
        rates = there or rates  # those whose workers are lost say nothing of the rest of a run
        if not rates:
            return "no shard is done yet"
        ordered = sorted(rates.items(), key=lambda one: (one[1], one[0]))
        if len(ordered) <= _FEW:
            return ", ".join(f"{address} {rate:,.0f} images/s" for address, rate in sorted(rates.items()))
        slowest = ", ".join(f"{address} {rate:,.0f}" for address, rate in ordered[:_FEW])
        middle = statistics.median(rates.values())
        return f"{len(ordered)} nodes, in the middle {middle:,.0f} images/s; the slowest: {slowest}"
