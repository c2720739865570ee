"""``chammi-fast plate``."""

from __future__ import annotations

import sys
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import Annotated, Literal

import typer

from chammi_fast.cli.console import SOME_FAILED, console, image_progress

app = typer.Typer(help="Look at plates of a screen, or make synthetic ones.", no_args_is_help=True)


@app.callback()
def _plate() -> None:
    pass


@app.command()
def synth(
    *,
    out: Annotated[Path, typer.Option(help="Folder to make; must not exist or be empty.")],
    plates: Annotated[int, typer.Option(min=1, help="Plates of the same layout.")] = 1,
    wells: Annotated[int, typer.Option(help="Wells of a plate: 384, 96, 24 or 6.")] = 384,
    sites: Annotated[int, typer.Option(min=1, help="Fields of view per well.")] = 2,
    cells: Annotated[int, typer.Option(min=1, help="About so many cells per field.")] = 12,
    size: Annotated[int, typer.Option(min=64, help="Side of the images in pixels.")] = 256,
    compounds: Annotated[int, typer.Option(min=0, help="Compounds; the wells that they leave hold the control.")] = 30,
    replicates: Annotated[int, typer.Option(min=1, help="Wells of each compound on each plate.")] = 8,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same pixels.")] = 0,
) -> None:
    """Make plates of painted cells with planted effects: 16-bit images, LoadData, cells, plate map.

    chammi-fast plate synth --out screen/ --wells 96 --compounds 12 --replicates 4
    """
    from chammi_fast.synthetic.plate import PlateDesign, synthesise_plate

    design = PlateDesign(
        plates=plates,
        wells=wells,
        sites=sites,
        cells=cells,
        size_px=size,
        compounds=compounds,
        replicates=replicates,
        seed=seed,
    )
    with image_progress("fields") as progress:
        synthesise_plate(out, design, progress=lambda done, total: progress("fields", done, total))
    fields, several = plates * wells * sites, "" if plates == 1 else "s"
    made = f"{fields:,} fields of {plates} plate{several} -> {out / 'load_data.csv'}"
    console().print(made, soft_wrap=True, markup=False)


@app.command()
def check(
    plate: Annotated[
        str,
        typer.Argument(
            help="LoadData table (CSV, Parquet); or a folder of images, or a pattern such as "
            "'images/{plate}/{well}_{site}_{channel}.tif'."
        ),
    ],
    *,
    locations: Annotated[
        str | None,
        typer.Option(help="Cells: a folder of tables per field, one table of all, or a folder or pattern of masks."),
    ] = None,
    masks: Annotated[
        Literal["auto", "labels", "binary", "outlines"], typer.Option(help="What images of cells show.")
    ] = "auto",
    channels: Annotated[
        str | None, typer.Option(help="The plate's channels to use: DNA=nucleus,ER=er,...; all by default.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Model file whose channels they must be.")] = None,
    spec: Annotated[Path | None, typer.Option(help="Description (JSON) of an ONNX file that carries none.")] = None,
    illumination: Annotated[
        str,
        typer.Option(help="auto (the table's), none, a folder of .npy files, or a path with {plate} and {channel}."),
    ] = "auto",
    plate_map: Annotated[
        Path | None, typer.Option(help="What is in each well: a table, or a folder with barcode_platemap.csv.")
    ] = None,
    images: Annotated[Path | None, typer.Option(help="Where the images lie now, if not where the table says.")] = None,
    crop_size: Annotated[int, typer.Option(min=1, help="Side of the crops in pixels.")] = 160,
    sample: Annotated[int, typer.Option(min=0, help="Fields whose pixels are read.")] = 20,
    json: Annotated[bool, typer.Option("--json", help="Print the report as JSON, with every name in it.")] = False,
) -> None:
    """Look through a plate before any work: files, sizes, bit depths, channels, cells.

    chammi-fast plate check load_data.csv --locations locations/ --model model.onnx --channels DNA=nucleus,ER=er
    """
    from chammi_fast.check.plate import check_plate
    from chammi_fast.model import load_model
    from chammi_fast.plates import Masks, open_plate

    opened = open_plate(
        plate,
        locations=None if locations is None else Masks(locations, kind=masks),
        illumination=illumination,
        plate_map=plate_map,
        images=images,
    )
    report = check_plate(
        opened,
        channels=channels,
        spec=None if model is None else load_model(model, spec=spec).spec,
        crop_size=crop_size,
        sample=sample,
    )
    if json:
        sys.stdout.write(report.to_json() + "\n")
    else:
        console().print(report.render())
    if report.problems:
        raise typer.Exit(SOME_FAILED)
