"""Give the weights in an exported graph the names that they have in PyTorch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from onnx import GraphProto


def name_weights(graph: GraphProto, weights: Mapping[str, np.ndarray]) -> None:
    """Rename initializers that the exporter has reshaped or transposed, and named by number.

    A reshaped weight takes the weight's name, a transposed one the name with ``.T`` behind it. Constants that are no
    weights keep their numbers.
    """
    from onnx import numpy_helper

    taken = {tensor.name for tensor in graph.initializer}
    by_content: dict[bytes, str] = {}
    for name, weight in weights.items():
        by_content.setdefault(weight.tobytes(), name)
        if weight.ndim == 2:
            by_content.setdefault(np.ascontiguousarray(weight.T).tobytes(), f"{name}.T")
    renamed = {}
    for tensor in graph.initializer:
        found = by_content.get(numpy_helper.to_array(tensor).tobytes())
        if found is not None and found not in taken and tensor.name not in weights:
            renamed[tensor.name] = tensor.name = found
            taken.add(found)
    for node in graph.node:
        for i, name in enumerate(node.input):
            node.input[i] = renamed.get(name, name)
