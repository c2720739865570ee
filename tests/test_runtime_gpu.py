"""The path to NVIDIA GPUs, on a stand-in for onnxruntime-gpu that computes on the processor."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from chammi_fast.errors import BackendError  # noqa: E402
from chammi_fast.runtime import BACKENDS, Form, cuda, graph, nvidia, onnxruntime_backend, open_backend  # noqa: E402
from chammi_fast.runtime.form import possible_forms  # noqa: E402
from fake_gpu import CPU, CUDA, OPTIONS, TENSORRT, FakeRuntime  # noqa: E402
from handmade import EMBEDDING, SIZE, adaptive_by_numpy, write_adaptive, write_foreign  # noqa: E402

IDS = [9, 2, 15]
# What onnxruntime-gpu 1.31.1 says where the driver is older than CUDA 13.
DRIVER_TOO_OLD = (
    "/onnxruntime_src/onnxruntime/core/providers/cuda/cuda_execution_provider_info.cc:63 static "
    "onnxruntime::CUDAExecutionProviderInfo onnxruntime::CUDAExecutionProviderInfo::FromProviderOptions(const "
    "onnxruntime::ProviderOptions&) [ONNXRuntimeError] : 1 : FAIL : provider_options_utils.h:187 Parse Failed to parse "
    'provider option "device_id": CUDA failure 35: CUDA driver version is insufficient for CUDA runtime version ; '
    "GPU=-1 ; hostname=host ; file=cuda_execution_provider_info.cc ; line=70 ; expr=cudaGetDeviceCount(&num_devices); "
)
FP32 = Form("onnxruntime", "cuda:0", "fp32", fixed_batch=4)
FP16 = Form("onnxruntime", "cuda:0", "fp16", fixed_batch=4)
TRT = Form("tensorrt", "cuda:1", "fp16", fixed_batch=4)


@pytest.fixture
def network(tmp_path: Path) -> bytes:
    """A network of three channels whose output has a fixed length, as ours have."""
    model = graph.specialise(onnx.load(write_adaptive(tmp_path / "a.onnx")), IDS)
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = EMBEDDING
    content: bytes = model.SerializeToString()
    return content


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeRuntime:
    """Two GPUs, CUDA and TensorRT."""
    runtime = FakeRuntime()
    install(runtime, monkeypatch)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return runtime


def install(runtime: FakeRuntime, monkeypatch: pytest.MonkeyPatch, gpus: int = 2) -> None:
    monkeypatch.setattr(onnxruntime_backend, "_library", lambda: runtime)
    monkeypatch.setattr(nvidia, "gpus", lambda: ("GPU",) * gpus)
    monkeypatch.setattr(nvidia, "tensorrt_is_there", lambda: True)
    monkeypatch.setattr(nvidia, "_loaded", lambda _: None)


def images(n: int) -> np.ndarray:
    return np.random.default_rng(n).standard_normal((n, 3, SIZE, SIZE), dtype=np.float32)


# What the providers are asked for.


@pytest.mark.parametrize("form", [FP32, FP16, TRT, Form("tensorrt", "cuda:0", "int8")])
@pytest.mark.parametrize("recorded", [True, False])
def test_options_are_documented_ones(form: Form, recorded: bool) -> None:
    chosen = cuda.providers(form, graph=recorded, engines=Path("engines"))
    names = [name for name, _ in chosen]
    assert names == ([TENSORRT, CUDA] if form.backend == "tensorrt" else [CUDA])
    for name, options in chosen:
        assert options["device_id"] == form.device[-1]
        for key, value in options.items():
            assert value in OPTIONS[name][key] or not OPTIONS[name][key], (key, value)
    first = chosen[0][1]
    assert first["enable_cuda_graph" if form.backend == "onnxruntime" else "trt_cuda_graph_enable"] == str(
        int(recorded)
    )
    assert dict(chosen)[CUDA]["use_tf32"] == "0"
    assert dict(chosen)[CUDA]["cudnn_conv_algo_search"] != "EXHAUSTIVE", "what is timed differs from run to run"
    if form.backend == "tensorrt":
        wanted = {"fp16": ("1", "0"), "int8": ("0", "1")}[form.precision]
        assert (first["trt_fp16_enable"], first["trt_int8_enable"]) == wanted
        assert first["trt_engine_cache_path"] == first["trt_timing_cache_path"] == "engines"


@pytest.mark.parametrize("form", [FP32, FP16, TRT])
@pytest.mark.parametrize("count", [1, 4, 9])
def test_embeddings_equal_numpy(fake: FakeRuntime, network: bytes, form: Form, count: int) -> None:
    backend = open_backend(form, network, origin="a.onnx")
    assert backend.version == fake.__version__
    tolerance = {"onnxruntime fp16": 2e-2}.get(f"{form.backend} {form.precision}", 1e-5)  # the stand-in has no TensorRT
    for _ in range(2):  # the second time beside what the first left
        found = backend.run(images(count))
        assert found.shape == (count, EMBEDDING)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, adaptive_by_numpy(images(count), IDS), atol=tolerance)
    (session,) = fake.sessions
    assert session.graph
    assert set(session.calls) == {(4, 3, SIZE, SIZE)}
    assert len(session.calls) == 1 + 2 * -(-count // 4), "one to warm up, then as many as are needed"
    assert session.options.use_deterministic_compute
    assert (fake.preloaded, fake.severity) == (1, 4)


def test_what_stays_in_the_buffers_is_harmless(fake: FakeRuntime, network: bytes) -> None:
    backend = open_backend(FP32, network, origin="a.onnx")
    alone = backend.run(images(3))
    backend.run(np.full((4, 3, SIZE, SIZE), np.nan, np.float32))
    np.testing.assert_array_equal(backend.run(images(3)), alone)
    backend.run(np.full((4, 3, SIZE, SIZE), np.inf, np.float32))
    np.testing.assert_array_equal(backend.run(images(3)), alone)


def test_fp16_is_in_the_network_for_cuda_and_an_option_for_tensorrt(fake: FakeRuntime, network: bytes) -> None:
    for form in (FP16, TRT, FP32):
        open_backend(form, network, origin="a.onnx")
    types = []
    for session in fake.sessions:
        opened = onnx.load_from_string(session.model).graph
        sides = {value.type.tensor_type.elem_type for value in (opened.input[0], opened.output[0])}
        assert sides == {onnx.TensorProto.FLOAT}
        types.append(next(tensor.data_type for tensor in opened.initializer if tensor.name == "weight"))
    assert types == [onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT]


# When a graph is recorded.


@pytest.mark.parametrize("fault", ["graphs", "captures"])
def test_a_network_that_cannot_be_recorded_runs_without(
    fault: str, fake: FakeRuntime, network: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    setattr(fake, fault, False)
    backend = open_backend(FP32, network, origin="a.onnx")
    assert [session.graph for session in fake.sessions][-1] is False
    np.testing.assert_allclose(backend.run(images(5)), adaptive_by_numpy(images(5), IDS), atol=1e-5)
    assert capsys.readouterr() == ("", "")


def test_an_output_of_unknown_length_is_not_recorded(fake: FakeRuntime, tmp_path: Path) -> None:
    content = graph.specialise(onnx.load(write_adaptive(tmp_path / "a.onnx")), IDS).SerializeToString()
    backend = open_backend(FP32, content, origin="a.onnx")
    np.testing.assert_allclose(backend.run(images(5)), adaptive_by_numpy(images(5), IDS), atol=1e-5)
    (session,) = fake.sessions
    assert not session.graph
    assert set(session.calls) == {(4, 3, SIZE, SIZE)}


def test_images_of_any_size_are_computed_one_by_one(fake: FakeRuntime, tmp_path: Path) -> None:
    path = write_foreign(tmp_path / "a.onnx", shape=["N", 2, "H", "W"])
    form = Form("onnxruntime", "cuda:0", "fp32")
    backend = onnxruntime_backend.OnnxRuntime(path.read_bytes(), form, origin="a.onnx")
    batch = np.random.default_rng(0).random((3, 2, 5, 7), dtype=np.float32)
    np.testing.assert_allclose(backend.run(batch), batch.mean((2, 3)), rtol=1e-5)
    (session,) = fake.sessions
    assert not session.graph
    assert session.calls == [(1, 2, 5, 7)] * 3


def test_a_foreign_network_keeps_its_own_batch(fake: FakeRuntime, tmp_path: Path) -> None:
    path = write_foreign(tmp_path / "a.onnx", shape=[3, 2, 5, 7])
    backend = open_backend(FP32, path.read_bytes(), origin="a.onnx")
    batch = np.random.default_rng(0).random((3, 2, 5, 7), dtype=np.float32)
    np.testing.assert_allclose(backend.run(batch), batch.mean((2, 3)), rtol=1e-5)
    assert set(fake.sessions[-1].calls) == {(3, 2, 5, 7)}


def test_a_batch_of_another_size_is_refused_and_not_repeated(fake: FakeRuntime, network: bytes) -> None:
    backend = open_backend(FP32, network, origin="a.onnx")
    with pytest.raises(BackendError, match=r"a\.onnx: ONNX Runtime refuses a 2x3x1x1 batch: .* opened for 4x3x8x8"):
        backend.run(np.zeros((2, 3, 1, 1), np.float32))


# A GPU that cannot be used is an error.


@pytest.mark.parametrize("form", [FP32, FP16, TRT])
def test_a_provider_that_was_not_taken_is_an_error(
    form: Form, fake: FakeRuntime, network: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.loads = ()
    if form.backend == "tensorrt":
        with pytest.raises(BackendError, match=r"a\.onnx: ONNX Runtime cannot open the network: .*install TensorRT"):
            open_backend(form, network, origin="a.onnx")
    else:
        expected = (
            r"a\.onnx: onnxruntime cannot use cuda:0: ONNX Runtime took CPUExecutionProvider instead \(it was built "
            r"for CUDA 13\.0 and cuDNN 9; "
        )
        with pytest.raises(BackendError, match=expected):
            open_backend(form, network, origin="a.onnx")
    assert capsys.readouterr() == ("", "")


def test_what_cuda_says_is_passed_on(fake: FakeRuntime, network: bytes) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError(DRIVER_TOO_OLD)

    fake.InferenceSession = refuse  # type: ignore[method-assign]
    expected = (
        r"^a\.onnx: onnxruntime cannot use cuda:0: CUDA failure 35: CUDA driver version is insufficient for CUDA "
        r"runtime version \(it was built for CUDA 13\.0 and cuDNN 9; see docs/gpu\.md\)\.$"
    )
    with pytest.raises(BackendError, match=expected):
        open_backend(FP32, network, origin="a.onnx")


def test_tensorrt_that_falls_back_to_cuda_is_an_error(fake: FakeRuntime, network: bytes) -> None:
    session = fake.InferenceSession
    fake.InferenceSession = lambda *args, **named: session(*args, **{**named, "enable_fallback": 1})  # type: ignore[method-assign]
    fake.loads = (CUDA,)
    with pytest.raises(BackendError, match="tensorrt cannot use cuda:1: ONNX Runtime took CUDAExecutionProvider, CPU"):
        open_backend(TRT, network, origin="a.onnx")


def test_devices_are_those_of_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    install(FakeRuntime(), monkeypatch, gpus=2)
    assert onnxruntime_backend.devices() == ("cuda:0", "cuda:1", "cpu")
    assert onnxruntime_backend.tensorrt_devices() == ("cuda:0", "cuda:1")
    monkeypatch.setattr(nvidia, "tensorrt_is_there", lambda: False)
    assert onnxruntime_backend.tensorrt_devices() == ()
    install(FakeRuntime(), monkeypatch, gpus=0)
    assert onnxruntime_backend.devices() == ("cpu",)
    assert onnxruntime_backend.tensorrt_devices() == ()
    monkeypatch.setattr(nvidia, "gpus", pytest.fail)
    monkeypatch.setattr(FakeRuntime, "get_available_providers", lambda _: [CPU])
    assert onnxruntime_backend.devices() == ("cpu",)  # and no driver is asked


def list_forms(wish: Form, *, fixed_size: bool = True) -> list[Form]:
    return possible_forms(wish, BACKENDS, floating=True, quantised=True, fixed_size=fixed_size)


def test_forms_of_a_gpu_come_first_and_have_a_fixed_batch(fake: FakeRuntime) -> None:
    auto = Form("auto", "auto", "auto")
    forms = list_forms(auto)
    gpu = [form for form in forms if form.device != "cpu"]
    assert [(form.backend, form.precision, form.fixed_batch) for form in gpu] == [
        ("tensorrt", "int8", 128),
        ("tensorrt", "fp16", 128),
        ("onnxruntime", "fp16", 128),
        ("onnxruntime", "fp32", 128),
    ]
    assert {form.device for form in gpu} == {"cuda:0"}
    assert {form.fixed_batch for form in forms if form.device == "cpu"} == {0}
    assert {form.fixed_batch for form in list_forms(Form("auto", "cuda:1", "fp32", fixed_batch=16))} == {16}
    free = [form for form in list_forms(auto, fixed_size=False) if form.device != "cpu"]
    assert {(form.backend, form.fixed_batch) for form in free} == {("onnxruntime", 0)}


@pytest.mark.parametrize(
    ("wish", "gpus", "complaint"),
    [
        (
            Form("auto", "cuda:2", "auto"),
            2,
            r"no device cuda:2 .*onnxruntime on cuda:1 in fp16, fp32.*docs/gpu",
        ),
        (
            Form("auto", "cuda:0", "auto"),
            0,
            r"no device cuda:0 .*onnxruntime on cpu in int8, fp32\. A GPU needs",
        ),
        (
            Form("auto", "cuda:0", "bf16"),
            2,
            r"no device cuda:0, precision bf16 .*tensorrt on cuda:0 in int8, fp16",
        ),
        (Form("tensorrt", "cuda:0", "fp32"), 2, r"there is no backend tensorrt, device cuda:0, precision fp32"),
        (Form("tensorrt", "auto", "auto"), 0, r"there is no backend tensorrt .*A GPU needs chammi-fast\[gpu\]"),
    ],
)
def test_gpus_that_are_not_there_are_named(
    wish: Form, gpus: int, complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(FakeRuntime(), monkeypatch, gpus=gpus)
    with pytest.raises(BackendError, match=complaint) as caught:
        list_forms(wish)
    assert "\n" not in str(caught.value)
