"""Give matrix products of images (N, H, W, C) three dimensions: (N, H*W, C), which is the same numbers in memory.

OpenVINO joins a quantised product with the bias, the activation and the next quantisation behind it only where the
product has at most three dimensions; with four, ConvNeXt's blocks lose more time in between than 8-bit products win.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from onnx import GraphProto, ModelProto, NodeProto

# Computed number by number.
POINTWISE = {"Add", "Sub", "Mul", "Div", "Erf", "Gelu", "Sigmoid", "HardSigmoid", "Tanh", "Relu", "Sqrt", "Clip"}


def flatten(model: ModelProto) -> None:
    """Rewrite a network in place: products of four dimensions get three, and so does what surrounds them.

    That is what is computed number by number, or over the last dimension. Where the height and the width are not known,
    nothing is changed.
    """
    from onnx import shape_inference

    shapes = shapes_of(shape_inference.infer_shapes(model).graph)
    region = _region(model.graph, shapes)
    if region:
        _Flattening(model.graph, shapes, region).run()


def shapes_of(graph: GraphProto) -> dict[str, tuple[int | None, ...]]:
    """Return the shapes that are known of a graph's tensors, None for each free dimension."""
    found: dict[str, tuple[int | None, ...]] = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.value_info, *graph.input, *graph.output):
        if value.type.tensor_type.HasField("shape"):
            dimensions = value.type.tensor_type.shape.dim
            found[value.name] = tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in dimensions)
    return found


def _region(graph: GraphProto, shapes: dict[str, tuple[int | None, ...]]) -> set[str]:
    """Return the tensors that are to have three dimensions."""
    weights = {tensor.name for tensor in graph.initializer}
    inner: set[str] = set()

    def area(name: str) -> tuple[int | None, ...]:
        """Height and width; nothing where they are not known."""
        shape = shapes.get(name, ())
        return shape[1:3] if len(shape) == 4 and None not in shape[1:] else ()

    def fits(node: NodeProto) -> bool:
        if node.op_type == "MatMul":
            return bool(area(node.input[0])) and node.input[1] in weights and len(shapes[node.input[1]]) == 2
        if node.op_type == "LayerNormalization":
            axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), -1)
            return axis in (-1, 3) and bool(area(node.input[0]))
        others = [name for name in node.input if name not in weights or len(shapes[name]) > 1]
        same = all(name in inner and area(name) == area(node.output[0]) for name in others)
        return node.op_type in POINTWISE and bool(others) and same

    for node in graph.node:
        if area(node.output[0]) and fits(node):
            inner.add(node.output[0])
    return inner


@dataclass
class _Flattening:
    """The rewriting of a graph, whose tensors in `region` get three dimensions."""

    graph: GraphProto
    shapes: dict[str, tuple[int | None, ...]]
    region: set[str]
    nodes: list[NodeProto] = field(default_factory=list)
    renamed: dict[str, str] = field(default_factory=dict)

    def run(self) -> None:
        images = {name for name, shape in self.shapes.items() if len(shape) == 4}
        images -= {tensor.name for tensor in self.graph.initializer}
        needed = {name for node in self.graph.node if node.output[0] not in self.region for name in node.input}
        for node in self.graph.node:
            inside = node.output[0] in self.region
            for place, name in enumerate(node.input):
                if inside != (name in self.region) and name in images:
                    node.input[place] = self._flat(name) if inside else self.renamed[name]
            self.nodes.append(node)
            name = node.output[0]
            if inside and name in needed:
                shape = (0, *(size or 0 for size in self.shapes[name][1:]))
                self.renamed[name] = self._reshaped(name, f"{name}/full", shape)
        del self.graph.node[:]
        self.graph.node.extend(self.nodes)
        del self.graph.value_info[:]  # of the old dimensions

    def _flat(self, name: str) -> str:
        if name not in self.renamed:
            self.renamed[name] = self._reshaped(name, f"{name}/flat", (0, -1, self.shapes[name][-1] or 0))
        return self.renamed[name]

    def _reshaped(self, name: str, result: str, shape: Iterable[int]) -> str:
        from onnx import helper, numpy_helper

        sizes = np.array(tuple(shape), dtype=np.int64)
        self.graph.initializer.append(numpy_helper.from_array(sizes, f"{result}/shape"))
        self.nodes.append(helper.make_node("Reshape", [name, f"{result}/shape"], [result], name=result))
        return result
