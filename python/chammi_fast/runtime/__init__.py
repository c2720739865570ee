"""Backends: libraries that run a network whose channels are settled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from chammi_fast.errors import BackendError
from chammi_fast.runtime import onnxruntime_backend, openvino_backend
from chammi_fast.runtime.form import AUTO, Form, possible_forms

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

__all__ = ["AUTO", "BACKENDS", "Backend", "Form", "Library", "open_backend", "possible_forms"]


class Backend(Protocol):
    """An opened network, images in and embeddings out.

    Attributes
    ----------
    form : how it is run; threads and streams are the numbers in use
    version : of the library
    """

    form: Form
    version: str

    def run(self, images: np.ndarray) -> np.ndarray:
        """Embed (N, C, H, W) float32, N of at least 1; return (N, D) float32.

        Raises
        ------
        BackendError
            If the network refuses the images.
        """


@dataclass(frozen=True)
class Library:
    """An entry of `BACKENDS`.

    Attributes
    ----------
    open : called with serialised ONNX, a form, and the keyword origin of `open_backend`
    package : that has to be installed
    devices : return the devices that the installed package can use here, such as "cuda:0" and "cpu"; GPUs first
    precisions : return the precisions of a device such as "cpu" or "cuda:0", the likely fastest first; "int8" where
        quantised files are computed in 8-bit integers
    streams : whether parts of a batch can be computed side by side
    any_size : whether images may be of any size
    """

    open: Callable[..., Backend]
    package: str
    devices: Callable[[], tuple[str, ...]]
    precisions: Callable[[str], tuple[str, ...]]
    streams: bool = False
    any_size: bool = True


BACKENDS = {
    "tensorrt": Library(
        onnxruntime_backend.OnnxRuntime,
        package="onnxruntime",
        devices=onnxruntime_backend.tensorrt_devices,
        # Not "fp32": TensorRT computes it in TensorFloat-32, and ONNX Runtime has no switch for that.
        precisions=lambda _: ("int8", "fp16"),
        any_size=False,
    ),
    "openvino": Library(
        openvino_backend.OpenVino,
        package="openvino",
        devices=lambda: ("cpu",),
        precisions=openvino_backend.precisions,
        streams=True,
    ),
    "onnxruntime": Library(
        onnxruntime_backend.OnnxRuntime,
        package="onnxruntime",
        devices=onnxruntime_backend.devices,
        precisions=onnxruntime_backend.precisions,
    ),
}


def open_backend(form: Form, model: bytes, *, origin: str) -> Backend:
    """Open a network in a backend.

    Parameters
    ----------
    form : how to run it; nothing in it is "auto"
    model : serialised ONNX with one input, float32 (N, C, H, W), and the embedding (N, D) as its first output
    origin : the model's file, for error messages

    Raises
    ------
    BackendError
        If the form cannot be had on this machine, or the backend refuses the network.
    MissingExtraError
        If the backend's package is not installed.
    """
    if AUTO in (form.backend, form.device, form.precision):
        raise BackendError(f"{origin}: 'auto' has to be settled before a network is opened.")
    possible_forms(form, BACKENDS, floating=True, quantised=True, fixed_size=form.fixed_batch > 0)
    return BACKENDS[form.backend].open(model, form, origin=origin)
