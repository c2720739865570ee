"""``chammi-fast evaluate``."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from chammi_fast.cli.console import console, memory_size, ray_executor, warn_of_mixed_installations


def evaluate(
    *,
    features: Annotated[
        str, typer.Option(metavar="PATH", help="Folder of embedding tables, or MorphEm's features folder.")
    ],
    out: Annotated[str, typer.Option(metavar="PATH", help="Folder for scores, predictions, and which rows trained.")],
    data: Annotated[str | None, typer.Option(metavar="PATH", help="CHAMMI folder.")] = None,
    manifest: Annotated[
        str | None, typer.Option(metavar="PATH", help="Any labelled table, in place of --data.")
    ] = None,
    task_file: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="TOML or JSON file of tasks: labels, splits, groups (docs/evaluation.md)."),
    ] = None,
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
    classifier: Annotated[
        Literal["knn", "sgd"], typer.Option(help="Nearest neighbours, or MorphEm's linear classifier.")
    ] = "knn",
    k: Annotated[int, typer.Option(min=1, help="Neighbours that vote.")] = 1,
    metric: Annotated[Literal["cosine", "l2"], typer.Option(help="Distance of the nearest neighbour.")] = "cosine",
    diagnose: Annotated[
        list[str] | None, typer.Option(help="Column, such as plate: how well is it predicted? May be repeated.")
    ] = None,
    exclude_same: Annotated[
        list[str] | None,
        typer.Option(
            help="Column, or 'plate,well': score again, comparing no row with rows of its own. May be repeated."
        ),
    ] = None,
    compare: Annotated[
        str | None,
        typer.Option(
            metavar="PATH", help="Results of another model: are the scores different? Writes comparison.json."
        ),
    ] = None,
    sample: Annotated[
        int | None, typer.Option(min=1, help="A quick look at so many training rows and rows of each task.")
    ] = None,
    resamples: Annotated[int, typer.Option(min=0, help="Bootstrap resamples for intervals; 0 for none.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Of the bootstrap, the sample and the linear classifier.")] = 0,
    threads: Annotated[int | None, typer.Option(min=1, help="By default one per processor.")] = None,
    memory: Annotated[
        str | None, typer.Option(help="For features, such as 4GB: larger ones are read block by block.")
    ] = None,
    ray: Annotated[
        str | None, typer.Option(metavar="auto|ADDRESS", help="Search on the Ray cluster at this address.")
    ] = None,
    ray_workers: Annotated[
        int, typer.Option(min=0, help="For --ray: workers at most; 0 takes all that the cluster has room for.")
    ] = 0,
    name: Annotated[str | None, typer.Option(help="Which <name>.npy, where a features folder has several.")] = None,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Score what is there when rows have no embedding.")
    ] = False,
) -> None:
    """Score embeddings: CHAMMI's nine 1-nearest-neighbour tasks and CPS, or any labelled table.

    chammi-fast evaluate --data CHAMMI --features features/ --out results/

    chammi-fast evaluate --manifest cells.csv --label label --split split --features features/ --out results/

    chammi-fast evaluate --manifest cells.csv --label label --features features/ --out results/ --ray auto

    chammi-fast evaluate --manifest cells.csv --task-file tasks.toml --features features/ --out results/
    """
    from chammi_fast.evaluation import compare as compare_results
    from chammi_fast.evaluation import evaluate as run
    from chammi_fast.evaluation import read_scores, scores_table, write_comparison, write_scores
    from chammi_fast.evaluation.comparison import COMPARISON_FILE
    from chammi_fast.files import results_folder
    from chammi_fast.urls import as_path

    warn_of_mixed_installations()
    executor = ray_executor(ray, ray_workers)
    with results_folder(out) as folder:
        other = None if compare is None else read_scores(compare)
        scores = run(
            data,
            features=features,
            manifest=manifest,
            task_file=task_file,
            label=label,
            split=split,
            group=group,
            where=where,
            classifier=classifier,
            k=k,
            metric=metric,
            diagnose=diagnose or (),
            exclude_same=exclude_same or (),
            sample=sample,
            resamples=resamples,
            seed=seed,
            threads=threads,
            allow_missing=allow_missing,
            name=name,
            memory=None if memory is None else memory_size(memory),
            executor=executor,
        )
        comparison = None
        if compare is not None and other is not None:
            names = (folder.resolve().name, as_path(compare).resolve().name)
            comparison = compare_results(scores, other, names=names, resamples=resamples, seed=seed)
            write_comparison(comparison, out)
        else:
            # One that an earlier run left is not of these scores.
            (folder / COMPARISON_FILE).unlink(missing_ok=True)
        write_scores(scores, out)
    printer = console()
    printer.print(scores_table(scores))
    if comparison is not None:
        printer.print(comparison.table())
