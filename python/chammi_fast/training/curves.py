"""Draw how a training went."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib as mpl
from matplotlib.figure import Figure

from chammi_fast.files import replacing

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from chammi_fast.training.loop import Log


def draw_curves(log: Sequence[Log], path: Path) -> None:
    """Draw loss, learning rate and, where it was measured, score over the epochs, as a PNG."""
    scored = [one for one in log if one.score is not None]
    curves: list[tuple[str, Sequence[Log], list[float]]] = [
        ("mean loss", log, [one.loss for one in log]),
        ("learning rate", log, [one.learning_rate for one in log]),
        *([("score", scored, [one.score or 0.0 for one in scored])] if scored else []),
    ]
    with mpl.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(3.2 * len(curves), 2.6), layout="constrained")
        for axes, (title, entries, values) in zip(figure.subplots(1, len(curves)), curves, strict=True):
            axes.plot([one.epoch for one in entries], values, color="#0072b2", marker="o", markersize=3)
            axes.set(title=title, xlabel="epoch")
            if min(values) >= 0:  # MIRO's part of a loss can make it negative
                axes.set_ylim(bottom=0)
        with replacing(path) as temporary:
            figure.savefig(temporary, format="png", dpi=120)
