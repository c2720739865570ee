"""Cut a network in two: the head, which stays float32, and the body, whose layers are quantised."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from chammi_fast.quantisation.flattening import flatten, shapes_of
from chammi_fast.runtime.graph import CHANNELS_INPUT

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    import numpy as np
    from onnx import GraphProto, ModelProto, NodeProto

WEIGHED = {"Conv", "MatMul", "Gemm"}


@dataclass(frozen=True)
class Layer:
    """A product with weights of its own.

    Attributes
    ----------
    name : of its node
    title : of its weights, for people
    multiplications : for one image
    """

    name: str
    title: str
    multiplications: int


@dataclass(frozen=True)
class Cut:
    """A network in two parts.

    Attributes
    ----------
    head : from the network's inputs to what the body needs
    body : from there to the embedding
    """

    head: ModelProto
    body: ModelProto

    def joined_with(self, body: ModelProto) -> ModelProto:
        """Return the whole network with another body, of the same inputs and outputs."""
        from onnx import ModelProto

        whole = ModelProto()
        whole.CopyFrom(self.head)
        del whole.graph.output[:]
        whole.graph.output.extend(body.graph.output)
        own = {tensor.name for tensor in whole.graph.initializer}
        whole.graph.node.extend(body.graph.node)
        whole.graph.initializer.extend(tensor for tensor in body.graph.initializer if tensor.name not in own)
        del whole.opset_import[:]
        whole.opset_import.extend(body.opset_import)
        whole.ir_version = max(whole.ir_version, body.ir_version)
        return whole


def cut(model: ModelProto) -> Cut:
    """Cut behind the last place where something made of the channels meets the image, or else the first weights do.

    In an adaptive network that is the stem, whose weights the adapter makes: it stays float32, with the adapter. What
    is behind it is the same for all channels.

    Parameters
    ----------
    model : not changed; products of images are flattened in the result (`flatten`)
    """
    from onnx import ModelProto, shape_inference

    network = ModelProto()
    network.CopyFrom(model)
    _name_nodes(network.graph)
    flatten(network)
    network = shape_inference.infer_shapes(network)
    head = _ancestors(network.graph, _last_meetings(network.graph))
    return Cut(_part(network, head, is_head=True), _part(network, head, is_head=False))


def layers(body: ModelProto, sizes: Mapping[str, np.ndarray]) -> list[Layer]:
    """List a body's layers in order of computation.

    Parameters
    ----------
    sizes : input -> an example of it, of which the numbers of multiplications are taken
    """
    from onnx import ModelProto, shape_inference

    known = ModelProto()
    known.CopyFrom(body)
    for value in known.graph.input:
        del value.type.tensor_type.shape.dim[:]
        for size in sizes[value.name].shape:
            value.type.tensor_type.shape.dim.add(dim_value=size)
    shapes = shapes_of(shape_inference.infer_shapes(known).graph)
    images = max(len(example) for example in sizes.values() if example.ndim)
    weights = {tensor.name: tuple(tensor.dims) for tensor in body.graph.initializer}
    found = []
    for node in body.graph.node:
        if is_layer(node, weights):
            filters = weights[node.input[1]]
            outputs_first = node.op_type == "Conv" or any(one.name == "transB" and one.i for one in node.attribute)
            outputs = filters[0] if outputs_first else filters[-1]
            computed = math.prod(size or 1 for size in shapes.get(node.output[0], ()))
            title = node.input[1].removeprefix("body.model.").removesuffix(".T").removesuffix(".weight")
            found.append(Layer(node.name, title, computed * math.prod(filters) // outputs // images))
    return found


def is_layer(node: NodeProto, weights: Collection[str]) -> bool:
    """Whether a node is a product with weights of its own."""
    return node.op_type in WEIGHED and node.input[1] in weights


def restored(quantised: ModelProto, body: ModelProto, names: Collection[str]) -> ModelProto:
    """Return a quantised body in which some layers compute what they did before, from the body's own tensors.

    Where a tool gave the rounded inputs of a layer to others, such as the sum that goes round a block, too, these get
    the tensor itself.
    """
    from onnx import ModelProto

    result = ModelProto()
    result.CopyFrom(quantised)
    weights = {tensor.name: tensor for tensor in body.graph.initializer}
    before = {node.name: node for node in body.graph.node if is_layer(node, weights)}
    results = {node.output[0] for name, node in before.items() if name not in names}
    unrounded = {name: source for name, source in _rounded(result.graph).items() if source not in results}
    used: set[str] = set()
    for node in result.graph.node:
        if node.name in names:
            inputs = [f"{name}/float" if name in weights else name for name in before[node.name].input]
            used.update(name for name in before[node.name].input if name in weights)
        elif node.name in before:  # a layer that stays quantised
            continue
        else:
            inputs = [unrounded.get(name, name) for name in node.input]
        del node.input[:]
        node.input.extend(inputs)
    for name in sorted(used):
        result.graph.initializer.add().CopyFrom(weights[name])
        result.graph.initializer[-1].name = f"{name}/float"  # its own name may now be that of a dequantised one
    drop_unused(result.graph)
    return result


def _rounded(graph: GraphProto) -> dict[str, str]:
    """Return, for tensors that were quantised and dequantised, what they were before."""
    before = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "QuantizeLinear"}
    after = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    return {name: before[middle] for name, middle in after.items() if middle in before}


def drop_unused(graph: GraphProto) -> None:
    """Remove the nodes and weights that no output needs."""
    needed = {value.name for value in graph.output}
    kept = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(node.input)
    _keep(graph, reversed(kept), needed)


def _last_meetings(graph: GraphProto) -> set[str]:
    """Return the outputs of the nodes in which something made of the channels meets the image; or the first layer's."""
    weights = {tensor.name for tensor in graph.initializer}
    of_image = {value.name for value in graph.input if value.name != CHANNELS_INPUT} - weights
    of_channels = {CHANNELS_INPUT}
    meetings: set[str] = set()
    first = ""
    for node in graph.node:
        if of_image.isdisjoint(node.input):
            if not of_channels.isdisjoint(node.input):
                of_channels.update(node.output)
            continue
        of_image.update(node.output)
        if not of_channels.isdisjoint(node.input):
            meetings.add(node.output[0])
        elif not first and is_layer(node, weights):
            first = node.output[0]
    return meetings or {first}


