"""The loop, the objective and whole runs: what they compute, how they go on, and what they refuse."""

from __future__ import annotations

import copy
import dataclasses
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("timm")
pytest.importorskip("accelerate")

import msgspec  # noqa: E402

from chammi_fast.errors import ExportError, RecipeError, TrainingError  # noqa: E402
from chammi_fast.training.batches import EpochBatches  # noqa: E402
from chammi_fast.training.loop import Hooks, Log, Trainer, train  # noqa: E402
from chammi_fast.training.losses import simclr  # noqa: E402
from chammi_fast.training.objective import Objective  # noqa: E402
from chammi_fast.training.optimisation import parameter_groups, rate  # noqa: E402
from chammi_fast.training.strategies import STRATEGIES  # noqa: E402
from training_cells import network_for, painted_set, small_recipe  # noqa: E402

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn

    from chammi_fast.training.data import TrainingSet
    from chammi_fast.training.network import ChannelAdaptiveNetwork
    from chammi_fast.training.recipe import Recipe

NARROW = {"depths": (1, 1, 1, 1), "dims": (8, 8, 8, 8)}
TRAINED = [name for name in STRATEGIES if name != "channelreplication"]


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> list[TrainingSet]:
    folder = tmp_path_factory.mktemp("cells")
    return [painted_set(folder, "Allen", 20), painted_set(folder, "CP", 28)]


def trained(
    recipe: Recipe, sets: list[TrainingSet], hooks: Hooks | None = None
) -> tuple[ChannelAdaptiveNetwork, list[Log]]:
    network, spec = network_for(recipe, sets)
    return train(network, spec, sets, recipe, hooks)


def states_equal(one: nn.Module, other: nn.Module) -> bool:
    theirs = other.state_dict()
    return all(torch.equal(value, theirs[key]) for key, value in one.state_dict().items())


@pytest.mark.parametrize("strategy", TRAINED)
def test_every_strategy_learns_and_is_the_same_every_time(strategy: str, sets: list[TrainingSet]) -> None:
    recipe = small_recipe(strategy=strategy, epochs=8, batch_size=12, proxies="own" if strategy[0] == "f" else "all")
    start, _ = network_for(recipe, sets)
    (network, log), (again, _) = trained(recipe, sets), trained(recipe, sets)
    assert log[-1].loss < 0.85 * log[0].loss
    assert [one.epoch for one in log] == list(range(1, 9))
    assert states_equal(network, again)
    moved = [not torch.equal(a, b) for a, b in zip(network.parameters(), start.parameters(), strict=True)]
    assert all(moved)
    assert not network.training


def test_a_batch_s_loss_is_the_sum_of_its_data_sets_mean_losses(sets: list[TrainingSet]) -> None:
    recipe = small_recipe(proxies="all", ssl_weight=0.3)
    network, spec = network_for(recipe, sets)
    objective = Objective(network, spec, sets, recipe)
    parts = next(iter(EpochBatches(sets, recipe, 0)))
    assert len(parts) == 2
    expected = 0.0
    proxies = objective.get_parameter("losses.0.proxies").detach().double().numpy()
    for part in parts:
        ids = torch.tensor([spec.token_ids[name] for name in spec.configurations[part.configuration]])
        with torch.no_grad():
            points = network(part.images, ids)
        first, second = points.chunk(2)
        contrast = float(simclr(first, second, recipe.ssl_temperature))
        unit = points.double().numpy() / np.linalg.norm(points.double().numpy(), axis=1, keepdims=True)
        near = proxies / np.linalg.norm(proxies, axis=1, keepdims=True)
        logits = -((unit[:, None] - near) ** 2).sum(2) / recipe.temperature
        labels = np.tile(part.labels.numpy(), 2)
        chosen = logits[np.arange(len(labels)), labels] - np.log(np.exp(logits).sum(1))
        expected += 0.3 * contrast - 0.7 * chosen.mean()
    assert float(objective(parts).detach()) == pytest.approx(expected, rel=1e-5)


def test_own_proxies_are_told_apart_from_the_data_set_s_own_classes(sets: list[TrainingSet]) -> None:
    recipe = small_recipe(strategy="fixedchannels", proxies="own")
    network, spec = network_for(recipe, sets)
    objective = Objective(network, spec, sets, recipe)
    shapes = {name: tuple(one.shape) for name, one in objective.losses.named_parameters() if name.endswith("proxies")}
    assert shapes == {"0.proxies": (6, 32), "1.proxies": (4, 32)}
    assert math.isfinite(float(objective(next(iter(EpochBatches(sets, recipe, 0)))).detach()))


