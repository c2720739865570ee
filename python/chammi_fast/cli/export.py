"""``chammi-fast export``."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import Annotated, Literal

import typer

from chammi_fast.cli.console import console


def export(
    *,
    out: Annotated[Path, typer.Option(help="ONNX file to write.")],
    strategy: Annotated[str, typer.Option(help="Channel-adaptive strategy: hypernet.")] = "hypernet",
    backbone: Annotated[str, typer.Option(help="Any timm ConvNeXt.")] = "convnext_tiny.fb_in22k",
    weights: Annotated[
        Path | None, typer.Option(help="State dict (torch.save) of a network trained with chammi-fast.")
    ] = None,
    init: Annotated[
        str,
        typer.Option(help="Start without --weights: 'random', 'imagenet', or a file of timm's weights."),
    ] = "random",
    channels: Annotated[
        str | None,
        typer.Option(help="Fix the channels (a configuration, or a list): a specialised file; adaptive by default."),
    ] = None,
    size: Annotated[int, typer.Option(min=32, help="Side of the network's input in pixels.")] = 224,
    pooling: Annotated[Literal["avg", "max", "avgmax"], typer.Option(help="Global pooling.")] = "avg",
    seed: Annotated[int, typer.Option(help="Seed of random weights.")] = 0,
) -> None:
    """Write a channel-adaptive network as one ONNX file that carries its own description.

    chammi-fast export --backbone convnext_tiny --weights hypernet.pt --out hypernet.onnx

    chammi-fast export --weights hypernet.pt --channels CP --out hypernet-cp.onnx
    """
    from chammi_fast.extras import require

    for module in ("torch", "timm", "onnxscript", "onnxruntime"):
        require(module, purpose="exporting a model")
    from chammi_fast.training.export import ExportOptions, export_model

    report = export_model(
        ExportOptions(
            out=out,
            strategy=strategy,
            backbone=backbone,
            weights=weights,
            init=init,
            channels=channels,
            size=size,
            pooling=pooling,
            seed=seed,
        )
    )
    console().print(report.render(), soft_wrap=True, markup=False)
