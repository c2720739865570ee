"""Read, specialise and hash the ONNX graph of a model file, with the onnx package alone."""

from __future__ import annotations

import hashlib
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from chammi_fast.errors import SpecError
from chammi_fast.extras import require
from chammi_fast.files import copy
from chammi_fast.spec import METADATA_KEY, Spec, parse_spec
from chammi_fast.urls import cause_of, is_local

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from onnx import GraphProto, ModelProto, NodeProto, ValueInfoProto

IMAGE_INPUT, CHANNELS_INPUT = "image", "channels"  # of an adaptive network
PURPOSE = "reading a model file"


def read_onnx(path: Path) -> tuple[ModelProto, str]:
    """Read an ONNX file, with its external data if it has any.

    Returns
    -------
    The model and the SHA-256 of the file, as hexadecimal digits; with external data, that of the file's bytes
    followed by the SHA-256 (32 bytes) of each of the external files, in the order of their names.

    Raises
    ------
    SpecError
        If the file is missing, unreadable or not an ONNX network.
    """
    model, digest = _read(path)
    from onnx.checker import ValidationError
    from onnx.external_data_helper import ExternalDataInfo, load_external_data_for_model, uses_external_data

    if not model.graph.node or not model.graph.output:
        raise SpecError(f"{path}: is not an ONNX file: it holds no network.")
    external = {ExternalDataInfo(one).location for one in model.graph.initializer if uses_external_data(one)}
    try:
        with _data_folder(path, external) as folder:
            load_external_data_for_model(model, str(folder))
            for name in sorted(external):
                with (folder / name).open("rb") as file:
                    digest.update(hashlib.file_digest(file, "sha256").digest())
    except (OSError, ValueError, ValidationError) as error:
        raise SpecError(f"{path}: its external data cannot be read: {error}.") from None
    return model, digest.hexdigest()


def _read(path: Path) -> tuple[ModelProto, Any]:
    """Read a file and begin the hash of it; a thread does what needs no Python while libraries are imported."""
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(path.read_bytes)
        onnx = require("onnx", purpose=PURPOSE)
        from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

        try:
            content = reading.result()
        except OSError as error:
            raise SpecError(f"{path}: the model file cannot be read: {error.strerror or cause_of(error)}.") from None
        hashing = pool.submit(hashlib.sha256, content)
        model = onnx.ModelProto()
        try:
            model.ParseFromString(content)
        except DecodeError:
            raise SpecError(f"{path}: is not an ONNX file, or is damaged.") from None
        return model, hashing.result()


@contextmanager
def _data_folder(path: Path, external: set[str]) -> Iterator[Path]:
    """Yield the local folder of a network's external files; those of a network in a store are fetched for it."""
    if is_local(path):
        yield path.parent
        return
    with tempfile.TemporaryDirectory(prefix="chammi-fast-") as folder:
        for name in external:
            if PurePosixPath(name).name != name:
                raise SpecError(f"{path}: its external data '{name}' does not lie beside it.")
            copy(path.parent / name, Path(folder) / name)
        yield Path(folder)


def embedded_spec(model: ModelProto, *, origin: Path) -> Spec | None:
    """Return the description that a model file carries, or None.

    Raises
    ------
    SpecError
        If there is one, but it cannot be read or is of another format version.
    """
    for entry in model.metadata_props:
        if entry.key == METADATA_KEY:
            return parse_spec(entry.value, origin=str(origin))
    return None


def embed_spec(model: ModelProto, spec: Spec) -> None:
    """Write a description into a model, in place of the one it may have."""
    kept = [(entry.key, entry.value) for entry in model.metadata_props if entry.key != METADATA_KEY]
    del model.metadata_props[:]
    for key, value in [*kept, (METADATA_KEY, spec.to_json())]:
        model.metadata_props.add(key=key, value=value)


def network_inputs(model: ModelProto) -> list[ValueInfoProto]:
    """Return the inputs that a caller has to give: older files list their weights among the inputs, too."""
    weights = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in weights]


def static_dimensions(value: ValueInfoProto) -> tuple[int | None, ...]:
    """Return the shape of an input or output, None for each dimension that is free; some exporters write 0 or -1."""
    dimensions = value.type.tensor_type.shape.dim
    return tuple(dim.dim_value if dim.dim_value > 0 else None for dim in dimensions)


def weights_sha256(model: ModelProto) -> str:
    """Hash the initializers: SHA-256 over their little-endian bytes, one after another in the order of their names."""
    from onnx import numpy_helper

    digest = hashlib.sha256()
    for tensor in sorted(model.graph.initializer, key=lambda tensor: tensor.name):
        array = numpy_helper.to_array(tensor)
        digest.update(np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).tobytes())
    return digest.hexdigest()


