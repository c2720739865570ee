"""What NVIDIA's libraries offer on this machine: GPUs, TensorRT, and memory that a GPU can fetch from by itself."""

from __future__ import annotations

import contextlib
import ctypes
import io
import math
import mmap
import weakref
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

DRIVER = "libcuda.so.1"
NAME_BYTES = 256
# Those that ONNX Runtime's TensorRT provider is linked with, since 1.18.
TENSORRT = ("libnvinfer.so.10", "libnvonnxparser.so.10")
PORTABLE = 1  # cudaHostRegisterPortable: for every GPU of the process
FATAL_ONLY = 4


@cache
def gpus() -> tuple[str, ...]:
    """Name the GPUs that the driver offers to this process (``CUDA_VISIBLE_DEVICES``); none without a driver."""
    driver = _loaded(DRIVER)
    count = ctypes.c_int(0)
    if driver is None or driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return ()
    names = []
    for index in range(count.value):
        device, name = ctypes.c_int(0), ctypes.create_string_buffer(NAME_BYTES)
        known = driver.cuDeviceGet(ctypes.byref(device), index) == 0
        known = known and driver.cuDeviceGetName(name, NAME_BYTES, device) == 0
        names.append(name.value.decode(errors="replace") if known else "unknown")
    return tuple(names)


@cache
def tensorrt_is_there() -> bool:
    """Tell whether TensorRT can be loaded, from its Python packages or from where the system looks; load it."""
    spec = find_spec("tensorrt_libs")
    folders = [Path(folder) for folder in (spec.submodule_search_locations or ())] if spec is not None else []
    return all(any(_loaded(str(folder / name)) for folder in folders) or _loaded(name) for name in TENSORRT)


@cache
def preload(library: Any) -> None:
    """Load CUDA and cuDNN from NVIDIA's Python packages, where ONNX Runtime does not look for them by itself.

    Parameters
    ----------
    library : the module onnxruntime
    """
    # What is missing shows when a session is opened; ONNX Runtime would print it here and log it there.
    with contextlib.redirect_stdout(io.StringIO()):
        library.preload_dlls()
    library.set_default_logger_severity(FATAL_ONLY)


def pinned(shape: tuple[int, ...], index: int, cuda_version: str) -> np.ndarray:
    """Return zeros, float32, that GPU `index` can fetch by itself where CUDA lets it, in ordinary memory otherwise.

    Parameters
    ----------
    cuda_version : that ONNX Runtime was built for, such as "13.0"; empty where it was built for none
    """
    size = math.prod(shape) * np.dtype(np.float32).itemsize
    # Whole pages of its own: pages are what is pinned, and a page can be pinned once only.
    array: np.ndarray = np.frombuffer(mmap.mmap(-1, size), dtype=np.float32)
    runtime = _loaded(f"libcudart.so.{cuda_version.partition('.')[0]}") if cuda_version else None
    if runtime is None:
        return array.reshape(shape)
    runtime.cudaHostRegister.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint)
    runtime.cudaHostUnregister.argtypes = (ctypes.c_void_p,)
    address = array.ctypes.data
    if runtime.cudaSetDevice(index) == 0 and runtime.cudaHostRegister(address, size, PORTABLE) == 0:
        weakref.finalize(array, runtime.cudaHostUnregister, address).atexit = False
    else:
        runtime.cudaGetLastError()  # or the next call of somebody else would find it
    return array.reshape(shape)


def _loaded(name: str) -> Any | None:
    try:
        return ctypes.CDLL(name)
    except OSError:
        return None
