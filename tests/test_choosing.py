"""Which of a model's files embeds a run, in which form, and what a later run knows of it."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")

import chammi_fast  # noqa: E402
from chammi_fast import choosing  # noqa: E402
from chammi_fast import model as model_module  # noqa: E402
from chammi_fast.choosing import Files, Task, find_files, settle  # noqa: E402
from chammi_fast.embedding import EmbedSettings  # noqa: E402
from chammi_fast.errors import BackendError, SpecError  # noqa: E402
from chammi_fast.files import cache_folder  # noqa: E402
from chammi_fast.model import load_model  # noqa: E402
from chammi_fast.runtime import BACKENDS, Form, memory, open_backend, openvino_backend  # noqa: E402
from chammi_fast.runtime import choice as choice_module  # noqa: E402
from chammi_fast.runtime.accuracy import Accuracy  # noqa: E402
from chammi_fast.runtime.choice import Choice, choose  # noqa: E402
from forms import processor_forms  # noqa: E402
from handmade import SIZE, fixed_spec, write_adaptive, write_foreign  # noqa: E402
from quantised import fix_channels, quantise  # noqa: E402

AUTO = Form("auto", "auto", "auto")
CHANNELS = "CP/nucleus,CP/er"


@pytest.fixture(autouse=True)
def a_cache_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(choice_module, "SHORTEST_S", 0.001)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """The networks that are opened from here on."""
    there: list[tuple[str, str]] = []
    real = open_backend

    def spy(form: Form, *arguments: Any, **named: Any) -> Any:
        there.append((form.backend, form.precision))
        return real(form, *arguments, **named)

    monkeypatch.setattr(model_module, "open_backend", spy)
    return there


@pytest.fixture
def adaptive(tmp_path: Path) -> Path:
    return write_adaptive(tmp_path / "a.onnx")


@pytest.fixture
def fixed(adaptive: Path, tmp_path: Path) -> Path:
    """A network of two channels."""
    return fix_channels(load_model(adaptive), CHANNELS, tmp_path / "m.onnx")


def images(count: int = 9) -> np.ndarray:
    return np.random.default_rng(count).standard_normal((count, 2, SIZE, SIZE), dtype=np.float32)


def task(channels: str = CHANNELS, batch: np.ndarray | None = None) -> Task:
    return Task(channels, "error", lambda: images() if batch is None else batch)


# The files.


def files_of(path: Path, precision: str = "auto") -> Files:
    return find_files(load_model(path), precision)


def test_a_quantised_file_is_found_beside_its_model_and_the_other_way_round(fixed: Path) -> None:
    alone = files_of(fixed)
    assert (alone.named.path, alone.floating, alone.quantised) == (fixed, alone.named, None)
    quantised = quantise(fixed, images())
    for named in (fixed, quantised):
        found = files_of(named)
        assert found.named.path == named
        assert found.floating is not None
        assert found.quantised is not None
        assert (found.floating.path, found.quantised.path) == (fixed, quantised)
        assert found.of("int8").path == quantised
        assert found.of("fp32").path == found.of("bf16").path == fixed
    assert files_of(fixed, "fp32").quantised is None, "it is not read where it is not wanted"
    with pytest.raises(BackendError, match=r"m\.onnx: has no file for the precision int8"):
        alone.of("int8")


def test_a_quantised_file_of_another_model_is_not_taken(fixed: Path) -> None:
    quantise(fixed, images(), made_from="0" * 64)
    assert files_of(fixed).quantised is None
    with pytest.raises(SpecError, match=r"m\.int8\.onnx: was not made from m\.onnx as it is now: quantise it again"):
        files_of(fixed, "int8")
    own = files_of(fixed.with_suffix(".int8.onnx"))
    assert own.floating is None
    assert own.quantised is own.named


def test_a_broken_quantised_file_stops_only_those_who_ask_for_it(fixed: Path) -> None:
    fixed.with_suffix(".int8.onnx").write_bytes(b"no network")
    found = files_of(fixed)
    assert found.quantised is None
    said: list[str] = []
    settle(found, [task()], Form("onnxruntime", "cpu", "auto"), 0.5, said.append)
    assert re.fullmatch(r".*m\.int8\.onnx: is not an ONNX file.*; it is left out\.", said[0])
    assert not files_of(fixed, "fp32").passed_over
    with pytest.raises(SpecError, match=r"m\.int8\.onnx: is not an ONNX file"):
        files_of(fixed, "int8")


def test_a_choice_despite_a_form_that_failed_is_not_remembered(fixed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(form: Form, *arguments: Any, **named: Any) -> Any:
        if form.backend == "openvino":
            raise BackendError("m.onnx: the memory is full.")
        return open_backend(form, *arguments, **named)

    with monkeypatch.context() as patched:
        patched.setattr(model_module, "open_backend", failing)
        assert settle(files_of(fixed), [task()], AUTO, 0.5).taken.form.backend == "onnxruntime"
    again = settle(files_of(fixed), [task()], AUTO, 0.5)
    assert not again.remembered
    assert all(not one.failed for one in again.tried)
    assert settle(files_of(fixed), [task()], AUTO, 0.5).remembered


def test_a_reference_is_looked_for_beside_the_file_and_nowhere_else(fixed: Path, tmp_path: Path) -> None:
    path = quantise(fixed, images())
    moved = tmp_path / "elsewhere" / path.name
    moved.parent.mkdir()
    path.rename(moved)
    assert files_of(moved).floating is None
    network = onnx.load(moved)
    (entry,) = (entry for entry in network.metadata_props if "quantisation" in entry.value)
    entry.value = entry.value.replace('"m.onnx"', '"../m.onnx"')
    onnx.save(network, moved)
    assert files_of(moved).floating is None


# The settlement.


def test_auto_tries_all_forms_and_says_so(fixed: Path, opened: list[tuple[str, str]]) -> None:
    quantise(fixed, images())
    said: list[str] = []
    choice = settle(files_of(fixed), [task()], AUTO, 0.5, said.append)
    everything = {(form.backend, form.precision) for form in processor_forms()}
    assert {(one.form.backend, one.form.precision) for one in choice.tried} == everything
    assert set(opened) == everything
    assert said[0] == f"trying {len(everything)} ways to run m.onnx on this machine; the result is remembered."
    assert said[1] == f"{choice}."
    assert len(said) == 2
    fastest = max((one for one in choice.tried if not one.fault), key=lambda one: one.images_per_s)
    assert choice.taken == fastest
    for one in choice.tried:
        assert (one.accuracy is None) == (one.form.precision == "fp32")
        assert one.accuracy is None or one.accuracy.images == 9


def test_the_accuracy_is_that_of_the_two_files(fixed: Path) -> None:
    path = quantise(fixed, images(), worst=0.123)
    choice = settle(files_of(fixed), [task()], Form("onnxruntime", "auto", "int8"), 0.5)
    accuracy = choice.taken.accuracy
    assert accuracy is not None
    one, other = (load_model(file).bind(CHANNELS).embed(images()).astype(np.float64) for file in (fixed, path))
    cosines = (one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)
    assert (accuracy.worst, accuracy.mean) == pytest.approx((cosines.min(), cosines.mean()), abs=1e-9)
    assert accuracy.images == 9


def test_without_its_reference_a_quantised_file_counts_as_it_was_recorded(fixed: Path) -> None:
    path = quantise(fixed, images(), worst=0.9995)
    fixed.unlink()
    choice = settle(files_of(path), [task()], AUTO, 0.999)
    assert choice.taken.accuracy == Accuracy(0.9995, (1 + 0.9995) / 2, 0)
    assert {one.form.precision for one in choice.tried} == {"int8"}
    with pytest.raises(BackendError, match=r"0\.9995.* as recorded when it was quantised, which is below 0\.9999"):
        settle(files_of(path), [task()], AUTO, 0.9999)


def test_what_is_asked_for_and_not_accurate_is_an_error(fixed: Path) -> None:
    quantise(fixed, images())
    with pytest.raises(BackendError, match=r"m\.onnx: onnxruntime int8 on cpu, .*: cosine to fp32 .*--min-cosine"):
        settle(files_of(fixed), [task()], Form("onnxruntime", "auto", "int8"), 1.0)
    assert memory.recall("") is None
    assert not (cache_folder() / memory.FILE).exists(), "an error is not remembered"


def test_all_lists_of_channels_count(adaptive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = choose
    seen: list[Any] = []

    def spy(forms: Any, subjects: Any, terms: Any) -> Choice:
        seen.extend(subjects)
        return real(forms, subjects, terms)

    monkeypatch.setattr(choosing, "choose", spy)
    three = np.zeros((4, 3, SIZE, SIZE), np.float32)
    none = np.empty((0, 4, 1, 1), np.float32)
    tasks = [task(), task("Allen", three), task("HPA", none)]
    choice = settle(files_of(adaptive), tasks, Form("openvino", "auto", "auto"), -1.0)
    assert [len(subject.images) for subject in seen] == [9, 4]
    assert {one.accuracy.images for one in choice.tried if one.accuracy is not None} <= {13}


def test_a_run_without_a_readable_image_is_settled_without_a_trial(
    adaptive: Path, opened: list[tuple[str, str]]
) -> None:
    nothing = np.empty((0, 2, 1, 1), np.float32)
    choice = settle(files_of(adaptive), [task(batch=nothing)], AUTO, 0.999)
    assert choice.taken.form.precision == "fp32"
    assert opened == []
    assert not (cache_folder() / memory.FILE).exists()


def test_where_nothing_can_be_compared_no_image_is_read(adaptive: Path) -> None:
    unread = Task(CHANNELS, "error", pytest.fail)
    choice = settle(files_of(adaptive), [unread], Form("onnxruntime", "cpu", "fp32"), 0.999)
    assert choice.taken.form.precision == "fp32"


@pytest.mark.parametrize("batch", [1, 3])
def test_a_network_of_one_batch_size_is_tried_and_embeds(batch: int, tmp_path: Path) -> None:
    """As torch.onnx.export writes it where no dimension is said to be free."""
    path = write_foreign(tmp_path / "f.onnx", shape=[batch, 2, SIZE, SIZE], spec=fixed_spec(*CHANNELS.split(",")))
    choice = settle(files_of(path), [task()], AUTO, 0.999)
    assert len(choice.tried) == len([form for form in processor_forms() if form.precision != "int8"])
    assert not [one.fault for one in choice.tried if one.failed]
    (report,) = chammi_fast.embed(path, manifest=cells(tmp_path), channels=CHANNELS, out=tmp_path / "out")
    assert (report.images, report.failed) == (5, 0)
    expected = load_model(path).bind(CHANNELS).embed(images())
    np.testing.assert_allclose(expected, images().mean((2, 3)), atol=1e-6)


# The memory.


def test_a_second_run_opens_nothing(adaptive: Path, opened: list[tuple[str, str]], monkeypatch: Any) -> None:
    first = settle(files_of(adaptive), [task()], AUTO, 0.9)
    opened.clear()
    monkeypatch.setattr(choosing, "choose", pytest.fail)
    said: list[str] = []
    again = settle(files_of(adaptive), [Task(CHANNELS, "error", pytest.fail)], AUTO, 0.9, said.append)
    assert again == replace(first, remembered=True)
    assert opened == []
    assert said == [f"{first} (remembered)."]


def test_a_run_with_a_warm_memory_opens_one_network(
    adaptive: Path, tmp_path: Path, opened: list[tuple[str, str]]
) -> None:
    table = cells(tmp_path)
    for turn in ("first", "second"):
        opened.clear()
        (report,) = chammi_fast.embed(
            adaptive, manifest=table, channels=CHANNELS, out=tmp_path / turn, settings=EmbedSettings(min_cosine=0.5)
        )
        assert report.choice.remembered == (turn == "second")
        assert (len(opened) == 1) == (turn == "second")
    form = report.choice.taken.form
    assert opened == [(form.backend, form.precision)]
    run = json.loads((tmp_path / "second" / "run.json").read_text())
    accuracy = report.choice.taken.accuracy
    assert run["accuracy"] == (None if accuracy is None else vars(accuracy))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The keys that are asked for."""
    keys: list[str] = []
    real = memory.recall

    def spy(key: str) -> Choice | None:
        keys.append(key)
        return real(key)

    monkeypatch.setattr(choosing, "recall", spy)
    return keys


