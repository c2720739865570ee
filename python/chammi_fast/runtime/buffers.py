"""The memory that a session on a GPU reads images from and writes embeddings to, the same in every call."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from chammi_fast.runtime.nvidia import pinned


class Buffers:
    """Run a session on batches of its one size, over memory that stays where it is.

    Images go through pinned memory, which the GPU can fetch from by itself, to memory on the device; a CUDA graph needs
    both ends to stay where they are. A batch that is not full is filled up by what was there before: an image's
    embedding does not depend on its neighbours.

    Parameters
    ----------
    library : the module onnxruntime
    session : its input is of a fixed shape
    device : "cuda:0", ...; with "cpu:0" the same is done in ordinary memory
    """

    def __init__(self, library: Any, session: Any, device: str) -> None:
        self._session = session
        kind, _, number = device.partition(":")
        index = int(number)
        image, embedding = session.get_inputs()[0], session.get_outputs()[0]
        new = partial(
            library.OrtValue.ortvalue_from_shape_and_type,
            element_type=np.float32,
            device_type=kind,
            device_id=index,
        )
        cuda_version = "" if kind == "cpu" else getattr(library, "cuda_version", "")
        self._host = pinned(tuple(image.shape), index, cuda_version)
        self._images = new(list(image.shape))
        self._binding = session.io_binding()
        self._binding.bind_ortvalue_input(image.name, self._images)
        if all(isinstance(side, int) for side in embedding.shape):
            self._binding.bind_ortvalue_output(embedding.name, new(list(embedding.shape)))
        else:
            self._binding.bind_output(embedding.name, kind, index)

    def warm_up(self) -> None:
        """Run once, which is when kernels are chosen and a graph is recorded."""
        self._run_one(self._host)

    def run(self, images: np.ndarray) -> np.ndarray:
        """Embed (N, C, H, W) float32 of any N; return (N, D) float32."""
        size = len(self._host)
        parts = [self._run_one(images[first : first + size]) for first in range(0, len(images), size)]
        return np.concatenate(parts)

    def _run_one(self, images: np.ndarray) -> np.ndarray:
        if images.shape[1:] != self._host.shape[1:]:  # NumPy would repeat a smaller one
            raise ValueError(f"the network was opened for {'x'.join(map(str, self._host.shape))}")
        self._host[: len(images)] = images
        self._images.update_inplace(self._host)
        self._session.run_with_iobinding(self._binding)
        embeddings: np.ndarray = self._binding.copy_outputs_to_cpu()[0]
        return embeddings[: len(images)]
