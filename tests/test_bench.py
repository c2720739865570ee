"""``chammi-fast bench``: what it measures adds up, and what it advises follows from that."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from chammi_fast.benchmarking import BenchReport, BenchSettings, bench, stages
from chammi_fast.benchmarking.image_sets import ImageSet, synthetic_sets, users_sets
from chammi_fast.benchmarking.limits import Seconds, find_limit
from chammi_fast.benchmarking.measuring import fastest
from chammi_fast.benchmarking.stages import Kind, kind_of
from chammi_fast.cli.bench import _lines, _table
from chammi_fast.embedding.inputs import Inputs
from chammi_fast.errors import BackendError, ManifestError
from chammi_fast.model import load_model
from chammi_fast.runtime import Form
from chammi_fast.runtime.accuracy import Accuracy
from chammi_fast.runtime.choice import Candidate
from handmade import EMBEDDING, fixed_spec, write_adaptive, write_foreign
from image_files import write_png
from test_cli import assert_refused, chammi_fast

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chammi_fast.model import Model

TIFF, PNG = Kind("tiff", "none", "uint8", 20, 30), Kind("png", "deflate", "uint8", 512, 500)
FP32 = Candidate(Form("onnxruntime", "cpu", "fp32"), 10.0)
BF16 = Candidate(Form("openvino", "cpu", "bf16"), 20.0, Accuracy(0.9995, 0.9999, 4))
INT8 = Candidate(Form("openvino", "cpu", "int8"), 40.0, Accuracy(0.99, 0.995, 4))
BROKEN = Candidate(Form("tensorrt", "cuda:0", "fp16"), fault="no driver")


@pytest.mark.parametrize(
    ("seconds", "kinds", "tried", "stage", "share", "words"),
    [
        ([Seconds(0, 1, 2, 7)], [TIFF], [FP32], "network", 7 / 9, ["OpenVINO", "GPU"]),
        ([Seconds(0, 1, 2, 7)], [TIFF], [FP32, BF16], "network", 7 / 9, ["quantize"]),
        ([Seconds(0, 1, 2, 7)], [TIFF], [FP32, BF16, INT8], "network", 7 / 9, ["smaller network"]),
        ([Seconds(0, 4, 5, 2)], [PNG], [FP32], "decode", 4 / 7, ["deflate PNG", "ZSTD"]),
        ([Seconds(0, 4, 5, 2)], [TIFF], [FP32], "decode", 4 / 7, ["not compressed", "processors"]),
        ([Seconds(0, 4, 5, 2)], [Kind("other", "", "uint8", 9, 9)], [FP32], "decode", 4 / 7, ["slower libraries"]),
        ([Seconds(0, 1, 5, 2)], [PNG], [FP32], "preprocess", 4 / 7, ["512 x 500"]),
        ([Seconds(8, 1, 5, 2)], [PNG], [FP32], "storage", 8 / 7, ["disk"]),
        # Decoding by itself cannot take longer than decoding and all else.
        ([Seconds(0, 9, 5, 4)], [PNG], [FP32], "decode", 5 / 9, ["deflate"]),
        # Two sets: 2 + 1 of decoding, 1 + 1 of preprocessing, 1 + 9 of the network.
        ([Seconds(0, 2, 3, 1), Seconds(0, 1, 2, 9)], [TIFF, PNG], [FP32], "network", 10 / 15, ["OpenVINO"]),
    ],
)
def test_the_limit_is_the_stage_that_takes_most(
    seconds: list[Seconds], kinds: list[Kind], tried: list[Candidate], stage: str, share: float, words: list[str]
) -> None:
    limit = find_limit(seconds, kinds, tried, tried[0])
    assert limit.stage == stage
    assert limit.share == pytest.approx(share)
    for word in words:
        assert word in limit.advice


def test_a_gpu_is_not_told_to_take_openvino() -> None:
    gpu = Candidate(Form("onnxruntime", "cuda:0", "fp16"), 1000.0)
    assert "faster GPU" in find_limit([Seconds(0, 1, 1, 2)], [TIFF], [gpu], gpu).advice


def test_shares_sum_to_one() -> None:
    assert Seconds(3, 1, 3, 4).shares == pytest.approx({"decode": 1 / 7, "preprocess": 2 / 7, "network": 4 / 7})


def test_the_fastest_that_is_accurate_is_taken() -> None:
    tried = [FP32, BF16, INT8, BROKEN]
    assert fastest(tried, 0.999, "m") == BF16
    assert fastest(tried, 0.9999, "m") == FP32
    assert fastest(tried, 0.98, "m") == INT8
    with pytest.raises(BackendError, match=r"m: no way .* no driver"):
        fastest([INT8, BROKEN], 0.999, "m")


def write_tapes(folder: Path, count: int) -> Path:
    """Write a table of tapes of two channels, 12 x 10 pixels each, the last one broken."""
    random = np.random.default_rng(0)
    lines = ["file_path,channel_width,plate"]
    for number in range(count):
        tape = random.integers(0, 255, (12, 20), np.uint8)
        content = write_png(tape)
        (folder / f"{number}.png").write_bytes(content[:50] if number == count - 1 else content)
        lines.append(f"{number}.png,10,{'AB'[number % 2]}")
    table = folder / "cells.csv"
    table.write_text("\n".join(lines) + "\n")
    return table


@pytest.fixture(scope="module", autouse=True)
def _quick() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stages, "SHORTEST_S", 0.01)
        yield


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, _quick: None) -> BenchReport:
    folder = tmp_path_factory.mktemp("bench")
    inputs = Inputs(manifest=write_tapes(folder, 6), channels="CP/nucleus,er")
    return bench(write_adaptive(folder / "small.onnx"), inputs, BenchSettings(run_s=0.001))


def test_a_network_of_one_batch_size_is_measured(tmp_path: Path) -> None:
    path = write_foreign(tmp_path / "one.onnx", shape=[1, 2, 8, 8], spec=fixed_spec("CP/nucleus", "er"))
    inputs = Inputs(manifest=write_tapes(tmp_path, 6), channels="CP/nucleus,er")
    report = bench(path, inputs, BenchSettings(run_s=0.001))
    assert [one.fault for one in report.tried if one.failed] == []
    assert report.sets[0].images == 5


def test_every_stage_is_measured(report: BenchReport) -> None:
    document = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert set(document) == {
        "format_version", "model", "machine", "versions", "synthetic", "data_sets", "networks", "search", "limit",
    }  # fmt: skip
    assert not document["synthetic"]
    (one,) = document["data_sets"]
    assert (one["name"], one["rows"], one["images"], one["failed"], one["channels"]) == ("cells", 6, 5, 1, 2)
    assert one["kind"] == {"format": "png", "compression": "deflate", "dtype": "uint8", "height": 12, "width": 10}
    assert set(one["images_per_s"]) == {"read", "decode", "stream", "network", "whole"}
    assert min(one["images_per_s"].values()) > 0
    assert sum(one["share"].values()) == pytest.approx(1)
    assert one["whole_run"]["images"] >= 4 * stages.BATCH
    assert one["whole_run"]["first_s"] > 0
    assert one["whole_run"]["peak_bytes"] is None or one["whole_run"]["peak_bytes"] > 10_000_000
    taken = [network for network in document["networks"] if network["taken"]]
    assert len(taken) == 1
    assert taken[0]["precision"] == "fp32" or taken[0]["worst_cosine"] >= 0.999
    assert ("onnxruntime", "cpu", "fp32") in [(n["backend"], n["device"], n["precision"]) for n in document["networks"]]
    if document["search"] is not None:
        assert document["search"]["dimensions"] == EMBEDDING
    assert document["limit"]["stage"] in ("storage", "decode", "preprocess", "network")


def test_every_key_is_documented(report: BenchReport) -> None:
    page = (Path(__file__).parent.parent / "docs" / "bench.md").read_text(encoding="utf-8")

    def keys(value: object) -> set[str]:
        if isinstance(value, dict):
            return set(value).union(*(keys(one) for one in value.values()))
        return set().union(*(keys(one) for one in value)) if isinstance(value, list) else set()

    document = report.to_json() | {"versions": {}}
    assert [key for key in keys(document) if f"`{key}`" not in page] == []


def test_the_table_fits_a_terminal_and_says_all(report: BenchReport) -> None:
    from rich.console import Console

    console = Console(width=80, record=True, file=io.StringIO())
    console.print(_table(report))
    for line in _lines(report):
        console.print(line)
    text = console.export_text()
    for word in ("decode", "onnxruntime fp32", "whole run", "Limit: ", "1 images could not be read"):
        assert word in text


def test_a_foreign_network_is_measured_with_its_description(tmp_path: Path) -> None:
    path = write_foreign(tmp_path / "foreign.onnx", shape=["N", 2, 8, 8])
    model = load_model(path, spec=fixed_spec("CP/er", "CP/rna"))
    inputs = Inputs(manifest=write_tapes(tmp_path, 3), channels="CP/er,CP/rna")
    assert bench(model, inputs, BenchSettings(run_s=0.001)).sets[0].whole.failed > 0


def test_images_come_from_all_over_a_table(tmp_path: Path) -> None:
    model = load_model(write_adaptive(tmp_path / "small.onnx"))
    (one,) = users_sets(Inputs(manifest=write_tapes(tmp_path, 9), channels="er,rna", where='plate == "A"'), model, 3)
    assert [Path(path).name for path in one.paths] == ["0.png", "4.png", "8.png"]
    assert (one.rows, one.widths) == (5, [10, 10, 10])


def test_images_are_repeated_where_more_are_needed(tmp_path: Path) -> None:
    write_tapes(tmp_path, 2)
    images = ImageSet("mine", "er", 2, [str(tmp_path / "0.png"), str(tmp_path / "1.png")], [10, 20])
    table = images.write_table(tmp_path / "links", 5)
    rows = [line.split(",") for line in table.read_text().splitlines()[1:]]
    assert [width for _, width in rows] == ["10", "20", "10", "20", "10"]
    assert [(table.parent / name).resolve().name for name, _ in rows] == ["0.png", "1.png"] * 2 + ["0.png"]
    assert len({name for name, _ in rows}) == 5


def test_cells_are_painted_for_the_configurations_of_the_model(tmp_path: Path) -> None:
    model = load_model(write_adaptive(tmp_path / "small.onnx"))

    def knowing(*names: str) -> Model:
        known = {name: model.spec.configurations[name] for name in names}
        return dataclasses.replace(model, spec=msgspec.structs.replace(model.spec, configurations=known))

    (one,) = synthetic_sets(knowing("CP"), tmp_path / "CHAMMI", 1)
    assert (one.name, one.channels, one.rows) == ("CP", "CP", 88_245)
    assert set(one.widths or ()) == {160}
    assert kind_of(one.paths[0], 160) == Kind("png", "deflate", "uint8", 160, 160)
    with pytest.raises(ManifestError, match="--manifest"):
        synthetic_sets(knowing(), tmp_path / "other", 1)


def test_images_that_cannot_be_read_are_no_measurement(tmp_path: Path) -> None:
    model = write_adaptive(tmp_path / "small.onnx")
    table = write_tapes(tmp_path, 1)
    with pytest.raises(ManifestError, match=r"none of 1 images could be read; the first: .*0\.png"):
        bench(model, Inputs(manifest=table, channels="er,rna"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--model", "none.onnx"], ["none.onnx"]),
        (["--data", "none"], ["none", "no such folder"]),
        (["--manifest", "t.csv"], ["t.csv", "channels"]),
        (["--where", "a == 1"], ["CHAMMI folder"]),
        (["--manifest", "t.csv", "--channels", "dna"], ["'dna'"]),
    ],
)
def test_faults_are_one_sentence(
    arguments: list[str], words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.csv").write_text("file_path,channel_width\na.png,8\n")
    result = chammi_fast("bench", *arguments)
    result.stderr = result.stderr.replace("chammi-fast: reading images ...\n", "")
    assert_refused(result, *words)


def test_a_place_that_cannot_be_written_to_is_said_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert_refused(chammi_fast("bench", "--json", tmp_path / "file" / "b.json"), "file", "cannot be written")
