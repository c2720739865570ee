"""Write a network as one ONNX file that carries its own description, and prove that the file equals the network."""

from __future__ import annotations

import copy
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import msgspec
import numpy as np
import torch

import chammi_fast
from chammi_fast.channels import resolve_channels
from chammi_fast.errors import ExportError
from chammi_fast.extras import require
from chammi_fast.files import make_folder, replacing
from chammi_fast.model import load_model
from chammi_fast.runtime.graph import CHANNELS_INPUT, IMAGE_INPUT, embed_spec, specialise, weights_sha256
from chammi_fast.training.create import NetworkOptions, create_network
from chammi_fast.training.naming import name_weights
from chammi_fast.training.weights import load_network

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from onnx import ModelProto

    from chammi_fast.spec import Spec
    from chammi_fast.training.network import ChannelAdaptiveNetwork

OPSET = 18
IR_VERSION = 10
TOLERANCE = 1e-4
IMAGES = 2  # of each check
BYTES_MAX = 2**31 - 1  # of a protobuf message
FREE = (160, 192)  # height and width that a network of free sizes is checked with


@dataclass(frozen=True)
class ExportOptions:
    """What to export.

    Attributes
    ----------
    out : ONNX file to write
    strategy, backbone, pooling, size : see `chammi_fast.training.create.NetworkOptions`; None for what `weights` says,
        or its defaults
    init, seed : see there; without `weights` only
    weights : file of the network's weights (`chammi_fast.training.weights.save_weights`), or None to start from `init`
    channels : None for the adaptive form; a list in the channel grammar for a file specialised to it
    verify : whether the written file is compared with the network
    """

    out: Path
    strategy: str | None = None
    backbone: str | None = None
    weights: Path | None = None
    init: str = "random"
    channels: str | None = None
    size: int | None = None
    seed: int = 0
    pooling: Literal["avg", "max", "avgmax"] | None = None
    verify: bool = True


@dataclass(frozen=True)
class ExportReport:
    """What was written, and how far it is from the network in PyTorch.

    Attributes
    ----------
    path : of the ONNX file
    spec : that it carries
    bytes : size of the file
    differences : check -> largest difference of an embedding, relative to its largest number
    """

    path: Path
    spec: Spec
    bytes: int
    differences: dict[str, float]

    def render(self) -> str:
        """Return a few lines for the terminal."""
        spec, side = self.spec, self.spec.preprocessing.size
        channels = "any of its channels" if spec.fixed_channels is None else ", ".join(spec.fixed_channels)
        lines = [
            f"{self.path}: {self.bytes / 1e6:.1f} MB, opset {OPSET}, IR {IR_VERSION}",
            f"{spec.form} {spec.strategy} on {spec.backbone}: {channels} at {side}x{side} -> {spec.embedding_size}",
            *(f"differs from PyTorch by {value:.1e} for {name}" for name, value in self.differences.items()),
        ]
        return "\n".join(lines)


def export_model(options: ExportOptions) -> ExportReport:
    """Create a network by name, load its weights and export it: the whole of ``chammi-fast export``.

    Raises
    ------
    ExportError
        If the network cannot be created or loaded, or the file would not equal it.
    ChannelError
        If a channel is unknown.
    OutputError
        If the file cannot be written.
    """
    asked = {name: getattr(options, name) for name in ("strategy", "backbone", "pooling", "size")}
    given = {name: value for name, value in asked.items() if value is not None}
    if options.weights is not None:
        network, spec = load_network(options.weights, given)
    else:
        if given.get("strategy") == "channelreplication":
            given.setdefault("size", None)  # as published
        network, spec = create_network(NetworkOptions(**given, init=options.init, seed=options.seed))
    return export_onnx(network, spec, options.out, channels=options.channels, verify=options.verify)


def export_onnx(
    network: ChannelAdaptiveNetwork,
    spec: Spec,
    path: Path,
    *,
    channels: str | Sequence[str] | None = None,
    verify: bool = True,
) -> ExportReport:
    """Write a network as an ONNX file.

    The adaptive form has the inputs ``image`` float32 (N, C, S, S), N and C free, and ``channels`` int64 (C,), token
    ids; a specialised file has its channels built in. The output is ``embedding`` float32 (N, D). S is free where the
    description has no size; both forms hold all weights in the one file.

    Parameters
    ----------
    network : not changed
    spec : its description in the adaptive form
    channels : None for the adaptive form; else the channels of a specialised file, in the channel grammar

    Raises
    ------
    ExportError
        If the file's embeddings would differ from the network's by more than `TOLERANCE`: nothing is left then.
    ChannelError
        If a channel is unknown.
    OutputError
        If the file cannot be written.
    """
    make_folder(path.parent)
    network = copy.deepcopy(network).cpu().float().eval()
    fixed = None if channels is None else resolve_channels(channels, spec)
    model = _trace(network, spec)
    if fixed is not None:
        model = specialise(model, [channel.token_id for channel in fixed])
        names = tuple(channel.token for channel in fixed)
        spec = msgspec.structs.replace(spec, form="specialised", fixed_channels=names)
    spec = msgspec.structs.replace(spec, weights_sha256=weights_sha256(model))
    embed_spec(model, spec)
    if model.ByteSize() > BYTES_MAX:
        raise ExportError(f"{path}: the network is larger than 2 GB, the most that one ONNX file can hold.")
    with replacing(path) as temporary:
        temporary.write_bytes(model.SerializeToString(deterministic=True))
        differences = _measure(network, temporary, model) if verify else {}
        for case, difference in differences.items():
            if not difference <= TOLERANCE:  # so that NaN is refused, too
                raise ExportError(
                    f"{path}: not written: the ONNX file would differ from the network by {difference:.1e} for "
                    f"{case}, more than {TOLERANCE:.0e}."
                )
    return ExportReport(path=path, spec=spec, bytes=path.stat().st_size, differences=differences)


