"""``chammi-fast synth``."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import Annotated

import typer

from chammi_fast.cli.console import console, image_progress


def synth(
    *,
    out: Annotated[Path, typer.Option(help="Folder to make; must not exist or be empty.")],
    images: Annotated[int, typer.Option(min=1, help="Images per data set.")] = 400,
    seed: Annotated[int, typer.Option(help="The same seed gives the same pixels.")] = 0,
) -> None:
    """Make a small CHAMMI of synthetic cells: same folders, formats, columns, splits and groups.

    chammi-fast synth --out data/ --images 400 --seed 1
    """
    from chammi_fast.synthetic import synthesise

    with image_progress() as progress:
        synthesise(out, images=images, seed=seed, progress=lambda done, total: progress("synth", done, total))
    console().print(f"3 data sets of {images:,} images -> {out}", soft_wrap=True, markup=False)
