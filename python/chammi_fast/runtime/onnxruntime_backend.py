"""ONNX Runtime on CPUs, and on NVIDIA GPUs by its CUDA and TensorRT providers."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from chammi_fast.errors import BackendError
from chammi_fast.extras import require
from chammi_fast.images.cpus import usable_cpus
from chammi_fast.runtime import cuda, nvidia

if TYPE_CHECKING:
    from chammi_fast.runtime.buffers import Buffers
    from chammi_fast.runtime.form import Form

ERRORS_ONLY = 3
CPU = "CPUExecutionProvider"


def _library() -> Any:
    return require("onnxruntime", purpose="computing embeddings")


def devices() -> tuple[str, ...]:
    """Return the devices that the installed package was built for and that are there, GPUs first."""
    there = _library().get_available_providers()
    gpus = nvidia.gpus() if cuda.CUDA in there else ()
    return (*(f"cuda:{index}" for index in range(len(gpus))), *(("cpu",) if CPU in there else ()))


def tensorrt_devices() -> tuple[str, ...]:
    """Return the GPUs that the installed package's TensorRT provider can use."""
    library = _library()
    gpus = nvidia.gpus() if cuda.TENSORRT in library.get_available_providers() else ()
    if not gpus:
        return ()
    nvidia.preload(library)  # TensorRT needs CUDA itself
    return tuple(f"cuda:{index}" for index in range(len(gpus))) if nvidia.tensorrt_is_there() else ()


def precisions(device: str) -> tuple[str, ...]:
    """Return a device's precisions, the likely fastest first."""
    return ("int8", "fp32") if device == "cpu" else ("fp16", "fp32")


class OnnxRuntime:
    """A session of ONNX Runtime; see `chammi_fast.runtime.Backend`."""

    def __init__(self, model: bytes, form: Form, *, origin: str) -> None:
        library = _library()
        self.version: str = library.__version__
        self._origin = origin
        self._buffers: Buffers | None = None
        try:
            if form.device == "cpu":
                self.form = replace(form, threads=min(form.threads or usable_cpus(), usable_cpus()), streams=1)
                self._session: Any = _cpu_session(library, model, self.form.threads)
            else:
                self.form = replace(form, threads=1, streams=1)
                self._session, self._buffers = cuda.open_network(library, model, form, origin=origin)
        except BackendError:
            raise
        except Exception as error:
            raise BackendError(f"{origin}: ONNX Runtime cannot open the network: {_sentence(error)}.") from None
        self._input: str = self._session.get_inputs()[0].name
        self._output: str = self._session.get_outputs()[0].name

    def run(self, images: np.ndarray) -> np.ndarray:
        """Embed (N, C, H, W) float32; return (N, D) float32."""
        try:
            if self._buffers is not None:
                return self._buffers.run(images)
            # A GPU computes an image of its own size alone, because other batches have other kernels.
            step = len(images) if self.form.device == "cpu" else 1
            parts = [images[first : first + step] for first in range(0, len(images), step)]
            # Copies, because what a session returns keeps all of its memory.
            found = [self._session.run([self._output], {self._input: part})[0].copy() for part in parts]
        except Exception as error:
            shape = "x".join(map(str, images.shape))
            raise BackendError(f"{self._origin}: ONNX Runtime refuses a {shape} batch: {_sentence(error)}.") from None
        return found[0] if len(found) == 1 else np.concatenate(found)


def _cpu_session(library: Any, model: bytes, threads: int) -> Any:
    options = library.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = ERRORS_ONLY
    # Threads that wait in a busy loop take the processors from those that decode the next batch: measured on two
    # busy processors, whole runs are 1.3 to 1.5 times faster without.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return library.InferenceSession(model, options, providers=[CPU])


def _sentence(error: Exception) -> str:
    """Keep the gist of ONNX Runtime's message, which starts with codes and may run over many lines."""
    return str(error).strip().partition("\n")[0].removeprefix("[ONNXRuntimeError] : ").rstrip(". ")
