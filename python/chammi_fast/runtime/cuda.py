"""ONNX Runtime on NVIDIA GPUs: options of its CUDA and TensorRT providers, and how a session is opened with them.

Every image is computed in a batch of one fixed size, because a GPU's libraries choose their kernels by the size of a
batch, and other kernels round differently.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import re
from importlib import metadata
from typing import TYPE_CHECKING, Any

from chammi_fast.errors import BackendError
from chammi_fast.files import cache_folder
from chammi_fast.runtime import nvidia
from chammi_fast.runtime.buffers import Buffers

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from chammi_fast.runtime.form import Form

CUDA, TENSORRT = "CUDAExecutionProvider", "TensorrtExecutionProvider"
ERRORS_ONLY = 3
_CUDA_FAILURE = re.compile(r"((?:CUDA|CUDNN|CUBLAS) failure \d+: [^;]*?)\s*(?:;|$)")


def providers(form: Form, *, graph: bool, engines: Path | None = None) -> list[tuple[str, dict[str, str]]]:
    """Return the providers of a form with their options, the first choice first.

    Parameters
    ----------
    form : on a GPU; by the backend "tensorrt" or "onnxruntime"
    graph : whether to record the network's kernels once and replay them (a CUDA graph)
    engines : folder for what TensorRT builds
    """
    device = {"device_id": form.device.partition(":")[2]}
    flag = "1" if graph else "0"
    cuda = device | {
        # The algorithm is not to depend on which was faster a moment ago.
        "cudnn_conv_algo_search": "HEURISTIC",
        "use_tf32": "0",
    }
    if form.backend != "tensorrt":
        return [(CUDA, cuda | {"enable_cuda_graph": flag})]
    tensorrt = device | {
        "trt_fp16_enable": "1" if form.precision == "fp16" else "0",
        "trt_int8_enable": "1" if form.precision == "int8" else "0",
        # An engine is built by trying kernels out: kept, it gives the same bits the next time, and sooner.
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(engines),
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(engines),
        "trt_cuda_graph_enable": flag,
    }
    return [(TENSORRT, tensorrt), (CUDA, cuda)]


def open_network(library: Any, model: bytes, form: Form, *, origin: str) -> tuple[Any, Buffers | None]:
    """Open a session that really runs on the GPU.

    Parameters
    ----------
    library : the module onnxruntime
    model : serialised ONNX
    form : with a `fixed_batch`, or 0 for images of any number and size

    Returns
    -------
    The session, and the buffers to run it with where its shapes are fixed.

    Raises
    ------
    BackendError
        If ONNX Runtime fell back to the CPU, which it does with a warning only.
    """
    nvidia.preload(library)
    network, fixed = prepared(model, form)
    wanted = TENSORRT if form.backend == "tensorrt" else CUDA
    with _engines(library, network, form, origin) as engines:
        for graph in (True, False) if fixed else (False,):
            try:
                session = _session(library, network, providers(form, graph=graph, engines=engines))
                if wanted not in session.get_providers():
                    break
                buffers = Buffers(library, session, form.device) if form.fixed_batch else None
                if buffers is not None:
                    buffers.warm_up()
            except Exception as error:
                # There is no graph where a node is left to the CPU; what else is wrong shows without one, too.
                if graph:
                    continue
                failure = _CUDA_FAILURE.search(str(error))
                if failure is None:
                    raise
                raise BackendError(_unusable(library, form, origin, failure[1])) from None
            else:
                return session, buffers
    took = ", ".join(session.get_providers())
    raise BackendError(_unusable(library, form, origin, f"ONNX Runtime took {took} instead"))


def prepared(model: bytes, form: Form) -> tuple[bytes, bool]:
    """Settle the batch and the precision of a network; return it, and whether its shapes are fixed from end to end."""
    import onnx

    network = onnx.load_from_string(model)
    image, embedding = network.graph.input[0], network.graph.output[0]
    if form.fixed_batch:
        batch = image.type.tensor_type.shape.dim[0]
        if not batch.HasField("dim_value"):  # a foreign network may insist on its own
            batch.dim_value = form.fixed_batch
        embedding.type.tensor_type.shape.dim[0].dim_value = batch.dim_value
    sides = [side for value in (image, embedding) for side in value.type.tensor_type.shape.dim]
    if form.backend == "onnxruntime" and form.precision == "fp16":
        network = _half(network)
    content: bytes = network.SerializeToString()
    return content, all(side.HasField("dim_value") for side in sides)


def _half(network: Any) -> Any:
    """Convert weights and computation to float16; input and output stay float32."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    return convert_float_to_float16(network, keep_io_types=True)


def _unusable(library: Any, form: Form, origin: str, cause: str) -> str:
    version = getattr(library, "cuda_version", "") or "another version"
    return (
        f"{origin}: {form.backend} cannot use {form.device}: {cause} (it was built for CUDA {version} and cuDNN 9; see "
        f"docs/gpu.md)."
    )


def _session(library: Any, model: bytes, chosen: list[tuple[str, dict[str, str]]]) -> Any:
    options = library.SessionOptions()
    options.log_severity_level = ERRORS_ONLY
    options.use_deterministic_compute = True
    # Without the fallback a provider that fails is an error, not a message on stdout and a session on the CPU.
    return library.InferenceSession(model, options, providers=chosen, enable_fallback=0)


@contextlib.contextmanager
def _engines(library: Any, network: bytes, form: Form, origin: str) -> Iterator[Path | None]:
    """Yield a folder for what TensorRT builds of a network, to one process at a time; None where nothing is built.

    ONNX Runtime names an engine by the shape of its network, not by its weights or its batch: in one folder, one model
    would be run as another. And two processes that build at the same time would build different ones.
    """
    if form.backend != "tensorrt":
        yield None
        return
    known = [network, library.__version__.encode()]
    with contextlib.suppress(metadata.PackageNotFoundError):
        known.append(metadata.version("tensorrt").encode())
    known += [name.encode() for name in nvidia.gpus()]
    folder = cache_folder() / "tensorrt" / hashlib.sha256(b"\0".join(known)).hexdigest()[:32]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "lock").open("w")
    except OSError as error:
        raise BackendError(
            f"{origin}: TensorRT cannot keep what it builds in {folder}: {error.strerror}; set XDG_CACHE_HOME."
        ) from None
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder
