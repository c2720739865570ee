"""The driver's side of a run on a cluster: hand shards to workers, and go on when workers are lost."""

from __future__ import annotations

import time
import uuid
from collections import Counter, deque
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pyarrow import parquet

from chammi_fast import __version__
from chammi_fast.cluster.hands import Hand
from chammi_fast.cluster.rates import Rates
from chammi_fast.cluster.worker import Errand, Place, Worker
from chammi_fast.embedding.planning import known_choice
from chammi_fast.errors import ClusterError
from chammi_fast.files import source_of
from chammi_fast.images import ImageStatus
from chammi_fast.table import make_errors, make_part

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from chammi_fast.cluster.hands import Share
    from chammi_fast.cluster.worker import Done
    from chammi_fast.embedding.filling import Opened, Order
    from chammi_fast.embedding.settings import Job
    from chammi_fast.runfolder import RunFolder
    from chammi_fast.runtime.choice import Choice

FAULTS = 3
"""Workers that a shard may end before it is given up."""

LOSSES = 10 * FAULTS
"""Workers that may be lost, with their nodes or without, before what they were asked is given up."""

SHARDS_AHEAD = 1
"""Shards that a worker has besides the one that it embeds."""

QUARANTINED = "quarantined"
_NO_TRIAL = "; they tried ways to run the network: --backend onnxruntime --precision fp32 needs no trial"
_LONGEST_PAUSE_S = 60.0  # between two tries to start workers where they do not start
_COUNT_S = 1.0  # between two counts of the nodes, which take long where there are many
_LOOK_S = 5.0  # between two looks at those who are slow
_TELL_S = 60.0
_WAIT_S = 20.0  # until it is told that nobody is there yet


@dataclass
class _Tour:
    """The shards of one table."""

    run: RunFolder
    only: dict[int, set[str]] | None
    waiting: deque[int]
    embedding_size: int
    progress: Callable[[int], None]
    steps: int = 0
    first_cause: str = ""
    faults: Counter[int] = field(default_factory=Counter)


