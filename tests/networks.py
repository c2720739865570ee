"""Small networks for tests, with weights that let every part of the network act."""

from __future__ import annotations

import dataclasses
import math
from functools import cache
from typing import TYPE_CHECKING, Any

import torch

from chammi_fast.training.create import NetworkOptions, create_network

if TYPE_CHECKING:
    from chammi_fast.spec import Spec
    from chammi_fast.training.network import ChannelAdaptiveNetwork

torch.set_num_threads(1)  # networks this small spend their time waiting for a second thread

SMALL = NetworkOptions(
    backbone="convnext_atto",
    backbone_options={"depths": (1, 1, 1, 1), "dims": (8, 16, 24, 32), "conv_mlp": False},
    strategy_options={"embedding_width": 12, "hidden_width": 20},
    size=64,
)


def spread_weights(network: ChannelAdaptiveNetwork, seed: int = 0) -> None:
    """Give every weight a size at which it matters: ConvNeXt's layer scale of 1e-6 would hide whole blocks."""
    generator = torch.Generator().manual_seed(seed)

    def normal(parameter: torch.Tensor, mean: float, std: float) -> None:
        parameter.copy_(torch.randn(parameter.shape, generator=generator) * std + mean)

    with torch.no_grad():
        for name, parameter in network.named_parameters():
            kind = name.rpartition(".")[2]
            if name.startswith("strategy."):
                continue
            if kind == "gamma":
                normal(parameter, 0.3, 0.05)
            elif kind == "bias":
                normal(parameter, 0.0, 0.05)
            elif parameter.ndim == 1:
                normal(parameter, 1.0, 0.1)
            else:
                normal(parameter, 0.0, 1.2 / math.sqrt(parameter[0].numel()))


@cache
def small_network(pooling: str = "avg", strategy: str = "hypernet") -> tuple[ChannelAdaptiveNetwork, Spec]:
    """Return a network of 30 thousand weights; the same one to every caller, so do not change it."""
    changes: dict[str, Any] = {"pooling": pooling, "strategy": strategy}
    if strategy != "hypernet":
        changes["strategy_options"] = {}
    if strategy == "channelreplication":
        changes["size"] = None
    network, spec = create_network(dataclasses.replace(SMALL, **changes))
    spread_weights(network)
    return network, spec
