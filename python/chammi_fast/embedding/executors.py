"""Who embeds the shards of a run: this process, or others that do the same."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from chammi_fast.embedding.filling import Embedder
from chammi_fast.embedding.planning import settle_run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from chammi_fast.embedding.filling import Opened, Order
    from chammi_fast.embedding.settings import Job
    from chammi_fast.runfolder import RunFolder
    from chammi_fast.runtime.choice import Choice


class Team(Protocol):
    """Those who embed a run, after its form is settled.

    Attributes
    ----------
    choice : the form, and why
    """

    choice: Choice

    def open(self, job: Job) -> Opened:
        """Open the network for one of the run's jobs; until the next call, shards are this job's."""

    def embed(self, run: RunFolder, only: dict[int, set[str]] | None, progress: Callable[[int], None]) -> str:
        """Embed what a run folder has to do, and enter it there.

        Parameters
        ----------
        only : shard -> keys of the rows that are to be embedded again; None for all rows
        progress : called with what was done so far (`Work.steps`)

        Returns
        -------
        The first failed image and what is wrong with it; empty where none failed.
        """


class Executor(Protocol):
    """Gets a team together."""

    def gather(self, order: Order, told: Callable[[str], None]) -> AbstractContextManager[Team]:
        """Settle the form of a run, and have who embeds it ready until the context ends.

        Parameters
        ----------
        told : called with sentences for the user

        Raises
        ------
        ChammiFastError
            If there is nobody, or nothing fulfils the settings.
        """


class LocalExecutor:
    """The process that runs it does it all."""

    @contextmanager
    def gather(self, order: Order, told: Callable[[str], None]) -> Iterator[Team]:
        """Settle the form of a run on this machine."""
        yield _Here(order, settle_run(order.files, order.jobs, order.settings, told))


class _Here:
    def __init__(self, order: Order, choice: Choice) -> None:
        self._order, self.choice = order, choice
        self._embedder: Embedder | None = None

    def open(self, job: Job) -> Opened:
        self._embedder = None  # one network at a time
        self._embedder = Embedder(self._order, job, self.choice.taken.form)
        return self._embedder.opened

    def embed(self, run: RunFolder, only: dict[int, set[str]] | None, progress: Callable[[int], None]) -> str:
        if self._embedder is None:
            raise RuntimeError("a job is opened before it is embedded")
        return self._embedder.fill(run.todo, run, only, progress)
