"""Strategies whose stems belong to configurations as a whole, and the one that needs none."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from chammi_fast.training.strategies.base import Strategy
from chammi_fast.training.strategies.tokens import TokenTable

if TYPE_CHECKING:
    from chammi_fast.training.strategies.base import Stem
    from chammi_fast.training.strategies.tokens import Vocabulary


class TargetParam(Strategy):
    """One stem convolution with bias for each configuration; the rest of the network is shared.

    The first three channels start from pretrained filters, further ones from means of these (four channels: of all
    three; from five on: of the first two, the last two, and so on), or all at random.
    """

    accepts = "configurations"

    def __init__(self, stem: Stem, vocabulary: Vocabulary) -> None:
        super().__init__(stem, vocabulary)
        rows = stem.new_filters(len(vocabulary.own))
        if stem.pretrained:
            start = {
                name: filters
                for names in vocabulary.configurations.values()
                for name, filters in zip(names, _extended(stem.weight, len(names)), strict=True)
            }
            rows = stem.filters([start[name] for name in vocabulary.own])
        self.filters = TokenTable(vocabulary, rows, vocabulary.each_its_own())
        bias = torch.zeros(stem.out_channels) if stem.bias is None or not stem.pretrained else stem.bias
        biases = bias.detach().repeat(len(vocabulary.configurations), 1)
        self.biases = TokenTable(vocabulary, biases, vocabulary.by_configuration())

    def weight(self, channels: Tensor) -> Tensor:
        """Return the stem's weights (out channels, C, kernel height, kernel width) for token ids (C,)."""
        return self.as_weight(self.filters(channels))

    def bias(self, channels: Tensor) -> Tensor:
        """Return the bias (out channels,) of the configuration that the first channel belongs to."""
        biases: Tensor = self.biases(channels[:1])
        return biases[0]


class FixedChannels(TargetParam):
    """One whole network for each configuration: nothing is shared."""

    shares_body = False


class ChannelReplication(Strategy):
    """The backbone's own stem on each channel, repeated three times; nothing is trained.

    The image's embedding is its channels' embeddings one after another. Channels are not normalised, as in the
    benchmark's feature extraction.
    """

    accepts = "any"
    per_channel = True
    normalised = False

    def __init__(self, stem: Stem, vocabulary: Vocabulary) -> None:
        super().__init__(stem, vocabulary)
        self.filters = nn.Parameter(stem.weight.detach().clone())
        self.shift = None if stem.bias is None else nn.Parameter(stem.bias.detach().clone())

    def forward(self, image: Tensor, channels: Tensor) -> Tensor:
        """Apply the stem: (N, C, H, W) float32 -> (N * C, out channels, H', W'), an image's channels in a row."""
        del channels  # all are treated alike
        planes = image.reshape(-1, 1, *image.shape[2:])
        return self.convolve(planes, self.filters.sum(1, keepdim=True), self.shift)


def _extended(weight: Tensor, channels: int) -> list[Tensor]:
    """Make filters (out channels, kernel) for so many channels of those of a weight for three."""
    colours = list(weight.detach().unbind(1))
    if channels == 4:
        return [*colours, torch.stack(colours).mean(0)]
    pairs = [(colours[i % 3] + colours[(i + 1) % 3]) / 2 for i in range(max(0, channels - 3))]
    return [*colours, *pairs][:channels]
