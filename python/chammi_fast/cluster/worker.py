"""What a worker of a cluster does: embed shards as a local run does, and write them where they belong."""

from __future__ import annotations

import contextlib
import os
import platform
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import chammi_fast
from chammi_fast.embedding.filling import Embedder
from chammi_fast.embedding.planning import new_choice
from chammi_fast.errors import BackendError, OutputError
from chammi_fast.ledger import unfinished, write_shard

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa

    from chammi_fast.embedding.filling import Opened, Order
    from chammi_fast.ledger import Entry
    from chammi_fast.runtime import Form
    from chammi_fast.runtime.choice import Choice


@dataclass(frozen=True)
class Place:
    """Where a worker is: Ray's name of the node, its address, and the version that is installed there."""

    node: str
    address: str
    version: str


@dataclass(frozen=True)
class Errand:
    """One shard to embed.

    Attributes
    ----------
    job : its number in the order
    form : to run the network in
    identity : of the run (`chammi_fast.ledger.IDENTITY`)
    folder : of the run
    shard : its number
    keys : of the rows that are to be embedded again; None for all rows
    older : file of the shard as it was embedded before, where `keys` is given
    attempt : what tells its files from those of others who embed the shard (`chammi_fast.ledger.Entry`)
    """

    job: int
    form: Form
    identity: dict[str, Any]
    folder: Path
    shard: int
    keys: set[str] | None = None
    older: Path | None = None
    attempt: str = ""


@dataclass(frozen=True)
class Done:
    """A shard that was embedded: its entry in the ledger, its first failed image, and its time in seconds."""

    entry: Entry
    first_cause: str
    seconds: float


class Worker:
    """A process of the cluster, which owns a GPU or some processors; it may be given a shard while it embeds another.

    Parameters
    ----------
    order : of the run
    folder : the driver's working directory, from which relative paths start here, too
    """

    def __init__(self, order: Order, folder: str = ".") -> None:
        with contextlib.suppress(OSError):  # a run of absolute paths and URLs does not need it
            os.chdir(folder)
        self._order = order
        self._opened: tuple[int, Form, Embedder] | None = None
        self._opening = threading.Lock()
        self._ended = 0.0

    def place(self) -> Place:
        """Tell where the worker is."""
        import ray

        address: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
        return Place(ray.get_runtime_context().get_node_id(), address, chammi_fast.__version__)

    def choose(self) -> tuple[Choice, list[str]]:
        """Settle the form that this machine does best; return what is to be told of it, too."""
        told: list[str] = []
        choice = new_choice(self._order.files, self._order.jobs, self._order.settings, told.append)
        return choice, told

    def open(self, job: int, form: Form) -> Opened:
        """Open the network for a job of the order."""
        return self._embedder(job, form).opened

    def embed(self, errand: Errand) -> Done:
        """Embed a shard and write it into the run's folder.

        Raises
        ------
        BackendError
            If this machine would compute other bits than the run's.
        OutputError
            If the folder is not the run's as it is seen here, or cannot be written to.
        """
        embedder, started = self._embedder(errand.job, errand.form), time.perf_counter()
        ours, theirs = embedder.opened.compiled_form, errand.identity["compiled_form"]
        if ours != theirs:
            different = ", ".join(
                f"{name} {ours[name]} in place of {theirs[name]}" for name in ours if ours[name] != theirs[name]
            )
            raise BackendError(
                f"node {platform.node()} would compute other bits than the run has, with {different}: use "
                "nodes of one kind, or set CHAMMI_FAST_ISA to what all of them have and start again."
            )
        self._check_folder(errand)
        sink = _Sink(errand)
        only = None if errand.keys is None else {errand.shard: errand.keys}
        cause = embedder.fill([errand.shard], sink, only)
        (entry,) = sink.entries
        started, self._ended = max(started, self._ended), time.perf_counter()
        return Done(entry, cause, self._ended - started)

    def _check_folder(self, errand: Errand) -> None:
        """Make sure that the driver's folder is this machine's, too, and that its run is not over."""
        found = unfinished(errand.folder)
        if found is None or found.get("identity") != errand.identity:
            raise OutputError(
                f"{errand.folder}: is not the run's folder on node {platform.node()}: name a folder that all "
                "nodes share, or a URL of an object store."
            )

    def _embedder(self, job: int, form: Form) -> Embedder:
        with self._opening:
            if self._opened is None or self._opened[:2] != (job, form):
                self._opened = None  # one network at a time
                self._opened = (job, form, Embedder(self._order, self._order.jobs[job], form))
            return self._opened[2]


class _Sink:
    """The files of one shard; the driver enters it into the ledger."""

    def __init__(self, errand: Errand) -> None:
        self._errand = errand
        self.entries: list[Entry] = []

    def write(self, shard: int, part: pa.Table, errors: pa.Table) -> None:
        self.entries.append(write_shard(self._errand.folder, shard, part, errors, self._errand.attempt))

    def part(self, shard: int) -> Path:
        if self._errand.older is None:
            raise RuntimeError(f"shard {shard} was not embedded before")
        return self._errand.older
