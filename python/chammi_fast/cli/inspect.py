"""``chammi-fast inspect``."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chammi_fast.images import ImageInfo
    from chammi_fast.inspecting import ImageReport, ModelReport, Port
    from chammi_fast.spec import Spec

PREDICTORS = {1: "", 2: ", horizontal differences", 3: ", differences of floats"}
LABEL_WIDTH = 16
KILO, UNITS = 1000, ("bytes", "kB", "MB", "GB", "TB")


def inspect(
    file: Annotated[str, typer.Argument(help="A TIFF or PNG image, a model (.onnx), or 'demo'.")],
    *,
    channel_width: Annotated[
        int | None, typer.Option(min=1, help="Width of one channel, if the image is a tape of channels side by side.")
    ] = None,
    spec: Annotated[str | None, typer.Option(help="Description (JSON) of an ONNX file that carries none.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON (docs/formats.md) instead.")] = False,
) -> None:
    """Tell what is in an image or a model, and what chammi-fast makes of it.

    chammi-fast inspect cell.tiff --channel-width 160

    chammi-fast inspect hypernet.onnx
    """
    from chammi_fast.inspecting import ImageReport, inspect_file

    report = inspect_file(file, channel_width=channel_width, spec=spec)
    if as_json:
        sys.stdout.write(json.dumps(_finite(report.to_json()), indent=2) + "\n")
        return
    lines = _of_image(report) if isinstance(report, ImageReport) else _of_model(report)
    for label, value in lines:
        sys.stdout.write(f"{label:<{LABEL_WIDTH}}{value}".rstrip() + "\n")


def _of_image(report: ImageReport) -> Iterator[tuple[str, str]]:
    yield "file", f"{report.path} ({_bytes(report.file_bytes)})"
    if report.info is None:
        yield "format", f"{report.refusal}; decoded by tifffile and imagecodecs, which is slower"
    else:
        yield from _header(report.info)
    yield "read_image", f"{_shape(report.shape)} {report.dtype}"
    if report.planes:
        yield "read_planes", f"{_shape((len(report.planes), *report.plane_shape))} {report.dtype}"
    for number, plane in enumerate(report.planes):
        values = f"{plane.minimum:g} to {plane.maximum:g}, mean {plane.mean:.4g}"
        yield f"  channel {number}", values
    for note in report.notes:
        yield "note", note


def _header(info: ImageInfo) -> Iterator[tuple[str, str]]:
    predictor = PREDICTORS.get(info.predictor, "") if info.format == "tiff" else ""
    packed = "not compressed" if info.compression == "none" else info.compression
    yield "format", f"{info.format.upper()}, {packed}{predictor}"
    yield "size", f"{info.height:,} x {info.width:,} pixels (height x width)"
    samples = "1 sample" if info.samples == 1 else f"{info.samples} samples"
    order = f", {info.byte_order}-endian" if info.bits > 8 else ""
    yield "pixels", f"{samples} of {info.bits} bits{order}; read as {info.dtype}"
    if info.format == "tiff":
        yield "pages", f"{info.pages:,}"
        stored = f"strips of {info.rows_per_strip:,} rows"
        if info.tile is not None:
            stored = f"tiles of {info.tile[0]} x {info.tile[1]}"
        yield "stored in", stored + (", samples plane by plane" if info.planar else "")


def _of_model(report: ModelReport) -> Iterator[tuple[str, str]]:
    yield "file", f"{report.path} ({_bytes(report.file_bytes)})"
    yield "sha256", report.sha256
    made = f", by {report.producer}" if report.producer else ""
    yield "ONNX", f"opset {report.opset}, IR version {report.ir_version}{made}; {report.weights:,} weights"
    for label, ports in (("input", report.inputs), ("output", report.outputs)):
        for port in ports:
            yield label, _port(port)
    if report.spec is None:
        yield "description", "none: give one with --spec FILE.json (its grammar is in docs/formats.md)"
        return
    yield from _described(report.spec)
    if report.spec.quantisation is not None:
        yield from _quantised(report)
    elif report.beside:
        yield "quantised", f"{report.beside} lies beside it"


def _described(spec: Spec) -> Iterator[tuple[str, str]]:
    yield "strategy", f"{spec.strategy} ({spec.form})"
    yield "backbone", f"{spec.backbone}; pooling {spec.pooling}"
    per_channel = " for each channel, one after another" if spec.per_channel else ""
    yield "embedding", f"{spec.embedding_size:,} numbers{per_channel}"
    size, resize = spec.preprocessing.size, spec.preprocessing.resize
    how = f"shorter side to {size}, then the centre" if resize == "shorter" else f"the centre, {size} x {size}"
    yield "preprocessing", "images as they are" if size is None else how
    if spec.fixed_channels is not None:
        yield "channels", f"{', '.join(spec.fixed_channels)}, in this order"
    else:
        taken = {
            "vocabulary": "any of the vocabulary, in any order",
            "configurations": "all of one configuration, in any order",
            "any": "any, known or not",
        }
        yield "channels", taken[spec.accepts]
    yield "vocabulary", f"{len(spec.tokens)} names (mean, standard deviation of pixels in [0, 1])"
    width = max(len(token.name) for token in spec.tokens)
    for token in spec.tokens:
        members = f"  mean of {', '.join(token.members)}" if token.members else ""
        yield "", f"{token.name:<{width}}  {token.mean:.4f}, {token.std:.4f}{members}"
    for name, channels in spec.configurations.items():
        yield "configuration", f"{name}: {', '.join(channels)}"
    if spec.weights_sha256:
        yield "weights' sha256", spec.weights_sha256
    for key, value in spec.training.items():
        yield "training", f"{key}: {value if isinstance(value, str) else json.dumps(value)}"


def _quantised(report: ModelReport) -> Iterator[tuple[str, str]]:
    said = report.spec.quantisation if report.spec is not None else None
    if said is None:
        return
    place = "which lies beside it" if report.beside else "which does not lie beside it, or is another now"
    yield "quantised", f"by {said.tool} from {said.reference}, {place}"
    yield "", f"cosine to it at worst {said.worst_cosine:.6f}, on average {said.mean_cosine:.6f};"
    yield "", f"same nearest neighbour for {said.neighbour_agreement:.1%} of {said.images:,} images"
    if said.kept:
        yield "", f"in float32: the stem, {', '.join(said.kept)}"


def _port(port: Port) -> str:
    return f"{port.name}: {port.dtype} {_shape(port.shape)}"


def _shape(shape: tuple[int | None, ...]) -> str:
    return f"({', '.join('any' if side is None else str(side) for side in shape)})"


def _bytes(count: int) -> str:
    size, units = float(count), iter(UNITS)
    unit = next(units)
    while size >= KILO and unit != UNITS[-1]:
        size, unit = size / KILO, next(units)
    return f"{count:,} bytes" if unit == UNITS[0] else f"{size:.1f} {unit}"


def _finite(value: object) -> object:
    """Replace what JSON has no number for, which images of floats may hold."""
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    if isinstance(value, float) and not abs(value) < float("inf"):
        return None
    return value