def test_miro_holds_the_network_near_its_start(sets: list[TrainingSet]) -> None:
    def moved(weight: float) -> float:
        recipe = small_recipe(miro_weight=weight, miro_layers=[0, 1, 2, 3], epochs=4)
        start, spec = network_for(recipe, sets)
        network, _ = trained(recipe, sets)
        ids = torch.tensor([spec.token_ids[name] for name in spec.configurations["CP"]])
        images = next(iter(EpochBatches(sets, recipe, 9)))[-1].images
        with torch.no_grad():
            one, other = (_stages(net.eval(), images, ids) for net in (network, start))
        return float((one - other).square().mean())

    assert moved(100.0) < 0.5 * moved(1e-9)


def _stages(network: Any, images: Tensor, ids: Tensor) -> Any:
    maps = network.body.model.stem(network.strategy(images, ids))
    return network.body.model.stages[:3](maps)


def test_miro_layers_that_are_not_there_are_told(sets: list[TrainingSet]) -> None:
    with pytest.raises(RecipeError, match="miro_layers: the backbone has 4 stages, not 7"):
        trained(small_recipe(miro_weight=0.1, miro_layers=[7]), sets)


def test_frozen_parameters_stay(sets: list[TrainingSet]) -> None:
    recipe = small_recipe(strategy="sliceparam", frozen=["losses.*", "network.strategy.offsets.*"], epochs=2)
    network, spec = network_for(recipe, sets)
    before = copy.deepcopy(network.state_dict())
    trainer = Trainer(network, spec, sets, recipe, Hooks())
    proxies = trainer._own.get_parameter("losses.0.proxies").detach().clone()
    trainer.run_epoch(0)
    after = trainer.result().state_dict()
    assert torch.equal(after["strategy.offsets.rows"], before["strategy.offsets.rows"])
    assert not torch.equal(after["strategy.bank.rows"], before["strategy.bank.rows"])
    assert torch.equal(trainer._own.get_parameter("losses.0.proxies"), proxies)


def test_swad_averages_the_weights_of_every_step_from_its_epoch_on(sets: list[TrainingSet]) -> None:
    recipe = small_recipe(swad_from=1, epochs=2)
    network, spec = network_for(recipe, sets)
    seen: list[dict[str, Tensor]] = []

    def note(epoch: int, step: int, steps: int, loss: float) -> None:
        assert (1 <= step <= steps, math.isfinite(loss)) == (True, True)
        if epoch == 2:
            seen.append({key: value.double().clone() for key, value in network.state_dict().items()})

    result, _ = train(network, spec, sets, recipe, Hooks(progress=note))
    assert len(seen) == 6
    for key, value in result.state_dict().items():
        mean = sum(one[key] for one in seen) / len(seen)
        torch.testing.assert_close(value.double(), mean, atol=1e-6, rtol=1e-5)


def test_learning_rate_rises_and_falls_as_the_paper_says() -> None:
    recipe = small_recipe(learning_rate=4e-4, epochs=15, warmup_epochs=3, schedule="epoch", learning_rate_end=1e-6)
    rates = [rate(recipe, 4e-4, epoch, 5, 10) for epoch in range(15)]
    rising = [1e-5 + (4e-4 - 1e-5) * epoch / 3 for epoch in range(3)]
    falling = [1e-6 + (4e-4 - 1e-6) * (1 + math.cos(math.pi * epoch / 12)) / 2 for epoch in range(12)]
    np.testing.assert_allclose(rates, rising + falling)
    fine = msgspec.structs.replace(recipe, schedule="step")
    assert rate(fine, 4e-4, 3, 0, 10) == pytest.approx(4e-4)
    assert rate(fine, 4e-4, 14, 9, 10) == pytest.approx(1e-6, rel=0.1)
    swad = msgspec.structs.replace(recipe, swad_from=5, swad_learning_rate=1e-4)
    assert [rate(swad, 4e-4, epoch, 0, 10) for epoch in (5, 9, 14)] == pytest.approx([1e-4] * 3)


