"""What runs on a GPU, run by ONNX Runtime on the processor: networks of one batch, in fp16, over fixed memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from chammi_fast.runtime import Form, cuda, graph  # noqa: E402
from chammi_fast.runtime.buffers import Buffers  # noqa: E402
from handmade import EMBEDDING, SIZE, adaptive_by_numpy, write_adaptive  # noqa: E402

CPU = "CPUExecutionProvider"
IDS = [9, 2, 15]
FP32 = Form("onnxruntime", "cuda:0", "fp32", fixed_batch=4)
FP16 = Form("onnxruntime", "cuda:0", "fp16", fixed_batch=4)


@pytest.fixture
def network(tmp_path: Path) -> bytes:
    """A network of three channels whose output has a fixed length, as ours have."""
    model = graph.specialise(onnx.load(write_adaptive(tmp_path / "a.onnx")), IDS)
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = EMBEDDING
    content: bytes = model.SerializeToString()
    return content


def images(n: int) -> np.ndarray:
    return np.random.default_rng(n).standard_normal((n, 3, SIZE, SIZE), dtype=np.float32)


@pytest.mark.parametrize("known", [True, False])
def test_buffers_run_on_the_cpu_provider(network: bytes, known: bool) -> None:
    content, fixed = cuda.prepared(network, FP32)
    assert fixed
    model = onnx.load_from_string(content)
    if not known:
        model.graph.output[0].type.tensor_type.shape.dim[1].dim_param = "D"
        del model.graph.node[:]
        model.graph.node.extend(onnx.load_from_string(content).graph.node)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=[CPU])
    buffers = Buffers(onnxruntime, session, "cpu:0")
    buffers.warm_up()
    free = onnxruntime.InferenceSession(network, providers=[CPU])
    for count in (1, 4, 9, 3):
        found = buffers.run(images(count))
        assert found.shape == (count, EMBEDDING)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, adaptive_by_numpy(images(count), IDS), atol=1e-5)
        np.testing.assert_allclose(found, free.run(None, {"image": images(count)})[0], atol=1e-6)
    alone = buffers.run(images(1))
    buffers.run(np.full((4, 3, SIZE, SIZE), np.nan, np.float32))
    np.testing.assert_array_equal(buffers.run(images(1)), alone)


def test_operations_that_stay_in_float32_are_cast_around(tmp_path: Path) -> None:
    """ONNX Runtime's converter leaves some alone, such as Resize and Max."""
    helper, numpy_helper = onnx.helper, onnx.numpy_helper
    nodes = [
        helper.make_node("Resize", ["image", "", "scales"], ["larger"], mode="linear"),
        helper.make_node("Conv", ["larger", "weight"], ["maps"]),
        helper.make_node("Max", ["maps", "floor"], ["kept"]),
        helper.make_node("Mul", ["kept", "floor"], ["scaled"]),
        helper.make_node("ReduceMean", ["scaled", "axes"], ["vector"], keepdims=0),
    ]
    rng = np.random.default_rng(0)
    weights = {
        "scales": np.array([1, 1, 2, 2], np.float32),
        "weight": rng.standard_normal((EMBEDDING, 3, 3, 3)).astype(np.float32),
        "floor": rng.standard_normal((1, EMBEDDING, 1, 1)).astype(np.float32),
        "axes": np.array([2, 3]),
    }
    made = helper.make_graph(
        nodes,
        "foreign",
        [helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, ["N", 3, SIZE, SIZE])],
        [helper.make_tensor_value_info("vector", onnx.TensorProto.FLOAT, ["N", EMBEDDING])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    network = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=10).SerializeToString()
    content, fixed = cuda.prepared(network, FP16)
    assert fixed
    session = onnxruntime.InferenceSession(content, providers=[CPU])
    expected = onnxruntime.InferenceSession(network, providers=[CPU]).run(None, {"image": images(5)})[0]
    np.testing.assert_allclose(Buffers(onnxruntime, session, "cpu:0").run(images(5)), expected, atol=2e-2)
