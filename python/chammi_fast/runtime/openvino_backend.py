"""OpenVINO on x86-64 processors."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from chammi_fast.errors import BackendError
from chammi_fast.extras import require
from chammi_fast.images.cpus import usable_cpus

if TYPE_CHECKING:
    from chammi_fast.runtime.form import Form

# OpenVINO's names, the likely fastest first.
_CAPABILITIES = {"int8": "INT8", "fp16": "FP16", "bf16": "BF16", "fp32": "FP32"}
# A quantised network's other layers stay float32.
_HINTS = {"int8": "f32", "fp16": "f16", "bf16": "bf16", "fp32": "f32"}


@cache
def _core() -> Any:
    return require("openvino", purpose="computing embeddings").Core()


def precisions(device: str) -> tuple[str, ...]:
    """Return the precisions that this processor has instructions for."""
    if device != "cpu":
        return ()
    there = _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return tuple(name for name, capability in _CAPABILITIES.items() if capability in there)


class OpenVino:
    """A compiled network of OpenVINO; see `chammi_fast.runtime.Backend`.

    The batch dimension stays free: a network compiled for one batch size gives other bits than one compiled for
    another, a free one gives each image the same bits in any company. For the same reason each stream has one thread:
    several threads with fewer images than threads share out a sum, and round it differently.
    """

    def __init__(self, model: bytes, form: Form, *, origin: str) -> None:
        self._library = require("openvino", purpose="computing embeddings")
        self.version: str = self._library.__version__.partition("-")[0]
        self._origin = origin
        threads = min(form.threads or usable_cpus(), usable_cpus())
        streams = min(form.streams or threads, threads)
        options = {
            "INFERENCE_PRECISION_HINT": _HINTS[form.precision],
            "INFERENCE_NUM_THREADS": streams,
            "NUM_STREAMS": streams,
            # The threads that decode the next batch need room: the system is to place all of them.
            "ENABLE_CPU_PINNING": False,
        }
        try:
            core = _core()
            network = core.compile_model(core.read_model(model), "CPU", options)
            streams = network.get_property("NUM_STREAMS")
            # A foreign network that insists on a batch size takes no part of a batch.
            parts = streams if network.input(0).partial_shape[0].is_dynamic else 1
            self._requests = [network.create_infer_request() for _ in range(parts)]
        except Exception as error:
            raise BackendError(f"{origin}: OpenVINO cannot open the network: {_sentence(error)}.") from None
        self.form = replace(form, threads=network.get_property("INFERENCE_NUM_THREADS"), streams=streams)

    def run(self, images: np.ndarray) -> np.ndarray:
        """Embed (N, C, H, W) float32; return (N, D) float32."""
        parts = np.array_split(images, min(len(self._requests), len(images)))
        requests = self._requests[: len(parts)]
        try:
            for request, part in zip(requests, parts, strict=True):
                request.set_input_tensor(self._library.Tensor(part, shared_memory=True))
                request.start_async()
            for request in requests:
                request.wait()
        except Exception as error:
            shape = "x".join(map(str, images.shape))
            raise BackendError(f"{self._origin}: OpenVINO refuses a {shape} batch: {_sentence(error)}.") from None
        return np.concatenate([request.get_output_tensor(0).data for request in requests])


def _sentence(error: Exception) -> str:
    """Keep the gist of OpenVINO's message: its last line, after those that say where in its sources it was raised."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[-1].rstrip(". ")
