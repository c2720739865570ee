"""``chammi-fast plan`` and ``chammi-fast merge``: one run on several processes or machines."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from chammi_fast.cli.console import complain, console


def plan(
    *,
    model: Annotated[str, typer.Option(help="Model file (.onnx), as for embed.")],
    out: Annotated[str, typer.Option(metavar="PATH", help="File for the plan (.json).")],
    data: Annotated[
        str | None, typer.Option(metavar="PATH", help="CHAMMI folder, or the folder the table's paths start from.")
    ] = None,
    dataset: Annotated[list[str] | None, typer.Option(help="Data set of the CHAMMI folder; repeatable.")] = None,
    manifest: Annotated[str | None, typer.Option(metavar="PATH", help="CSV or Parquet table, as for embed.")] = None,
    channels: Annotated[str | None, typer.Option(help="The table's channels in image order.")] = None,
    where: Annotated[str | None, typer.Option(help="Rows of the table.")] = None,
    spec: Annotated[
        str | None, typer.Option(metavar="PATH", help="Description (JSON) of an ONNX file that carries none.")
    ] = None,
    precision: Annotated[str, typer.Option(help="As for embed.")] = "auto",
    backend: Annotated[str, typer.Option(help="As for embed.")] = "auto",
    device: Annotated[str, typer.Option(help="As for embed.")] = "auto",
    min_cosine: Annotated[float, typer.Option(min=-1, max=1, help="As for embed.")] = 0.999,
    mask: Annotated[Literal["keep", "drop", "apply"], typer.Option(help="As for embed.")] = "keep",
    unknown: Annotated[Literal["error", "mean"], typer.Option(help="As for embed.")] = "error",
) -> None:
    """Settle how a run will be computed, before processes or machines share it.

    chammi-fast plan --model hypernet.onnx --data CHAMMI --out plan.json

    chammi-fast embed --model hypernet.onnx --data CHAMMI --plan plan.json --shard 1/4 --out parts/1
    """
    from chammi_fast.embedding import EmbedSettings
    from chammi_fast.embedding import plan as run
    from chammi_fast.model import load_model

    settings = EmbedSettings(
        backend=backend, device=device, precision=precision, min_cosine=min_cosine, mask=mask, unknown=unknown
    )
    made = run(
        load_model(model, spec=spec),
        out=out,
        data=data,
        data_sets=dataset,
        manifest=manifest,
        channels=channels,
        where=where,
        settings=settings,
        told=complain,
    )
    shards = ", ".join(f"{name or 'the table'} in {count}" for name, count in made.shards.items())
    console().print(f"{made.backend} {made.precision} on {made.device}; {shards} shards -> {out}", markup=False)


def merge(
    folders: Annotated[list[str], typer.Argument(metavar="DIR...", help="Outputs of embed --shard.")],
    *,
    out: Annotated[str, typer.Option(metavar="PATH", help="Folder for the whole embedding tables.")],
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace what another run left in the folder.")
    ] = False,
) -> None:
    """Join the parts of a run; nothing is joined if a shard is missing, damaged, or of another run.

    Joining them again takes what was embedded anew in the meantime.

    chammi-fast merge parts/1 parts/2 parts/3 parts/4 --out features/
    """
    from chammi_fast.embedding import merge as run

    for report in run(folders, out, overwrite=overwrite):
        name = f"{report.name}: " if report.name else ""
        text = f"{name}{report.images:,} images in {report.shards:,} shards, {report.failed:,} of them failed"
        console().print(f"{text} -> {report.folder}", soft_wrap=True, markup=False)
