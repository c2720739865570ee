"""A stand-in for onnxruntime-gpu and NVIDIA's libraries, after their documentation; it computes on the processor.

https://onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html
https://onnxruntime.ai/docs/execution-providers/TensorRT-ExecutionProvider.html
https://onnxruntime.ai/docs/api/python/api_summary.html
https://docs.nvidia.com/cuda/cuda-runtime-api, https://docs.nvidia.com/cuda/cuda-driver-api
"""

from __future__ import annotations

import ctypes
import sys
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnxruntime

CUDA, TENSORRT, CPU = "CUDAExecutionProvider", "TensorrtExecutionProvider", "CPUExecutionProvider"
FLAGS = ("0", "1", "True", "False")
ANY = ()
# Those of the documented options that may be given, with the values that they may have.
OPTIONS: dict[str, dict[str, tuple[str, ...]]] = {
    CUDA: {
        "device_id": ("0", "1"),
        "gpu_mem_limit": ANY,
        "arena_extend_strategy": ("kNextPowerOfTwo", "kSameAsRequested"),
        "cudnn_conv_algo_search": ("EXHAUSTIVE", "HEURISTIC", "DEFAULT"),
        "cudnn_conv_use_max_workspace": FLAGS,
        "enable_cuda_graph": FLAGS,
        "prefer_nhwc": FLAGS,
        "use_tf32": FLAGS,
    },
    TENSORRT: {
        "device_id": ("0", "1"),
        "trt_max_workspace_size": ANY,
        "trt_fp16_enable": FLAGS,
        "trt_bf16_enable": FLAGS,
        "trt_int8_enable": FLAGS,
        "trt_engine_cache_enable": FLAGS,
        "trt_engine_cache_path": ANY,
        "trt_engine_cache_prefix": ANY,
        "trt_timing_cache_enable": FLAGS,
        "trt_timing_cache_path": ANY,
        "trt_force_timing_cache": FLAGS,
        "trt_cuda_graph_enable": FLAGS,
        "trt_layer_norm_fp32_fallback": FLAGS,
        "trt_builder_optimization_level": ("0", "1", "2", "3", "4", "5"),
    },
}
GRAPH_REFUSED = (
    "This session cannot use the graph capture feature as requested by the user as all compute graph nodes have not "
    "been partitioned to the CUDAExecutionProvider"
)


@dataclass
class FakeRuntime:
    """The module onnxruntime, as onnxruntime-gpu has it.

    Attributes
    ----------
    loads : providers whose libraries can be loaded
    graphs : whether all nodes of every network can be placed on the GPU
    captures : whether kernels can be recorded
    sessions : all that were opened
    """

    loads: tuple[str, ...] = (TENSORRT, CUDA)
    graphs: bool = True
    captures: bool = True
    sessions: list[FakeSession] = field(default_factory=list)
    preloaded: int = 0
    severity: int = 2
    __version__ = "1.31.1"
    cuda_version = "13.0"
    SessionOptions = onnxruntime.SessionOptions

    def __hash__(self) -> int:
        return id(self)

    def get_available_providers(self) -> list[str]:
        return [TENSORRT, CUDA, CPU]

    def preload_dlls(self) -> None:
        self.preloaded += 1
        sys.stdout.write("Failed to load libcudnn.so.9\n")

    def set_default_logger_severity(self, severity: int) -> None:
        self.severity = severity

    def InferenceSession(  # noqa: N802
        self, model: bytes, options: Any, *, providers: list[Any], enable_fallback: int = 1
    ) -> Any:
        if providers == [CPU]:
            return onnxruntime.InferenceSession(model, options, providers=providers)
        for name, given in providers:
            for key, value in given.items():
                if key not in OPTIONS[name]:
                    raise RuntimeError(f'Unknown provider option: "{key}".')
                if not isinstance(value, str) or (OPTIONS[name][key] and value not in OPTIONS[name][key]):
                    raise RuntimeError(f'Failed to parse provider option "{key}": {value!r}')
        names = [name for name, _ in providers]
        if TENSORRT in names and TENSORRT not in self.loads:
            if not enable_fallback:
                raise RuntimeError("Please install TensorRT libraries as mentioned in the GPU requirements page")
            sys.stdout.write("*************** EP Error ***************\n")
            names = [CUDA, CPU] if CUDA in names else [CPU]
        took = [name for name in names if name in self.loads]  # what cannot be loaded is left out with a warning
        session = FakeSession(self, model, options, providers, [*took, CPU])
        if took and session.graph and not self.graphs:
            raise onnxruntime.capi.onnxruntime_pybind11_state.Fail(GRAPH_REFUSED)
        self.sessions.append(session)
        return session

    @property
    def OrtValue(self) -> type[FakeValue]:  # noqa: N802
        return FakeValue


