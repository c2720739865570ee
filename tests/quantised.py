"""Files of fixed channels and quantised files for tests, made without PyTorch."""

from __future__ import annotations

import hashlib
import logging
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from chammi_fast.model import load_model
from chammi_fast.runtime.graph import embed_spec, network_inputs, specialise
from chammi_fast.spec import Quantisation

if TYPE_CHECKING:
    from pathlib import Path

    from chammi_fast.model import Model


class _Images(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, name: str, images: np.ndarray) -> None:
        self._batches = iter([{name: images[first : first + 4]} for first in range(0, len(images), 4)])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._batches, None)


def fix_channels(model: Model, channels: str, path: Path) -> Path:
    """Write an adaptive model as a file for some channels alone."""
    resolved = model.resolve(channels)
    network = specialise(model.network, [channel.token_id for channel in resolved])
    names = tuple(channel.token for channel in resolved)
    embed_spec(network, msgspec.structs.replace(model.spec, form="specialised", fixed_channels=names))
    onnx.save(network, path)
    return path


def quantise(path: Path, images: np.ndarray, *, worst: float = 0.99, made_from: str = "") -> Path:
    """Quantise a network of fixed channels into ``M.int8.onnx`` beside ``M.onnx``.

    Parameters
    ----------
    images : (N, C, S, S) float32
    worst : the cosine that the file says was measured
    made_from : the hash that the file names; the right one by default
    """
    model = load_model(path)
    out = path.with_name(f"{path.stem}.int8.onnx")
    logging.disable(logging.WARNING)  # it advises steps that are of no use here
    try:
        quantize_static(
            path,
            out,
            _Images(network_inputs(model.network)[0].name, images),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
    finally:
        logging.disable(logging.NOTSET)
    network = onnx.load(out)
    said = Quantisation(
        reference=path.name,
        reference_sha256=made_from or hashlib.sha256(path.read_bytes()).hexdigest(),
        tool="onnxruntime",
        worst_cosine=worst,
        mean_cosine=(1 + worst) / 2,
        neighbour_agreement=1.0,
        images=len(images),
    )
    embed_spec(network, msgspec.structs.replace(model.spec, quantisation=said))
    onnx.save(network, out)
    return out
