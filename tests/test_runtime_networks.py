"""Networks of three kinds as they are exported: the same bits in any company, in every form, and fp16."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("torch")
pytest.importorskip("timm")
pytest.importorskip("onnxscript")

from chammi_fast.model import load_model  # noqa: E402
from chammi_fast.runtime import BACKENDS, Form, cuda, graph, open_backend  # noqa: E402
from chammi_fast.runtime.accuracy import compare  # noqa: E402
from chammi_fast.runtime.buffers import Buffers  # noqa: E402
from chammi_fast.training.create import NetworkOptions, create_network  # noqa: E402
from chammi_fast.training.export import export_onnx  # noqa: E402
from forms import processor_forms  # noqa: E402
from networks import SMALL, spread_weights  # noqa: E402
from quantised import quantise  # noqa: E402

COUNT = 17
CHANNELS = "CP"
NETWORKS = {
    "convnext": SMALL,
    # Its last layers are wide and small: threads that share an image share out the sums there.
    "resnet": NetworkOptions(backbone="test_resnet", strategy="depthwise", size=64),
    "vit": replace(SMALL, backbone="vit_tiny_patch16_224", backbone_options={"depth": 2, "img_size": 64}),
}
FORMS = [
    replace(form, threads=threads, streams=streams)
    for form in processor_forms()
    for threads, streams in ([(1, 1), (2, 1), (2, 2)] if BACKENDS[form.backend].streams else [(1, 0), (2, 0)])
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("networks")


@pytest.fixture(scope="module", params=NETWORKS)
def network(request: pytest.FixtureRequest, folder: Path) -> Path:
    """A network bound to its channels, and a quantised one beside it."""
    options = NETWORKS[request.param]
    module, spec = create_network(options)
    spread_weights(module)
    path = folder / f"{request.param}.onnx"
    export_onnx(module, spec, path, channels=CHANNELS)
    quantise(path, images(options.size or 0))
    return path


@cache
def images(size: int, count: int = COUNT) -> np.ndarray:
    return np.random.default_rng(size).standard_normal((count, 5, size, size), dtype=np.float32)


def size_of(path: Path) -> int:
    return load_model(path).spec.preprocessing.size or 0


def in_batches(backend: object, batch: np.ndarray, size: int) -> np.ndarray:
    run = backend.run  # type: ignore[attr-defined]
    return np.concatenate([run(batch[first : first + size]) for first in range(0, len(batch), size)])


def test_an_image_has_the_same_bits_in_any_company(network: Path) -> None:
    batch = images(size_of(network))
    order = np.random.default_rng(1).permutation(COUNT)
    expected: dict[tuple[str, str], np.ndarray] = {}
    for form in FORMS:
        path = network.with_suffix(".int8.onnx") if form.precision == "int8" else network
        backend = open_backend(form, path.read_bytes(), origin=path.name)
        found = {size: in_batches(backend, batch, size) for size in (COUNT, 1, 2, 7)}
        shuffled = np.empty_like(found[COUNT])
        shuffled[order] = backend.run(np.ascontiguousarray(batch[order]))
        first = expected.setdefault((form.backend, form.precision), found[COUNT])
        for what, vectors in [*found.items(), ("shuffled", shuffled)]:
            np.testing.assert_array_equal(vectors, first, err_msg=f"{form}, batches: {what}")
    reference = expected["onnxruntime", "fp32"]
    least = {"fp32": 0.99999, "bf16": 0.999, "fp16": 0.999, "int8": 0.99}
    for (name, precision), vectors in expected.items():
        assert compare(vectors, reference).worst > least[precision], (name, precision)
        assert precision == "fp32" or not np.array_equal(vectors, expected[name, "fp32"]), "it is computed in fp32"


def test_batches_of_real_size_have_the_same_bits(folder: Path) -> None:
    module, spec = create_network(NetworkOptions(backbone="convnext_atto", strategy="hypernet", size=224))
    spread_weights(module)
    export_onnx(module, spec, folder / "atto.onnx", channels=CHANNELS)
    likely = next(form for form in processor_forms() if form.precision != "int8")
    form = replace(likely, threads=2)
    backend = open_backend(form, (folder / "atto.onnx").read_bytes(), origin="atto.onnx")
    batch = images(224, 65)
    expected = backend.run(batch)
    assert len(np.unique(expected, axis=0)) == 65
    np.testing.assert_array_equal(in_batches(backend, batch, 64), expected)
    np.testing.assert_array_equal(in_batches(backend, batch[:9], 1), expected[:9])
    np.testing.assert_array_equal(in_batches(backend, batch[:14], 7), expected[:14])


@pytest.mark.parametrize("kept", ["shape", "batch"])
def test_fp16_of_a_gpu_stays_near_to_fp32(network: Path, kept: str) -> None:
    form = Form("onnxruntime", "cuda:0", "fp16", fixed_batch=0 if kept == "shape" else 4)
    batch = images(size_of(network))
    reference = open_backend(Form(), network.read_bytes(), origin=network.name).run(batch)
    content, fixed = cuda.prepared(network.read_bytes(), form)
    assert fixed == (kept == "batch"), "a graph can be recorded of our own networks"
    converted = onnx.load_from_string(content)
    heavy = [tensor for tensor in converted.graph.initializer if len(tensor.dims) > 1]
    assert heavy
    assert {tensor.data_type for tensor in heavy} == {onnx.TensorProto.FLOAT16}
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    if kept == "shape":
        found = session.run(None, {session.get_inputs()[0].name: batch})[0]
    else:
        found = Buffers(onnxruntime, session, "cpu:0").run(batch)
    assert found.dtype == np.float32
    assert 0.999 < compare(found, reference).worst < 1


def test_fp16_of_an_adaptive_network() -> None:
    model = load_model("demo")
    size = model.spec.preprocessing.size or 0
    bound = model.bind("HPA")
    special = graph.specialise(model.network, [channel.token_id for channel in bound.channels])
    content, fixed = cuda.prepared(special.SerializeToString(), Form("onnxruntime", "cuda:0", "fp16", fixed_batch=3))
    assert fixed
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    batch = np.random.default_rng(0).standard_normal((7, 4, size, size), dtype=np.float32)
    found = Buffers(onnxruntime, session, "cpu:0").run(batch)
    assert 0.999 < compare(found, bound.embed(batch)).worst < 1