class FakeSession:
    """An InferenceSession; one that replays a graph insists on its first addresses and shapes."""

    def __init__(self, runtime: FakeRuntime, model: bytes, options: Any, given: list[Any], took: list[str]) -> None:
        self._runtime, self._took = runtime, took
        self._session = onnxruntime.InferenceSession(model, providers=[CPU])
        self.model, self.options, self.given = model, options, given
        self.graph = any(
            chosen.get("enable_cuda_graph", "0") == "1" or chosen.get("trt_cuda_graph_enable", "0") == "1"
            for _, chosen in given
        )
        self.calls: list[tuple[int, ...]] = []
        self._recorded: tuple[Any, ...] | None = None
        self.get_inputs, self.get_outputs = self._session.get_inputs, self._session.get_outputs

    def get_providers(self) -> list[str]:
        return self._took

    def io_binding(self) -> FakeBinding:
        return FakeBinding()

    def run(self, names: list[str], feed: dict[str, np.ndarray]) -> list[np.ndarray]:
        if self.graph:
            raise RuntimeError("a graph needs IO binding")
        (images,) = feed.values()
        self.calls.append(images.shape)
        found: list[np.ndarray] = self._session.run(names, feed)
        return found

    def run_with_iobinding(self, binding: FakeBinding) -> None:
        if self.graph and not self._runtime.captures:
            raise onnxruntime.capi.onnxruntime_pybind11_state.Fail("CUDA failure 900: operation not permitted")
        bound = (id(binding.input), id(binding.output))
        if self.graph and (bound != (self._recorded or bound) or binding.output is None):
            raise RuntimeError("a graph reads and writes the memory that it was recorded with")
        self._recorded = bound
        assert binding.input is not None
        images = binding.input.memory
        self.calls.append(images.shape)
        found = self._session.run(None, {binding.input_name: images})[0]
        if binding.output is None:
            binding.found = found
        else:
            binding.output.memory[:] = found


@dataclass
class FakeValue:
    """Memory on a device."""

    memory: np.ndarray
    device: tuple[str, int]
    updates: int = 0

    @classmethod
    def ortvalue_from_shape_and_type(
        cls, shape: list[int], element_type: Any, device_type: str = "cpu", device_id: int = 0
    ) -> FakeValue:
        return cls(np.full(shape, np.nan, element_type), (device_type, device_id))

    def update_inplace(self, array: np.ndarray) -> None:
        assert array.flags.c_contiguous
        assert (array.shape, array.dtype) == (self.memory.shape, self.memory.dtype)
        self.memory[:] = array
        self.updates += 1


class FakeBinding:
    """An IOBinding of one input and one output."""

    def __init__(self) -> None:
        self.input: FakeValue | None = None
        self.output: FakeValue | None = None
        self.input_name, self.output_device = "", ("", 0)
        self.found = np.empty(0)

    def bind_ortvalue_input(self, name: str, value: FakeValue) -> None:
        self.input_name, self.input = name, value

    def bind_ortvalue_output(self, name: str, value: FakeValue) -> None:  # noqa: ARG002
        self.output = value

    def bind_output(self, name: str, device_type: str = "cpu", device_id: int = 0) -> None:  # noqa: ARG002
        self.output_device = (device_type, device_id)

    def copy_outputs_to_cpu(self) -> list[np.ndarray]:
        return [self.found if self.output is None else self.output.memory.copy()]


class FakeDriver:
    """libcuda with some GPUs."""

    def __init__(self, *names: bytes, initialises: bool = True) -> None:
        self._names, self._initialises = names, initialises

    def cuInit(self, flags: int) -> int:  # noqa: N802, ARG002
        return 0 if self._initialises else 100  # CUDA_ERROR_NO_DEVICE

    def cuDeviceGetCount(self, count: Any) -> int:  # noqa: N802
        count._obj.value = len(self._names)
        return 0

    def cuDeviceGet(self, device: Any, index: int) -> int:  # noqa: N802
        device._obj.value = index
        return 0

    def cuDeviceGetName(self, name: Any, size: int, device: ctypes.c_int) -> int:  # noqa: N802
        assert size == len(name)
        name.value = self._names[device.value]
        return 0


@dataclass
class FakeCudart:
    """libcudart; `refuses` has its functions fail with the error "invalid value"."""

    refuses: bool = False
    calls: list[tuple[Any, ...]] = field(default_factory=list)

    def __post_init__(self) -> None:
        # ctypes' functions take attributes, bound methods do not.
        self.cudaSetDevice = self._function("cudaSetDevice", fails=False)
        self.cudaHostRegister = self._function("cudaHostRegister", fails=self.refuses)
        self.cudaHostUnregister = self._function("cudaHostUnregister", fails=False)
        self.cudaGetLastError = self._function("cudaGetLastError", fails=self.refuses)

    def _function(self, name: str, *, fails: bool) -> Any:
        def function(*arguments: Any) -> int:
            self.calls.append((name, *arguments))
            return 1 if fails else 0

        return function
