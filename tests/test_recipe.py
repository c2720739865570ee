"""Recipes: one for each published row, and what can be wrong with them."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("torch")

from chammi_fast.errors import RecipeError
from chammi_fast.training.recipe import load_recipe, recipe_names, write_recipe
from chammi_fast.training.strategies import STRATEGIES

if TYPE_CHECKING:
    from pathlib import Path

ROWS = {
    "table3": {"Trained": "trained", "Fine-tuned": "finetuned", "Fine-Tuned": "finetuned"},
    "table4": {"": "finetuned", "MIRO": "miro", "SWAD": "swad"},
    "table5": {
        "Baseline": "finetuned",
        "SSL": "ssl",
        "TPS": "tps",
        "TPS + SSL": "tps-ssl",
        "TPS + 0.2 SSL": "tps-0.2ssl",
    },
}


def recipe_of(row: dict[str, str]) -> str:
    """Name of the recipe that a row of the paper's tables stands for."""
    model, _, suffix = row["model"].replace(" [53]", "").replace(" [51]", "").partition(" - ")
    strategy = model.replace(" ", "").lower()
    if strategy == "channelreplication":
        return strategy
    return f"{strategy}-{ROWS[row['source']][row['condition'] or suffix]}"


def test_every_published_row_has_a_recipe_with_its_score(shared_data: Path) -> None:
    with (shared_data.parent / "facts" / "published_results.csv").open() as file:
        rows = list(csv.DictReader(file))
    named = {recipe_of(row): float(row["CPS"]) for row in rows}
    assert set(named) == set(recipe_names())
    for name, cps in named.items():
        assert load_recipe(name).published_cps == pytest.approx(cps), name


@pytest.mark.parametrize("name", recipe_names())
def test_recipes_are_whole(name: str) -> None:
    """Each can be read in both ways, and its fields say what its name says."""
    recipe, published = load_recipe(name), load_recipe(name, as_published=True)
    strategy, _, variant = name.partition("-")
    assert recipe.name == name
    assert strategy in STRATEGIES
    assert recipe.strategy == strategy
    assert recipe.description
    assert (recipe.init == "random") == (variant == "trained")
    assert (recipe.tps > 0) == ("tps" in variant)
    assert recipe.ssl_weight == (0.2 if "0.2ssl" in variant else float("ssl" in variant))
    assert (recipe.miro_weight > 0) == (variant == "miro")
    assert (recipe.swad_from is not None) == (variant == "swad")
    assert recipe.frozen == recipe.frozen_where_there == published.frozen == ()
    assert (recipe.temperature_scale, recipe.ssl_pairs, recipe.supervised) == ("sqrt", "true", "proxynca")
    if strategy == "channelreplication":
        assert recipe.epochs == 0
        return
    assert (recipe.epochs, recipe.batch_size, recipe.weight_decay, recipe.warmup_epochs) == (15, 128, 5e-4, 3)
    assert "losses.*" in published.frozen_where_there
    assert (published.weight_decay, published.learning_rate_end, published.schedule) == (5e-5, 1e-6, "published")
    assert ("network.strategy.offsets.*" in published.frozen_where_there) == (strategy == "sliceparam")
    assert ("network.strategy.norm.*" in published.frozen_where_there) == (strategy == "depthwise")
    assert (published.temperature_scale == "published") == (strategy in ("sliceparam", "targetparam"))
    assert (published.ssl_pairs == "published") == ("ssl" in variant)
    assert (published.supervised == "cross_entropy") == ("0.2ssl" in variant)


def test_published_settings() -> None:
    """Section 4 of the facts."""
    settings = {
        "fixedchannels": ({"Allen": 1e-3, "HPA": 1e-4, "CP": 1e-4}, 0.3),
        "depthwise": (4e-4, 0.07),
        "targetparam": (2e-4, 0.07),
        "sliceparam": (1e-4, 0.15),
        "templatemixing": (1e-4, 0.05),
        "hypernet": (4e-4, 0.07),
    }
    for strategy, (rate, temperature) in settings.items():
        recipe = load_recipe(f"{strategy}-finetuned")
        assert (recipe.learning_rate, recipe.temperature) == (rate, temperature)
        assert recipe.backbone == "convnext_tiny.fb_in22k"


def test_fields_can_be_changed_and_what_is_resolved_reads_the_same(tmp_path: Path) -> None:
    changes = ["epochs=7", "learning_rate={ CP = 1e-3 }", "flips=all", "pooling = max"]
    recipe = load_recipe("hypernet-swad", changes=changes, as_published=True, init='some "file".pt')
    assert (recipe.epochs, recipe.learning_rate, recipe.flips) == (7, {"CP": 1e-3}, "all")
    assert (recipe.init, recipe.pooling, recipe.swad_learning_rate) == ('some "file".pt', "max", 0.05)
    write_recipe(recipe, tmp_path / "recipe.json")
    assert load_recipe(str(tmp_path / "recipe.json")) == recipe


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("hypernet-finetune", [], r"no recipe 'hypernet-finetune' \(did you mean hypernet-finetuned"),
        ("absent.toml", [], r"absent\.toml: the recipe cannot be read: No such file"),
        ("broken.toml", [], r"broken\.toml: is not a recipe: "),
        ("hypernet-tps", ["epoch=3"], r"recipe hypernet-tps: there is no field 'epoch' \(did you mean epochs"),
        ("hypernet-tps", ["epochs"], "'epochs' is not FIELD=VALUE"),
        ("hypernet-tps", ["epochs=many"], r"recipe hypernet-tps: expected `int`, got `str` - at `\$\.epochs`"),
        ("hypernet-tps", ["batch_size=0"], r"expected `int` >= 1 - at `\$\.batch_size`"),
        ("hypernet-tps", ["seed=-1"], r"expected `int` >= 0 - at `\$\.seed`"),
        ("hypernet-tps", ["crop_area=[1.0, 0.5]"], "crop_area must rise from above 0, not 1.0 to 0.5"),
        ("hypernet-tps", ["size=8"], "size must be at least 16 pixels for training, not 8"),
        ("hypernet-swad", ["epochs=5"], "swad_from must be below the 5 epochs, not 5"),
        ("hypernet-miro", ["miro_layers=[]"], "miro_layers must name a layer"),
        ("channelreplication", ["epochs=1"], "channelreplication trains nothing: its epochs are 0"),
        ("extends.toml", [], r"extends\.toml: extends is a list of recipes"),
    ],
)
def test_what_is_wrong_is_one_sentence(
    name: str, changes: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.toml").write_text("epochs = = 3")
    (tmp_path / "extends.toml").write_text('extends = "hypernet-tps"')
    with pytest.raises(RecipeError, match=message) as caught:
        load_recipe(name, changes=changes)
    assert "\n" not in str(caught.value)
