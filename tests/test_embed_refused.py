"""What `embed` refuses, because it would be ignored or cannot mean anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
from typer.testing import CliRunner

from chammi_fast.cli import app
from chammi_fast.embedding import EmbedSettings, embed, embed_batches
from chammi_fast.errors import ChammiFastError, ManifestError

FP32: dict[str, Any] = {"backend": "onnxruntime", "device": "cpu", "precision": "fp32"}


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "cells.csv"
    path.write_text("file_path,channel_width\nabsent.png,8\n")
    return path


@pytest.mark.parametrize(
    "option",
    [("crop-size", "64"), ("edge", "skip"), ("scale", "crop"), ("neighbours", "mask"), ("illumination", "none")],
)
def test_options_of_a_plate_need_one(table: Path, tmp_path: Path, option: tuple[str, str]) -> None:
    given = [
        "embed",
        "--model",
        "demo",
        "--manifest",
        str(table),
        "--channels",
        "nucleus",
        "--out",
        str(tmp_path / "o"),
    ]
    result = CliRunner().invoke(app, [*given, f"--{option[0]}", option[1]])
    assert result.exit_code == 2
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize("wrong", [{"store": "float99"}, {"mask": "away"}, {"unknown": "guess"}])
def test_settings_that_do_not_exist_are_named(wrong: dict[str, Any]) -> None:
    ((name, value),) = wrong.items()
    with pytest.raises(ManifestError, match=rf"^{name} '{value}' should be one of "):
        EmbedSettings(**wrong)


def test_a_folder_that_is_not_there_is_named(table: Path, tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"nowhere: no such folder"):
        embed("demo", out=tmp_path / "o", manifest=table, data=tmp_path / "nowhere", channels="nucleus")


def test_strict_batches_stop_at_the_first_failure(table: Path) -> None:
    def batches(*, strict: bool) -> list[Any]:
        return list(
            embed_batches("demo", manifest=table, channels="nucleus", settings=EmbedSettings(**FP32, strict=strict))
        )

    assert len(batches(strict=False)[0].failures) == 1
    with pytest.raises(ChammiFastError, match=r"absent\.png"):
        batches(strict=True)


def test_batches_have_no_failed_images_of_an_earlier_run(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="use embed"):
        embed_batches("demo", manifest=tmp_path, channels="nucleus", settings=EmbedSettings(**FP32, retry_errors=True))
