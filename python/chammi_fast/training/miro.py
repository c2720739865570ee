"""MIRO: keep what a pretrained network knows while training, by the features of its frozen twin."""

from __future__ import annotations

import math
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own name for it
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

START_VARIANCE = 0.1
LEAST_VARIANCE = 1e-5


class MutualInformation(nn.Module):
    """A bound on the mutual information of a network's features and its frozen twin's, to be minimised.

    Each channel of each layer has a learned variance v = softplus(b) + 1e-5, which starts at 0.1; the loss is the sum
    over the layers of mean((f - f0)^2 / v + log v) / 2, the mean over images, channels and places. The encoder of the
    mean is the identity. Source: Cha et al., "Domain generalization by mutual-information regularization with
    pre-trained models", ECCV 2022, with the settings behind Chen et al., "CHAMMI", NeurIPS 2023.

    Parameters
    ----------
    channels : of each layer whose features are compared

    Attributes
    ----------
    raw_variances : b, one (channels,) for each layer
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        start = math.log(math.expm1(START_VARIANCE - LEAST_VARIANCE))  # softplus undone
        self.raw_variances = nn.ParameterList(nn.Parameter(torch.full((count,), start)) for count in channels)

    def forward(self, features: Sequence[Tensor], reference: Sequence[Tensor]) -> Tensor:
        """Return the loss, float32 (), of the trained network's features and of its twin's.

        Parameters
        ----------
        features, reference : for each layer maps (N, C, H, W) or tokens (N, L, C) of any float type; no gradient
            reaches the reference
        """
        terms = []
        for raw, feature, fixed in zip(self.raw_variances, features, reference, strict=True):
            variance = F.softplus(raw) + LEAST_VARIANCE
            if feature.ndim == 4:
                variance = variance[:, None, None]
            # 16 bits would round away the small differences of twins that start equal.
            difference = feature.to(variance.dtype) - fixed.detach().to(variance.dtype)
            terms.append((difference.square() / variance).mean() + variance.log().mean())
        return torch.stack(terms).sum() / 2


@contextmanager
def collect(modules: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
    """Collect what modules return in the one forward pass that runs inside the block.

    The list it gives is filled when the block ends, in the order of `modules`. Each forward pass has a block and so a
    list of its own; no hook outlives its block.

    Raises
    ------
    RuntimeError
        where a module ran twice in the block, or not at all
    """
    outputs: list[Tensor] = []
    found: dict[int, Tensor] = {}

    def keep(place: int, output: Tensor) -> None:
        if place in found:
            raise RuntimeError(f"module {place} ran twice while its outputs were collected: use a block for each pass")
        found[place] = output

    def hook(place: int) -> Any:
        return lambda _module, _inputs, output: keep(place, output)

    handles = [module.register_forward_hook(hook(place)) for place, module in enumerate(modules)]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()
    missing = [place for place in range(len(modules)) if place not in found]
    if missing:
        raise RuntimeError(f"modules {missing} did not run while their outputs were collected")
    outputs.extend(found[place] for place in range(len(modules)))
