"""Each loss against its definition by loops and its gradients against finite differences, in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import Tensor  # noqa: E402

from chammi_fast.training.losses import ProxyNCA, simclr, simclr_as_published  # noqa: E402

Loss = Callable[..., Tensor]


def proxy_nca_by_loops(points: np.ndarray, proxies: np.ndarray, labels: list[int], scale: float) -> float:
    """Mean over images of -log softmax(-|s x - s p|^2) at the image's class."""
    total = 0.0
    for point, label in zip(points, labels, strict=True):
        place = scale * point / np.sqrt((point**2).sum())
        logits = np.array([-((place - scale * p / np.sqrt((p**2).sum())) ** 2).sum() for p in proxies])
        total -= logits[label] - np.log(np.exp(logits).sum())
    return total / len(labels)


def info_nce_by_loops(views: np.ndarray, partners: list[int], temperature: float) -> float:
    """Mean over views of -log (exp(similarity to the partner / T) / sum over all others of exp(similarity / T))."""
    total = 0.0
    for i, partner in enumerate(partners):
        similar = [float(v @ views[i] / np.linalg.norm(v) / np.linalg.norm(views[i])) / temperature for v in views]
        total -= similar[partner] - np.log(sum(np.exp(s) for k, s in enumerate(similar) if k != i))
    return total / len(partners)


def assert_gradients_are_right(value: Loss, *arguments: Tensor) -> None:
    """Compare with gradcheck, and with central differences that know nothing of torch's own."""
    leaves = [argument.detach().clone().requires_grad_() for argument in arguments]
    assert torch.autograd.gradcheck(value, leaves)
    gradients = torch.autograd.grad(value(*leaves), leaves)
    step = 1e-6
    for place, (leaf, gradient) in enumerate(zip(leaves, gradients, strict=True)):
        expected = np.empty(leaf.numel())
        for i in range(leaf.numel()):
            ends = []
            for sign in (1, -1):
                moved = [argument.detach().clone() for argument in arguments]
                moved[place].view(-1)[i] += sign * step
                ends.append(float(value(*moved)))
            expected[i] = (ends[0] - ends[1]) / (2 * step)
        assert np.abs(expected).max() > 1e-3
        np.testing.assert_allclose(gradient.numpy().ravel(), expected, rtol=1e-6, atol=1e-8)


def normal(*shape: int, seed: int = 0) -> Tensor:
    values: Tensor = torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return values


@pytest.mark.parametrize(("scale", "multiplier"), [("sqrt", (1 / 0.3) ** 0.5), ("published", 1 / 0.3)])
def test_proxy_nca_equals_its_definition(scale: Any, multiplier: float) -> None:
    loss = ProxyNCA(5, 7, temperature=0.3, scale=scale).double()
    points, labels = normal(6, 7), [0, 4, 2, 2, 1, 3]
    found = float(loss(points, torch.tensor(labels)).detach())
    expected = proxy_nca_by_loops(points.numpy(), loss.proxies.detach().numpy(), labels, multiplier)
    assert found == pytest.approx(expected, rel=1e-6)  # log T is kept in float32


def test_proxy_nca_in_float64_is_exact() -> None:
    loss = ProxyNCA(5, 7).double()
    loss.log_temperature.data.fill_(np.log(0.3))
    points, labels = normal(6, 7), [0, 4, 2, 2, 1, 3]
    found = float(loss(points, torch.tensor(labels)).detach())
    expected = proxy_nca_by_loops(points.numpy(), loss.proxies.detach().numpy(), labels, 0.3**-0.5)
    assert found == pytest.approx(expected, rel=1e-12)


def test_proxies_start_with_the_published_deviation() -> None:
    assert ProxyNCA(14, 768).proxies.detach().std() == pytest.approx(1 / 8, rel=0.05)


@pytest.mark.parametrize("scale", ["sqrt", "published"])
def test_proxy_nca_gradients_equal_finite_differences(scale: Any) -> None:
    loss = ProxyNCA(4, 5, temperature=0.5, learn_temperature=True, scale=scale).double()
    labels = torch.tensor([1, 3, 0])

    def value(points: Tensor, proxies: Tensor, log_temperature: Tensor) -> Any:
        parameters = {"proxies": proxies, "log_temperature": log_temperature}
        return torch.func.functional_call(loss, parameters, (points, labels))

    assert_gradients_are_right(value, normal(3, 5, seed=1), normal(4, 5, seed=2), loss.log_temperature)


