"""The least that a table of one batch of vectors takes: imports, compiling, reading images, one call, one file.

Usage: bare_start.py JOB.json. The imports are those of ``chammi-fast embed``, which does without pandas: pyarrow
imports it, where it is installed, when it makes an array of Python's objects or of NumPy's.
"""

from __future__ import annotations

import json
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import Any

import msgspec  # noqa: F401
import numpy as np
import onnx  # noqa: F401
import pyarrow as pa
import pyarrow.compute
import rich.progress  # noqa: F401
import typer
from pyarrow import csv, parquet

from chammi_fast.images import Preprocess, load_batch


def by_openvino(job: dict[str, Any], images: np.ndarray) -> np.ndarray:
    """Embed in as many parts as there are streams."""
    import openvino

    core, form = openvino.Core(), job["form"]
    hints = {"bf16": "bf16", "fp16": "f16"}
    options = {
        "INFERENCE_PRECISION_HINT": hints.get(form["precision"], "f32"),
        "INFERENCE_NUM_THREADS": form["threads"],
        "NUM_STREAMS": form["streams"],
        "ENABLE_CPU_PINNING": False,
    }
    network = core.compile_model(core.read_model(job["model"]), "CPU", options)
    requests = []
    for part in np.array_split(images, form["streams"]):
        requests.append(network.create_infer_request())
        requests[-1].set_input_tensor(openvino.Tensor(part, shared_memory=True))
        requests[-1].start_async()
    for request in requests:
        request.wait()
    return np.concatenate([request.get_output_tensor(0).data for request in requests])


def by_onnxruntime(job: dict[str, Any], images: np.ndarray) -> np.ndarray:
    """Embed in one call."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = job["form"]["threads"]
    session = onnxruntime.InferenceSession(job["model"], options, providers=["CPUExecutionProvider"])
    vectors: np.ndarray = session.run(["embedding"], {"image": images})[0]
    return vectors


def main(file: Path) -> None:
    """Embed one batch."""
    job = json.loads(file.read_text())
    rows = csv.read_csv(job["table"])
    paths, widths = rows["file_path"].to_pylist(), rows["channel_width"].to_pylist()
    images = load_batch(paths, widths, Preprocess(**job["preprocess"])).images
    embed = by_openvino if job["form"]["backend"] == "openvino" else by_onnxruntime
    vectors = embed(job, images)
    numbers = pa.Array.from_buffers(pa.float32(), vectors.size, [None, pa.py_buffer(vectors)])
    column = pa.FixedSizeListArray.from_arrays(numbers, vectors.shape[1])
    parquet.write_table(rows.append_column("embedding", column), job["out"])


if __name__ == "__main__":
    typer.run(main)
