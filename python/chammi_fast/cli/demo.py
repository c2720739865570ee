"""``chammi-fast demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from chammi_fast.cli.console import console, image_progress, warn_of_mixed_installations


def demo(
    *,
    out: Annotated[Path, typer.Option(help="Folder for the data, embeddings and scores.")] = Path("demo"),
    images: Annotated[int, typer.Option(min=1, help="Images per data set.")] = 400,
    seed: Annotated[int, typer.Option(help="Seed of the synthetic data.")] = 1,
) -> None:
    """See the whole path on synthetic cells: make a small CHAMMI, embed it, score the nine tasks."""
    from chammi_fast.demo import demo as run

    warn_of_mixed_installations()
    with image_progress() as progress:
        report = run(out, images=images, seed=seed, progress=progress)
    printer = console()
    printer.print(report.render())
    rate = report.images / report.seconds
    printer.print(
        f"{report.images:,} images embedded at {rate:,.0f} images/s. Data, embeddings and scores are in {report.out}.",
        soft_wrap=True,
        markup=False,
    )
