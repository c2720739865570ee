"""``chammi-fast evaluate``."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import Annotated, Literal

import typer

from chammi_fast.cli.console import console, warn_of_mixed_installations


def evaluate(
    *,
    features: Annotated[Path, typer.Option(help="Folder of embedding tables, or MorphEm's features folder.")],
    out: Annotated[Path, typer.Option(help="Folder for scores.json and scores.csv.")],
    data: Annotated[Path | None, typer.Option(help="CHAMMI folder.")] = None,
    manifest: Annotated[Path | None, typer.Option(help="Any labelled table, in place of --data.")] = None,
    label: Annotated[str | None, typer.Option(help="The table's label column.")] = None,
    split: Annotated[
        str | None,
        typer.Option(help="The table's split column: 'Train' rows are the reference, each other value a task."),
    ] = None,
    group: Annotated[
        str | None,
        typer.Option(help="The table's group column: each row is also compared with its task's other groups."),
    ] = None,
    where: Annotated[str | None, typer.Option(help="Rows of the table to score, as in embed.")] = None,
    metric: Annotated[Literal["cosine", "l2"], typer.Option(help="Distance of the nearest neighbour.")] = "cosine",
    name: Annotated[str | None, typer.Option(help="Which <name>.npy, where a features folder has several.")] = None,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Score what is there when rows have no embedding.")
    ] = False,
) -> None:
    """Score embeddings: CHAMMI's nine 1-nearest-neighbour tasks and CPS, or any labelled table.

    chammi-fast evaluate --data CHAMMI --features features/ --out results/

    chammi-fast evaluate --manifest cells.csv --label label --split split --features features/ --out results/
    """
    from chammi_fast.evaluation import evaluate as run
    from chammi_fast.evaluation import scores_table, write_scores
    from chammi_fast.files import results_folder

    warn_of_mixed_installations()
    with results_folder(out):
        scores = run(
            data,
            features=features,
            manifest=manifest,
            label=label,
            split=split,
            group=group,
            where=where,
            metric=metric,
            allow_missing=allow_missing,
            name=name,
        )
        write_scores(scores, out)
    console().print(scores_table(scores))
