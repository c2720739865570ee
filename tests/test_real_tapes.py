"""Real cells: every tape embeds, and the labelled set is scored like any user's table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import chammi_fast
from chammi_fast.manifest import read_table
from chammi_fast.table import embedding_matrix, read_embeddings, read_errors

pytest.importorskip("onnxruntime")
NAMES = ("nucleus", "er", "rna", "golgi", "mito")
SETS = {"SBS": 2, "BBBC013": 2, "NF1": 3, "4ch": 4, "CP": 5}


@pytest.fixture(scope="module")
def embedded(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tapes")
    for name, channels in SETS.items():
        chammi_fast.embed(
            "demo",
            manifest=shared_data / "tapes" / "manifest.csv",
            channels=",".join(f"CP/{channel}" for channel in NAMES[:channels]),
            where=f'chunk == "{name}"',
            out=out / name,
        )
    return out


def test_every_real_tape_is_embedded(embedded: Path, shared_data: Path) -> None:
    keys = set()
    for name in SETS:
        table = read_embeddings(embedded / name)
        assert read_errors(embedded / name).num_rows == 0
        vectors = embedding_matrix(table)
        assert np.isfinite(vectors).all()
        assert len(np.unique(vectors, axis=0)) > 0.9 * len(vectors)
        keys |= set(table["key"].to_pylist())
    assert keys == set(read_table(shared_data / "tapes" / "manifest.csv")["file_path"].to_pylist())
    assert len(keys) == 2045


def test_real_single_channel_images_are_embedded(shared_data: Path, tmp_path: Path) -> None:
    files = sorted((shared_data / "cells" / "mitocheck_1ch").rglob("*.png"))[::20]
    (tmp_path / "cells.csv").write_text("file_path\n" + "".join(f"{path}\n" for path in files))
    (report,) = chammi_fast.embed("demo", manifest=tmp_path / "cells.csv", channels="nucleus", out=tmp_path / "out")
    assert (report.images, report.failed) == (len(files), 0)


def test_the_labelled_set_is_scored_on_its_three_tasks(embedded: Path, shared_data: Path) -> None:
    pytest.importorskip("faiss")
    scores = chammi_fast.evaluate(
        manifest=shared_data / "tapes" / "manifest.csv",
        label="label",
        split="train_test_split",
        where='chunk == "SBS"',
        features=embedded / "SBS",
    )
    assert {name: task.n for name, task in scores.tasks.items()} == {
        "Task_one": 170,
        "Task_two": 436,
        "Task_three": 460,
    }
    majority = {"Task_one": 126 / 170, "Task_two": 279 / 436, "Task_three": 311 / 460}
    for name, task in scores.tasks.items():
        assert task.accuracy > majority[name]
