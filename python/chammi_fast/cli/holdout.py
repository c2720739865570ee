"""``chammi-fast holdout``."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import Annotated

import typer

from chammi_fast.cli.console import console
from chammi_fast.cli.train import AsPublished, Changes, Init, needed, settle, step_progress


def holdout(
    *,
    data: Annotated[Path, typer.Option(help="CHAMMI folder.")],
    out: Annotated[Path, typer.Option(help="Folder for the runs and the table.")],
    recipe: Annotated[
        list[str] | None,
        typer.Option(help="Recipe to compare (repeatable); by default depthwise- and fixedchannels-finetuned."),
    ] = None,
    init: Init = None,
    changes: Changes = None,
    as_published: AsPublished = False,
) -> None:
    """Train without each data set in turn and score it: the paper's test of unseen channels (Fig. 6B).

    chammi-fast holdout --data CHAMMI --out runs/holdout
    """
    needed()
    from rich.table import Table

    from chammi_fast.training.data import Source
    from chammi_fast.training.holdout import compare_held_out

    chosen = recipe or ["depthwise-finetuned", "fixedchannels-finetuned"]
    settled = [settle(name, init, changes, as_published=as_published) for name in chosen]
    remarks: dict[str, None] = {}  # each once: every run scores the same images
    with step_progress() as progress:
        rows = compare_held_out(settled, Source(data), out, progress, remarks.setdefault)
    table = Table("recipe", "trained on", *rows[0].f1, title="Mean macro F1 of the generalisation tasks", box=None)
    for row in rows:
        table.add_row(row.recipe, row.trained_on, *(f"{value:.3f}" for value in row.f1.values()))
    console().print(table)
    for remark in remarks:
        console().print(remark, soft_wrap=True, markup=False)
