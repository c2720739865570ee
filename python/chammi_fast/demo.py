"""The whole path on a small data set that the package makes itself: synth -> embed -> evaluate."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from chammi_fast.embedding import EmbedSettings, embed
from chammi_fast.errors import OutputError
from chammi_fast.evaluation import evaluate, write_scores
from chammi_fast.files import make_folder, write_text
from chammi_fast.synthetic import synthesise

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.table import Table

    from chammi_fast.evaluation import Scores

MARKER = "demo.json"
TRAINED, UNTRAINED = "demo", "demo-untrained"


@dataclass(frozen=True)
class DemoReport:
    """Scores of the packaged network and of the same network before training.

    Attributes
    ----------
    images : embedded images, over the three data sets
    seconds : embedding them once
    """

    out: Path
    trained: Scores
    untrained: Scores
    images: int
    seconds: float

    def render(self) -> Table:
        """Return the nine tasks and CPS as a table for the terminal."""
        from rich.table import Table

        table = Table(title="Macro F1 of 1-nearest-neighbour (cosine)", title_justify="left")
        table.add_column("task")
        for heading in ("test images", "demo network", "untrained"):
            table.add_column(heading, justify="right")
        for name, task in self.trained.tasks.items():
            before = self.untrained.tasks[name].f1_macro
            table.add_row(name, f"{task.n:,}", f"{task.f1_macro:.3f}", f"{before:.3f}")
        table.add_section()
        if self.trained.cps is not None and self.untrained.cps is not None:
            table.add_row("CPS", "", f"{self.trained.cps:.3f}", f"{self.untrained.cps:.3f}", style="bold")
        return table


def demo(
    out: str | Path, *, images: int = 400, seed: int = 1, progress: Callable[[str, int, int], None] | None = None
) -> DemoReport:
    """Make a small CHAMMI in `out`/data, embed it with the packaged network, and score it.

    Parameters
    ----------
    out : folder; a former demo there is replaced, anything else is refused
    images : per data set
    progress : called with (step, images done, images in all)

    Raises
    ------
    ChammiFastError
        If the folder holds something else or cannot be written, or an extra is missing.
    """
    out = Path(out)
    _clear(out)
    data = out / "data"
    synthesise(
        data, images=images, seed=seed, progress=progress and (lambda done, total: progress("synth", done, total))
    )
    scores, seconds, embedded = {}, 0.0, 0
    for model, suffix in ((TRAINED, ""), (UNTRAINED, ", untrained")):
        reports = embed(
            model,
            data=data,
            out=out / "features" / model,
            settings=EmbedSettings(backend="onnxruntime", device="cpu", precision="fp32"),
            progress=progress and _with_suffix(progress, suffix),
        )
        if model == TRAINED:
            seconds, embedded = sum(r.seconds for r in reports), sum(r.images for r in reports)
        scores[model] = evaluate(data, features=out / "features" / model)
        write_scores(scores[model], out / "results" / model)
    return DemoReport(out, scores[TRAINED], scores[UNTRAINED], embedded, seconds)


def _with_suffix(progress: Callable[[str, int, int], None], suffix: str) -> Callable[[str, int, int], None]:
    return lambda name, done, total: progress(f"{name}{suffix}", done, total)


def _clear(out: Path) -> None:
    if out.is_dir() and any(out.iterdir()):
        if not (out / MARKER).is_file():
            raise OutputError(f"{out}: is not empty and not a former demo: name another folder with --out.")
        for entry in ("data", "features", "results"):
            shutil.rmtree(out / entry, ignore_errors=True)
    make_folder(out)
    write_text(out / MARKER, json.dumps({"made_by": "chammi-fast demo"}) + "\n")
