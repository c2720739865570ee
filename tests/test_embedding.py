"""The embed run: rows, failures, strictness, and what is left on disk."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import csv as arrow_csv

import chammi_fast
from chammi_fast.embedding import EmbedReport, EmbedSettings, merge
from chammi_fast.errors import ChannelError, ManifestError, OutputError, TruncatedError
from chammi_fast.runfolder import RunFolder
from chammi_fast.synthetic import synthesise
from chammi_fast.table import embedding_matrix, read_embeddings, read_errors

pytest.importorskip("onnxruntime")
CHANNELS = ("CP/nucleus", "CP/er")


@pytest.fixture
def cells(tmp_path: Path) -> Path:
    """A table of seven two-channel tapes of ragged heights."""
    rng = np.random.default_rng(3)
    rows = []
    for i in range(7):
        tape = rng.integers(0, 255, (30 + i, 2 * 40), dtype=np.uint8)
        Image.fromarray(tape).save(tmp_path / f"cell{i}.png")
        rows.append({"file_path": f"cell{i}.png", "channel_width": 40, "Label": f"l{i % 2}"})
    write_table(tmp_path / "cells.csv", rows)
    return tmp_path / "cells.csv"


def write_table(path: Path, rows: list[dict[str, object]]) -> None:
    arrow_csv.write_csv(pa.Table.from_pylist(rows), path)


def embed(cells: Path, out: Path, **settings: object) -> list[EmbedReport]:
    return chammi_fast.embed(
        "demo",
        manifest=cells,
        channels=",".join(CHANNELS),
        out=out,
        settings=EmbedSettings(**({"backend": "onnxruntime", "precision": "fp32"} | settings)),  # type: ignore[arg-type]
    )


def test_vectors_are_those_of_the_model_on_the_planes(cells: Path, tmp_path: Path) -> None:
    (report,) = embed(cells, tmp_path / "out", batch_size=3, npy=True)
    assert (report.images, report.failed) == (7, 0)
    table = read_embeddings(tmp_path / "out")
    assert table["key"].to_pylist() == [f"cell{i}.png" for i in range(7)]
    assert table.column_names == ["key", "file_path", "channel_width", "Label", "embedding"]
    bound = chammi_fast.load_model("demo").bind(",".join(CHANNELS))
    batch = chammi_fast.load_batch(
        [cells.parent / f"cell{i}.png" for i in range(7)], channel_width=40, preprocess=bound.preprocess
    )
    np.testing.assert_allclose(embedding_matrix(table), bound.embed(batch.images), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "demo.npy"), embedding_matrix(table))

    run = json.loads((tmp_path / "out" / "run.json").read_text())
    assert run["images"] == 7
    assert run["model"]["precision"] == "fp32"
    assert run["model"]["backend"].startswith("onnxruntime")
    assert len(run["model"]["sha256"]) == 64
    assert run["model"]["spec"]["strategy"] == "hypernet"


def test_one_bad_image_is_listed_and_does_not_stop_the_run(cells: Path, tmp_path: Path) -> None:
    bad = cells.parent / "cell4.png"
    bad.write_bytes(bad.read_bytes()[:200])
    (cells.parent / "cell5.png").unlink()
    (report,) = embed(cells, tmp_path / "out", batch_size=2, npy=True)
    assert report.failed == 2
    assert read_embeddings(tmp_path / "out")["key"].to_pylist() == [f"cell{i}.png" for i in (0, 1, 2, 3, 6)]
    errors = read_errors(tmp_path / "out").to_pylist()
    assert [error["key"] for error in errors] == ["cell4.png", "cell5.png"]
    assert [error["code"] for error in errors] == ["truncated", "missing"]
    vectors = np.load(tmp_path / "out" / "demo.npy")
    assert vectors.shape[0] == 7
    assert np.isnan(vectors[[4, 5]]).all()
    assert np.isfinite(vectors[[0, 1, 2, 3, 6]]).all()


def test_a_second_try_that_is_stopped_repeats_no_row(
    cells: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = {name: (cells.parent / name).read_bytes() for name in ("cell1.png", "cell5.png")}
    embed(cells, tmp_path / "reference")
    for name in whole:
        (cells.parent / name).write_bytes(b"")
    embed(cells, tmp_path / "out")
    for name, content in whole.items():
        (cells.parent / name).write_bytes(content)

    def stop(_: RunFolder) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(RunFolder, "_publish", stop)
        embed(cells, tmp_path / "out", retry_errors=True)
    embed(cells, tmp_path / "out", retry_errors=True)
    assert len(read_errors(tmp_path / "out")) == 0
    ours, theirs = (sorted((tmp_path / name).glob("*.parquet")) for name in ("out", "reference"))
    assert [path.read_bytes() for path in ours] == [path.read_bytes() for path in theirs]


def test_more_parts_than_shards_are_merged(cells: Path, tmp_path: Path) -> None:
    embed(cells, tmp_path / "reference")
    for part in "123":
        embed(cells, tmp_path / part, shard=f"{part}/3")
    (merged,) = merge([tmp_path / part for part in "123"], tmp_path / "out")
    assert (merged.shards, merged.images) == (1, 7)
    assert read_embeddings(tmp_path / "out").equals(read_embeddings(tmp_path / "reference"))


def test_images_elsewhere_are_told(cells: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    said: list[str] = []
    settings = EmbedSettings(backend="onnxruntime", precision="fp32")
    for data in (cells.parent, tmp_path / "other"):
        chammi_fast.embed(
            "demo", manifest=cells, data=data, channels=",".join(CHANNELS), out=tmp_path / "out", settings=settings,
            told=said.append,
        )  # fmt: skip
    told = [sentence for sentence in said if "began with images below" in sentence]
    assert told == [f"{tmp_path / 'out'}: began with images below {cells.parent}, and goes on with those below {data}."]


def test_a_plan_for_other_tables_is_refused(cells: Path, tmp_path: Path) -> None:
    settings = EmbedSettings(backend="onnxruntime", precision="fp32")
    chammi_fast.embedding.plan(
        "demo", manifest=cells, channels=",".join(CHANNELS), out=tmp_path / "plan.json", settings=settings
    )
    embed(cells, tmp_path / "out", plan=str(tmp_path / "plan.json"), shard="1/1")
    plan = json.loads((tmp_path / "plan.json").read_text())
    (tmp_path / "plan.json").write_text(json.dumps(plan | {"shards": dict.fromkeys(plan["shards"], 2)}))
    with pytest.raises(OutputError, match=r"plan\.json: is a plan for other tables: .* has 1 shards"):
        embed(cells, tmp_path / "other", plan=str(tmp_path / "plan.json"), shard="1/1")


def test_strict_stops_at_the_bad_image_and_leaves_no_table(cells: Path, tmp_path: Path) -> None:
    bad = cells.parent / "cell4.png"
    bad.write_bytes(bad.read_bytes()[:200])
    with pytest.raises(TruncatedError, match=r"cell4\.png"):
        embed(cells, tmp_path / "out", batch_size=2, strict=True)
    assert not (tmp_path / "out").exists()


def test_nothing_embedded_is_an_error(cells: Path, tmp_path: Path) -> None:
    for path in cells.parent.glob("*.png"):
        path.unlink()
    with pytest.raises(ManifestError, match=r"none of its 7 images .* cell0\.png"):
        embed(cells, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"data": ".", "where": "x == 1"}, "name it as manifest"),
        ({"data": ".", "channels": "CP"}, "name it as manifest"),
        ({"manifest": "cells.csv", "channels": "CP", "data_sets": ["CP"]}, "part of a CHAMMI folder"),
        ({"data": ".", "data_sets": "CP"}, "list of names"),
    ],
)
def test_arguments_that_would_be_ignored_are_refused(arguments: dict[str, Any], complaint: str, tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=complaint):
        chammi_fast.embed("demo", out=tmp_path / "out", **arguments)


def test_a_data_set_without_images_does_not_stop_the_others(tmp_path: Path) -> None:
    synthesise(tmp_path / "data", images=60, seed=0, data_sets=("HPA", "CP"))
    shutil.rmtree(tmp_path / "data" / "HPA" / "crops")
    hpa, cp = chammi_fast.embed("demo", data=tmp_path / "data", out=tmp_path / "out")
    assert (hpa.failed, cp.failed) == (60, 0)
    assert hpa.first_cause
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["CP"]


def test_a_wrong_number_of_channels_is_refused_before_the_run(cells: Path, tmp_path: Path) -> None:
    with pytest.raises(ChannelError, match="have 2 channels, but 3 are named"):
        chammi_fast.embed("demo", manifest=cells, channels="CP/nucleus,CP/er,CP/rna", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_masks(cells: Path, tmp_path: Path) -> None:
    def vectors(name: str, **settings: object) -> np.ndarray:
        chammi_fast.embed(
            "demo",
            manifest=cells,
            channels="CP/nucleus",
            out=tmp_path / name,
            settings=EmbedSettings(**({"backend": "onnxruntime", "precision": "fp32"} | settings)),  # type: ignore[arg-type]
        )
        return embedding_matrix(read_embeddings(tmp_path / name))

    dropped, applied = vectors("drop", mask="drop"), vectors("apply", mask="apply")
    assert dropped.shape == applied.shape
    assert not np.allclose(dropped, applied)
    with pytest.raises(ChannelError, match="1 are named"):
        vectors("keep")


def test_batch_size_and_row_order_do_not_change_a_vector(cells: Path, tmp_path: Path) -> None:
    embed(cells, tmp_path / "a", batch_size=1)
    embed(cells, tmp_path / "b", batch_size=64)
    a, b = (embedding_matrix(read_embeddings(tmp_path / name)) for name in "ab")
    np.testing.assert_array_equal(a, b)
