"""What is asked of NVIDIA's driver, CUDA's runtime and TensorRT, on stand-ins for them."""

from __future__ import annotations

import ctypes
import gc
import os
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("onnxruntime")

from chammi_fast.runtime import nvidia
from fake_gpu import FakeCudart, FakeDriver, FakeRuntime


def libraries(monkeypatch: pytest.MonkeyPatch, **there: Any) -> None:
    def load(name: str) -> Any:
        found = there.get(Path(name).name.partition(".so")[0])
        if found is None:
            raise OSError(f"{name}: cannot open shared object file")
        return found

    monkeypatch.setattr(ctypes, "CDLL", load)
    for function in (nvidia.gpus, nvidia.tensorrt_is_there):
        function.cache_clear()


@pytest.fixture
def fresh_libraries() -> Any:
    """Forget what the stand-ins had."""
    yield
    for function in (nvidia.gpus, nvidia.tensorrt_is_there):
        function.cache_clear()


def test_the_driver_is_asked_for_gpus(monkeypatch: pytest.MonkeyPatch, fresh_libraries: None) -> None:
    libraries(monkeypatch)
    assert nvidia.gpus() == ()
    libraries(monkeypatch, libcuda=FakeDriver(b"NVIDIA H100", b"NVIDIA L4"))
    assert nvidia.gpus() == ("NVIDIA H100", "NVIDIA L4")
    libraries(monkeypatch, libcuda=FakeDriver(b"NVIDIA H100", initialises=False))
    assert nvidia.gpus() == ()


def test_tensorrt_needs_both_of_its_libraries(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fresh_libraries: None
) -> None:
    libraries(monkeypatch, libnvinfer=object())
    assert not nvidia.tensorrt_is_there()
    libraries(monkeypatch, libnvinfer=object(), libnvonnxparser=object())
    assert nvidia.tensorrt_is_there()
    (tmp_path / "tensorrt_libs").mkdir()
    (tmp_path / "tensorrt_libs" / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    asked: list[str] = []

    def load(name: str) -> object:
        asked.append(name)
        return object()

    monkeypatch.setattr(nvidia, "_loaded", load)
    nvidia.tensorrt_is_there.cache_clear()
    assert nvidia.tensorrt_is_there()
    assert asked == [str(tmp_path / "tensorrt_libs" / name) for name in ("libnvinfer.so.10", "libnvonnxparser.so.10")]


def test_memory_is_pinned_and_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    cudart = FakeCudart()
    libraries(monkeypatch, libcudart=cudart)
    memory = nvidia.pinned((2, 3, 4), 1, "13.0")
    address = memory.ctypes.data
    assert memory.shape == (2, 3, 4)
    assert memory.flags.c_contiguous
    assert memory.flags.writeable
    assert not memory.any()
    assert address % os.sysconf("SC_PAGE_SIZE") == 0
    assert cudart.calls == [("cudaSetDevice", 1), ("cudaHostRegister", address, 96, 1)]
    view = memory[:1]
    del memory
    gc.collect()
    assert len(cudart.calls) == 2, "it is still in use"
    del view
    gc.collect()
    assert cudart.calls[2:] == [("cudaHostUnregister", address)]


def test_memory_that_cannot_be_pinned_is_ordinary(monkeypatch: pytest.MonkeyPatch) -> None:
    cudart = FakeCudart(refuses=True)
    libraries(monkeypatch, libcudart=cudart)
    memory = nvidia.pinned((2, 3), 0, "12.8")
    assert [call[0] for call in cudart.calls] == ["cudaSetDevice", "cudaHostRegister", "cudaGetLastError"]
    memory[:] = 1
    del memory
    gc.collect()
    assert len(cudart.calls) == 3
    libraries(monkeypatch)
    assert nvidia.pinned((2, 3), 0, "12.8").shape == (2, 3)


def test_cuda_is_loaded_once_and_quietly(capsys: pytest.CaptureFixture[str]) -> None:
    runtime = FakeRuntime()
    nvidia.preload(runtime)
    nvidia.preload(runtime)
    assert (runtime.preloaded, runtime.severity) == (1, 4)
    assert capsys.readouterr() == ("", "")
