"""What docs/plates.md shows can be run, one block after another."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[1] / "docs" / "plates.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def test_every_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for line in "".join(blocks("bash")).splitlines():
        program, *arguments = shlex.split(line)
        assert program == "chammi-fast"
        done = subprocess.run([sys.executable, "-m", "chammi_fast", *arguments], capture_output=True, check=False)
        assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
    names: dict[str, object] = {}
    for block in blocks("python"):
        exec(compile(block, str(PAGE), "exec"), names)
    shown = capsys.readouterr().out.splitlines()
    comments = re.findall(r"print\(plate\)\s+# (.*)", PAGE.read_text(encoding="utf-8"))
    assert shown[0] == comments[0]
    assert len(shown) == 2 + 24


def test_patterns_on_the_page_are_patterns() -> None:
    from chammi_fast.plates.patterns import pattern_of

    (text,) = blocks("text")
    for line in text.splitlines():
        assert "channel" in pattern_of(line).names
