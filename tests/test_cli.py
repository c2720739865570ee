"""The command line: one sentence for every fault, exit status as documented."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from chammi_fast import _core
from chammi_fast.cli.version import describe

HEAVY = ("torch", "onnxruntime", "openvino", "faiss", "pandas", "pyarrow", "onnx", "timm")


def chammi_fast(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "chammi_fast", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)


def loaded_by(statement: str) -> list[str]:
    code = f"import sys; {statement}; print(' '.join(m for m in {HEAVY!r} if m in sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return result.stdout.split()


def assert_refused(result: subprocess.CompletedProcess[str], *words: str) -> None:
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    assert result.stderr.count("\n") == 1, result.stderr
    assert result.stderr.startswith("chammi-fast: ")
    for word in words:
        assert word in result.stderr


def test_importing_the_package_stays_light() -> None:
    assert loaded_by("import chammi_fast") == []
    assert loaded_by("import chammi_fast.cli") == []
    assert loaded_by("from chammi_fast import read_image") == []


def test_help_and_version() -> None:
    result = chammi_fast("--help")
    assert result.returncode == 0
    for command in ("demo", "embed", "evaluate", "check", "synth", "export"):
        assert command in result.stdout
        assert chammi_fast(command, "--help").returncode == 0


def test_version_names_what_is_built_in_and_installed() -> None:
    first, *lines = chammi_fast("--version").stdout.splitlines()
    assert first == f"chammi-fast {metadata.version('chammi-fast')}"
    said = dict(line.split(maxsplit=1) for line in lines)
    assert list(said) == ["python", "core", "codecs", "backends", "search"]
    assert said["core"].split(",")[0] == _core.isa()
    assert any(library in said["core"] for library in ("ISA-L", "libdeflate"))
    assert re.search(r"zstd \d+\.\d+\.\d+", said["codecs"])
    assert f"onnxruntime {metadata.version('onnxruntime')}" in said["backends"]
    assert f"openvino {metadata.version('openvino')}" in said["backends"]
    assert "faiss-" in said["search"]


def test_version_of_a_bare_installation_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", absent)
    assert describe().count("chammi-fast[cpu]") == 2


def test_version_stays_light() -> None:
    assert loaded_by("from chammi_fast.cli.version import describe; describe()") == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["embed", "--model", "none.onnx", "--data", ".", "--out", "o"], ["none.onnx"]),
        (["embed", "--model", "demo", "--data", "none", "--out", "o"], ["none", "no such folder"]),
        (["embed", "--model", "demo", "--out", "o"], ["CHAMMI folder", "table of images"]),
        (["embed", "--model", "demo", "--manifest", "none.csv", "--out", "o"], ["none.csv", "channels"]),
        (["embed", "--model", "demo", "--manifest", "t.csv", "--channels", "dna", "--out", "o"], ["'dna'", "nucleus"]),
        (
            ["embed", "--model", "demo", "--manifest", "t.csv", "--channels", "er", "--where", "x ==", "--out", "o"],
            ["where"],
        ),
        (
            ["embed", "--model", "demo", "--manifest", "t.csv", "--channels", "er", "--precision", "fp8", "--out", "o"],
            ["fp8", "fp32"],
        ),
        (["evaluate", "--data", "none", "--features", "none", "--out", "o"], ["none"]),
        (["check", "--data", "none"], ["none"]),
        (["synth", "--out", "t.csv", "--images", "100"], ["t.csv"]),
        (["demo", "--out", "full"], ["full", "not empty"]),
    ],
)
def test_faults_are_one_sentence(
    arguments: list[str], words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.csv").write_text("file_path,channel_width\na.png,8\n")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("")
    before = sorted(tmp_path.rglob("*"))
    assert_refused(chammi_fast(*arguments), *words)
    assert sorted(tmp_path.rglob("*")) == before


def test_usage_errors_name_the_option() -> None:
    result = chammi_fast("embed", "--modle", "x")
    assert result.returncode == 2
    assert "--modle" in result.stderr
