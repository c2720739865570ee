"""``chammi-fast embed``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from chammi_fast.cli.console import (
    SOME_FAILED,
    complain,
    console,
    image_progress,
    ray_executor,
    warn_of_mixed_installations,
)
from chammi_fast.cli.profile import profile_wells

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chammi_fast.embedding import EmbedReport
    from chammi_fast.images import CropSettings


def embed(
    *,
    model: Annotated[str, typer.Option(help="Model file (.onnx) with its description inside, or 'demo'.")],
    out: Annotated[str, typer.Option(metavar="PATH", help="Folder for the embedding tables.")],
    data: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="CHAMMI folder; with --manifest, the folder its paths start from."),
    ] = None,
    dataset: Annotated[
        list[str] | None,
        typer.Option(help="Data set of the CHAMMI folder: Allen, HPA or CP; repeatable; all by default."),
    ] = None,
    manifest: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="CSV or Parquet table with file_path (and channel_width for tapes)."),
    ] = None,
    channels: Annotated[
        str | None,
        typer.Option(help="The table's channels in image order: NAME or SOURCE=NAME,..., or a configuration (CP)."),
    ] = None,
    plate: Annotated[
        str | None, typer.Option(help="LoadData table, folder or pattern of a plate's fields; its cells are embedded.")
    ] = None,
    locations: Annotated[
        str | None, typer.Option(help="The plate's cells: a table, or a folder or pattern of tables or masks.")
    ] = None,
    illumination: Annotated[
        str, typer.Option(help="The plate's illumination functions: auto, none, or a folder or pattern.")
    ] = "auto",
    plate_map: Annotated[
        str | None, typer.Option(metavar="PATH", help="What is in each of the plate's wells: a table.")
    ] = None,
    images: Annotated[
        str | None, typer.Option(metavar="PATH", help="Where the plate's images lie, if not where the table says.")
    ] = None,
    crop_size: Annotated[
        int, typer.Option(min=1, max=16384, help="Side of the square around each cell, in pixels.")
    ] = 160,
    edge: Annotated[
        Literal["reflect", "constant", "skip"], typer.Option(help="What lies beyond a field's edge.")
    ] = "reflect",
    scale: Annotated[
        str, typer.Option(metavar="field|crop|LOW:HIGH", help="What becomes 0 and 1: see docs/screening.md.")
    ] = "field",
    neighbours: Annotated[
        Literal["keep", "mask"], typer.Option(help="Whether pixels of other cells are set to 0 (needs masks).")
    ] = "keep",
    save_crops: Annotated[
        str | None, typer.Option(metavar="DIR", help="Also write the crops as 8-bit tapes, with a table of them.")
    ] = None,
    profile: Annotated[
        str | None, typer.Option(metavar="DIR", help="Then make profiles of the plate's wells, into this folder.")
    ] = None,
    control: Annotated[
        str | None, typer.Option(help="For --profile: which wells are controls; without any, profiles are plain means.")
    ] = None,
    replicates: Annotated[str | None, typer.Option(help="For --profile: column of replicates, judged by mAP.")] = None,
    where: Annotated[
        str | None, typer.Option(help="Rows of the table to embed, such as 'chunk == \"SBS\" and channels >= 2'.")
    ] = None,
    spec: Annotated[
        str | None, typer.Option(metavar="PATH", help="Description (JSON) of an ONNX file that carries none.")
    ] = None,
    npy: Annotated[
        bool, typer.Option("--npy", help="Also write <model name>.npy in row order, NaN rows for failed images.")
    ] = False,
    precision: Annotated[
        str,
        typer.Option(
            help="Number format of the network: auto (the fastest that is accurate enough), fp32, bf16, fp16, int8."
        ),
    ] = "auto",
    backend: Annotated[str, typer.Option(help="Inference library: auto, onnxruntime, openvino, tensorrt.")] = "auto",
    device: Annotated[str, typer.Option(help="Where the network runs: auto, cpu, cuda:0, ...")] = "auto",
    min_cosine: Annotated[
        float,
        typer.Option(min=-1, max=1, help="To fp32, of the worst of the first images: below, a precision is refused."),
    ] = 0.999,
    batch_size: Annotated[str, typer.Option(metavar="N|auto", help="Images per network call.")] = "auto",
    threads: Annotated[int, typer.Option(min=0, help="Threads; 0 takes all usable CPUs.")] = 0,
    streams: Annotated[
        int, typer.Option(min=0, help="Parts of a batch computed side by side (openvino); 0 leaves it to the backend.")
    ] = 0,
    store: Annotated[
        Literal["float32", "float16"], typer.Option(help="How the tables hold the embeddings.")
    ] = "float32",
    mask: Annotated[
        Literal["keep", "drop", "apply"], typer.Option(help="What to do with a mask in the tapes' last channel.")
    ] = "keep",
    unknown: Annotated[
        Literal["error", "mean"], typer.Option(help="An unknown channel is an error, or the mean of the known ones.")
    ] = "error",
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first image that fails.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace what another run left in the folder, instead of refusing it.")
    ] = False,
    retry_errors: Annotated[
        bool, typer.Option("--retry-errors", help="Embed the images that an earlier run lists as failed, no others.")
    ] = False,
    shard: Annotated[
        str, typer.Option(metavar="I/N", help="The I-th of N parts of the run, into a folder of its own; then merge.")
    ] = "",
    plan: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="What chammi-fast plan wrote: how all parts of the run are computed."),
    ] = None,
    ray: Annotated[
        str | None, typer.Option(metavar="auto|ADDRESS", help="Embed on the Ray cluster at this address.")
    ] = None,
    ray_workers: Annotated[
        int, typer.Option(min=0, help="For --ray: workers at most; 0 takes all that the cluster has room for.")
    ] = 0,
) -> None:
    """Turn images, or the cells of a plate, into embeddings: one Parquet table per data set or plate.

    chammi-fast embed --model hypernet.onnx --data CHAMMI --out features/

    chammi-fast embed --model hypernet.onnx --manifest cells.csv --channels CP/nucleus,er --out features/

    chammi-fast embed --model hypernet.onnx --plate load_data.csv --locations DIR --channels DNA=nucleus,... --out out/

    On a Ray cluster: the same, with --ray auto

    From images to profiles of wells in one go: the same, with --profile profiles/
    """
    from chammi_fast.embedding import EmbedSettings
    from chammi_fast.embedding import embed as run
    from chammi_fast.model import load_model

    warn_of_mixed_installations()
    settings = EmbedSettings(
        backend=backend,
        device=device,
        precision=precision,
        min_cosine=min_cosine,
        batch_size=_number(batch_size),
        threads=threads,
        streams=streams,
        store=store,
        strict=strict,
        npy=npy,
        mask=mask,
        unknown=unknown,
        overwrite=overwrite,
        retry_errors=retry_errors,
        shard=shard,
        plan=str(plan or ""),
    )
    of_plate = {"locations": locations, "plate-map": plate_map, "images": images, "save-crops": save_crops}
    _belong("plate", plate, of_plate | {"profile": profile})
    of_crops = {"crop-size": crop_size != 160, "edge": edge != "reflect", "scale": scale != "field"}
    of_crops |= {"neighbours": neighbours != "keep", "illumination": illumination != "auto"}
    _belong("plate", plate, {name: given or None for name, given in of_crops.items()})
    executor = ray_executor(ray, ray_workers)
    _belong("profile", profile, {"control": control, "replicates": replicates})
    if profile is not None and shard:
        raise typer.BadParameter(
            "needs the whole run: merge its parts, then use chammi-fast profile.", param_hint="--profile"
        )
    opened = None
    if plate is not None:
        from chammi_fast.plates import open_plate

        opened = open_plate(plate, locations=locations, illumination=illumination, plate_map=plate_map, images=images)
    crops = None if opened is None else _crops(crop_size, edge, scale, neighbours)
    with image_progress("images" if opened is None else "fields") as progress:
        reports = run(
            load_model(model, spec=spec),
            out=out,
            data=data,
            data_sets=dataset,
            manifest=manifest,
            channels=channels,
            where=where,
            plate=opened,
            crops=crops,
            save=save_crops,
            settings=settings,
            executor=executor,
            progress=progress,
            told=complain,
        )
    for report in reports:
        _print_report(report)
        if profile is not None and report.failed < report.images:
            profile_wells(report.folder, profile, control=control, replicates=replicates)
    if any(report.failed for report in reports):
        raise typer.Exit(SOME_FAILED)


def _belong(to: str, given: object, options: Mapping[str, object]) -> None:
    """Refuse options that mean nothing without another."""
    for name, value in options.items():
        if given is None and value is not None:
            raise typer.BadParameter(f"belongs to --{to}: give it, too.", param_hint=f"--{name}")


def _number(batch_size: str) -> int:
    """Return 0 for "auto"."""
    if batch_size == "auto":
        return 0
    if not batch_size.isdecimal() or int(batch_size) < 1:
        raise typer.BadParameter(f"'{batch_size}' is neither auto nor a number of images.", param_hint="--batch-size")
    return int(batch_size)


def _crops(
    size_px: int, edge: Literal["reflect", "constant", "skip"], scale: str, neighbours: Literal["keep", "mask"]
) -> CropSettings:
    from chammi_fast.images import CropSettings

    if scale == "field":
        return CropSettings(size_px, edge, "field", neighbours=neighbours)
    if scale == "crop":
        return CropSettings(size_px, edge, "crop", neighbours=neighbours)
    low, _, high = scale.partition(":")
    try:
        return CropSettings(size_px, edge, "range", range=(float(low), float(high)), neighbours=neighbours)
    except ValueError:
        raise typer.BadParameter(
            f"'{scale}' is neither field nor crop nor two numbers such as 0:4095.", param_hint="--scale"
        ) from None


def _print_report(report: EmbedReport) -> None:
    if report.before == report.images:
        what = "complete, nothing to do" if report.images else "nothing to embed in this part"
        console().print(f"{report.name}: {what} -> {report.folder}", soft_wrap=True, markup=False)
        return
    rate = (report.images - report.before) / report.seconds
    text = f"{report.name}: {report.images - report.failed:,} of {report.images:,} images embedded"
    if report.before:
        text += f", {report.before:,} of them before"
    text += f" in {report.seconds:.1f} s ({rate:,.0f} images/s) -> {report.folder}"
    console().print(text, soft_wrap=True, markup=False)
    if report.failed == report.images:
        complain(f"{report.name}: none of its images could be embedded; the first: {report.first_cause}.")
    elif report.failed:
        complain(
            f"{report.name}: {report.failed:,} images failed; they are listed in {report.folder / 'errors.parquet'}."
        )
