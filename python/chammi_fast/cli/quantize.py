"""``chammi-fast quantize``."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import Annotated, Literal

import typer

from chammi_fast.cli.console import complain, console, warn_of_mixed_installations


def quantize(
    *,
    model: Annotated[str, typer.Option(help="Model file (.onnx) in float32 with its description inside, or 'demo'.")],
    out: Annotated[Path, typer.Option(help="ONNX file to write; embed looks for M.int8.onnx beside M.onnx.")],
    calibrate: Annotated[
        Path | None,
        typer.Option(help="CSV or Parquet table of images like those to embed, with file_path (and channel_width)."),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="CHAMMI folder; with --calibrate, the folder its paths start from.")
    ] = None,
    dataset: Annotated[
        list[str] | None,
        typer.Option(help="Data set of the CHAMMI folder: Allen, HPA or CP; repeatable; all by default."),
    ] = None,
    channels: Annotated[
        str | None,
        typer.Option(help="The table's channels in image order: NAME or SOURCE=NAME,..., or a configuration (CP)."),
    ] = None,
    where: Annotated[str | None, typer.Option(help="Rows of the table to use, as in embed.")] = None,
    spec: Annotated[Path | None, typer.Option(help="Description (JSON) of an ONNX file that carries none.")] = None,
    label: Annotated[str | None, typer.Option(help="Label column: also report how the scores change.")] = None,
    split: Annotated[str | None, typer.Option(help="Split column, as in evaluate.")] = None,
    group: Annotated[str | None, typer.Option(help="Group column, as in evaluate.")] = None,
    images: Annotated[int, typer.Option(min=16, help="Images to calibrate with and to measure on, in all.")] = 640,
    min_cosine: Annotated[
        float, typer.Option(min=-1, max=1, help="To float32, that every measured image keeps.")
    ] = 0.999,
    min_agreement: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the measured images that keep their nearest neighbour.")
    ] = 0.98,
    tool: Annotated[
        Literal["auto", "nncf", "onnxruntime"], typer.Option(help="Library; auto takes the one with the smaller error.")
    ] = "auto",
    threads: Annotated[int, typer.Option(min=0, help="Threads for decoding; 0 takes all usable CPUs.")] = 0,
    seed: Annotated[int, typer.Option(help="Of the choice of images.")] = 0,
) -> None:
    """Write a copy of a model that computes with 8-bit integers, and say what that costs and gives.

    chammi-fast quantize --model hypernet.onnx --calibrate cells.csv --channels CP/nucleus,er --out hypernet.int8.onnx

    chammi-fast quantize --model hypernet.onnx --data CHAMMI --out hypernet.int8.onnx
    """
    from chammi_fast.model import load_model
    from chammi_fast.quantisation import Labels, QuantiseSettings, quantise

    warn_of_mixed_installations()
    named = any(column is not None for column in (label, split, group))
    report = quantise(
        load_model(model, spec=spec),
        out=out,
        data=data,
        data_sets=dataset,
        manifest=calibrate,
        channels=channels,
        where=where,
        labels=Labels(label, split, group) if named else None,
        settings=QuantiseSettings(
            images=images,
            min_cosine=min_cosine,
            min_agreement=min_agreement,
            tool=tool,
            seed=seed,
            threads=threads,
        ),
        told=complain,
    )
    console().print(report.table)
