"""Backends, and the graph surgery before them."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from chammi_fast import extras  # noqa: E402
from chammi_fast.errors import BackendError, MissingExtraError, SpecError  # noqa: E402
from chammi_fast.images.cpus import usable_cpus  # noqa: E402
from chammi_fast.runtime import Form, graph, open_backend  # noqa: E402
from forms import processor_forms  # noqa: E402
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


FORMS = [replace(form, threads=threads) for form in processor_forms() for threads in (0, 1, 2, 100_000)]
TOLERANCE = {
    "fp32": 1e-5,
    "int8": 1e-5,
    "fp16": 2e-2,
    "bf16": 2e-1,
}  # of numbers of size 5; int8 is for quantised files


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("count", [1, 2, 7, 33])
def test_backends_equal_numpy(network: ModelProto, form: Form, count: int) -> None:
    content = graph.specialise(network, IDS).SerializeToString()
    backend = open_backend(form, content, origin="a.onnx")
    assert backend.version[0].isdigit()
    assert (backend.form.backend, backend.form.precision, backend.form.device) == (form.backend, form.precision, "cpu")
    assert 1 <= backend.form.streams <= backend.form.threads
    assert backend.form.threads <= min(form.threads or usable_cpus(), usable_cpus())
    images = np.random.default_rng(5).standard_normal((count, 3, SIZE, SIZE), dtype=np.float32)
    before = images.copy()
    for _ in range(2):
        found = backend.run(images)
        assert (found.dtype, found.shape) == (np.dtype(np.float32), (count, EMBEDDING))
        np.testing.assert_allclose(found, adaptive_by_numpy(images, IDS), atol=TOLERANCE[form.precision])
    kept = found.copy()
    backend.run(images[::-1].copy())
    np.testing.assert_array_equal(found, kept, err_msg="a later call writes into what an earlier one returned")
    np.testing.assert_array_equal(images, before)


@pytest.mark.parametrize("form", [form for form in FORMS if form.threads == 2], ids=str)
def test_a_network_of_one_batch_size(tmp_path: Path, form: Form) -> None:
    path = write_foreign(tmp_path / "a.onnx", shape=[4, 2, SIZE, SIZE])
    backend = open_backend(form, path.read_bytes(), origin="a.onnx")
    images = np.random.default_rng(5).random((4, 2, SIZE, SIZE), dtype=np.float32)
    np.testing.assert_allclose(backend.run(images), images.mean((2, 3)), atol=TOLERANCE[form.precision] / 10)
    with pytest.raises(BackendError, match=r"a\.onnx: .* refuses a 3x2x8x8 batch: "):
        backend.run(images[:3])


@pytest.mark.parametrize("form", [form for form in FORMS if form.threads == 2], ids=str)
def test_images_of_any_size(tmp_path: Path, form: Form) -> None:
    path = write_foreign(tmp_path / "a.onnx", shape=["N", 2, "H", "W"])
    backend = open_backend(form, path.read_bytes(), origin="a.onnx")
    for shape in ((3, 2, 5, 7), (1, 2, 9, 4)):
        images = np.random.default_rng(5).random(shape, dtype=np.float32)
        np.testing.assert_allclose(backend.run(images), images.mean((2, 3)), atol=TOLERANCE[form.precision] / 10)


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
    read, sha256 = graph.read_onnx(path)
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(read.graph.initializer[0]), TABLE)
    weights = (tmp_path / "weights.bin").read_bytes()
    assert sha256 == hashlib.sha256(path.read_bytes() + hashlib.sha256(weights).digest()).hexdigest()
    (tmp_path / "weights.bin").write_bytes(bytes(len(weights)))
    assert graph.read_onnx(path)[1] != sha256, "other weights are another model"
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(SpecError, match=r"external\.onnx: its external data cannot be read"):
        graph.read_onnx(path)


ONE_FORM_EACH = [form for form in FORMS if form.threads == 1 and form.precision == "fp32"]
CALLED = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}


@pytest.mark.parametrize("form", ONE_FORM_EACH, ids=str)
@pytest.mark.parametrize("content", [b"no network", b""])
def test_a_network_that_is_none_is_refused(form: Form, content: bytes) -> None:
    expected = rf"^a\.onnx: {CALLED[form.backend]} cannot open the network: .+\.$"
    with pytest.raises(BackendError, match=expected) as caught:
        open_backend(form, content, origin="a.onnx")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("form", ONE_FORM_EACH, ids=str)
def test_a_refused_batch_is_a_backend_error(tmp_path: Path, form: Form) -> None:
    path = write_foreign(tmp_path / "a.onnx", shape=["N", 2, SIZE, SIZE])
    backend = open_backend(form, path.read_bytes(), origin="a.onnx")
    expected = rf"^a\.onnx: {CALLED[form.backend]} refuses a 1x3x8x8 batch: .+\.$"
    with pytest.raises(BackendError, match=expected) as caught:
        backend.run(np.zeros((1, 3, SIZE, SIZE), dtype=np.float32))
    assert "\n" not in str(caught.value)
    assert backend.run(np.ones((1, 2, SIZE, SIZE), dtype=np.float32)).tolist() == [[1, 1]], "it goes on working"


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