def test_accumulated_batches_make_one_step(sets: list[TrainingSet]) -> None:
    """Two batches of 24 with their mean gradient: the first step's weights equal AdamW's on that gradient."""
    recipe = small_recipe(accumulate=2, epochs=1, warmup_epochs=0, learning_rate_end=3e-3, batch_size=24)
    network, spec = network_for(recipe, sets)
    trainer = Trainer(network, spec, sets, recipe, Hooks())
    objective = copy.deepcopy(trainer._own).train()
    for parts in EpochBatches(sets, recipe, 0):
        (objective(parts) / 2).backward()
    trainer.run_epoch(0)
    start = dict(network_for(recipe, sets)[0].named_parameters())
    for (name, found), (_, twin) in zip(
        trainer._own.network.named_parameters(), objective.network.named_parameters(), strict=True
    ):
        assert twin.grad is not None
        decayed = start[name] * (1 - 3e-3 * recipe.weight_decay)
        expected = decayed - 3e-3 * twin.grad / (twin.grad.abs() + 1e-8)
        large = twin.grad.abs() > 1e-5
        torch.testing.assert_close(found[large], expected[large], atol=2e-5, rtol=0)


def test_bf16_trains(sets: list[TrainingSet]) -> None:
    _, log = trained(small_recipe(precision="bf16", epochs=6), sets)
    assert log[-1].loss < log[0].loss


def test_too_few_images_and_a_loss_that_is_no_number_are_told(sets: list[TrainingSet]) -> None:
    with pytest.raises(TrainingError, match="there are 48 training images, less than one batch of 64"):
        trained(small_recipe(batch_size=64), sets)
    with pytest.raises(TrainingError, match=r"no numbers in epoch 1, step \d: try a lower learning_rate"):
        trained(small_recipe(learning_rate=1e30, warmup_epochs=0), sets)


def test_checkpoints_of_another_training_are_refused(sets: list[TrainingSet], tmp_path: Path) -> None:
    hooks = Hooks(checkpoint=tmp_path / "checkpoint.pt")
    recipe = small_recipe(epochs=1)
    trained(recipe, sets, hooks)
    with pytest.raises(TrainingError, match=r"checkpoint\.pt: belongs to a training with another recipe"):
        trained(small_recipe(epochs=2), sets, hooks)
    other = dataclasses.replace(sets[0], classes=("M0", "M1M2", "M3", "M4M5", "M6M7_complete", "new"))
    with pytest.raises(TrainingError, match="other classes or data sets"):
        trained(recipe, [other, sets[1]], hooks)
    darker = dataclasses.replace(sets[0].configuration, mean=(0.1, 0.1, 0.1))
    with pytest.raises(TrainingError, match="belongs to a training with other images"):
        trained(recipe, [dataclasses.replace(sets[0], configuration=darker), sets[1]], hooks)
    (tmp_path / "checkpoint.pt").write_bytes(b"half")
    with pytest.raises(ExportError, match=r"checkpoint\.pt: is not a file of weights"):
        trained(recipe, sets, hooks)


class Killed(Exception):  # noqa: N818 - no error
    pass


@pytest.mark.parametrize("last", [1, 2])
def test_an_epoch_whose_evaluation_was_stopped_is_scored_and_logged_later(
    last: int, sets: list[TrainingSet], tmp_path: Path
) -> None:
    recipe = small_recipe(epochs=2, swad_from=1)
    seen: list[list[tuple[int, float | None]]] = []
    scored: list[dict[str, Tensor]] = []

    def hooks(dies_at: int) -> Hooks:
        def evaluate(network: ChannelAdaptiveNetwork) -> float:
            if len(scored) + 1 == dies_at:
                raise Killed
            scored.append({key: value.clone() for key, value in network.state_dict().items()})
            return len(scored) / 10

        return Hooks(
            checkpoint=tmp_path / "checkpoint.pt",
            evaluate=evaluate,
            evaluate_every=1,
            logged=lambda log: seen.append([(one.epoch, one.score) for one in log]),
        )

    with pytest.raises(Killed):
        trained(recipe, sets, hooks(last))
    assert len(seen) == last - 1
    _, log = trained(recipe, sets, hooks(0))
    assert seen == [[(1, 0.1)], [(1, 0.1), (2, 0.2)]]
    assert [one.score for one in log] == [0.1, 0.2]
    whole, _ = trained(recipe, sets)
    assert all(torch.equal(value, scored[-1][key]) for key, value in whole.state_dict().items())


def test_an_epoch_that_was_scored_is_not_scored_again(sets: list[TrainingSet], tmp_path: Path) -> None:
    recipe, scores = small_recipe(epochs=2), iter((0.1, 0.2))
    for _ in range(2):
        hooks = Hooks(checkpoint=tmp_path / "checkpoint.pt", evaluate=lambda _: next(scores), evaluate_every=1)
        _, log = trained(recipe, sets, hooks)
        assert [one.score for one in log] == [0.1, 0.2]


