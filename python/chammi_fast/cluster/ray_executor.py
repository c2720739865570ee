"""Embed, and search, on a Ray cluster."""

from __future__ import annotations

import os
import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING

from chammi_fast.cluster.crew import Crew
from chammi_fast.cluster.hands import Share
from chammi_fast.cluster.search import search
from chammi_fast.errors import ClusterError
from chammi_fast.evaluation.streaming import unwatched
from chammi_fast.extras import require

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType

    from chammi_fast.embedding.executors import Team
    from chammi_fast.embedding.filling import Order
    from chammi_fast.evaluation.neighbours import Found
    from chammi_fast.evaluation.streaming import Quest, Search

# Ray prints what its scheduler thinks of workers that wait for a node, which they are meant to do.
_QUIET = {"RAY_SCHEDULER_EVENTS": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
_PATIENCE_S = 10.0


class RayExecutor:
    """Has a run's shards embedded (`chammi_fast.embed`), or a table searched (`find_neighbours`), on a Ray cluster.

    The results are those of a run on one machine, bit for bit, if the nodes' processors and versions are of one kind;
    a node of another kind is refused. Where Ray is already initialised in this process, that cluster is taken.

    Parameters
    ----------
    address : of the cluster, as `ray.init` takes it: "auto" for the one that this machine belongs to, or "host:port"
    workers : at most so many; 0 for as many as the cluster has room for, whatever it grows to
    cpus : processors of each worker; 0 for the `threads` that are asked for, or else the node's: all of the smallest
        node, or a GPU's share of them
    gpus : GPUs of each worker; None for 1 where the cluster has any and `EmbedSettings.device` allows it

    Raises
    ------
    ClusterError
        When it is used: if there is no such cluster, or its nodes do not fit each other.
    MissingExtraError
        When it is used: if Ray is not installed.
    """

    def __init__(self, address: str = "auto", *, workers: int = 0, cpus: int = 0, gpus: int | None = None) -> None:
        self.address, self.workers, self.cpus, self.gpus = address, workers, cpus, gpus

    @contextmanager
    def gather(self, order: Order, told: Callable[[str], None]) -> Iterator[Team]:
        """Connect to the cluster, and have workers embed a run until the context ends."""
        with connected(self.address) as ray:
            share = self._share(ray, order.settings.threads, may_use_gpus=order.settings.device != "cpu")
            crew = Crew(ray, order, share, self.workers, told)
            try:
                crew.settle()
                yield crew
            finally:
                crew.dismiss()

    @contextmanager
    def searching(self) -> Iterator[Search]:
        """Connect to the cluster; what is yielded has parts of a table searched by tasks, and merges their answers."""
        with connected(self.address) as ray:

            def searched(quest: Quest, done: Callable[[int], None] = unwatched) -> Found:
                share = self._share(ray, quest.threads or 0, may_use_gpus=True)
                return search(ray, quest, share, self.workers, done)

            yield searched

    def _share(self, ray: ModuleType, threads: int, *, may_use_gpus: bool) -> Share:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        gpus = self.gpus
        if gpus is None:
            gpus = int(may_use_gpus and any(node.get("GPU", 0) >= 1 for node in nodes))
        cpus = self.cpus or threads
        if not cpus:
            rooms = [node["CPU"] * gpus / node["GPU"] if gpus else node["CPU"] for node in nodes if _usable(node, gpus)]
            cpus = max(1, int(min(rooms, default=1)))
        return Share(cpus, gpus)


def _usable(node: dict[str, float], gpus: int) -> bool:
    return node.get("CPU", 0) >= 1 and node.get("GPU", 0) >= gpus


@contextmanager
def connected(address: str) -> Iterator[ModuleType]:
    """Connect to a Ray cluster; leave it if this process was not connected before.

    Raises
    ------
    ClusterError
        If there is none.
    MissingExtraError
        If Ray is not installed.
    """
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    ray = require("ray", purpose="work on a cluster")
    if ray.is_initialized():
        yield ray
        return
    if "://" in address:
        raise ClusterError(f"'{address}' is no address of a cluster that a run can join: name HOST:PORT, or auto.")
    try:
        _knock(address)
        ray.init(address=address, logging_level="ERROR", log_to_driver=False)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise ClusterError(
            f"there is no Ray cluster at '{address}': {str(error).splitlines()[0].rstrip('.')}."
        ) from None
    try:
        yield ray
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """Make sure that somebody listens, for whom Ray would wait for many minutes.

    Raises
    ------
    OSError
        If nobody does.
    """
    host, _, port = address.rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=_PATIENCE_S).close()
