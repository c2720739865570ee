"""Strategies against definitions written from the published formulas."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("timm")

from chammi_fast.chammi import DATA_SETS  # noqa: E402
from chammi_fast.errors import ExportError  # noqa: E402
from chammi_fast.training.create import NetworkOptions, create_network, tokens_of  # noqa: E402
from chammi_fast.training.strategies import HyperNet, StemShape, create_strategy  # noqa: E402
from networks import SMALL, small_network  # noqa: E402

TOKENS = tokens_of(DATA_SETS.values())
STEM = StemShape(out_channels=96, kernel=(4, 4), stride=(4, 4), padding=(0, 0))
NAMES = [token.name for token in TOKENS]


def hypernet_by_loops(strategy: HyperNet, ids: list[int]) -> np.ndarray:
    """weight[o, c] = sum_d (z_c W + b)_d W_out[d, o] + b_out[o], in float64."""
    z, w, b, w_out, b_out = (
        tensor.detach().double().numpy()
        for tensor in (strategy.embedding.rows, strategy.W, strategy.b, strategy.W_out, strategy.b_out)
    )
    w_out, b_out = w_out.reshape(-1, 96, 4, 4), b_out.reshape(96, 4, 4)
    weight = np.empty((96, len(ids), 4, 4))
    for place, token_id in enumerate(ids):
        token = TOKENS[token_id]
        members = [NAMES.index(name) for name in token.members] or [token_id]
        embedding = sum(z[i] for i in members) / len(members)
        hidden = embedding @ w + b
        for o in range(96):
            weight[o, place] = np.tensordot(hidden, w_out[:, o], axes=1) + b_out[o]
    return weight


@pytest.mark.parametrize(
    "names",
    [
        ["Allen/nucleus", "Allen/membrane", "Allen/protein"],
        ["CP/mito", "CP/nucleus"],
        ["nucleus", "protein", "er", "*"],
        ["HPA/er", "HPA/er"],
    ],
)
def test_hypernet_weights_equal_their_definition(names: list[str]) -> None:
    torch.manual_seed(3)
    strategy = HyperNet(STEM, TOKENS)
    ids = [NAMES.index(name) for name in names]
    weight = strategy.weight(torch.tensor(ids)).detach().numpy()
    expected = hypernet_by_loops(strategy, ids)
    assert weight.shape == (96, len(ids), 4, 4)
    np.testing.assert_allclose(weight, expected, atol=1e-5 * np.abs(expected).max())


def test_hypernet_starts_as_published() -> None:
    torch.manual_seed(0)
    strategy = HyperNet(STEM, TOKENS)
    shapes = {name: tuple(parameter.shape) for name, parameter in strategy.named_parameters()}
    assert shapes == {
        "embedding.rows": (12, 128),
        "W": (128, 256),
        "b": (256,),
        "W_out": (256, 1536),
        "b_out": (1536,),
    }
    stds = {name: float(parameter.detach().std()) for name, parameter in strategy.named_parameters()}
    for name, std in {"embedding.rows": 1, "W": (2 / 256) ** 0.5, "W_out": (2 / 1536) ** 0.5, "b_out": 1}.items():
        assert stds[name] == pytest.approx(std, rel=0.05), name


def test_average_tokens_have_no_weights_of_their_own_and_follow_their_members() -> None:
    strategy = HyperNet(STEM, TOKENS)
    nucleus = torch.tensor([NAMES.index("nucleus")])
    (gradient,) = torch.autograd.grad(strategy.weight(nucleus).sum(), strategy.embedding.rows)
    moved = {NAMES[i] for i in range(12) if gradient[i].abs().max() > 0}
    assert moved == {"Allen/nucleus", "HPA/nucleus", "CP/nucleus"}


def test_completing_the_tokens_changes_no_weight() -> None:
    strategy = HyperNet(STEM, TOKENS)
    every = torch.arange(len(TOKENS))
    before = strategy.weight(every)
    strategy.embedding.complete()
    assert strategy.embedding.rows.shape == (len(TOKENS), 128)
    assert torch.equal(before, strategy.weight(every))


def test_a_vocabulary_without_averages_works() -> None:
    plain = TOKENS[:3]
    assert create_strategy("hypernet", STEM, plain).weight(torch.tensor([2, 0])).shape == (96, 2, 4, 4)


def test_unknown_strategy_is_named() -> None:
    with pytest.raises(ExportError, match=r"no strategy 'hypernett': choose from hypernet\."):
        create_strategy("hypernett", STEM, TOKENS)


def test_published_network_has_the_published_number_of_weights() -> None:
    network, spec = create_network(NetworkOptions())
    proxies = 14 * 768  # counted in the published 28,253,952, but no part of the network that embeds
    assert sum(parameter.numel() for parameter in network.parameters()) == 28_253_952 - proxies
    assert spec.embedding_size == 768


@pytest.mark.parametrize("pooling", ["avg", "max", "avgmax"])
def test_network_equals_timm_with_the_same_stem(pooling: str) -> None:
    """The body, cut from timm's ConvNeXt, still computes what timm computes."""
    import timm

    network, spec = small_network(pooling)
    ids = [spec.token_ids[name] for name in spec.configurations["HPA"]]
    peer = timm.create_model(SMALL.backbone, in_chans=4, num_classes=0, global_pool="", **SMALL.backbone_options).eval()
    peer.head = torch.nn.Identity()
    state = {"stem.0.weight": network.strategy.weight(torch.tensor(ids)), "stem.0.bias": torch.zeros(8)}
    state |= {f"stem.1.{key.partition('.')[2]}": value for key, value in network.stem.state_dict().items()}
    state |= {f"stages.{key}": value for key, value in network.stages.state_dict().items()}
    peer.load_state_dict(state)
    images = torch.randn(3, 4, 64, 64)
    with torch.inference_mode():
        maps = peer(images).double()
        found = network(images, torch.tensor(ids))
    pooled = {"avg": [maps.mean((2, 3))], "max": [maps.amax((2, 3))], "avgmax": [maps.mean((2, 3)), maps.amax((2, 3))]}
    expected = torch.cat(pooled[pooling], dim=1).float()
    assert found.shape == (3, spec.embedding_size)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