def _trace(network: ChannelAdaptiveNetwork, spec: Spec) -> ModelProto:
    require("onnxscript", purpose="exporting a model")
    size = spec.preprocessing.size or 224
    network = copy.deepcopy(network)
    network.complete()
    dynamic = torch.export.Dim.DYNAMIC
    sides = {} if spec.preprocessing.size else {2: dynamic, 3: dynamic}
    example = (torch.randn(2, 3, size, size), torch.tensor([0, 0, 0]))
    with warnings.catch_warnings():  # of deprecated parts that the exporter itself uses
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            network,
            example,
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=[IMAGE_INPUT, CHANNELS_INPUT],
            output_names=["embedding"],
            dynamic_shapes={IMAGE_INPUT: {0: dynamic, 1: dynamic, **sides}, CHANNELS_INPUT: {0: dynamic}},
        )
    if program is None:
        raise ExportError("PyTorch's exporter returned nothing.")
    model: ModelProto = program.model_proto
    _tidy(model)
    name_weights(model.graph, {name: value.numpy() for name, value in network.state_dict().items()})
    return model


def _tidy(model: ModelProto) -> None:
    """Name dimensions and origin; drop what the exporter notes about the machine and source files it ran on."""
    graph = model.graph
    image, channels = graph.input
    for value, names in ((image, ("N", "C", "H", "W")), (channels, ("C",)), (graph.output[0], ("N",))):
        for dimension, name in zip(value.type.tensor_type.shape.dim, names, strict=False):
            if not dimension.HasField("dim_value"):
                dimension.dim_param = name
    for part in (model, graph, *graph.node, *graph.initializer, *graph.input, *graph.output):
        del part.metadata_props[:]
        part.doc_string = ""
    del graph.value_info[:]
    graph.name = "chammi_fast"
    model.producer_name, model.producer_version = "chammi-fast", chammi_fast.__version__
    model.ir_version = IR_VERSION


def _measure(network: ChannelAdaptiveNetwork, path: Path, model: ModelProto) -> dict[str, float]:
    """Compare the written file, as the package runs it, with PyTorch.

    A specialised file is compared on its channels; an adaptive one on every configuration and on all tokens at once,
    through its `channels` input and bound.
    """
    loaded = load_model(path)
    spec = loaded.spec
    if spec.fixed_channels is not None:
        cases = {", ".join(spec.fixed_channels): spec.fixed_channels}
    else:
        cases = dict(spec.configurations)
        if spec.accepts != "configurations":
            cases["all tokens"] = tuple(token.name for token in spec.tokens)
    run_adaptive = None if spec.fixed_channels is not None else _open_adaptive(model)
    generator = np.random.default_rng(0)
    size = spec.preprocessing.size
    height, width = (size, size) if size else FREE
    differences = {}
    for name, tokens in cases.items():
        ids = np.array([spec.token_ids[token] for token in tokens])
        images = generator.standard_normal((IMAGES, len(ids), height, width), dtype=np.float32)
        with torch.inference_mode():
            expected = network(torch.from_numpy(images), torch.from_numpy(ids)).numpy()
        differences[f"{name} (bound)"] = relative_difference(loaded.bind(tokens).embed(images), expected)
        if run_adaptive is not None:
            differences[f"{name} (adaptive)"] = relative_difference(run_adaptive(images, ids), expected)
    return differences


def _open_adaptive(model: ModelProto) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    library = require("onnxruntime", purpose="verifying the exported file")
    session = library.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])

    def run(images: np.ndarray, ids: np.ndarray) -> np.ndarray:
        result: np.ndarray = session.run(None, {IMAGE_INPUT: images, CHANNELS_INPUT: ids})[0]
        return result

    return run


def relative_difference(found: np.ndarray, expected: np.ndarray) -> float:
    """Return the largest difference of an embedding (row), relative to the largest number in it."""
    scale = np.abs(expected).max(axis=1, keepdims=True)
    return float((np.abs(found - expected) / scale).max())
