"""Depthwise: each channel is filtered on its own, and the filters' responses are pooled over the channels."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own name for it
from torch import Tensor, nn

from chammi_fast.training.strategies.base import Strategy
from chammi_fast.training.strategies.tokens import TokenTable

if TYPE_CHECKING:
    from chammi_fast.training.strategies.base import Stem
    from chammi_fast.training.strategies.tokens import Vocabulary

POOLINGS = ("weighted", "mean", "sum", "attention")


class Depthwise(Strategy):
    """A patch convolution per token, k filters per channel name, pooled over the channels, then an instance norm.

    The patch convolution has the stem's kernel and stride and a bias, and makes one map of each channel. Of each map, k
    filters of 3 x 3 make k maps; these are pooled over the channels, brought to the stem's number of maps by a 1 x 1
    convolution, and normalised. Convolutions with groups would fix the number of channels in an exported graph, so all
    are dense, and pooling that is linear is folded into the filters.

    Parameters
    ----------
    filters : k
    pooling : "weighted" by a softmax over the channels of one learned number per channel name, "mean", "sum", or
        "attention": by a softmax, for each image, of the channels' mean responses along a learned direction
    """

    keeps_norm = False
    unseen = "replicate"

    def __init__(
        self,
        stem: Stem,
        vocabulary: Vocabulary,
        *,
        filters: int = 64,
        pooling: Literal["weighted", "mean", "sum", "attention"] = "weighted",
    ) -> None:
        super().__init__(stem, vocabulary)
        if pooling not in POOLINGS:
            raise ValueError(f"channels are pooled by {', '.join(POOLINGS)}, not '{pooling}'")
        own, names, area = len(vocabulary.own), len(vocabulary.names), math.prod(stem.kernel)
        reach = 1 / math.sqrt(area)  # of PyTorch's start for a convolution of one input channel
        each, by_name = vocabulary.each_its_own(), vocabulary.by_name()
        self.patches = TokenTable(vocabulary, torch.empty(own, area).uniform_(-reach, reach), each)
        self.patch_biases = TokenTable(vocabulary, torch.empty(own, 1).uniform_(-reach, reach), each)
        self.filters = TokenTable(vocabulary, torch.randn(names, filters * 9) * math.sqrt(2 / 9), by_name)
        self.pooling = pooling
        if pooling == "weighted":
            self.scores = TokenTable(vocabulary, torch.randn(names, 1), by_name)
        elif pooling == "attention":
            self.direction = nn.Parameter(torch.randn(filters) / math.sqrt(filters))
        self.mix = nn.Conv2d(filters, stem.out_channels, 1, bias=False)
        self.norm = nn.InstanceNorm2d(stem.out_channels, affine=True)

    def forward(self, image: Tensor, channels: Tensor) -> Tensor:
        """Apply the stem: (N, C, H, W) float32 and token ids (C,) int64 -> (N, out channels, H', W')."""
        separate = torch.eye(len(channels), dtype=image.dtype, device=image.device)[:, :, None, None]
        patches = self.patches(channels).reshape(-1, 1, *self.stem.kernel)
        maps = self.convolve(image, separate * patches, self.patch_biases(channels)[:, 0])
        filters = self.filters(channels).reshape(len(channels), -1, 3, 3)
        pooled = self._attend(maps, filters) if self.pooling == "attention" else self._pool(maps, filters, channels)
        return self.norm(self.mix(pooled))  # type: ignore[no-any-return]

    def _pool(self, maps: Tensor, filters: Tensor, channels: Tensor) -> Tensor:
        if self.pooling == "weighted":
            filters = filters * self.scores(channels).softmax(0)[:, :, None, None]
        elif self.pooling == "mean":
            filters = filters / len(channels)
        return F.conv2d(maps, filters.transpose(0, 1), padding=1)

    def _attend(self, maps: Tensor, filters: Tensor) -> Tensor:
        count, height, width = len(filters), maps.shape[2], maps.shape[3]
        separate = torch.eye(count, dtype=maps.dtype, device=maps.device)[:, None, :, None, None]
        dense = (separate * filters[:, :, None]).reshape(-1, count, 3, 3)
        responses = F.conv2d(maps, dense, padding=1).reshape(-1, count, filters.shape[1], height, width)
        attention = (responses.mean((3, 4)) @ self.direction).softmax(1)
        return (responses * attention[:, :, None, None, None]).sum(1)