def specialise(model: ModelProto, token_ids: Sequence[int]) -> ModelProto:
    """Build the channels into an adaptive network.

    What depends on the channels alone, the adapter, is computed here once; what remains is an ordinary network with
    the single input ``image``, the same for every backend.

    Parameters
    ----------
    model : an adaptive network; not changed
    token_ids : of the channels, in input order
    """
    from onnx import ModelProto, numpy_helper

    result = ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    graph.initializer.append(numpy_helper.from_array(np.asarray(token_ids, dtype=np.int64), CHANNELS_INPUT))
    _remove(graph.input, lambda value: value.name != IMAGE_INPUT)
    del graph.value_info[:]
    adapter = _adapter_nodes(graph)
    _replace(graph, adapter, _evaluate(result, adapter))
    graph.input[0].type.tensor_type.shape.dim[1].dim_value = len(token_ids)
    return result


def _adapter_nodes(graph: GraphProto) -> list[NodeProto]:
    """Nodes that make the channels into weights (an ONNX graph lists its nodes in order of computation).

    Other nodes without input are left alone: those of a quantised network restore its weights from integers, which
    the backend has to see.
    """
    weights = {tensor.name for tensor in graph.initializer} | {""}
    constant, of_channels = set(weights), {CHANNELS_INPUT}
    nodes = []
    for node in graph.node:
        if constant.issuperset(node.input):
            constant.update(node.output)
            nodes.append(node)
            if not of_channels.isdisjoint(node.input):
                of_channels.update(node.output)
    adapter, needed = [], set[str]()
    for node in reversed(nodes):
        if not of_channels.isdisjoint(node.input) or not needed.isdisjoint(node.output):
            adapter.append(node)
            needed.update(node.input)
    return adapter[::-1]


def _evaluate(model: ModelProto, nodes: list[NodeProto]) -> dict[str, np.ndarray]:
    """Values of those outputs of `nodes` that other nodes need."""
    from onnx import helper
    from onnx.reference import ReferenceEvaluator

    computed = {name for node in nodes for name in node.output}
    others = [node for node in model.graph.node if computed.isdisjoint(node.output)]
    wanted = sorted(computed.intersection(name for node in others for name in node.input))
    used = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        "adapter",
        inputs=[],
        outputs=[helper.make_empty_tensor_value_info(name) for name in wanted],
        initializer=[tensor for tensor in model.graph.initializer if tensor.name in used],
    )
    part = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    return dict(zip(wanted, ReferenceEvaluator(part, new_ops=_products()).run(None, {}), strict=True))


def _products() -> list[type]:
    """Matrix products in long doubles: NumPy has BLAS compute those of floats, whose threads decide how they round."""
    from onnx.reference.op_run import OpRun

    def product(a: np.ndarray, b: np.ndarray) -> Any:
        return a.astype(np.longdouble) @ b.astype(np.longdouble)

    class MatMul(OpRun):
        op_domain = ""

        def _run(self, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray]:
            return (product(a, b).astype(a.dtype),)

    class Gemm(OpRun):
        op_domain = ""

        def _run(  # noqa: PLR0913, PLR0917 - as ONNX names its attributes
            self,
            a: np.ndarray,
            b: np.ndarray,
            c: np.ndarray | None = None,
            alpha: float = 1.0,
            beta: float = 1.0,
            transA: int = 0,  # noqa: N803
            transB: int = 0,  # noqa: N803
        ) -> tuple[np.ndarray]:
            found = alpha * product(a.T if transA else a, b.T if transB else b)
            return ((found if c is None else found + beta * c).astype(a.dtype),)

    return [MatMul, Gemm]


def _replace(graph: GraphProto, nodes: list[NodeProto], values: dict[str, np.ndarray]) -> None:
    """Put computed values in the place of the nodes that computed them, and drop weights that nothing uses."""
    from onnx import numpy_helper

    computed = {name for node in nodes for name in node.output}
    _remove(graph.node, lambda node: not computed.isdisjoint(node.output))
    for name, value in values.items():
        graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
    used = {name for node in graph.node for name in node.input}
    _remove(graph.initializer, lambda tensor: tensor.name not in used)


def _remove(repeated: Any, unwanted: Callable[[Any], bool]) -> None:
    """Delete the unwanted elements of a repeated protobuf field, in place."""
    for i in reversed(range(len(repeated))):
        if unwanted(repeated[i]):
            del repeated[i]
