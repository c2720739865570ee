"""Faiss's exact search, on a GPU where Faiss has one."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from chammi_fast.extras import require
from chammi_fast.images.cpus import usable_cpus

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

_MOST_ON_GPU = 2048  # neighbours that Faiss's GPU kernels can select
# Queries from which Faiss multiplies matrices; its own number, 200 in Faiss 1.15, is too high: 50 queries among rows of
# 768 numbers take a fifth of the time so.
_MATRICES_FROM = 20
_FEWEST_QUERIES = 64  # of a slice: fewer take longer each
_FEWEST_REFERENCES = 4096  # of a part
_SLICES = 2  # for each thread: a processor may have other work, too


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
        distances, places = _search_on_cpu(faiss, vectors, references, k)
    return distances, places


def _search_on_cpu(
    faiss: ModuleType, vectors: np.ndarray, references: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Search slices in threads of our own: those of Faiss wait for each other at every few rows, and spin meanwhile.

    Slices are of the queries, and where these are too few, of the references, too.
    """
    faiss.cvar.distance_compute_blas_threshold = _MATRICES_FROM
    threads = faiss.omp_get_max_threads()
    slices = max(1, min(_SLICES * threads, len(vectors) // _FEWEST_QUERIES))
    parts = max(1, min(-(-threads // slices), len(references) // max(k, _FEWEST_REFERENCES)))
    if threads == 1:
        distances, places = faiss.knn(vectors, references, k)
        return distances, places
    edges = np.linspace(0, len(references), parts + 1).astype(int).tolist()

    def one(some: np.ndarray, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
        faiss.omp_set_num_threads(1)  # of this thread
        distances, places = faiss.knn(some, references[first:last], k)
        return distances, places + first

    with ThreadPoolExecutor(threads, thread_name_prefix="chammi-fast-search") as pool:
        found = [
            [pool.submit(one, some, first, last) for first, last in pairwise(edges)]
            for some in np.array_split(vectors, slices)
        ]
        merged = [_merged([part.result() for part in of_slice], k) for of_slice in found]
    return np.concatenate([distances for distances, _ in merged]), np.concatenate([places for _, places in merged])


def _merged(found: list[tuple[np.ndarray, np.ndarray]], k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the k nearest of what was found in parts of the references."""
    distances, places = (np.concatenate(several, axis=1) for several in zip(*found, strict=True))
    order = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(distances, order, axis=1), np.take_along_axis(places, order, axis=1)


@cache
def _gpu_resources(faiss: ModuleType) -> Any:
    """Return Faiss's memory on the GPU, which takes long to get."""
    return faiss.StandardGpuResources()


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Let Faiss use so many threads, by default all that it would, but no more than this process may use processors."""
    faiss = faiss_module()
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(min(before, usable_cpus()) if count is None else count)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