MORE = [
    {"tps": 0.5, "flips": "all", "ssl_weight": 0.2},
    {"swad_from": 1, "tps": 0.5},
    {"miro_weight": 0.1, "accumulate": 2, "learn_temperature": True},
    {"strategy": "fixedchannels", "proxies": "own", "backbone": "mobilenetv2_035", "backbone_options": {}, "size": 48},
]


@pytest.mark.parametrize("changes", MORE)
def test_a_training_taken_up_within_an_epoch_ends_bit_by_bit_the_same(
    changes: dict[str, Any], sets: list[TrainingSet], tmp_path: Path
) -> None:
    recipe = small_recipe(**changes)
    whole, log = trained(recipe, sets)

    class Stopped(Exception):  # noqa: N818 - no error
        pass

    def stop(epoch: int, step: int, *_: Any) -> None:
        if (epoch, step) in stops:
            stops.remove((epoch, step))
            raise Stopped

    stops = [(1, 3), (2, 5), (3, 2)]
    hooks = Hooks(progress=stop, checkpoint=tmp_path / "checkpoint.pt", save_every_s=0)
    for _ in range(3):
        with pytest.raises(Stopped):
            trained(recipe, sets, hooks)
    resumed, again = trained(recipe, sets, hooks)
    assert states_equal(whole, resumed)
    assert [one.loss for one in log] == pytest.approx([one.loss for one in again], rel=1e-12)


def test_rates_belong_to_configurations_proxies_and_variances(sets: list[TrainingSet]) -> None:
    rates = {"Allen": 1e-3, "CP": 1e-4}
    recipe = small_recipe(strategy="fixedchannels", proxies="own", learning_rate=rates, miro_weight=0.1, proxy_rate=5)
    network, spec = network_for(recipe, sets)
    objective = Objective(network, spec, sets, recipe)
    groups = parameter_groups(objective, recipe)
    names = {id(parameter): name for name, parameter in objective.named_parameters()}
    height = {names[id(one)]: group["lr"] for group in groups for one in group["params"]}
    decay = {names[id(one)]: group["weight_decay"] for group in groups for one in group["params"]}
    assert height["network.body.bodies.0.model.stem.1.weight"] == pytest.approx(1e-3)
    assert height["network.body.bodies.1.model.stem.1.weight"] == pytest.approx(1e-4)
    assert height["network.strategy.filters.rows"] == pytest.approx(1e-4)
    assert (height["losses.0.proxies"], height["losses.1.proxies"]) == pytest.approx((5e-3, 5e-4))
    assert height["miro.raw_variances.0"] == pytest.approx(1e-3)
    assert (decay["miro.raw_variances.0"], decay["losses.0.proxies"]) == (0, recipe.weight_decay)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"strategy": "fixedchannels", "learning_rate": {"Allen": 1e-3}}, "learning_rate: has none for CP"),
        ({"learning_rate": {"Allen": 1e-3, "CP": 1e-3}}, "learning_rate: hypernet has one body for all"),
        ({"frozen": ["nothing.*"]}, r"frozen: no parameter has a name like 'nothing\.\*'"),
        ({"frozen": ["*"]}, "frozen: nothing is left to train"),
        ({"ssl_weight": 0.2, "supervised": "cross_entropy", "backbone_options": NARROW}, "has no room for 10 classes"),
    ],
)
def test_recipes_that_do_not_fit_are_told(changes: dict[str, Any], message: str, sets: list[TrainingSet]) -> None:
    with pytest.raises(RecipeError, match=message):
        trained(small_recipe(**changes), sets)


def test_averages_of_integer_buffers_are_taken_as_on_a_gpu(sets: list[TrainingSet]) -> None:
    """Batch norm counts batches in an integer, which the averages that GPUs take by default refuse."""
    recipe = small_recipe(swad_from=1, backbone="mobilenetv2_035", backbone_options={}, size=48, epochs=2)
    network, spec = network_for(recipe, sets)
    trainer = Trainer(network, spec, sets, recipe, Hooks())
    assert trainer._average is not None
    assert trainer._average.avg_fn is not None
    trainer.run_epoch(0)
    trainer.run_epoch(1)
    assert int(trainer._average.n_averaged) == 6


def test_a_process_without_images_has_a_loss_of_zero_and_gradients(sets: list[TrainingSet]) -> None:
    recipe = small_recipe()
    network, spec = network_for(recipe, sets)
    objective = Objective(network, spec, sets, recipe)
    objective([]).backward()
    assert all(one.grad is not None and not one.grad.any() for one in objective.parameters() if one.requires_grad)
