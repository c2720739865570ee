"""ONNX Runtime on the CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from chammi_fast.errors import BackendError
from chammi_fast.extras import require
from chammi_fast.images.batches import usable_cpus

if TYPE_CHECKING:
    import numpy as np

ERRORS_ONLY = 3


class OnnxRuntime:
    """A session of ONNX Runtime; see `chammi_fast.runtime.Backend`."""

    name = "onnxruntime"

    def __init__(self, model: bytes, *, origin: str, precision: str, threads: int) -> None:
        del precision  # fp32 is the only one, and what the file holds
        library = require("onnxruntime", purpose="computing embeddings")
        self.version: str = library.__version__
        self.threads = threads or usable_cpus()
        self._origin = origin
        options = library.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.log_severity_level = ERRORS_ONLY
        # Threads that wait in a busy loop take the processors from those that decode the next batch: measured on two
        # busy processors, whole runs are 1.3 to 1.5 times faster without.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session: Any = library.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise BackendError(f"{origin}: ONNX Runtime cannot open the network: {_sentence(error)}.") from None
        self._input: str = self._session.get_inputs()[0].name
        self._output: str = self._session.get_outputs()[0].name

    def run(self, images: np.ndarray) -> np.ndarray:
        """Embed (N, C, H, W) float32; return (N, D) float32."""
        try:
            embeddings: np.ndarray = self._session.run([self._output], {self._input: images})[0]
        except Exception as error:
            shape = "x".join(map(str, images.shape))
            raise BackendError(f"{self._origin}: ONNX Runtime refuses a {shape} batch: {_sentence(error)}.") from None
        return embeddings


def _sentence(error: Exception) -> str:
    """Keep the gist of ONNX Runtime's message, which starts with codes and may run over many lines."""
    return str(error).strip().partition("\n")[0].removeprefix("[ONNXRuntimeError] : ").rstrip(". ")
