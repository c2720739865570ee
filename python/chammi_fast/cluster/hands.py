"""A worker of a cluster as the driver sees it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from chammi_fast.cluster.worker import Place


@dataclass(frozen=True)
class Share:
    """What a worker owns of its node."""

    cpus: int
    gpus: int

    def fits(self, resources: dict[str, float]) -> int:
        """Return how many workers a node has room for."""
        by_cpu = int(resources.get("CPU", 0) // self.cpus)
        return min(by_cpu, int(resources.get("GPU", 0) // self.gpus)) if self.gpus else by_cpu


@dataclass(eq=False)
class Hand:
    """A hired worker.

    Attributes
    ----------
    actor : Ray's handle of it
    asked : Ray's references of the answers that are awaited, in order -> the shard, or None where it is asked who it is
    place : where it is, once it is there
    since : when it began with the first of its shards, in seconds of the monotonic clock
    slow : whether it was told that this takes long
    """

    actor: Any
    asked: dict[Any, int | None]
    place: Place | None = None
    since: float = 0.0
    slow: bool = False

    @property
    def address(self) -> str:
        """Where it is; empty before it is there."""
        return "" if self.place is None else self.place.address

    @property
    def shards(self) -> list[int]:
        """What it has to embed, in order."""
        return [shard for shard in self.asked.values() if shard is not None]

    def ask(self, answer: Any, shard: int) -> None:
        """Await the answer for a shard."""
        if not self.asked:
            self.since, self.slow = time.monotonic(), False
        self.asked[answer] = shard

    def answered(self, answer: Any) -> int | None:
        """Return the shard that is answered; the next one begins."""
        self.since, self.slow = time.monotonic(), False
        return self.asked.pop(answer)
