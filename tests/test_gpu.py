"""On a real NVIDIA GPU: the embeddings of the processor, and the same bits whatever the run. ``make test-gpu``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import csv as arrow_csv

pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

import chammi_fast  # noqa: E402
from chammi_fast.embedding import EmbedSettings  # noqa: E402
from chammi_fast.errors import BackendError  # noqa: E402
from chammi_fast.model import load_model  # noqa: E402
from chammi_fast.runtime import BACKENDS, Form, nvidia, onnxruntime_backend  # noqa: E402
from chammi_fast.runtime.accuracy import compare  # noqa: E402
from chammi_fast.table import embedding_matrix, read_embeddings  # noqa: E402
from quantised import fix_channels, quantise  # noqa: E402

GPU = "cuda:0"
CHANNELS = "CP/nucleus,CP/er,CP/rna"
COUNT, SIDE = 70, 40
FORMS = [("onnxruntime", "fp32"), ("onnxruntime", "fp16"), ("tensorrt", "fp16"), ("tensorrt", "int8")]
LEAST = {"fp32": 0.99999, "fp16": 0.999, "int8": 0.9}

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(GPU not in onnxruntime_backend.devices(), reason="no NVIDIA GPU, or not onnxruntime-gpu"),
]


@pytest.fixture(params=FORMS, ids="-".join)
def form(request: pytest.FixtureRequest) -> Form:
    backend, precision = request.param
    if GPU not in BACKENDS[backend].devices():
        pytest.skip("TensorRT is not installed")
    return Form(backend, GPU, precision, fixed_batch=32)


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cells")
    rng = np.random.default_rng(3)
    rows: list[dict[str, Any]] = []
    for i in range(COUNT):
        Image.fromarray(rng.integers(0, 255, (40, 3 * SIDE), dtype=np.uint8)).save(folder / f"cell{i}.png")
        rows.append({"file_path": f"cell{i}.png", "channel_width": SIDE, "half": i % 2})
    arrow_csv.write_csv(pa.Table.from_pylist(rows), folder / "cells.csv")
    arrow_csv.write_csv(pa.Table.from_pylist(rows[::-1]), folder / "reversed.csv")
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = fix_channels(load_model("demo"), CHANNELS, tmp_path_factory.mktemp("model") / "demo-cp.onnx")
    quantise(path, images(12))
    return path


def images(count: int) -> np.ndarray:
    size = load_model("demo").spec.preprocessing.size or 0
    return np.random.default_rng(count).standard_normal((count, 3, size, size), dtype=np.float32)


def file_of(model: Path, form: Form) -> Path:
    return model.with_suffix(".int8.onnx") if form.precision == "int8" else model


def test_embeddings_are_near_to_those_of_the_processor(model: Path, form: Form) -> None:
    path = file_of(model, form)
    bound, reference = load_model(path).bind(CHANNELS, form=form), load_model(path).bind(CHANNELS)
    for count in (1, 32, 75):
        found = bound.embed(images(count))
        assert compare(found, reference.embed(images(count))).worst > LEAST[form.precision]
        np.testing.assert_array_equal(bound.embed(images(count)), found)


def test_neighbours_do_not_matter(model: Path, form: Form) -> None:
    bound = load_model(file_of(model, form)).bind(CHANNELS, form=form)
    batch = images(40)
    whole = bound.embed(batch)
    order = np.random.default_rng(1).permutation(40)
    np.testing.assert_array_equal(bound.embed(batch[order]), whole[order])
    np.testing.assert_array_equal(np.concatenate([bound.embed(batch[i : i + 1]) for i in range(5)]), whole[:5])
    bound.embed(np.full_like(batch, np.nan))
    np.testing.assert_array_equal(bound.embed(batch[:3]), whole[:3])


def test_a_run_has_the_same_bits_again_reversed_and_in_halves(
    cells: Path, model: Path, tmp_path: Path, form: Form
) -> None:
    def run(name: str, table: str = "cells.csv", where: str | None = None) -> dict[str, bytes]:
        settings = EmbedSettings(form.backend, GPU, form.precision, min_cosine=0.5, batch_size=32)
        out = tmp_path / name
        chammi_fast.embed(model, manifest=cells / table, channels=CHANNELS, out=out, where=where, settings=settings)
        found = read_embeddings(out)
        return {key: row.tobytes() for key, row in zip(found["key"].to_pylist(), embedding_matrix(found), strict=True)}

    first = run("first")
    assert len(set(first.values())) == COUNT
    assert run("again") == first
    assert run("reversed", "reversed.csv") == first
    assert {**run("h0", where="half == 0"), **run("h1", where="half == 1")} == first


def test_auto_takes_a_form_that_is_accurate(cells: Path, model: Path, tmp_path: Path) -> None:
    (report,) = chammi_fast.embed(model, manifest=cells / "cells.csv", channels=CHANNELS, out=tmp_path / "out")
    assert report.failed == 0
    tried = {one.form.device for one in report.choice.tried}
    assert tried == {GPU, "cpu"}
    print(f"\n{report.choice}")  # noqa: T201 - for `make test-gpu`, which shows it


def test_memory_for_images_is_pinned() -> None:
    runtime = nvidia._loaded(f"libcudart.so.{onnxruntime.cuda_version.partition('.')[0]}")
    assert runtime is not None
    memory = nvidia.pinned((4, 3, 64, 64), 0, onnxruntime.cuda_version)
    assert runtime.cudaHostUnregister(memory.ctypes.data) == 0, "it was registered"
    assert runtime.cudaHostRegister(memory.ctypes.data, memory.nbytes, 1) == 0  # so that it can be given back


def test_a_gpu_that_is_not_there_is_named(cells: Path, tmp_path: Path) -> None:
    settings = EmbedSettings(device="cuda:99")
    with pytest.raises(BackendError, match=r"there is no device cuda:99 .*onnxruntime on cuda:0 in fp16, fp32"):
        chammi_fast.embed(
            "demo", manifest=cells / "cells.csv", channels=CHANNELS, out=tmp_path / "out", settings=settings
        )