def test_whatever_matters_changes_the_question(
    fixed: Path, adaptive: Path, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = Form("onnxruntime", "cpu", "fp32")

    def ask(path: Path = fixed, channels: str = CHANNELS, wish: Form = plain, least: float = 0.9) -> None:
        batch = np.zeros((1, len(channels.split(",")), SIZE, SIZE), np.float32)
        settle(files_of(path), [task(channels, batch)], wish, least)

    ask()
    ask()
    assert len(set(asked)) == 1
    ask(adaptive)
    ask(adaptive, "CP/er,CP/nucleus")
    ask(adaptive, "CP/er")
    ask(least=0.8)
    ask(wish=replace(plain, threads=1))
    ask(wish=Form("openvino", "cpu", "fp32"))
    ask(wish=Form("auto", "auto", "fp32"))
    quantise(fixed, images())
    ask(wish=Form("onnxruntime", "cpu", "auto"), least=0.0)
    quantise(fixed, images(20))
    ask(wish=Form("onnxruntime", "cpu", "auto"), least=0.0)
    network = onnx.load(fixed)
    network.doc_string = "another state"
    onnx.save(network, fixed)
    ask()
    for name, value in (("machine", {"processor": "another"}), ("_versions", {"onnxruntime": "9"})):
        monkeypatch.setattr(memory, name, lambda value=value: value)
        ask()
    assert len(set(asked)) == len(asked) - 1


def test_a_memory_that_cannot_be_kept_is_harmless(
    adaptive: Path, tmp_path: Path, opened: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "taken" / "chammi-fast" / memory.FILE).mkdir(parents=True)
    for home in ("file", "taken"):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / home))
        for _ in range(2):
            opened.clear()
            assert not settle(files_of(adaptive), [task()], AUTO, 0.5).remembered
            assert len(opened) > 1


