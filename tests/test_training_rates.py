"""What every recipe trains and holds, and how fast as published: by the schedulers that the published runs used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("timm")
pytest.importorskip("accelerate")

from chammi_fast.errors import RecipeError  # noqa: E402
from chammi_fast.training.objective import Objective  # noqa: E402
from chammi_fast.training.optimisation import parameter_groups, rate  # noqa: E402
from chammi_fast.training.recipe import load_recipe, recipe_names  # noqa: E402
from training_cells import network_for, painted_set, small_recipe  # noqa: E402

if TYPE_CHECKING:
    from chammi_fast.training.data import TrainingSet


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> list[TrainingSet]:
    folder = tmp_path_factory.mktemp("cells")
    return [painted_set(folder, "Allen", 20), painted_set(folder, "CP", 28)]


PUBLISHED = {"epochs": 15, "warmup_epochs": 3, "learning_rate_end": 1e-6, "schedule": "published"}


def by_timm(peak: float, *, epochs: int, warmup: int, last: float) -> Any:
    """An optimiser and timm's own scheduler, set as in the published runs."""
    from timm.scheduler.cosine_lr import CosineLRScheduler

    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=peak)
    settings: dict[str, Any] = {"warmup_t": warmup, "warmup_lr_init": 1e-5, "warmup_prefix": False, "lr_min": last}
    return optimizer, CosineLRScheduler(optimizer, t_initial=epochs, **settings)


@pytest.mark.parametrize(("peak", "epochs", "warmup"), [(4e-4, 15, 3), (1e-3, 15, 3), (4e-4, 15, 0), (2e-4, 7, 5)])
def test_the_published_learning_rate_is_timm_s(peak: float, epochs: int, warmup: int) -> None:
    recipe = small_recipe(**PUBLISHED | {"epochs": epochs, "warmup_epochs": warmup})
    optimizer, scheduler = by_timm(peak, epochs=epochs, warmup=warmup, last=1e-6)
    for epoch in range(epochs):
        scheduler.step(epoch + 1)
        expected = optimizer.param_groups[0]["lr"]
        assert [rate(recipe, peak, epoch, step, 10) for step in (0, 9)] == pytest.approx([expected] * 2, rel=1e-9)
    assert expected == pytest.approx(1e-6)


@pytest.mark.parametrize(("start", "steps"), [(5, 4), (5, 30), (1, 3), (0, 6)])
def test_the_published_learning_rate_of_swad_is_torch_s(start: int, steps: int) -> None:
    from torch.optim.swa_utils import SWALR

    recipe = small_recipe(**PUBLISHED | {"swad_from": start, "swad_learning_rate": 0.05})
    optimizer, scheduler = by_timm(4e-4, epochs=15, warmup=3, last=1e-6)
    swalr = SWALR(optimizer, swa_lr=0.05)
    for epoch in range(15):
        if epoch < start:
            scheduler.step(epoch + 1)
        for step in range(steps):
            found = rate(recipe, 4e-4, epoch, step, steps)
            assert found == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-6), (epoch, step)
            if epoch >= start:
                optimizer.step()
                swalr.step()
    assert found == pytest.approx(0.05)


SLIGHT = (
    "backbone=convnext_atto",
    "backbone_options={ depths = [1, 1, 1, 1], dims = [8, 16, 24, 32] }",
    "size=32",
    "init=random",
    "proxy_rate=1",
)
STRATEGY_OPTIONS = [(), ("strategy_options={ offsets = false }",)]


@pytest.mark.parametrize("as_published", [False, True])
@pytest.mark.parametrize("name", [name for name in recipe_names() if name != "channelreplication"])
def test_every_recipe_has_something_to_train(name: str, as_published: bool, sets: list[TrainingSet]) -> None:
    for options in STRATEGY_OPTIONS if name.startswith("sliceparam") else STRATEGY_OPTIONS[:1]:
        recipe = load_recipe(name, as_published=as_published, changes=(*SLIGHT, *options))
        network, spec = network_for(recipe, sets)
        objective = Objective(network, spec, sets, recipe)
        free = {key: one for key, one in objective.named_parameters() if one.requires_grad}
        held = {
            key for key in free if key.startswith(("losses.", "network.strategy.offsets.", "network.strategy.norm."))
        }
        found = {id(one) for group in parameter_groups(objective, recipe) for one in group["params"]}
        assert found == {id(one) for key, one in free.items() if not (as_published and key in held)}
        assert found
        assert bool(objective.losses) == (recipe.ssl_weight < 1 and recipe.supervised == "proxynca")


def test_patterns_of_a_user_s_own_must_name_a_parameter(sets: list[TrainingSet]) -> None:
    recipe = load_recipe("hypernet-ssl", as_published=True, changes=(*SLIGHT, 'frozen=["losses.*"]'))
    objective = Objective(*network_for(recipe, sets), sets, recipe)
    with pytest.raises(RecipeError, match=r"frozen: no parameter has a name like 'losses\.\*'"):
        parameter_groups(objective, recipe)
