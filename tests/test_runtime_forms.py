"""Which ways to run a network there are, and one sentence for every wish that cannot be had."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")

import chammi_fast
from chammi_fast.embedding import EmbedSettings, work
from chammi_fast.errors import BackendError, MissingExtraError
from chammi_fast.runtime import BACKENDS, Form, nvidia, onnxruntime_backend, open_backend, openvino_backend
from chammi_fast.runtime.form import possible_forms
from handmade import write_adaptive

CPU = "CPUExecutionProvider"


class Processor:
    """OpenVINO's Core, of a processor with some capabilities."""

    def __init__(self, *capabilities: str) -> None:
        self._capabilities = list(capabilities)

    def get_property(self, device: str, name: str) -> list[str]:
        assert (device, name) == ("CPU", "OPTIMIZATION_CAPABILITIES")
        return self._capabilities


@pytest.fixture(autouse=True)
def a_plain_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor with BF16 and no GPU, whatever this one has."""
    monkeypatch.setattr(openvino_backend, "_core", lambda: Processor("FP32", "INT8", "BIN", "BF16", "EXPORT_IMPORT"))
    monkeypatch.setattr(nvidia, "gpus", tuple)


def forms(wish: Form, *, floating: bool = True, quantised: bool = False) -> list[tuple[str, str]]:
    found = possible_forms(wish, BACKENDS, floating=floating, quantised=quantised, fixed_size=True)
    assert all((form.device, form.fixed_batch) == ("cpu", 0) for form in found)
    assert all((form.threads, form.streams) == (wish.threads, wish.streams) for form in found)
    return [(form.backend, form.precision) for form in found]


def wish(backend: str = "auto", precision: str = "auto", device: str = "auto", **more: int) -> Form:
    return Form(backend, device, precision, **more)


def test_all_forms_of_a_machine_are_listed() -> None:
    floating = [("openvino", "bf16"), ("openvino", "fp32"), ("onnxruntime", "fp32")]
    assert forms(wish()) == floating
    assert sorted(forms(wish(), quantised=True)) == sorted([*floating, ("openvino", "int8"), ("onnxruntime", "int8")])
    assert forms(wish(), floating=False, quantised=True) == [("openvino", "int8"), ("onnxruntime", "int8")]
    assert forms(wish(threads=3)) == floating


def test_a_wish_keeps_what_fulfils_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert forms(wish("onnxruntime")) == [("onnxruntime", "fp32")]
    assert forms(wish(precision="fp32", device="cpu")) == [("openvino", "fp32"), ("onnxruntime", "fp32")]
    assert forms(wish(streams=2)) == [("openvino", "bf16"), ("openvino", "fp32")]
    assert forms(wish("onnxruntime", streams=1)) == [("onnxruntime", "fp32")]
    monkeypatch.setattr(openvino_backend, "_core", lambda: Processor("FP32", "FP16", "INT8", "BF16"))
    assert forms(wish("openvino"))[0] == ("openvino", "fp16")
    monkeypatch.setattr(openvino_backend, "_core", lambda: Processor("FP32"))
    assert forms(wish(), quantised=True) == [("openvino", "fp32"), ("onnxruntime", "int8"), ("onnxruntime", "fp32")]


THERE = r"; there is openvino on cpu in int8, bf16, fp32; onnxruntime on cpu in int8, fp32"


@pytest.mark.parametrize(
    ("wished", "complaint"),
    [
        (wish("tensorflow"), r"there is no backend 'tensorflow': choose from auto, tensorrt, openvino, onnxruntime\."),
        (wish(precision="fp8"), r"there is no precision 'fp8': choose from auto, fp32, bf16, fp16, int8\."),
        (wish(device="gpu"), r"there is no device 'gpu': choose from auto, cpu, cuda:0, cuda:1, \.\.\.$"),
        (wish(device="cuda"), r"there is no device 'cuda': choose from"),
        (wish(device="cpu:0"), r"there is no device 'cpu:0': choose from"),
        (wish(threads=-1), r"the number of threads must not be negative, and -1 is\."),
        (wish(streams=-2), r"the number of streams must not be negative, and -2 is\."),
        (wish("onnxruntime", "bf16"), rf"there is no backend onnxruntime, precision bf16 for this model here{THERE}\."),
        (wish(precision="fp16"), rf"there is no precision fp16 for this model here{THERE}\."),
        (wish(precision="int8"), r"precision int8 needs a quantised file .*chammi-fast quantize\."),
        (wish("onnxruntime", "int8"), r"precision int8 needs a quantised file .*chammi-fast quantize\."),
        (wish("onnxruntime", streams=2), r"there is no backend onnxruntime with 2 streams, which openvino alone has"),
        (
            wish(device="cuda:0"),
            rf"there is no device cuda:0 for this model here{THERE}\. A GPU needs chammi-fast\[gpu\]",
        ),
        (
            wish("openvino", device="cuda:1"),
            rf"there is no backend openvino, device cuda:1 for this model here{THERE}\. A GPU",
        ),
        (wish("tensorrt"), rf"there is no backend tensorrt for this model here{THERE}\. A GPU needs"),
        (wish("tensorrt", "fp16", "cpu"), rf"there is no backend tensorrt, device cpu, precision fp16 .*{THERE}\."),
    ],
)
def test_a_wish_that_cannot_be_had_is_one_sentence(
    wished: Form, complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BackendError, match=f"^{complaint}") as caught:
        forms(wished)
    assert "\n" not in str(caught.value)

    # Through the public call: no image is decoded, nothing is left.
    monkeypatch.setattr(work, "stream_any", pytest.fail)
    settings = EmbedSettings(
        wished.backend, wished.device, wished.precision, threads=wished.threads, streams=wished.streams
    )
    with pytest.raises(BackendError, match=complaint):
        chammi_fast.embed("demo", manifest=cells(tmp_path), channels="er", out=tmp_path / "out", settings=settings)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cell.png", "cells.csv"]


def test_floats_of_a_quantised_file_are_elsewhere() -> None:
    with pytest.raises(BackendError, match="precision fp32 needs the file of floats that the quantised one was made"):
        forms(wish(precision="fp32"), floating=False, quantised=True)


def test_a_processor_without_bf16_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino_backend, "_core", lambda: Processor("FP32", "INT8"))
    with pytest.raises(BackendError, match=r"no precision bf16 .*; there is openvino on cpu in int8, fp32; onnx"):
        forms(wish(precision="bf16"))
    with pytest.raises(BackendError, match="there is no backend openvino, device cpu, precision bf16"):
        open_backend(Form("openvino", precision="bf16"), b"", origin="a.onnx")


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingExtraError, match=r"needs openvino: pip install 'chammi-fast\[cpu\]'"):
        forms(wish("openvino"))
    assert forms(wish()) == [("onnxruntime", "fp32")]
    with pytest.raises(BackendError, match=r"no precision bf16 .*; there is onnxruntime on cpu in int8, fp32\."):
        forms(wish(precision="bf16"))
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(BackendError, match=r"there is no backend: pip install 'chammi-fast\[cpu\]' \(or .*\[gpu\]"):
        forms(wish())
    with pytest.raises(MissingExtraError, match=r"needs onnxruntime: pip install"):
        forms(wish("tensorrt"))


def test_a_package_without_cuda_offers_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvidia, "gpus", lambda: ("NVIDIA L4",))
    assert onnxruntime_backend.devices() == ("cpu",)
    with pytest.raises(BackendError, match=r"there is no device cuda:0 .*A GPU needs chammi-fast\[gpu\]"):
        forms(wish(device="cuda:0"))


@pytest.mark.parametrize("name", ["backend", "device", "precision"])
def test_what_is_not_settled_is_not_opened(name: str) -> None:
    with pytest.raises(BackendError, match=r"a\.onnx: 'auto' has to be settled"):
        open_backend(replace(Form(), **{name: "auto"}), b"", origin="a.onnx")  # type: ignore[arg-type]


def cells(folder: Path) -> Path:
    Image.fromarray(np.zeros((40, 40), np.uint8)).save(folder / "cell.png")
    (folder / "cells.csv").write_text("file_path,channel_width\ncell.png,40\n")
    return folder / "cells.csv"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--backend", "torch"], ["no backend 'torch'"]),
        (["--device", "cuda:0"], ["no device cuda:0", "onnxruntime on cpu in int8, fp32", "chammi-fast[gpu]"]),
        (["--precision", "int8"], ["quantised file", "chammi-fast quantize"]),
        (["--backend", "onnxruntime", "--streams", "2"], ["2 streams", "openvino alone"]),
    ],
)
def test_the_command_line_refuses_and_leaves_nothing(options: list[str], words: list[str], tmp_path: Path) -> None:
    model = write_adaptive(tmp_path / "a.onnx")
    command = [sys.executable, "-m", "chammi_fast", "embed", "--model", str(model), "--manifest", str(cells(tmp_path))]
    result = subprocess.run(
        [*command, "--channels", "er", "--out", str(tmp_path / "out"), *options],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.startswith("chammi-fast: ")
    assert result.stderr.count("\n") == 1
    assert all(word in result.stderr for word in words), result.stderr
    assert not (tmp_path / "out").exists()


def test_a_broken_package_is_named_and_can_be_passed_by(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Any:
        raise MissingExtraError("openvino is installed but cannot be loaded: no such symbol.")

    monkeypatch.setattr(openvino_backend, "_core", broken)
    for wished in (wish(), wish("openvino")):
        with pytest.raises(MissingExtraError, match="cannot be loaded: no such symbol"):
            forms(wished)
    assert forms(wish("onnxruntime")) == [("onnxruntime", "fp32")]
