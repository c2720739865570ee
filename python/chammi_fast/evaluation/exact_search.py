"""Faiss's exact search, on a GPU where Faiss has one."""

from __future__ import annotations

from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

from chammi_fast.extras import require

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

    import numpy as np

_MOST_ON_GPU = 2048  # neighbours that Faiss's GPU kernels can select


def faiss_module() -> ModuleType:
    """Import Faiss.

    Raises
    ------
    MissingExtraError
        If it is not installed, or cannot be loaded.
    """
    return require("faiss", purpose="scoring")


def search(vectors: np.ndarray, references: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the k least squared distances of each vector to the references, ascending, and their places.

    Every reference is compared, in float32. What distances are equal to rounding come in any order.

    Parameters
    ----------
    vectors, references : (Q, D) and (M, D) float32, C-contiguous, M >= k

    Returns
    -------
    (Q, k) float32 and (Q, k) int64.
    """
    faiss = faiss_module()
    if k <= _MOST_ON_GPU and faiss.get_num_gpus() > 0:
        distances, places = faiss.knn_gpu(_gpu_resources(faiss), vectors, references, k)
    else:
        distances, places = faiss.knn(vectors, references, k)
    return distances, places


@cache
def _gpu_resources(faiss: ModuleType) -> Any:
    """Return Faiss's memory on the GPU, which takes long to get."""
    return faiss.StandardGpuResources()


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Let Faiss use so many threads, by default all processors that it finds."""
    faiss = faiss_module()
    before = faiss.omp_get_max_threads()
    if count is not None:
        faiss.omp_set_num_threads(count)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
