"""ONNX files made by hand, without PyTorch, whose embeddings NumPy can compute."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from chammi_fast.chammi import DATA_SETS
from chammi_fast.spec import METADATA_KEY, Preprocessing, Spec, Token, with_averages

if TYPE_CHECKING:
    from pathlib import Path

SIZE, EMBEDDING = 8, 6
TOKENS = with_averages(
    tuple(
        Token(name, mean, std)
        for data_set in DATA_SETS.values()
        for name, mean, std in zip(data_set.tokens, data_set.mean, data_set.std, strict=True)
    )
)
SPEC = Spec(
    strategy="table",
    backbone="none",
    tokens=TOKENS,
    configurations={data_set.name: data_set.tokens for data_set in DATA_SETS.values()},
    embedding_size=EMBEDDING,
    preprocessing=Preprocessing(size=SIZE),
    weights_sha256="abc",
)
TABLE = np.random.default_rng(11).standard_normal((len(TOKENS), EMBEDDING * 16)).astype(np.float32)


def write_adaptive(path: Path, *, spec: Spec | str | None = SPEC) -> Path:
    """Write a network whose tokens' filters are rows of `TABLE`: 4x4 convolution, stride 4, average pooling."""
    nodes = [
        helper.make_node("Gather", ["table", "channels"], ["rows"]),
        helper.make_node("Reshape", ["rows", "shape"], ["filters"]),
        helper.make_node("Transpose", ["filters"], ["weight"], perm=[1, 0, 2, 3]),
        helper.make_node("Conv", ["image", "weight"], ["maps"], strides=[4, 4]),
        helper.make_node("ReduceMean", ["maps", "axes"], ["embedding"], keepdims=0),
    ]
    weights = {"table": TABLE, "shape": np.array([-1, EMBEDDING, 4, 4]), "axes": np.array([2, 3])}
    inputs = [tensor("image", TensorProto.FLOAT, ["N", "C", SIZE, SIZE]), tensor("channels", TensorProto.INT64, ["C"])]
    return _write(path, nodes, inputs, weights, spec)


def adaptive_by_numpy(images: np.ndarray, token_ids: list[int]) -> np.ndarray:
    """The embedding of `write_adaptive`, in float64."""
    rows = TABLE[token_ids].astype(np.float64).reshape(len(token_ids), EMBEDDING, 4, 4)
    patches = images.astype(np.float64).reshape(len(images), len(token_ids), SIZE // 4, 4, SIZE // 4, 4)
    result: np.ndarray = np.einsum("ncyixj,coij->noyx", patches, rows).mean((2, 3))
    return result


def write_foreign(
    path: Path, *, shape: list[int | str], spec: Spec | None = None, dtype: int = TensorProto.FLOAT
) -> Path:
    """Write someone else's network: the mean of each channel, then of channel sums, as an embedding of C numbers."""
    nodes = [helper.make_node("ReduceMean", ["pixels", "axes"], ["vector"], keepdims=0)]
    return _write(path, nodes, [tensor("pixels", dtype, shape)], {"axes": np.array([2, 3])}, spec, output="vector")


def fixed_spec(*names: str, size: int | None = SIZE, embedding_size: int = 0) -> Spec:
    """Describe a network of fixed channels."""
    return Spec(
        strategy="foreign",
        backbone="foreign",
        tokens=TOKENS,
        configurations=SPEC.configurations,
        embedding_size=embedding_size or len(names),
        preprocessing=Preprocessing(size=size, resize="none" if size is None else "shorter"),
        form="specialised",
        fixed_channels=names,
    )


def tensor(name: str, dtype: int, shape: list[int | str]) -> Any:
    return helper.make_tensor_value_info(name, dtype, shape)


def _write(
    path: Path,
    nodes: list[Any],
    inputs: list[Any],
    weights: dict[str, np.ndarray],
    spec: Spec | str | None,
    *,
    output: str = "embedding",
) -> Path:
    graph = helper.make_graph(
        nodes,
        "handmade",
        inputs,
        [tensor(output, TensorProto.FLOAT, ["N", "D"])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    if spec is not None:
        helper.set_model_props(model, {METADATA_KEY: spec if isinstance(spec, str) else spec.to_json()})
    onnx.save(model, path)
    return path
