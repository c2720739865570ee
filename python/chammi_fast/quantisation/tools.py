"""Libraries that quantise a body: weights to int8 for each channel, what goes into a layer to uint8, both as QDQ."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chammi_fast.errors import ChammiFastError, QuantisationError
from chammi_fast.extras import require

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy as np
    from onnx import ModelProto

Feeds = list[dict[str, "np.ndarray"]]
PURPOSE = "quantising a model"
# How far the range of activations is evened out at the cost of the weights'. Measured on ConvNeXt-Tiny: the library's
# own 0.95 leaves 10 % more error, 0.5 to 0.85 the same.
SMOOTHING = 0.7


def by_onnxruntime(body: ModelProto, feeds: Feeds, names: Sequence[str]) -> ModelProto:
    """Quantise the named layers of a body by ONNX Runtime; ranges are the smallest and largest numbers seen.

    Products keep their float results: in both backends they are as fast, and the residual stream keeps its precision.
    """
    require("onnxruntime", purpose=PURPOSE)
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.quant_utils import add_pre_process_metadata

    source = onnx.ModelProto()
    source.CopyFrom(body)
    add_pre_process_metadata(source)  # or it would advise to optimise first, which folds layers into one another
    with tempfile.TemporaryDirectory() as folder, _quiet():
        path = Path(folder) / "quantised.onnx"
        quantize_static(
            source,
            path,
            _Reader(feeds),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=sorted({node.op_type for node in body.graph.node if node.name in set(names)}),
            nodes_to_quantize=list(names),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            extra_options={"WeightSymmetric": True, "OpTypesToExcludeOutputQuantization": ["MatMul", "Gemm"]},
        )
        return onnx.load(path)


class _Reader:
    """Calibration data as ONNX Runtime asks for them."""

    def __init__(self, feeds: Feeds) -> None:
        self._feeds = iter(feeds)

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._feeds, None)


def by_nncf(body: ModelProto, feeds: Feeds, names: Sequence[str]) -> ModelProto:
    """Quantise the named layers of a body by NNCF, which evens out the ranges of a product's channels first."""
    os.environ.setdefault("NNCF_CI", "1")  # otherwise it reports each use to its makers
    with _quiet():
        nncf: Any = require("nncf", purpose=PURPOSE)
    parameters = nncf.AdvancedQuantizationParameters(
        # Measured: no gain, and the corrected biases would no longer fit layers that are restored.
        disable_bias_correction=True,
        smooth_quant_alphas=nncf.AdvancedSmoothQuantParameters(matmul=SMOOTHING),
        # All 8 bits of the weights: a processor without VNNI may overflow then, which the check of each run notices.
        overflow_fix=nncf.OverflowFix.DISABLE,
    )
    others = sorted({node.name for node in body.graph.node} - set(names))
    with _quiet():
        quantised: ModelProto = nncf.quantize(
            body,
            nncf.Dataset(feeds),
            subset_size=len(feeds),
            model_type=nncf.ModelType.TRANSFORMER,
            preset=nncf.QuantizationPreset.MIXED,
            ignored_scope=nncf.IgnoredScope(names=others),
            advanced_parameters=parameters,
        )
    return quantised


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep a library's progress bars and advice to itself, and its failures to one sentence."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except ChammiFastError:
        raise
    except Exception as error:
        cause = (str(error).strip().splitlines() or [type(error).__name__])[-1].rstrip(". ")
        raise QuantisationError(f"the network cannot be quantised: {cause}.") from error
    finally:
        logging.disable(disabled)


TOOLS: dict[str, Callable[[ModelProto, Feeds, Sequence[str]], ModelProto]] = {
    "nncf": by_nncf,
    "onnxruntime": by_onnxruntime,
}
