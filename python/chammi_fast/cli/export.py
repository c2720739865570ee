"""``chammi-fast export``."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from chammi_fast.cli.console import console
from chammi_fast.errors import ExportError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chammi_fast.training.export import ExportReport


def export(
    *,
    out: Annotated[Path, typer.Option(help="ONNX file to write.")],
    checkpoint: Annotated[
        list[Path] | None,
        typer.Option(
            help="Checkpoint of a published CHAMMI model: it tells the network and its size. Several FixedChannels "
            "checkpoints, one for each data set, become one file. Nothing pickled in it is run."
        ),
    ] = None,
    dataset: Annotated[
        list[str] | None,
        typer.Option(
            help="Data set (Allen, HPA, CP) of a --checkpoint. FixedChannels: the one that it was trained on, told by "
            "its number of channels if left out; as often as --checkpoint. Other models know several: the file is "
            "specialised to this one's channels and normalisation, as by --channels; adaptive if left out."
        ),
    ] = None,
    strategy: Annotated[
        str | None,
        typer.Option(
            help="fixedchannels, channelreplication, depthwise, targetparam, sliceparam, templatemixing or hypernet.",
            show_default="that of --weights, or hypernet",
        ),
    ] = None,
    backbone: Annotated[
        str | None,
        typer.Option(
            help="timm model that begins with one convolution.",
            show_default="that of --weights, or convnext_tiny.fb_in22k",
        ),
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="Weights of a network trained with chammi-fast.")] = None,
    init: Annotated[
        str | None,
        typer.Option(
            help="Start without --weights: 'random', 'imagenet', or a file of timm's weights.", show_default="random"
        ),
    ] = None,
    channels: Annotated[
        str | None,
        typer.Option(help="Fix the channels (a configuration, or a list): a specialised file; adaptive by default."),
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(min=32, help="Side of the network's input in pixels.", show_default="that of --weights, or 224"),
    ] = None,
    pooling: Annotated[
        Literal["avg", "max", "avgmax"] | None,
        typer.Option(help="Global pooling.", show_default="that of --weights, or avg"),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of random weights.", show_default="0")] = None,
    verify: Annotated[
        bool, typer.Option(help="Compare the written file with PyTorch; leave none that differs by more than 1e-4.")
    ] = True,
) -> None:
    """Write a channel-adaptive network as one ONNX file that carries its own description.

    chammi-fast export --checkpoint hypernet.pt --out hypernet.onnx

    chammi-fast export --weights trained.pt --channels CP --out trained-cp.onnx
    """
    from chammi_fast.extras import require

    for module in ("torch", "timm", "onnxscript", "onnxruntime"):
        require(module, purpose="exporting a model")
    from chammi_fast.training.export import ExportOptions, export_model

    asked: dict[str, object] = {"strategy": strategy, "backbone": backbone, "size": size, "pooling": pooling}
    asked |= {"weights": weights, "init": init, "seed": seed}
    given = {name: value for name, value in asked.items() if value is not None}
    if checkpoint:
        report = _export_checkpoint(checkpoint, dataset or [], given, out, channels=channels, verify=verify)
    elif weights is not None and (init is not None or seed is not None):
        raise ExportError("--weights says what the network starts from: leave out --init and --seed.")
    elif dataset:
        raise ExportError("--dataset belongs to --checkpoint: name the channels of other networks by --channels.")
    else:
        report = export_model(ExportOptions(out=out, channels=channels, verify=verify, **given))  # type: ignore[arg-type]
    console().print(report.render(), soft_wrap=True, markup=False)


def _export_checkpoint(
    paths: list[Path],
    data_sets: list[str],
    given: Mapping[str, object],
    out: Path,
    *,
    channels: str | None,
    verify: bool,
) -> ExportReport:
    from chammi_fast.training.checkpoint import import_checkpoint
    from chammi_fast.training.export import export_onnx

    if given:
        raise ExportError(f"--checkpoint brings a network with it: leave out --{next(iter(given))}.")
    network, spec = import_checkpoint(paths, data_sets=data_sets)
    if data_sets and spec.strategy != "fixedchannels":
        if channels is not None:
            raise ExportError("--dataset and --channels both say which channels the file is for: leave one out.")
        (channels,) = data_sets
    return export_onnx(network, spec, out, channels=channels, verify=verify)
