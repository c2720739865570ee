"""A network for images of any channels: an adaptive stem on the body of a timm ConvNeXt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from chammi_fast.training.strategies import StemShape, Strategy, TokenTable

if TYPE_CHECKING:
    from collections.abc import Callable

    from timm.models.convnext import ConvNeXt

POOLINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "avg": lambda maps: maps.mean((2, 3)),
    "max": lambda maps: maps.amax((2, 3)),
    "avgmax": lambda maps: torch.cat([maps.mean((2, 3)), maps.amax((2, 3))], dim=1),
}


def stem_shape(backbone: ConvNeXt) -> StemShape:
    """Return the shape of the backbone's first convolution."""
    first: Any = backbone.stem[0]
    return StemShape(first.out_channels, tuple(first.kernel_size), tuple(first.stride), tuple(first.padding))


class ChannelAdaptiveNetwork(nn.Module):
    """Strategy in place of the first convolution, then the backbone's stages, then global pooling.

    The backbone's first convolution, classifier and final norm are dropped; the norm of its stem is kept.

    Parameters
    ----------
    strategy : made for the `stem_shape` of the backbone
    backbone : its modules become part of the network
    pooling : a key of `POOLINGS`
    """

    def __init__(self, strategy: Strategy, backbone: ConvNeXt, pooling: str = "avg") -> None:
        super().__init__()
        self.strategy = strategy
        self.stem = nn.Sequential(*list(backbone.stem)[1:])
        self.stages = backbone.stages
        self.pooling = pooling
        self.embedding_size: int = backbone.num_features * (2 if pooling == "avgmax" else 1)

    def forward(self, image: Tensor, channels: Tensor) -> Tensor:
        """Embed images.

        Parameters
        ----------
        image : (N, C, H, W) float32, normalised
        channels : (C,) int64 token ids, one per channel of the images

        Returns
        -------
        (N, D) float32
        """
        maps = self.stages(self.stem(self.strategy(image, channels)))
        return POOLINGS[self.pooling](maps)

    def complete_tokens(self) -> None:
        """Give the average tokens rows of their own, for export."""
        for module in self.modules():
            if isinstance(module, TokenTable):
                module.complete()
