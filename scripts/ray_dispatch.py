"""Have the crew of a run hand out shards to workers that answer at once: what the driver alone can do.

Usage: ray_dispatch.py ADDRESS HANDS SHARDS. Prints one line of JSON. The crew, its loop, the ledger and Ray are the
real ones; only the network is left out. The crew's hands are shared out among a few processes: the driver sees as many
workers as it is told, on a machine that could not hold them.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from chammi_fast import __version__
from chammi_fast.cluster.crew import Crew
from chammi_fast.cluster.hands import Share
from chammi_fast.cluster.ray_executor import connected
from chammi_fast.cluster.worker import Done, Errand, Place
from chammi_fast.embedding.filling import Order
from chammi_fast.embedding.settings import EmbedSettings
from chammi_fast.ledger import IDENTITY, Entry
from chammi_fast.runfolder import RunFolder
from chammi_fast.runtime.form import Form

PROCESSES = 3
IMAGES = 1000


class Idle:
    """A worker that has nothing to do."""

    def place(self) -> Place:
        """Tell where it is."""
        import ray

        return Place(ray.get_runtime_context().get_node_id(), "here", __version__)

    def embed(self, errand: Errand) -> Done:
        """Say that the shard is done."""
        return Done(Entry(IMAGES, 0, f"{errand.shard:064x}"), "", 0.01)


def main() -> None:
    """Measure."""
    address, hands, shards = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    work = SimpleNamespace(name="plate", steps=len)
    job = SimpleNamespace(work=work, folder=Path())
    order = Order(cast("Any", None), (cast("Any", job),), EmbedSettings())
    identity = dict.fromkeys(IDENTITY, "0" * 64)
    with tempfile.TemporaryDirectory() as folder, connected(address) as ray:
        actors = [ray.remote(Idle).options(num_cpus=1).remote() for _ in range(PROCESSES)]
        ray.get([actor.place.remote() for actor in actors])
        crew = _Crew(ray, order, actors, hands)
        with RunFolder(Path(folder) / "run", {"identity": identity}, range(shards), keep_empty=True) as run:
            wall, cpu = time.perf_counter(), time.process_time()
            crew.embed(run, None, lambda _: None)
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    found = {
        "workers": hands,
        "shards": shards,
        "shards_per_s": round(shards / wall),
        "driver_cpu_ms": 1e3 * cpu / shards,
    }
    sys.stdout.write(json.dumps(found | {"driver_cpu_ms": round(found["driver_cpu_ms"], 3)}) + "\n")


class _Crew(Crew):
    """A crew whose hands share a few processes."""

    def __init__(self, ray: Any, order: Order, actors: list[Any], hands: int) -> None:
        super().__init__(ray, order, Share(1, 0), hands, lambda _: None)
        self.choice = cast("Any", SimpleNamespace(taken=SimpleNamespace(form=Form())))
        self._make = _Makes(actors)


class _Makes:
    """Gives an actor that is there already."""

    def __init__(self, actors: list[Any]) -> None:
        self._actors, self._made = actors, 0

    def remote(self, *_: Any) -> Any:
        self._made += 1
        return self._actors[self._made % len(self._actors)]


if __name__ == "__main__":
    main()