def _ancestors(graph: GraphProto, outputs: set[str]) -> set[str]:
    """Return the first outputs of the nodes that some outputs need, their own nodes among them."""
    needed, found = set(outputs), set()
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            found.add(node.output[0])
            needed.update(node.input)
    return found


def _part(network: ModelProto, head: set[str], *, is_head: bool) -> ModelProto:
    """Return one part of a network, with the tensors at the cut as outputs or inputs."""
    from onnx import ModelProto, TensorProto, helper

    part = ModelProto()
    part.CopyFrom(network)
    inside = [node for node in network.graph.node if (node.output[0] in head) == is_head]
    outside = [node for node in network.graph.node if (node.output[0] in head) != is_head]
    made = {name for node in network.graph.node if node.output[0] in head for name in node.output}
    made |= {value.name for value in network.graph.input} - {tensor.name for tensor in network.graph.initializer}
    behind = outside if is_head else inside
    crossing = list(dict.fromkeys(name for node in behind for name in node.input if name in made))
    known = {value.name: value for value in (*network.graph.value_info, *network.graph.input)}
    values = [known.get(name) or helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in crossing]
    ends = part.graph.output if is_head else part.graph.input
    del ends[:]
    ends.extend(values)
    _keep(part.graph, inside, {name for node in inside for name in node.input})
    return part


def _keep(graph: GraphProto, nodes: Iterable[NodeProto], needed: Collection[str]) -> None:
    nodes = list(nodes)
    weights = [tensor for tensor in graph.initializer if tensor.name in needed]
    for repeated, kept in ((graph.node, nodes), (graph.initializer, weights)):
        copies = [type(one).FromString(one.SerializeToString()) for one in kept]
        del repeated[:]
        repeated.extend(copies)


def _name_nodes(graph: GraphProto) -> None:
    """Give every node a name of its own; files from elsewhere may have none."""
    taken: set[str] = set()
    for place, node in enumerate(graph.node):
        if not node.name or node.name in taken:
            node.name = f"{node.op_type}_{place}"
        taken.add(node.name)
