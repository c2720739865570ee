"""The regulariser of MIRO against its definition, and the collection of features."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402

from chammi_fast.training.miro import MutualInformation, collect  # noqa: E402

SHAPES = [(3, 4, 5, 2), (3, 6, 7)]  # maps of 4 channels, tokens of 7


def feature_pairs(seed: int = 0) -> tuple[list[Tensor], list[Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    first, second = (
        [torch.randn(shape, dtype=torch.float64, generator=generator) for shape in SHAPES] for _ in range(2)
    )
    return first, second


def by_definition(features: list[Tensor], reference: list[Tensor], variances: list[np.ndarray]) -> float:
    total = 0.0
    for feature, fixed, variance in zip(features, reference, variances, strict=True):
        axis = 1 if feature.ndim == 4 else 2
        terms = []
        for channel, v in enumerate(variance):
            difference = np.take(feature.numpy(), channel, axis) - np.take(fixed.numpy(), channel, axis)
            terms.append(difference**2 / v + np.log(v))
        total += float(np.mean(terms)) / 2
    return total


def test_the_loss_equals_its_definition_and_starts_with_a_variance_of_a_tenth() -> None:
    features, reference = feature_pairs()
    loss = MutualInformation([4, 7]).double()
    expected = by_definition(features, reference, [np.full(4, 0.1), np.full(7, 0.1)])
    assert float(loss(features, reference).detach()) == pytest.approx(expected, rel=1e-6)  # b is rounded to float32
    raw = [np.linspace(-2, 1, 4), np.linspace(0.5, -3, 7)]
    for parameter, values in zip(loss.raw_variances, raw, strict=True):
        parameter.data.copy_(torch.from_numpy(values))
    expected = by_definition(features, reference, [np.log1p(np.exp(values)) + 1e-5 for values in raw])
    assert float(loss(features, reference).detach()) == pytest.approx(expected, rel=1e-12)


def test_gradients_equal_finite_differences() -> None:
    features, reference = feature_pairs()
    loss = MutualInformation([4, 7]).double()

    def value(*leaves: Tensor) -> Any:
        raw = {f"raw_variances.{place}": leaf for place, leaf in enumerate(leaves[2:])}
        return torch.func.functional_call(loss, raw, (leaves[:2], reference))

    leaves = [tensor.detach().clone().requires_grad_() for tensor in (*features, *loss.raw_variances)]
    assert torch.autograd.gradcheck(value, leaves)


def test_trained_variances_become_the_mean_squared_differences() -> None:
    """Where the bound is tightest: v = mean((f - f0)^2) of each channel."""
    features, reference = feature_pairs()
    loss = MutualInformation([4, 7]).double()
    optimiser = torch.optim.LBFGS(loss.parameters(), max_iter=100, line_search_fn="strong_wolfe")

    def step() -> float:
        optimiser.zero_grad()
        value = loss(features, reference)
        value.backward()
        return float(value.detach())

    optimiser.step(step)
    for raw, feature, fixed, axes in zip(loss.raw_variances, features, reference, [(0, 2, 3), (0, 1)], strict=True):
        expected = (feature - fixed).square().mean(axes)
        torch.testing.assert_close(nn.functional.softplus(raw.detach()) + 1e-5, expected, rtol=1e-3, atol=0)


def test_the_reference_gets_no_gradient_and_16_bits_are_computed_in_float32() -> None:
    features, reference = ([t.bfloat16().requires_grad_() for t in ts] for ts in feature_pairs())
    loss = MutualInformation([4, 7])
    expected = loss([t.detach().float() for t in features], [t.detach().float() for t in reference])
    with torch.autocast("cpu", torch.bfloat16):
        found = loss(features, reference)
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)
    found.backward()
    assert all(t.grad is None for t in reference)
    assert all(t.grad is not None and t.grad.any() for t in (*features, *loss.raw_variances))


@pytest.mark.parametrize("given", [(1, 1), (2, 1), (1, 2)])
def test_layers_of_another_number_are_refused(given: tuple[int, int]) -> None:
    features, reference = feature_pairs()
    with pytest.raises(ValueError, match="zip"):
        MutualInformation([4, 7])(features[: given[0]], reference[: given[1]])


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 7, 3), nn.AdaptiveAvgPool2d(1))


def hooks_of(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) for module in model.modules())


def test_outputs_are_collected_in_order_for_each_pass() -> None:
    model = network()
    one, two = torch.rand(3, 2, 9, 9), torch.rand(1, 2, 6, 8)
    with collect([model[2], model[0]]) as of_one:
        model(one)
    with collect([model[2], model[0]]) as of_two:
        model(two)
    model(one)
    for images, found in ((one, of_one), (two, of_two)):
        assert len(found) == 2
        assert torch.equal(found[1], model[0](images))
        assert torch.equal(found[0], model[:3](images))
    assert hooks_of(model) == 0


def test_no_hook_outlives_an_error() -> None:
    model = network()
    with pytest.raises(RuntimeError, match="channels"), collect([model[0], model[2]]):
        model(torch.rand(1, 5, 9, 9))
    assert hooks_of(model) == 0


def test_a_second_pass_or_none_in_a_block_is_refused() -> None:
    model = network()
    with pytest.raises(RuntimeError, match=r"module 0 ran twice"), collect([model[0]]):
        model(torch.rand(1, 2, 9, 9))
        model(torch.rand(1, 2, 9, 9))
    with pytest.raises(RuntimeError, match=r"modules \[1\] did not run"), collect([model[0], model[2]]):
        model[0](torch.rand(1, 2, 9, 9))
    assert hooks_of(model) == 0


def test_the_twin_stays_frozen_while_the_network_is_held_near_it() -> None:
    model, twin = network(), network()
    loss = MutualInformation([4, 7])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1)
    optimiser = torch.optim.AdamW([*model.parameters(), *loss.parameters()], lr=0.01)
    values = []
    for _ in range(5):
        optimiser.zero_grad()
        total = torch.zeros(())
        for images in (torch.rand(3, 2, 9, 9), torch.rand(2, 2, 9, 9)):
            with collect([model[0], model[2]]) as features:
                model(images)
            with torch.no_grad(), collect([twin[0], twin[2]]) as reference:
                twin(images)
            total = total + loss(features, reference)
        total.backward()
        optimiser.step()
        values.append(float(total.detach()))
    assert values[-1] < values[0]
    assert all(parameter.grad is None for parameter in twin.parameters())
    assert all(torch.equal(a, b) for a, b in zip(twin.parameters(), network().parameters(), strict=True))