class Crew:
    """Workers of a cluster, and the run that they embed.

    Ray places them, starts them and notices when they are gone. A worker that is gone is replaced, and its shards go
    to the next that is free; of a node that is gone, too, no shard is to blame. A worker has a second shard, whose
    first images it reads while it embeds the first; a shard whose worker ended is its next worker's only one, so that
    it is found out which is to blame.

    Parameters
    ----------
    share : what each worker owns
    most : workers at most; 0 for as many as the cluster has room for, whatever it grows to
    told : called with sentences for the user

    Attributes
    ----------
    choice : the form that the run takes, after `settle`
    """

    choice: Choice

    def __init__(self, ray: ModuleType, order: Order, share: Share, most: int, told: Callable[[str], None]) -> None:
        self._ray, self._share, self._most, self._told = ray, share, most, told
        self._order = replace(order, settings=replace(order.settings, threads=share.cpus))
        self._shared = ray.put(self._order)
        self._make = ray.remote(Worker).options(
            num_cpus=share.cpus,
            num_gpus=share.gpus,
            max_restarts=0,
            max_concurrency=SHARDS_AHEAD + 1,
            scheduling_strategy="SPREAD",
        )
        self._hands: list[Hand] = []
        self._rates = Rates()
        self._job, self._embedding_size = 0, 0
        self._tour: _Tour | None = None
        self._failed_starts, self._hire_from = 0, 0.0
        self._room, self._counted = 0, -_COUNT_S
        self._last_looked = self._last_told = time.monotonic()

    def settle(self) -> None:
        """Settle the form of the run: that of an earlier part of it, or what is best on a worker's machine."""
        files, jobs, settings = self._order.files, self._order.jobs, self._order.settings
        choice = known_choice(files, jobs, settings, self._told)
        if choice is None:
            choice, sentences = self._ask("choose", hint=_NO_TRIAL)
            for sentence in sentences:
                self._told(sentence)
        taken = replace(choice.taken, form=replace(choice.taken.form, threads=self._share.cpus))
        self.choice = replace(choice, taken=taken)

    def dismiss(self) -> None:
        """Let all workers go."""
        for hand in self._hands:
            self._ray.kill(hand.actor)
        self._hands = []

    def open(self, job: Job) -> Opened:
        """Have one worker open the network for a job; the others do when they get its shards."""
        self._job = next(number for number, one in enumerate(self._order.jobs) if one is job)
        opened: Opened = self._ask("open", self._job, self.choice.taken.form)
        self._embedding_size = opened.embedding_size
        return opened

    def embed(self, run: RunFolder, only: dict[int, set[str]] | None, progress: Callable[[int], None]) -> str:
        """Have a run's shards embedded, and enter them."""
        self._tour = tour = _Tour(run, only, deque(run.todo), self._embedding_size, progress)
        while tour.waiting or any(hand.shards for hand in self._hands):
            self._hire(len(tour.waiting) + sum(bool(hand.shards) for hand in self._hands))
            self._give(tour)
            for hand, answer in self._ready():
                self._hear(hand, answer)
            self._look()
        self._tour = None
        if self._rates.images:
            self._told(f"{self._rates}.")
        return tour.first_cause

    def _hire(self, shards: int) -> None:
        """Ask Ray for workers: as many as there is room for, and some more, which make an autoscaling cluster grow."""
        if self._hands and self._failed_starts >= FAULTS and time.monotonic() < self._hire_from:
            return
        there = sum(hand.place is not None for hand in self._hands)
        if time.monotonic() - self._counted >= _COUNT_S:
            self._room = sum(self._share.fits(node["Resources"]) for node in self._ray.nodes() if node["Alive"])
            self._counted = time.monotonic()
        wanted = min(shards, max(self._room, there) + max(1, there))
        for _ in range(min(wanted, self._most or wanted) - len(self._hands)):
            actor = self._make.remote(self._shared, str(Path.cwd()))
            self._hands.append(Hand(actor, {actor.place.remote(): None}))

    def _give(self, tour: _Tour) -> None:
        """Give shards to workers that have none; and one more to each, as long as there are enough for all."""
        there = [hand for hand in self._hands if hand.place is not None]
        for hand in there:
            if tour.waiting and not hand.asked:
                self._send(hand, tour)
        for hand in there:
            if len(tour.waiting) < len(there) or tour.faults[tour.waiting[0]]:
                break
            if len(hand.asked) <= SHARDS_AHEAD and not any(tour.faults[shard] for shard in hand.shards):
                self._send(hand, tour)

    def _send(self, hand: Hand, tour: _Tour) -> None:
        shard = tour.waiting.popleft()
        again = None if tour.only is None else tour.only.get(shard, set())
        errand = Errand(
            job=self._job,
            form=self.choice.taken.form,
            identity=tour.run.record["identity"],
            folder=tour.run.folder,
            shard=shard,
            keys=again,
            older=None if again is None else tour.run.part(shard),
            attempt=f"{uuid.uuid4().hex[:8]}-",
        )
        hand.ask(hand.actor.embed.remote(errand), shard)

    def _ready(self) -> list[tuple[Hand, Any]]:
        """Wait for answers for a while."""
        asked = {one: hand for hand in self._hands for one in hand.asked}
        answered, _ = self._ray.wait(list(asked), num_returns=1, timeout=_LOOK_S)
        if answered:
            answered, _ = self._ray.wait(list(asked), num_returns=len(asked), timeout=0)
        return [(asked[one], one) for one in answered]

    def _hear(self, hand: Hand, one: Any) -> None:
        """Take a worker's answer."""
        if hand not in self._hands:
            return  # lost with the answer before
        errors = self._ray.exceptions
        try:
            answer = self._ray.get(one)
        except errors.RayTaskError as error:
            raise error.cause from None
        except errors.RayError as error:
            self._lose(hand, error)
            return
        shard = hand.answered(one)
        if isinstance(answer, Place):
            self._welcome(hand, answer)
        elif self._tour is not None and shard is not None:
            self._enter(self._tour, shard, answer, hand.address)

    def _welcome(self, hand: Hand, place: Place) -> None:
        if place.version != __version__:
            raise ClusterError(
                f"node {place.address} has chammi-fast {place.version}, and this is {__version__}: install the same on "
                "all nodes."
            )
        hand.place, self._failed_starts = place, 0
        self._rates.workers[hand.address] = self._rates.workers.get(hand.address, 0) + 1

    def _enter(self, tour: _Tour, shard: int, done: Done, address: str) -> None:
        tour.run.enter(shard, done.entry)
        self._rates.add(address, done.entry.rows + done.entry.failed, done.seconds)
        tour.first_cause = tour.first_cause or done.first_cause
        self._count(tour, shard)

    def _count(self, tour: _Tour, shard: int) -> None:
        tour.steps += self._order.jobs[self._job].work.steps([shard])
        tour.progress(tour.steps)

    def _lose(self, hand: Hand, error: Exception) -> str:
        """Go on without a worker; its shard is embedded by another. Return why it ended, "" if its node is lost."""
        self._hands.remove(hand)
        self._ray.kill(hand.actor)  # it may be cut off, and alive
        if hand.place is None:
            self._failed_starts += 1
            self._hire_from = time.monotonic() + min(_LONGEST_PAUSE_S, 2.0**self._failed_starts)
            if self._failed_starts == FAULTS:
                self._told(f"{FAULTS} workers could not be started, one after the other: {_said(error)}.")
            # Several may have been sent to a node that was lost, as long as Ray has not noticed it.
            if self._failed_starts >= FAULTS and not any(one.place for one in self._hands):
                raise ClusterError(f"workers cannot be started: {_said(error)}.")
            return ""
        self._rates.workers[hand.address] -= 1
        alive = any(node["NodeID"] == hand.place.node and node["Alive"] for node in self._ray.nodes())
        why = _said(error) if alive and has_ended(error, self._ray.exceptions) else ""
        if self._tour is not None:
            for shard in reversed(hand.shards):
                self._reconsider(self._tour, shard, why, hand.address)
        return why

    def _reconsider(self, tour: _Tour, shard: int, why: str, address: str) -> None:
        """Have the shard of a lost worker embedded elsewhere, unless too many ended with it; `why` is the worker's."""
        tour.faults[shard] += bool(why)
        if tour.faults[shard] == FAULTS:
            self._told(f"shard {shard} ended {FAULTS} workers; its rows are listed in errors.parquet.")
            self._quarantine(tour, shard, why)
            return
        if why:
            self._told(f"the worker on {address} ended with shard {shard}, which is tried again.")
        else:
            self._told(f"node {address} is lost; its shard {shard} is embedded elsewhere.")
        tour.waiting.appendleft(shard)

    def _quarantine(self, tour: _Tour, shard: int, why: str) -> None:
        """List a shard's rows as failed."""
        work = self._order.jobs[self._job].work
        keys, rows = work.outline(shard)
        part = make_part([], rows, np.empty((0, tour.embedding_size), self._order.settings.store))
        if tour.only is not None:
            wanted = tour.only.get(shard, set()) - {key for key, _ in work.rejected(shard)}
            keys, part = sorted(wanted), parquet.read_table(source_of(tour.run.part(shard)))
        status = ImageStatus(work.name, QUARANTINED, None, f"its shard ended {FAULTS} workers: {why}")
        tour.run.write(shard, part, make_errors(shard, [*work.rejected(shard), *((key, status) for key in keys)]))
        tour.first_cause = tour.first_cause or f"{work.name}: {status.cause}"
        self._count(tour, shard)

    def _look(self) -> None:
        """Tell who is slow, and now and then how fast all are."""
        now = time.monotonic()
        if now - self._last_looked < _LOOK_S:
            return
        self._last_looked, slow_s = now, self._rates.slow_s
        for hand in self._hands:
            if hand.shards and not hand.slow and now - hand.since > slow_s:
                hand.slow = True
                self._told(
                    f"shard {hand.shards[0]} has been on {hand.address} for {now - hand.since:.0f} s; "
                    f"others take {self._rates.usual_s:.0f} s."
                )
        if now - self._last_told > _TELL_S and self._rates.images:
            self._last_told = now
            self._told(f"{self._rates}.")

    def _ask(self, method: str, *arguments: Any, hint: str = "") -> Any:
        """Have any worker do something; another does if it is lost. Nodes may be lost, too, but not for ever."""
        ended: list[str] = []
        for _ in range(LOSSES):
            hand = self._anybody()
            try:
                return self._ray.get(getattr(hand.actor, method).remote(*arguments))
            except self._ray.exceptions.RayTaskError as error:
                raise error.cause from None
            except self._ray.exceptions.RayError as error:
                why = self._lose(hand, error)
                if not why:
                    self._told(f"node {hand.address} is lost; another is asked.")
                ended += [why] if why else []
            if len(ended) == FAULTS:
                raise ClusterError(f"{FAULTS} workers ended one after the other: {ended[-1]}{hint}.")
        raise ClusterError(f"{LOSSES} workers were lost one after the other{hint}.")

    def _anybody(self) -> Hand:
        """Return a worker, when there is one."""
        begun = time.monotonic()
        while True:
            self._hire(1)
            there = [hand for hand in self._hands if hand.place is not None]
            if there:
                return there[0]
            for hand, answer in self._ready():
                self._hear(hand, answer)
            if begun and time.monotonic() - begun > _WAIT_S:
                begun = 0.0
                gpus = f" and {self._share.gpus} GPU" if self._share.gpus else ""
                self._told(f"waiting for a node with {self._share.cpus} free processors{gpus}.")


def has_ended(error: Exception, errors: Any) -> bool:
    """Whether a worker ended, as Ray says (`ray.exceptions`); or else it is that nobody can reach it."""
    return not isinstance(error, (errors.ActorUnavailableError, errors.NodeDiedError))


def _said(error: Exception) -> str:
    """Return the line of Ray's message that says why, without its advice."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    why = next((line for line in lines if line.startswith("The actor is dead because")), lines[0] if lines else "")
    return why.partition(" Some common causes include")[0].rstrip(".")
