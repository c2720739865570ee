"""How fast the nodes of a cluster are, and which shards take long."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field

_FEW = 4  # nodes that are told one by one
_SLOW = 3.0  # times the median
_SHORTEST_S = 30.0


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
    _took: list[float] = field(default_factory=list)

    def add(self, address: str, images: int, seconds: float) -> None:
        """Count a finished shard."""
        self.images[address] = self.images.get(address, 0) + images
        self.seconds[address] = self.seconds.get(address, 0.0) + seconds
        self._took.append(seconds)

    def is_slow(self, seconds: float) -> bool:
        """Tell whether a shard that has been under way for so long is a straggler."""
        return len(self._took) > 2 and seconds > max(_SHORTEST_S, _SLOW * statistics.median(self._took))

    @property
    def usual_s(self) -> float:
        """What a shard takes."""
        return statistics.median(self._took) if self._took else 0.0

    def __str__(self) -> str:
        rates = {
            address: images / self.seconds[address] * self.workers.get(address, 1)
            for address, images in self.images.items()
            if self.seconds[address] > 0
        }
        if not rates:
            return "no shard is done yet"
        ordered = sorted(rates.items(), key=lambda one: (one[1], one[0]))
        if len(ordered) <= _FEW:
            return ", ".join(f"{address} {rate:,.0f} images/s" for address, rate in sorted(rates.items()))
        slowest = ", ".join(f"{address} {rate:,.0f}" for address, rate in ordered[:_FEW])
        middle = statistics.median(rates.values())
        return f"{len(ordered)} nodes, in the middle {middle:,.0f} images/s; the slowest: {slowest}"
