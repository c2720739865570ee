"""What is remembered of a choice between runs, and what becomes of it when its file is not as it should be."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("onnxruntime")

from chammi_fast.files import cache_folder
from chammi_fast.images import cpus
from chammi_fast.images.cpus import usable_cpus
from chammi_fast.runtime import Form, memory, nvidia
from chammi_fast.runtime.accuracy import Accuracy
from chammi_fast.runtime.choice import Candidate, Choice


@pytest.fixture(autouse=True)
def a_cache_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_the_hardware_and_the_libraries_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = memory.machine.__wrapped__  # what it finds now
    found = machine()
    assert found["cpus"] == usable_cpus()
    assert found["processor"]
    assert found["isa"]
    assert found["gpus"] == ()
    assert {"chammi-fast", "openvino"} <= set(memory._versions())
    monkeypatch.setattr(memory, "_versions", lambda: {"onnxruntime-gpu": "1.31.1"})
    monkeypatch.setattr(nvidia, "gpus", lambda: ("NVIDIA L4",))
    assert machine()["gpus"] == ("NVIDIA L4",)


def test_a_choice_of_another_quota_is_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys: list[str] = []
    monkeypatch.setattr(memory, "machine", memory.machine.__wrapped__)  # what it finds now
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    for quota in (1, 2, 2):
        mounted = tmp_path / str(len(keys))
        mounted.mkdir()
        (mounted / "cpu.max").write_text(f"{quota}00000 100000\n")
        (mounted / "cgroup").write_text("0::/\n")
        monkeypatch.setattr(cpus, "GROUPS", mounted / "cgroup")
        monkeypatch.setattr(cpus, "MOUNTED", mounted)
        assert memory.machine()["cpus"] == quota
        keys.append(memory.key_of({"named": "abc"}))
    assert keys[0] != keys[1]
    assert keys[1] == keys[2]


CHOICE = Choice(
    Candidate(Form("openvino", precision="bf16", threads=2, streams=2), 60.5, Accuracy(0.9999, 0.99995, 48)),
    (Candidate(Form("onnxruntime"), 20.25), Candidate(Form("openvino", precision="int8"), fault="cosine ... is below")),
)


def test_a_choice_is_remembered_as_it_was() -> None:
    assert memory.recall("k") is None
    memory.remember("k", CHOICE)
    assert memory.recall("k") == replace(CHOICE, remembered=True)
    memory.remember("l", replace(CHOICE, tried=()))
    assert memory.recall("k") == replace(CHOICE, remembered=True)
    assert [path.name for path in cache_folder().iterdir()] == [memory.FILE]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "null",
        '"text"',
        '{"k": null}',
        '{"k": []}',
        '{"k": "text"}',
        '{"k": {}}',
        '{"k": {"taken": 3}}',
        '{"k": {"taken": {"form": {"backend": 3}}}}',
        '{"k": {"taken": {"form": {}}, "tried": [null]}}',
        "\x00\xff",
    ],
)
def test_a_damaged_memory_is_no_memory(content: str) -> None:
    cache_folder().mkdir(parents=True)
    (cache_folder() / memory.FILE).write_bytes(content.encode("latin-1"))
    assert memory.recall("k") is None
    memory.remember("k", CHOICE)
    assert memory.recall("k") == replace(CHOICE, remembered=True)


def test_a_folder_that_may_not_be_written_is_harmless(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    for method in ("mkdir", "write_text", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(Path, method, refuse)
            memory.remember("k", CHOICE)
        assert memory.recall("k") is None
        assert not list(cache_folder().glob(".*")) if cache_folder().exists() else True


def test_writers_at_the_same_time_leave_a_whole_file() -> None:
    code = """
import sys
from chammi_fast.runtime import Form, memory
from chammi_fast.runtime.choice import Candidate, Choice
for number in range(40):
    memory.remember(f"{sys.argv[1]}-{number}", Choice(Candidate(Form(threads=number)), ()))
    found = memory.recall(f"{sys.argv[1]}-{number}")
    assert found is None or found.taken.form.threads == number
"""
    writers = [
        subprocess.Popen([sys.executable, "-c", code, str(i)], stderr=subprocess.PIPE, text=True) for i in range(3)
    ]
    for writer in writers:
        assert writer.wait() == 0, writer.stderr.read() if writer.stderr else ""
        if writer.stderr:
            writer.stderr.close()
    found = json.loads((cache_folder() / memory.FILE).read_text())
    assert found
    for key in found:
        choice = memory.recall(key)
        assert choice is not None
        assert choice.taken.form.threads == int(key.partition("-")[2])
    assert [path.name for path in cache_folder().iterdir()] == [memory.FILE]


def test_the_memory_does_not_grow_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "MOST_REMEMBERED", 3)
    for number in range(5):
        memory.remember(str(number), CHOICE)
    assert [number for number in range(5) if memory.recall(str(number)) is not None] == [2, 3, 4]
