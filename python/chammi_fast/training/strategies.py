"""What makes the weights of a network's first layer out of its channels' tokens.

A strategy is one class: tokens in, stem out. To add one, subclass `Strategy`, keep whatever belongs to a token in a
`TokenTable` (which supplies the average tokens), return the stem's weights, and enter the class in `STRATEGIES`.
A strategy whose stem is more than one convolution overrides ``forward`` instead.
Formulas and starts: Chen et al., "CHAMMI", NeurIPS 2023, and its published training code.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own name for it
from torch import Tensor, nn

from chammi_fast.errors import ExportError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chammi_fast.spec import Token


@dataclass(frozen=True)
class StemShape:
    """The convolution that a strategy stands in for.

    Attributes
    ----------
    out_channels : maps that it makes
    kernel, stride, padding : (height, width) in pixels
    """

    out_channels: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]


class TokenTable(nn.Module):
    """Parameters that belong to a token, one row each.

    Average tokens have no parameters of their own: their rows are the means of their members' rows.

    Parameters
    ----------
    tokens : (T,) the vocabulary; averages come last, as `chammi_fast.spec.with_averages` puts them
    rows : (T - averages, width) start of the trainable rows
    """

    averages: Tensor

    def __init__(self, tokens: Sequence[Token], rows: Tensor) -> None:
        super().__init__()
        names = [token.name for token in tokens if not token.members]
        averages = [[(name in token.members) / len(token.members) for name in names] for token in tokens[len(names) :]]
        self.rows = nn.Parameter(rows)
        self.register_buffer("averages", torch.tensor(averages).reshape(-1, len(names)), persistent=False)

    def table(self) -> Tensor:
        """Return (T, width): trained rows and averages in the order of the vocabulary."""
        return torch.cat([self.rows, self.averages @ self.rows]) if len(self.averages) else self.rows

    def complete(self) -> None:
        """Compute the averages once and for all, for export; training ends here."""
        self.rows = nn.Parameter(self.table().detach(), requires_grad=False)
        self.averages = self.averages[:0]

    def forward(self, channels: Tensor) -> Tensor:
        """Return the rows (C, width) of int64 token ids (C,)."""
        return self.table().index_select(0, channels)


class Strategy(nn.Module):
    """The adaptive first layer of a network.

    Parameters
    ----------
    stem : the convolution it stands in for
    """

    def __init__(self, stem: StemShape) -> None:
        super().__init__()
        self.stem = stem

    def weight(self, channels: Tensor) -> Tensor:
        """Return the stem's weights (out_channels, C, kernel height, kernel width) for token ids (C,)."""
        raise NotImplementedError

    def forward(self, image: Tensor, channels: Tensor) -> Tensor:
        """Apply the stem: (N, C, H, W) float32 and token ids (C,) int64 -> (N, out_channels, H', W')."""
        return F.conv2d(image, self.weight(channels), stride=self.stem.stride, padding=self.stem.padding)


class HyperNet(Strategy):
    """Two affine maps make a channel's filters from its token's embedding; the stem has no bias.

    weight[o, c] = sum_d (z_c W + b)_d W_out[d, o] + b_out[o], with o over output maps and kernel pixels.

    Parameters
    ----------
    stem : the convolution it stands in for
    tokens : the vocabulary
    embedding_width : of a token's embedding z
    hidden_width : of the space between the two maps
    """

    def __init__(
        self, stem: StemShape, tokens: Sequence[Token], *, embedding_width: int = 128, hidden_width: int = 256
    ) -> None:
        super().__init__(stem)
        filter_size = stem.out_channels * math.prod(stem.kernel)
        trainable = sum(not token.members for token in tokens)
        self.embedding = TokenTable(tokens, torch.randn(trainable, embedding_width))
        self.W = nn.Parameter(torch.randn(embedding_width, hidden_width) * math.sqrt(2 / hidden_width))
        self.b = nn.Parameter(torch.randn(hidden_width))
        self.W_out = nn.Parameter(torch.randn(hidden_width, filter_size) * math.sqrt(2 / filter_size))
        self.b_out = nn.Parameter(torch.randn(filter_size))

    def weight(self, channels: Tensor) -> Tensor:
        """Return the stem's weights (out_channels, C, kernel height, kernel width) for token ids (C,)."""
        hidden = self.embedding(channels) @ self.W + self.b
        filters: Tensor = hidden @ self.W_out + self.b_out
        return filters.reshape(-1, self.stem.out_channels, *self.stem.kernel).transpose(0, 1)


STRATEGIES = {
    "hypernet": HyperNet,
}


def create_strategy(name: str, stem: StemShape, tokens: Sequence[Token], **options: int) -> Strategy:
    """Create a strategy with random weights.

    Parameters
    ----------
    name : a key of `STRATEGIES`
    options : widths of the strategy's parts, where the published ones are not wanted

    Raises
    ------
    ExportError
        If there is no such strategy.
    """
    if name not in STRATEGIES:
        raise ExportError(f"there is no strategy '{name}': choose from {', '.join(STRATEGIES)}.")
    return STRATEGIES[name](stem, tokens, **options)
