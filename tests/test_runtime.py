"""Backends, and the graph surgery before them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from chammi_fast import extras  # noqa: E402
from chammi_fast.errors import BackendError, MissingExtraError, SpecError  # noqa: E402
from chammi_fast.runtime import Form, graph, open_backend  # noqa: E402
from handmade import EMBEDDING, SIZE, SPEC, TABLE, adaptive_by_numpy, write_adaptive, write_foreign  # noqa: E402

if TYPE_CHECKING:
    from onnx import ModelProto

IDS = [9, 2, 15]


@pytest.fixture
def network(tmp_path: Path) -> ModelProto:
    model: ModelProto = onnx.load(write_adaptive(tmp_path / "a.onnx"))
    return model


def test_specialising_leaves_an_ordinary_network_and_the_original(network: ModelProto) -> None:
    before = network.SerializeToString()
    special = graph.specialise(network, IDS)
    assert network.SerializeToString() == before
    onnx.checker.check_model(special, full_check=True)
    assert [value.name for value in special.graph.input] == ["image"]
    assert graph.static_dimensions(special.graph.input[0]) == (None, 3, SIZE, SIZE)
    assert [node.op_type for node in special.graph.node] == ["Conv", "ReduceMean"]
    weights = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in special.graph.initializer}
    assert sorted(weights) == ["axes", "weight"]
    expected = TABLE[IDS].reshape(3, EMBEDDING, 4, 4).transpose(1, 0, 2, 3)
    np.testing.assert_array_equal(weights["weight"], expected)
    assert [entry.key for entry in special.metadata_props] == [entry.key for entry in network.metadata_props]


@pytest.mark.parametrize("threads", [0, 1, 2])
def test_onnxruntime_equals_numpy(network: ModelProto, threads: int) -> None:
    content = graph.specialise(network, IDS).SerializeToString()
    backend = open_backend(Form("onnxruntime", threads=threads), content, origin="a.onnx")
    assert backend.form.threads == threads or threads == 0
    images = np.random.default_rng(5).standard_normal((7, 3, SIZE, SIZE), dtype=np.float32)
    found = backend.run(images)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, adaptive_by_numpy(images, IDS), atol=1e-5)


def test_weights_hash_ignores_the_order_of_the_file(network: ModelProto) -> None:
    first = graph.weights_sha256(network)
    tensors = list(network.graph.initializer)[::-1]
    del network.graph.initializer[:]
    network.graph.initializer.extend(tensors)
    assert graph.weights_sha256(network) == first
    value = onnx.numpy_helper.to_array(tensors[0]) + 1
    network.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(value, tensors[0].name))
    assert graph.weights_sha256(network) != first


def test_embedding_a_spec_replaces_the_old_one_and_keeps_the_rest(network: ModelProto, tmp_path: Path) -> None:
    network.metadata_props.add(key="author", value="someone")
    graph.embed_spec(network, SPEC)
    graph.embed_spec(network, SPEC)
    assert sorted(entry.key for entry in network.metadata_props) == ["author", "chammi_fast.spec"]
    assert graph.embedded_spec(network, origin=tmp_path) == SPEC


def test_external_data_is_read_and_its_absence_named(tmp_path: Path, network: ModelProto) -> None:
    path = tmp_path / "external.onnx"
    onnx.save(network, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    read, _ = graph.read_onnx(path)
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(read.graph.initializer[0]), TABLE)
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(SpecError, match=r"external\.onnx: its external data cannot be read"):
        graph.read_onnx(path)


def test_a_network_that_is_none_is_refused() -> None:
    with pytest.raises(BackendError, match=r"a\.onnx: ONNX Runtime cannot open the network: ") as caught:
        open_backend(Form(), b"no network", origin="a.onnx")
    assert "\n" not in str(caught.value)


def test_a_refused_batch_is_a_backend_error(tmp_path: Path) -> None:
    path = write_foreign(tmp_path / "a.onnx", shape=["N", 2, SIZE, SIZE])
    backend = open_backend(Form(), path.read_bytes(), origin="a.onnx")
    with pytest.raises(BackendError, match=r"a\.onnx: ONNX Runtime refuses a 1x3x8x8 batch: ") as caught:
        backend.run(np.zeros((1, 3, SIZE, SIZE), dtype=np.float32))
    assert "\n" not in str(caught.value)


def test_a_broken_installation_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ImportError("DLL load failed")

    sentence = "onnxruntime and onnxruntime-gpu are both installed"
    monkeypatch.setattr("importlib.import_module", broken)
    monkeypatch.setattr(extras, "mixed_installations", lambda: [sentence])
    with pytest.raises(MissingExtraError, match=f"cannot be loaded: DLL load failed. {sentence}"):
        open_backend(Form(), b"", origin="a.onnx")


def test_running_a_model_loads_no_torch(tmp_path: Path) -> None:
    path = write_adaptive(tmp_path / "a.onnx")
    code = f"""
import sys, numpy
from chammi_fast.model import load_model
assert "onnx" not in sys.modules and "onnxruntime" not in sys.modules, "importing is not light"
bound = load_model({str(path)!r}).bind("CP")
bound.embed(numpy.zeros((1, 5, {SIZE}, {SIZE}), dtype=numpy.float32))
print([name for name in ("torch", "timm", "onnxscript", "pandas", "faiss") if name in sys.modules])
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.stdout.strip() == "[]", result.stderr
