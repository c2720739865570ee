"""Parts of a run that was shared: joined when they are whole, again when one has changed, and refused when not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import csv, parquet
from typer.testing import CliRunner

import chammi_fast
from chammi_fast.cli import app
from chammi_fast.embedding import EmbedSettings, merge, work
from chammi_fast.errors import OutputError
from chammi_fast.synthetic import FEWEST_IMAGES, synthesise
from chammi_fast.table import read_embeddings, read_errors

pytest.importorskip("onnxruntime")
FORM = {"backend": "onnxruntime", "precision": "fp32"}


@pytest.fixture
def cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a table of ten tapes, five to a shard; one of the second shard is broken."""
    monkeypatch.setattr(work, "ROWS_PER_SHARD", 5)
    rng = np.random.default_rng(0)
    for number in range(10):
        Image.fromarray(rng.integers(0, 255, (40, 80), dtype=np.uint8)).save(tmp_path / f"{number}.png")
    (tmp_path / "whole.png").write_bytes((tmp_path / "7.png").read_bytes())
    (tmp_path / "7.png").write_bytes(b"nothing")
    names = [f"{number}.png" for number in range(10)]
    csv.write_csv(pa.table({"file_path": names, "channel_width": [40] * 10}), tmp_path / "cells.csv")
    return tmp_path / "cells.csv"


def embed(cells: Path, out: Path, **settings: object) -> None:
    chosen = EmbedSettings(**(FORM | settings))  # type: ignore[arg-type]
    chammi_fast.embed("demo", manifest=cells, channels="CP/nucleus,CP/er", out=out, settings=chosen)


@pytest.fixture
def parts(cells: Path) -> list[Path]:
    made = [cells.with_name(f"part{number}") for number in (1, 2)]
    for number, part in enumerate(made, start=1):
        embed(cells, part, shard=f"{number}/2")
    return made


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "run.json"}


def test_a_part_that_was_mended_is_joined_again(cells: Path, parts: list[Path]) -> None:
    out = cells.with_name("out")
    (report,) = merge(parts, out)
    assert (report.images, report.failed) == (10, 1)
    shutil.copy(cells.with_name("whole.png"), cells.with_name("7.png"))
    embed(cells, parts[1], shard="2/2", retry_errors=True)
    (report,) = merge(parts, out)
    assert (report.images, report.failed) == (10, 0)
    assert len(read_embeddings(out)) == 10
    assert len(read_errors(out)) == 0
    embed(cells, cells.with_name("one"))
    assert files(out) == files(cells.with_name("one"))


def test_a_part_that_is_not_finished_is_told(parts: list[Path], tmp_path: Path) -> None:
    (parts[1] / ".run").mkdir()
    for name in ("run.json", "ledger.json", "part-00001.parquet", "errors.parquet"):
        (parts[1] / name).rename(parts[1] / ".run" / name)
    with pytest.raises(OutputError, match=r"part2: its run is not finished"):
        merge(parts, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_lock_that_is_left_is_no_run(parts: list[Path], tmp_path: Path) -> None:
    """Network file systems keep the name of a file that was open when its folder was removed."""
    (parts[0] / ".run").mkdir()
    (parts[0] / ".run" / ".nfs0001").write_text("")
    assert merge(parts, tmp_path / "out")[0].images == 10


@pytest.mark.parametrize("damage", ["gone", "short"])
def test_a_list_of_failed_rows_that_is_damaged_is_named_and_mended(
    damage: str, cells: Path, parts: list[Path], tmp_path: Path
) -> None:
    errors, before = parts[1] / "errors.parquet", files(parts[1])
    if damage == "gone":
        errors.unlink()
    else:
        parquet.write_table(read_errors(parts[1]).slice(0, 0), errors)
    with pytest.raises(OutputError, match=r"part2/errors\.parquet: is missing or damaged"):
        merge(parts, tmp_path / "out")
    embed(cells, parts[1], shard="2/2")
    assert files(parts[1]) == before


def test_another_table_is_replaced_when_that_is_asked_for(parts: list[Path], tmp_path: Path) -> None:
    merge(parts, tmp_path / "out")
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    record["identity"]["inputs_sha256"] = "another"
    (tmp_path / "out" / "run.json").write_text(json.dumps(record))
    words = ["merge", *map(str, parts), "--out", str(tmp_path / "out")]
    refused = CliRunner().invoke(app, words)
    assert "another table of images" in str(refused.exception)
    assert CliRunner().invoke(app, [*words, "--overwrite"]).exit_code == 0
    assert len(read_embeddings(tmp_path / "out")) == 9


def test_parts_that_do_not_say_what_their_run_embeds_are_merged(parts: list[Path], tmp_path: Path) -> None:
    """Those of before run.json named the tables."""
    whole = tmp_path / "whole"
    for part in parts:
        record = json.loads((part / "run.json").read_text())
        del record["tables"]
        (whole / part.name).mkdir(parents=True)
        shutil.copytree(part, whole / part.name / "CP")
        (whole / part.name / "CP" / "run.json").write_text(json.dumps(record))
    (report,) = merge([whole / part.name for part in parts], tmp_path / "out")
    assert (report.name, report.images) == ("CP", 10)


@pytest.mark.parametrize("stopped", ["before it began", "in its middle"])
def test_a_data_set_that_is_missing_is_told(stopped: str, tmp_path: Path) -> None:
    synthesise(tmp_path / "data", images=FEWEST_IMAGES, seed=0, data_sets=["Allen", "CP"])
    parts = [tmp_path / "1", tmp_path / "2"]
    for number, part in enumerate(parts, start=1):
        settings = EmbedSettings(**FORM, shard=f"{number}/2")  # type: ignore[arg-type]
        chammi_fast.embed("demo", data=tmp_path / "data", out=part, settings=settings)
        if stopped == "before it began":
            shutil.rmtree(part / "CP")
        else:
            (part / "CP" / "run.json").rename(part / "CP" / "kept")
            (part / "CP" / ".run").mkdir()
            (part / "CP" / "kept").rename(part / "CP" / ".run" / "run.json")
    said = "no part holds CP" if stopped == "before it began" else "CP: its run is not finished"
    with pytest.raises(OutputError, match=said):
        merge(parts, tmp_path / "out")
