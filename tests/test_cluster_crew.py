"""The driver's side of a cluster, with a stand-in for Ray whose nodes are lost on command."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

import chammi_fast
from chammi_fast.cluster.crew import FAULTS, LOSSES, Crew
from chammi_fast.cluster.hands import Hand, Share
from chammi_fast.cluster.worker import Place
from chammi_fast.embedding.settings import EmbedSettings
from chammi_fast.errors import ClusterError

OPENED: Any = SimpleNamespace(embedding_size=3)


class RayError(Exception):
    """Ray's."""


class ActorDiedError(RayError):
    """Ray's."""


class OtherError(RayError):
    """Those of Ray's errors that do not happen here."""


ERRORS = SimpleNamespace(
    RayError=RayError, RayTaskError=OtherError, ActorUnavailableError=OtherError, NodeDiedError=OtherError
)


@dataclass
class Order:
    """What a crew looks at in an order."""

    jobs: tuple[object, ...]
    settings: EmbedSettings = field(default_factory=EmbedSettings)


@dataclass
class StandIn:
    """Ray with nodes and workers; workers of dead nodes, and those that are to fall, die when they are asked."""

    alive: dict[str, bool]
    falling: bool = False
    exceptions: Any = field(default_factory=lambda: ERRORS)

    def put(self, value: object) -> object:
        return value

    def remote(self, _: object) -> Any:
        return SimpleNamespace(options=lambda **_: SimpleNamespace(remote=lambda *_: self.actor("B")))

    def actor(self, node: str) -> Any:
        answer = SimpleNamespace(remote=lambda *_: (node, OPENED))
        return SimpleNamespace(open=answer, place=SimpleNamespace(remote=lambda: (node, place(node))))

    def get(self, asked: tuple[str, object]) -> object:
        node, answer = asked
        if not self.alive[node] or (self.falling and answer is OPENED):
            raise ActorDiedError("The actor is dead")
        return answer

    def kill(self, _: object) -> None:
        pass

    def nodes(self) -> list[dict[str, Any]]:
        return [{"NodeID": node, "Alive": alive, "Resources": {"CPU": 8}} for node, alive in self.alive.items()]

    def wait(self, asked: list[Any], num_returns: int = 1, timeout: float = 0) -> tuple[list[Any], list[Any]]:
        del timeout
        return asked[:num_returns], asked[num_returns:]


def place(node: str) -> Place:
    return Place(node, node, chammi_fast.__version__)


def crew_of(ray: Any, job: object, nodes: str) -> Crew:
    crew = Crew(ray, Order((job,)), Share(1, 0), 0, lambda _: None)  # type: ignore[arg-type]
    crew._hands = [Hand(ray.actor(node), {}, place(node)) for node in nodes]
    for node in nodes:
        crew._rates.workers[node] = crew._rates.workers.get(node, 0) + 1
    crew.choice = SimpleNamespace(taken=SimpleNamespace(form=None))  # type: ignore[assignment]
    return crew


def test_workers_of_a_lost_node_are_no_faults() -> None:
    """Between two tables nobody is asked anything, so all of a node's workers may turn out to be gone at once."""
    job: Any = object()
    lost = "A" * (FAULTS + 2)
    assert crew_of(StandIn({"A": False, "B": True}), job, lost + "B").open(job) is OPENED


def test_nodes_that_are_lost_for_ever_end_the_run() -> None:
    job: Any = object()
    told: list[str] = []
    crew = crew_of(StandIn({"A": False, "B": True}), job, "A" * LOSSES + "B")
    crew._told = told.append
    with pytest.raises(ClusterError, match=f"{LOSSES} workers were lost one after the other"):
        crew.open(job)
    assert told == ["node A is lost; another is asked."] * LOSSES


def test_workers_that_fall_one_after_the_other_end_the_run() -> None:
    job: Any = object()
    with pytest.raises(ClusterError, match=f"{FAULTS} workers ended one after the other: The actor is dead"):
        crew_of(StandIn({"B": True}, falling=True), job, "B" * 9).open(job)