def test_the_temperature_is_trained_only_where_that_is_asked_for() -> None:
    for learn in (False, True):
        loss = ProxyNCA(4, 5, learn_temperature=learn)
        loss(torch.randn(3, 5), torch.tensor([1, 3, 0])).backward()
        assert dict(loss.named_parameters()).keys() == {"proxies", "log_temperature"}
        assert loss.proxies.grad is not None
        assert (loss.log_temperature.grad is not None) == learn


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_simclr_equals_its_definition(count: int, temperature: float) -> None:
    first, second = normal(count, 6), normal(count, 6, seed=1)
    views = torch.cat([first, second]).numpy()
    partners = [*range(count, 2 * count), *range(count)]
    expected = info_nce_by_loops(views, partners, temperature)
    assert float(simclr(first, second, temperature)) == pytest.approx(expected, rel=1e-12, abs=1e-14)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_simclr_as_published_pairs_different_images(count: int) -> None:
    first, second = normal(count, 6), normal(count, 6, seed=1)
    views = np.stack([view for pair in zip(first.numpy(), second.numpy(), strict=True) for view in pair])
    partners = [(row + count) % (2 * count) for row in range(2 * count)]
    expected = info_nce_by_loops(views, partners, 0.07)
    assert float(simclr_as_published(first, second, 0.07)) == pytest.approx(expected, rel=1e-12, abs=1e-14)


@pytest.mark.parametrize("loss", [simclr, simclr_as_published])
def test_simclr_gradients_equal_finite_differences(loss: Loss) -> None:
    def value(first: Tensor, second: Tensor) -> Tensor:
        return loss(first, second, 0.4)

    assert_gradients_are_right(value, normal(3, 4), normal(3, 4, seed=1))


def test_only_true_pairs_make_simclr_small() -> None:
    first = normal(8, 32)
    second = first + 0.01 * normal(8, 32, seed=1)
    assert float(simclr(first, second)) < 1e-3
    assert float(simclr(first, second.roll(1, dims=0))) > 5
    assert float(simclr_as_published(first, second)) > 5
    same = torch.randperm(8, generator=torch.Generator().manual_seed(2))
    assert float(simclr(first[same], second[same])) == pytest.approx(float(simclr(first, second)), rel=1e-9)


def test_views_of_unequal_number_are_refused() -> None:
    with pytest.raises(RuntimeError, match="equal size"):
        simclr(torch.zeros(3, 4), torch.zeros(1, 4))


def test_one_image_gives_no_loss_and_no_gradient() -> None:
    first, second = normal(1, 4).requires_grad_(), normal(1, 4, seed=1).requires_grad_()
    value = simclr(first, second)
    assert float(value.detach()) == 0
    assert not any(gradient.any() for gradient in torch.autograd.grad(value, (first, second)))


@pytest.mark.parametrize("name", ["proxy_nca", "simclr", "simclr_as_published"])
def test_16_bit_embeddings_are_computed_in_float32(name: str) -> None:
    torch.manual_seed(0)
    supervised, labels = ProxyNCA(5, 64), torch.tensor([0, 4, 2, 2, 1, 3])
    second = normal(6, 64, seed=1).bfloat16()
    losses: dict[str, Loss] = {
        "proxy_nca": lambda points: supervised(points, labels),
        "simclr": lambda points: simclr(points, second.to(points.dtype)),
        "simclr_as_published": lambda points: simclr_as_published(points, second.to(points.dtype)),
    }
    points = normal(6, 64).bfloat16().requires_grad_()
    expected = losses[name](points.detach().float()).detach()
    with torch.autocast("cpu", torch.bfloat16):
        found = losses[name](points)
    assert found.dtype == torch.float32
    assert torch.equal(found.detach(), expected)
    (gradient,) = torch.autograd.grad(found, points)
    assert gradient.any()
