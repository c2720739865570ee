"""Strategies that make each channel's filters from what they learn about it: a slice, a mixture, an embedding."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from chammi_fast.training.strategies.base import Strategy
from chammi_fast.training.strategies.tokens import TokenTable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chammi_fast.training.strategies.base import Stem
    from chammi_fast.training.strategies.tokens import Vocabulary

Owner = Literal["separate", "shared"]


class SliceParam(Strategy):
    """A bank of filters, one slice per channel name, plus an offset per token; the stem has no bias.

    The bank starts from pretrained filters, repeated over the sorted names (R, R, R, G, G, G, B, B for eight), or at
    random.

    Parameters
    ----------
    offsets : whether each token adds an offset of its own, started as randn / 8, to its name's slice
    """

    def __init__(self, stem: Stem, vocabulary: Vocabulary, *, offsets: bool = True) -> None:
        super().__init__(stem, vocabulary)
        if not isinstance(offsets, bool):
            raise TypeError(f"offsets are true or false, not {offsets!r}")
        names = len(vocabulary.names)
        rows = stem.new_filters(names)
        if stem.pretrained:
            rows = stem.filters([stem.weight[:, 3 * place // names] for place in range(names)])
        self.bank = TokenTable(vocabulary, rows, vocabulary.by_name())
        self.offsets = None
        if offsets:
            start = torch.randn(len(vocabulary.own), stem.filter_size) / 8
            self.offsets = TokenTable(vocabulary, start, vocabulary.each_its_own())

    def weight(self, channels: Tensor) -> Tensor:
        """Return the stem's weights (out channels, C, kernel height, kernel width) for token ids (C,)."""
        rows = self.bank(channels)
        return self.as_weight(rows if self.offsets is None else rows + self.offsets(channels))


class TemplateMixing(Strategy):
    """Each token mixes a bank of templates with coefficients of its own; the stem has no bias.

    weight[o, c] = sum_k coefficient[c, k] * template[k, o]

    Parameters
    ----------
    templates : k
    coefficients : "separate" for each token's own, "shared" by tokens of one channel name
    """

    def __init__(
        self, stem: Stem, vocabulary: Vocabulary, *, templates: int = 128, coefficients: Owner = "separate"
    ) -> None:
        super().__init__(stem, vocabulary)
        row_of = _rows_of(vocabulary, coefficients)
        start = nn.init.orthogonal_(torch.empty(max(row_of) + 1, templates))
        self.coefficients = TokenTable(vocabulary, start, row_of)
        bank = nn.init.kaiming_normal_(torch.empty(stem.out_channels, templates, *stem.kernel), mode="fan_in")
        self.templates = nn.Parameter(bank.transpose(0, 1).reshape(templates, -1).contiguous())

    def weight(self, channels: Tensor) -> Tensor:
        """Return the stem's weights (out channels, C, kernel height, kernel width) for token ids (C,)."""
        return self.as_weight(self.coefficients(channels) @ self.templates)


class HyperNet(Strategy):
    """Two affine maps make a channel's filters from its token's embedding; the stem has no bias.

    weight[o, c] = sum_d (z_c W + b)_d W_out[d, o] + b_out[o], with o over output maps and kernel pixels.

    Parameters
    ----------
    embedding_width : of a token's embedding z
    hidden_width : of the space between the two maps
    embeddings : "separate" for each token's own, "shared" by tokens of one channel name
    """

    def __init__(
        self,
        stem: Stem,
        vocabulary: Vocabulary,
        *,
        embedding_width: int = 128,
        hidden_width: int = 256,
        embeddings: Owner = "separate",
    ) -> None:
        super().__init__(stem, vocabulary)
        size = stem.filter_size
        row_of = _rows_of(vocabulary, embeddings)
        self.embedding = TokenTable(vocabulary, torch.randn(max(row_of) + 1, embedding_width), row_of)
        self.W = nn.Parameter(torch.randn(embedding_width, hidden_width) * math.sqrt(2 / hidden_width))
        self.b = nn.Parameter(torch.randn(hidden_width))
        self.W_out = nn.Parameter(torch.randn(hidden_width, size) * math.sqrt(2 / size))
        self.b_out = nn.Parameter(torch.randn(size))

    def weight(self, channels: Tensor) -> Tensor:
        """Return the stem's weights (out channels, C, kernel height, kernel width) for token ids (C,)."""
        hidden = self.embedding(channels) @ self.W + self.b
        return self.as_weight(hidden @ self.W_out + self.b_out)


def _rows_of(vocabulary: Vocabulary, owner: Owner) -> Sequence[int]:
    if owner not in ("separate", "shared"):
        raise ValueError(f"parameters are 'separate' or 'shared', not '{owner}'")
    return vocabulary.each_its_own() if owner == "separate" else vocabulary.by_name()
