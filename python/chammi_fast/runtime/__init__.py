"""Backends: libraries that run a network whose channels are settled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from chammi_fast.errors import BackendError
from chammi_fast.runtime import onnxruntime_backend

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np


class Backend(Protocol):
    """An opened network, images in and embeddings out.

    Attributes
    ----------
    name : its key in `BACKENDS`
    version : of the library
    threads : that one call uses
    """

    name: str
    version: str
    threads: int

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
    open : called with serialised ONNX and the keywords origin, precision and threads of `open_backend`
    precisions : number formats that it can compute in
    """

    open: Callable[..., Backend]
    precisions: tuple[str, ...]


BACKENDS = {
    "onnxruntime": Library(onnxruntime_backend.OnnxRuntime, precisions=("fp32",)),
}


def open_backend(name: str, model: bytes, *, origin: str, precision: str = "fp32", threads: int = 0) -> Backend:
    """Open a network in a backend.

    Parameters
    ----------
    name : a key of `BACKENDS`
    model : serialised ONNX with one input, float32 (N, C, H, W), and the embedding (N, D) as its first output
    origin : the model's file, for error messages
    precision : "fp32"
    threads : that one call may use; 0 means one per usable CPU

    Raises
    ------
    BackendError
        If the backend or precision does not exist, or the backend cannot be loaded or refuses the network.
    MissingExtraError
        If the backend's package is not installed.
    """
    if name not in BACKENDS:
        raise BackendError(f"there is no backend '{name}': choose from {', '.join(BACKENDS)}.")
    library = BACKENDS[name]
    if precision not in library.precisions:
        there = ", ".join(library.precisions)
        raise BackendError(f"backend {name} has no precision '{precision}': choose from {there}.")
    if threads < 0:
        raise BackendError(f"the number of threads must not be negative, and {threads} is.")
    return library.open(model, origin=origin, precision=precision, threads=threads)
