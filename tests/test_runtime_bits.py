"""What `chammi_fast.embed` writes has the same bits however a run is cut, ordered, stopped and spread over threads."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import csv as arrow_csv

pytest.importorskip("onnxruntime")

import chammi_fast
from chammi_fast import load_batch, load_model
from chammi_fast.embedding import EmbedSettings, work
from chammi_fast.table import embedding_matrix, read_embeddings
from forms import processor_forms
from quantised import fix_channels, quantise

CHANNELS = "CP/nucleus,CP/er,CP/rna"
COUNT, SIDE = 70, 40
FORMS = [(form.backend, form.precision) for form in processor_forms()]


class StoppedError(Exception):
    """The run is interrupted."""


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tapes of three channels, and their rows in two orders."""
    folder = tmp_path_factory.mktemp("cells")
    rng = np.random.default_rng(3)
    rows = []
    for i in range(COUNT):
        tape = rng.integers(0, 255, (30 + i % 9, 3 * SIDE), dtype=np.uint8)
        Image.fromarray(tape).save(folder / f"cell{i}.png")
        rows.append({"file_path": f"cell{i}.png", "channel_width": SIDE, "half": i % 2})
    order = rng.permutation(COUNT)
    arrow_csv.write_csv(pa.Table.from_pylist(rows), folder / "cells.csv")
    arrow_csv.write_csv(pa.Table.from_pylist([rows[i] for i in order]), folder / "shuffled.csv")
    return folder


@pytest.fixture(scope="module")
def model(cells: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo network for the channels alone, and a quantised one beside it."""
    demo = load_model("demo")
    path = fix_channels(demo, CHANNELS, tmp_path_factory.mktemp("model") / "demo-cp.onnx")
    paths = [cells / f"cell{i}.png" for i in range(12)]
    quantise(path, load_batch(paths, channel_width=SIDE, preprocess=demo.preprocess(demo.resolve(CHANNELS))).images)
    return path


@pytest.fixture(params=FORMS, ids="-".join)
def form(request: pytest.FixtureRequest) -> dict[str, str]:
    backend, precision = request.param
    return {"backend": backend, "precision": precision}


def embed(model: Path, table: Path, out: Path, *, where: str | None = None, **settings: object) -> dict[str, bytes]:
    """Return key -> the vector's bytes."""
    chammi_fast.embed(
        model,
        manifest=table,
        channels=CHANNELS,
        out=out,
        where=where,
        settings=EmbedSettings(min_cosine=0.9, **settings),  # type: ignore[arg-type]
    )
    return vectors(out)


def vectors(out: Path) -> dict[str, bytes]:
    found = read_embeddings(out)
    return {key: row.tobytes() for key, row in zip(found["key"].to_pylist(), embedding_matrix(found), strict=True)}


BOUND = """
import hashlib
import numpy as np
from onnx import TensorProto, helper, numpy_helper
from chammi_fast.runtime import graph

draw = lambda *shape: np.random.default_rng(1).standard_normal(shape).astype(np.float32)
weights = {"rows": draw(16, 128), "W": draw(128, 256), "V": draw(640, 256), "b": draw(640)}
weights["shape"] = np.array([40, 4, 4, 5])
nodes = [
    helper.make_node("Gather", ["rows", "channels"], ["some"]),
    helper.make_node("MatMul", ["some", "W"], ["hidden"]),
    helper.make_node("Gemm", ["hidden", "V", "b"], ["flat"], transB=1, alpha=0.5),
    helper.make_node("Reshape", ["flat", "shape"], ["made"]),
    helper.make_node("Transpose", ["made"], ["stem"], perm=[0, 3, 1, 2]),
    helper.make_node("Conv", ["image", "stem"], ["embedding"]),
]
image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", "c", 8, 8])
channels = helper.make_tensor_value_info("channels", TensorProto.INT64, ["c"])
output = helper.make_empty_tensor_value_info("embedding")
tensors = [numpy_helper.from_array(value, name) for name, value in weights.items()]
model = helper.make_model(helper.make_graph(nodes, "adaptive", [image, channels], [output], tensors))
made = graph.specialise(model, [3, 1, 4, 15, 9])
(stem,) = (numpy_helper.to_array(one) for one in made.graph.initializer if one.name == "stem")
exact = weights["rows"][[3, 1, 4, 15, 9]].astype(np.longdouble) @ weights["W"]
exact = 0.5 * exact @ weights["V"].T.astype(np.longdouble) + weights["b"]
np.testing.assert_allclose(stem, exact.reshape(40, 4, 4, 5).transpose(0, 3, 1, 2).astype(np.float32), atol=1e-3)
print(hashlib.sha256(stem.tobytes()).hexdigest())
"""


def test_the_threads_of_blas_change_nothing() -> None:
    """What channels make of a network is computed when it is opened, by a process that may have any number of them."""
    found = {
        subprocess.run(
            [sys.executable, "-c", BOUND],
            env=os.environ | {"OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for threads in ("1", "2", "3")
    }
    assert len(found) == 1


def test_an_image_has_the_same_bits_in_any_run(cells: Path, model: Path, tmp_path: Path, form: dict[str, str]) -> None:
    table = cells / "cells.csv"
    expected = embed(model, table, tmp_path / "first", batch_size=64, threads=2, **form)
    assert len(set(expected.values())) == COUNT
    streams: dict[str, Any] = {"streams": 1} if form["backend"] == "openvino" else {}
    runs = {
        "batches of 1": embed(model, table, tmp_path / "1", batch_size=1, threads=2, **form),
        "batches of 7, one thread": embed(model, table, tmp_path / "7", batch_size=7, threads=1, **form),
        "one stream": embed(model, table, tmp_path / "s", batch_size=64, threads=2, **form, **streams),
        "another order": embed(model, cells / "shuffled.csv", tmp_path / "o", batch_size=64, threads=2, **form),
        "halves": {
            key: vector
            for half in (0, 1)
            for key, vector in embed(
                model, table, tmp_path / f"h{half}", where=f"half == {half}", batch_size=7 + half, **form
            ).items()
        },
    }
    for what, found in runs.items():
        assert list(found) != list(expected) or what != "another order"
        assert found == expected, what


def test_a_run_that_goes_on_has_the_same_bits(
    cells: Path, model: Path, tmp_path: Path, form: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    table, out = cells / "cells.csv", tmp_path / "out"
    whole = embed(model, table, tmp_path / "whole", batch_size=64, **form)
    monkeypatch.setattr(work, "ROWS_PER_SHARD", 16)

    def stop(_: str, done: int, __: int) -> None:
        if done >= 40:
            raise StoppedError

    settings = EmbedSettings(batch_size=7, min_cosine=0.9, **form)  # type: ignore[arg-type]
    with pytest.raises(StoppedError):
        chammi_fast.embed(model, manifest=table, channels=CHANNELS, out=out, settings=settings, progress=stop)
    (report,) = chammi_fast.embed(model, manifest=table, channels=CHANNELS, out=out, settings=settings)
    assert 0 < report.before < COUNT
    assert vectors(out) == whole

    parts = [tmp_path / "part1", tmp_path / "part2"]
    for number, part in enumerate(parts, start=1):
        embed(model, table, part, batch_size=number, shard=f"{number}/2", device="cpu", **form)
    assert {**vectors(parts[0]), **vectors(parts[1])} == whole