# The command line.


def cells(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    names = [f"cell{i}.png" for i in range(5)]
    for name in names:
        Image.fromarray(rng.integers(0, 255, (40, 80), dtype=np.uint8)).save(folder / name)
    (folder / "cells.csv").write_text("file_path,channel_width\n" + "".join(f"{name},40\n" for name in names))
    return folder / "cells.csv"


def test_the_command_line_explains_its_choice_and_remembers_it(adaptive: Path, tmp_path: Path) -> None:
    table = cells(tmp_path)
    command = [sys.executable, "-m", "chammi_fast", "embed", "--model", str(adaptive), "--manifest", str(table)]
    said, parts = [], []
    for turn in ("first", "second"):
        result = subprocess.run(
            [*command, "--channels", CHANNELS, "--out", str(tmp_path / turn), "--min-cosine", "0.5"],
            capture_output=True,
            text=True,
            check=True,
        )
        said.append([line for line in result.stderr.splitlines() if line.startswith("chammi-fast: ")])
        parts.append(hashlib.sha256((tmp_path / turn / "part-00000.parquet").read_bytes()).hexdigest())
    trying, chosen = said[0]
    assert trying.startswith("chammi-fast: trying ")
    assert " on cpu, " in chosen
    assert "images/s by the network alone" in chosen
    assert said[1] == [chosen.removesuffix(".") + " (remembered)."]
    assert parts[0] == parts[1], "a new process writes the same bits"


def test_bf16_of_a_processor_without_it_is_not_tried(
    adaptive: Path, opened: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openvino_backend, "precisions", lambda _: ("fp32",))
    monkeypatch.setitem(BACKENDS, "openvino", replace(BACKENDS["openvino"], precisions=lambda _: ("fp32",)))
    settle(files_of(adaptive), [task()], AUTO, 0.999)
    assert set(opened) == {("openvino", "fp32"), ("onnxruntime", "fp32")}
