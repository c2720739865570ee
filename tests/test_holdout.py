"""The table of unseen channels."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("torch")
pytest.importorskip("timm")
pytest.importorskip("accelerate")
pytest.importorskip("faiss")
pytest.importorskip("onnxruntime")

import msgspec

from chammi_fast.errors import TrainingError
from chammi_fast.synthetic import FEWEST_IMAGES, synthesise
from chammi_fast.training import holdout
from chammi_fast.training.data import Source
from chammi_fast.training.holdout import compare_held_out
from chammi_fast.training.run import RunOptions
from training_cells import small_recipe

if TYPE_CHECKING:
    from pathlib import Path


def test_each_data_set_is_held_out_in_turn(tmp_path: Path) -> None:
    data, out = tmp_path / "CHAMMI", tmp_path / "holdout"
    synthesise(data, images=FEWEST_IMAGES, seed=4, data_sets=("HPA", "CP"))
    depthwise = small_recipe(strategy="depthwise", strategy_options={"filters": 4}, epochs=1, batch_size=16)
    fixed = msgspec.structs.replace(small_recipe(strategy="fixedchannels", proxies="own", epochs=1), name="fixed")
    rows = compare_held_out([depthwise, fixed], Source(data), out)
    found = [(row.recipe, row.trained_on) for row in rows]
    expected = [("channelreplication", "nothing"), ("small", "the others"), ("small", "all"), ("fixed", "all")]
    assert found == expected
    for row in rows:
        assert set(row.f1) == {"HPA", "CP"}
        assert all(0 <= value <= 1 for value in row.f1.values())
    assert [row["f1"] for row in json.loads((out / "holdout.json").read_text())] == [row.f1 for row in rows]
    scores = json.loads((out / "small" / "without-CP" / "scores.json").read_text())
    mean = sum(scores["tasks"][f"CP/Task_{task}"]["f1_macro"] for task in ("two", "three", "four")) / 3
    assert rows[1].f1["CP"] == pytest.approx(mean, abs=1e-9)


@pytest.mark.parametrize(("backbone", "size"), [("vit_tiny_patch16_224", 64), ("convnext_atto", 0)])
def test_the_baseline_sees_images_as_its_backbone_takes_them(
    backbone: str, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[RunOptions] = []

    def begin(options: RunOptions, progress: object) -> None:
        asked.append(options)

    monkeypatch.setattr(holdout, "run_training", begin)
    with pytest.raises(TrainingError, match="a run ended without scores"):
        compare_held_out([small_recipe(backbone=backbone, backbone_options={}, size=64)], Source(), tmp_path)
    assert (asked[0].recipe.strategy, asked[0].recipe.size) == ("channelreplication", size)


def test_remarks_of_all_runs_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    scores = SimpleNamespace(averages={})
    monkeypatch.setattr(
        holdout, "run_training", lambda options, _: SimpleNamespace(scores=scores, remarks=(options.out.name,))
    )
    compare_held_out([small_recipe()], Source(), tmp_path, told=told.append)
    assert told == ["untrained", "all"]
