"""What commands share: one console, one progress bar, one way to complain, and options that mean the same."""

from __future__ import annotations

import re
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import Console

    from chammi_fast.cluster import RayExecutor

SOME_FAILED = 1
NOTHING_DONE = 2
_UNITS = {"": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9}


def complain(sentence: str) -> None:
    """Print one sentence on stderr, unwrapped, so that a path in it can be copied."""
    sys.stderr.write(f"chammi-fast: {sentence}\n")


def warn_of_mixed_installations() -> None:
    """Say which installed packages have overwritten parts of each other."""
    from chammi_fast.extras import mixed_installations

    for sentence in mixed_installations():
        complain(f"warning: {sentence}")


def memory_size(text: str) -> int:
    """Read a size such as 500MB."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([kmg]?b|)", text.strip().lower())
    if match is None or match[2] not in _UNITS:
        raise typer.BadParameter("name a size such as 500MB or 2GB.")
    return int(float(match[1]) * _UNITS[match[2]])


def ray_executor(address: str | None, workers: int) -> RayExecutor | None:
    """Return who works on the Ray cluster of ``--ray``, or None without one, which does without its imports."""
    if address is None:
        if workers:
            raise typer.BadParameter("belongs to --ray: give it, too.", param_hint="--ray-workers")
        return None
    from chammi_fast.cluster import RayExecutor

    return RayExecutor(address, workers=workers)


def console() -> Console:
    """Return the console for results (stdout)."""
    from rich.console import Console

    return Console(highlight=False, soft_wrap=False)


@contextmanager
def image_progress(unit: str = "images") -> Iterator[Callable[[str, int, int], None]]:
    """Yield a callback (name, done, total) that draws one bar per name, with the rate and the time left, on stderr."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TaskID,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class ImagesPerSecond(ProgressColumn):
        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text(
                "" if speed is None else f"{speed:,.{0 if speed >= 10 else 1}f} {unit}/s", style="progress.data.speed"
            )

    columns = (
        TextColumn("{task.description:<16}"),
        BarColumn(),
        MofNCompleteColumn(),
        ImagesPerSecond(),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    bars = Progress(*columns, console=Console(stderr=True))
    tasks: dict[str, TaskID] = {}

    def advance(name: str, done: int, total: int) -> None:
        if name not in tasks:
            # Started late: a run that fails before its first image leaves one sentence and no empty bar.
            bars.start()
            tasks[name] = bars.add_task(name, total=total)
        bars.update(tasks[name], completed=done)

    try:
        yield advance
    finally:
        if tasks:
            bars.stop()
