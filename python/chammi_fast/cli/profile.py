"""``chammi-fast profile``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from chammi_fast.cli.console import console

if TYPE_CHECKING:
    from pathlib import Path

    from rich.table import Table

    from chammi_fast.profiling import ProfileResult
    from chammi_fast.profiling.settings import Select


def profile(
    *,
    out: Annotated[str, typer.Option(metavar="PATH", help="Folder for the profiles, rankings and figures.")],
    embeddings: Annotated[
        str | None, typer.Option(metavar="PATH", help="Folder of an embedding table of cells.")
    ] = None,
    by: Annotated[str, typer.Option(help="Cells with equal values in these columns become one profile.")] = (
        "Metadata_Plate,Metadata_Well"
    ),
    where: Annotated[str | None, typer.Option(help="Cells to use, as in embed.")] = None,
    profiles: Annotated[
        list[str] | None,
        typer.Option(metavar="PATH", help="Table of profiles, in place of --embeddings; may be repeated."),
    ] = None,
    features: Annotated[str, typer.Option(help="Columns of --profiles that are features, such as 'Cells_*'.")] = "*",
    plate_map: Annotated[
        str | None, typer.Option(metavar="PATH", help="What is in each well: a table, or a folder of maps.")
    ] = None,
    control: Annotated[
        str | None, typer.Option(help="Which profiles are controls, such as 'Metadata_pert_type == \"negcon\"'.")
    ] = None,
    aggregate: Annotated[Literal["mean", "median", "robust"], typer.Option(help="How cells become one.")] = "mean",
    normalise: Annotated[
        Literal["standardize", "robustize", "mad_robustize", "none"], typer.Option(help="Plate by plate.")
    ] = "standardize",
    normalise_to: Annotated[
        Literal["auto", "controls", "all"], typer.Option(help="auto: the controls where there are any.")
    ] = "auto",
    select: Annotated[str, typer.Option(help="Features to drop: variance, correlation, or both.")] = "",
    correlation: Annotated[float, typer.Option(help="Above which one of two features is dropped.")] = 0.9,
    sphere: Annotated[
        Literal["auto", "ZCA-cor", "ZCA", "PCA-cor", "PCA", "none"],
        typer.Option(help="Whitening by the controls; auto: ZCA-cor where there are controls."),
    ] = "auto",
    sphere_epsilon: Annotated[float, typer.Option(help="Added to the controls' singular values.")] = 1e-6,
    replicates: Annotated[str | None, typer.Option(help="Column of replicates, to be judged by mAP.")] = None,
    mechanism: Annotated[str | None, typer.Option(help="Column of mechanisms, to be judged by mAP.")] = None,
    across: Annotated[str | None, typer.Option(help="Column in which replicates must differ to count.")] = None,
    null_size: Annotated[int, typer.Option(help="Random rankings behind the p-values.")] = 10_000,
    seed: Annotated[int, typer.Option(help="Of the random rankings.")] = 0,
    plate: Annotated[str, typer.Option(help="Column of plates.")] = "Metadata_Plate",
    well: Annotated[str, typer.Option(help="Column of wells.")] = "Metadata_Well",
) -> None:
    """Make profiles of wells from embeddings of cells, take out plate effects, and rank compounds by mAP.

    chammi-fast profile --embeddings embeddings/ --by Metadata_Plate,Metadata_Well --control 'Metadata_pert_type ==
    "negcon"' --replicates Metadata_compound --out profiles/
    """
    from chammi_fast.profiling import Judging, Processing
    from chammi_fast.profiling import profile as run

    result = run(
        embeddings,
        by=_listed(by),
        where=where,
        profiles=profiles or [],
        features=_listed(features),
        plate_map=plate_map,
        processing=Processing(
            aggregate,
            control,
            normalise,
            normalise_to,
            cast("tuple[Select, ...]", tuple(_listed(select))),
            correlation,
            sphere,
            sphere_epsilon,
            plate,
            well,
        ),
        judging=Judging(replicates, mechanism, across, null_size, seed=seed),
        out=out,
    )
    _print(result)


def profile_wells(embeddings: Path, out: str, *, control: str | None, replicates: str | None) -> None:
    """Make profiles as ``profile`` does by default; without controls, plain means.

    What is common to all wells of a plate is no nuisance there to take out: it may be a single well.
    """
    from chammi_fast.profiling import Judging, Processing
    from chammi_fast.profiling import profile as run

    processing = Processing(normalise="none") if control is None else Processing(control=control)
    _print(run(embeddings, processing=processing, judging=Judging(replicates), out=out))


def _print(result: ProfileResult) -> None:
    screen = console()
    for note in result.notes:
        screen.print(f"note: {note}", markup=False)
    screen.print(_table(result))


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _table(result: ProfileResult) -> Table:
    from rich.table import Table
    from rich.text import Text

    cells = "" if result.cells is None else f" of {result.cells:,} cells"
    features = f"{len(result.profiles.features):,} features"
    table = Table(title=f"{len(result.profiles):,} profiles{cells}, {features}", title_justify="left")
    for name in ("measure", "of", "value"):
        table.add_column(name, justify="right" if name == "value" else "left")
    for row in _measures(result):
        table.add_row(*(Text(cell) for cell in row))  # brackets in a name are no markup
    return table


def _measures(result: ProfileResult) -> list[tuple[str, str, str]]:
    rows = []
    for name, judgement in (("replicability", result.replicability), ("mechanism", result.mechanism)):
        if judgement is not None:
            groups = judgement.ranking.num_rows
            rows.append((f"{name}: mean mAP", f"{groups:,} of {judgement.column}", f"{judgement.mean:.3f}"))
            rows.append((f"{name}: found", f"p < {result.judging.threshold:g}, corrected", f"{judgement.found:,}"))
    nearest = [] if result.nearest is None else result.nearest.to_pylist()
    return rows + [
        ("nearest is a replicate", f"{row['plate']} on {row['other']}", f"{row['accuracy']:.3f}") for row in nearest
    ]
