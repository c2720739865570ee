"""NVIDIA GPUs: options of ONNX Runtime's CUDA and TensorRT providers, sessions, and the buffers a session works on.

Every image is computed in a batch of one fixed size, because a GPU's libraries choose their kernels by the size of a
batch, and other kernels round differently.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from chammi_fast.errors import BackendError
from chammi_fast.files import cache_folder

if TYPE_CHECKING:
    from chammi_fast.runtime.form import Form

CUDA, TENSORRT = "CUDAExecutionProvider", "TensorrtExecutionProvider"
ERRORS_ONLY = 3
HINT = "the driver, CUDA and cuDNN have to be those that docs/gpu.md names"


def provider(form: Form, *, graph: bool) -> tuple[str, dict[str, str]]:
    """Return the provider of a form and its options.

    Parameters
    ----------
    form : on a GPU; by the backend "tensorrt" or "onnxruntime"
    graph : whether to record the network's kernels once and replay them (a CUDA graph)
    """
    options = {"device_id": form.device.partition(":")[2]}
    flag = "1" if graph else "0"
    if form.backend == "tensorrt":
        engines = str(cache_folder() / "tensorrt")
        return TENSORRT, options | {
            "trt_fp16_enable": "1" if form.precision == "fp16" else "0",
            "trt_int8_enable": "1" if form.precision == "int8" else "0",
            # An engine is built by trying kernels out: kept, it gives the same bits the next time, and sooner.
            "trt_engine_cache_enable": "1",
            "trt_engine_cache_path": engines,
            "trt_timing_cache_enable": "1",
            "trt_timing_cache_path": engines,
            "trt_cuda_graph_enable": flag,
        }
    return CUDA, options | {
        # The algorithm is not to depend on which was faster a moment ago.
        "cudnn_conv_algo_search": "HEURISTIC",
        "use_tf32": "0",
        "enable_cuda_graph": flag,
    }


def open_session(library: Any, model: bytes, form: Form, *, origin: str) -> Any:
    """Open a session that really runs on the GPU.

    Parameters
    ----------
    library : the module onnxruntime
    model : serialised ONNX

    Raises
    ------
    BackendError
        If ONNX Runtime fell back to the CPU, which it does with a warning only.
    """
    if form.backend == "onnxruntime" and form.precision == "fp16":
        model = half(model)
    session = _with_graph(library, model, form) if form.fixed_batch else None
    if session is None:
        session = _session(library, model, provider(form, graph=False))
    name, _ = provider(form, graph=False)
    if name not in session.get_providers():
        took = ", ".join(session.get_providers())
        raise BackendError(f"{origin}: {form.device} cannot be used, ONNX Runtime took {took} instead: {HINT}.")
    session.disable_fallback()
    return session


def _with_graph(library: Any, model: bytes, form: Form) -> Any | None:
    """Open a session that replays a CUDA graph; None where a node is left to the CPU or a shape is free."""
    try:
        session = _session(library, model, provider(form, graph=True))
    except Exception:  # it is opened without, and fails again if this was for another reason
        return None
    shapes = session.get_inputs()[0].shape[1:], session.get_outputs()[0].shape[1:]
    return session if all(isinstance(side, int) for shape in shapes for side in shape) else None


def _session(library: Any, model: bytes, chosen: tuple[str, dict[str, str]]) -> Any:
    options = library.SessionOptions()
    options.log_severity_level = ERRORS_ONLY
    return library.InferenceSession(model, options, providers=[chosen])


def half(model: bytes) -> bytes:
    """Return a network whose weights and computation are float16, its input and output still float32."""
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    converted = convert_float_to_float16(onnx.load_from_string(model), keep_io_types=True, disable_shape_infer=True)
    content: bytes = converted.SerializeToString()
    return content


class Buffers:
    """The memory that a session reads its input from and writes its output to, the same in every call.

    Images go through memory that the GPU can fetch from by itself where there is such (pinned), and from there to the
    device; a CUDA graph needs both ends to stay where they are.
    """

    def __init__(self, library: Any, session: Any, device: str, batch: int) -> None:
        self._session = session
        kind, _, number = device.partition(":")
        image, embedding = session.get_inputs()[0], session.get_outputs()[0]
        index = int(number or 0)
        new = partial(library.OrtValue.ortvalue_from_shape_and_type, element_type=np.float32)
        self._host = pinned(library, index, (batch, *image.shape[1:]))
        self._images = new(self._host.shape, device_type=kind, device_id=index)
        self._binding = session.io_binding()
        self._binding.bind_ortvalue_input(image.name, self._images)
        if isinstance(embedding.shape[1], int):
            output = new((batch, embedding.shape[1]), device_type=kind, device_id=index)
            self._binding.bind_ortvalue_output(embedding.name, output)
        else:
            self._binding.bind_output(embedding.name, kind, index)

    def run(self, images: np.ndarray) -> np.ndarray:
        """Embed (N, C, H, W) float32 of any N; return (N, D) float32."""
        size = len(self._host)
        parts = [self._run_one(images[first : first + size]) for first in range(0, len(images), size)]
        return np.concatenate(parts)

    def _run_one(self, images: np.ndarray) -> np.ndarray:
        self._host[: len(images)] = images
        self._images.update_inplace(self._host)
        self._session.run_with_iobinding(self._binding)
        embeddings: np.ndarray = self._binding.copy_outputs_to_cpu()[0]
        return embeddings[: len(images)]


def pinned(library: Any, index: int, shape: tuple[int, ...]) -> np.ndarray:
    """Return zeros, float32, in memory that GPU `index` can fetch from by itself, or in ordinary memory."""
    for device in getattr(library, "get_ep_devices", list)():
        if device.ep_name != CUDA or int(device.ep_options.get("device_id", 0)) != index:
            continue
        memory = device.memory_info(library.OrtDeviceMemoryType.HOST_ACCESSIBLE)
        if memory is not None:
            value = library.OrtValue.ortvalue_from_shape_and_type(shape, np.float32, memory_info=memory)
            array: np.ndarray = value.numpy()
            array[:] = 0
            return array
    return np.zeros(shape, dtype=np.float32)
