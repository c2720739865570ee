"""What TensorRT builds is kept apart, built by one process at a time, and kept at all; on a stand-in for TensorRT."""

from __future__ import annotations

import fcntl
import threading
from pathlib import Path

import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from chammi_fast.errors import BackendError  # noqa: E402
from chammi_fast.runtime import Form, graph, nvidia, onnxruntime_backend, open_backend  # noqa: E402
from fake_gpu import FakeRuntime  # noqa: E402
from handmade import write_adaptive  # noqa: E402

TRT = Form("tensorrt", "cuda:1", "fp16", fixed_batch=4)


@pytest.fixture
def network(tmp_path: Path) -> bytes:
    content: bytes = graph.specialise(onnx.load(write_adaptive(tmp_path / "a.onnx")), [9, 2, 15]).SerializeToString()
    return content


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeRuntime:
    """Two GPUs, CUDA and TensorRT."""
    runtime = FakeRuntime()
    monkeypatch.setattr(onnxruntime_backend, "_library", lambda: runtime)
    monkeypatch.setattr(nvidia, "gpus", lambda: ("GPU", "GPU"))
    monkeypatch.setattr(nvidia, "tensorrt_is_there", lambda: True)
    monkeypatch.setattr(nvidia, "_loaded", lambda _: None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return runtime


def folder_of(fake: FakeRuntime) -> Path:
    return Path(fake.sessions[-1].given[0][1]["trt_engine_cache_path"])


def test_engines_of_other_weights_or_batches_are_kept_apart(
    fake: FakeRuntime, network: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(content: bytes, form: Form = TRT) -> Path:
        open_backend(form, content, origin="a.onnx")
        return folder_of(fake)

    first = opened(network)
    assert first.is_dir()
    assert opened(network) == first
    other = onnx.load_from_string(network)
    weight = next(tensor for tensor in other.graph.initializer if tensor.name == "weight")
    weight.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weight) + 1, "weight"))
    folders = {
        first,
        opened(other.SerializeToString()),
        opened(network, Form("tensorrt", "cuda:1", "fp16", fixed_batch=5)),
    }
    monkeypatch.setattr(nvidia, "gpus", lambda: ("another", "GPU"))
    folders.add(opened(network))
    monkeypatch.setattr(FakeRuntime, "__version__", "1.32.0")
    folders.add(opened(network))
    assert len(folders) == 5


def test_engines_are_built_by_one_at_a_time(fake: FakeRuntime, network: bytes) -> None:
    open_backend(TRT, network, origin="a.onnx")
    with (folder_of(fake) / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        other = threading.Thread(target=open_backend, args=(TRT, network), kwargs={"origin": "a.onnx"})
        other.start()
        other.join(0.2)
        assert other.is_alive()
        assert len(fake.sessions) == 1
    other.join(10)
    assert len(fake.sessions) == 2


def test_engines_that_cannot_be_kept_are_an_error(
    fake: FakeRuntime, network: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(BackendError, match=r"a\.onnx: TensorRT cannot keep what it builds .*set XDG_CACHE_HOME"):
        open_backend(TRT, network, origin="a.onnx")
    open_backend(Form("onnxruntime", "cuda:0", fixed_batch=4), network, origin="a.onnx")
