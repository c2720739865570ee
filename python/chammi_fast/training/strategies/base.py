"""What all strategies share: the stem that they stand in for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own name for it
from timm.layers.padding import pad_same
from torch import Tensor, nn

if TYPE_CHECKING:
    from chammi_fast.training.strategies.tokens import Vocabulary

START_STD = 0.02  # of timm's truncated normal distribution for new weights


@dataclass(frozen=True)
class Stem:
    """A backbone's first convolution.

    Attributes
    ----------
    weight : (out channels, 3, kernel height, kernel width)
    bias : (out channels,), or None
    stride, padding : (height, width) in pixels
    same : whether it pads as TensorFlow does, to ceil(input / stride), instead of by `padding`
    pretrained : whether the weights are worth to start from
    """

    weight: Tensor
    bias: Tensor | None
    stride: tuple[int, int]
    padding: tuple[int, int]
    same: bool = False
    pretrained: bool = False

    @property
    def out_channels(self) -> int:
        """Maps that it makes."""
        return self.weight.shape[0]

    @property
    def kernel(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.weight.shape[2], self.weight.shape[3]

    @property
    def filter_size(self) -> int:
        """Numbers of one input channel's filters."""
        return self.weight[:, 0].numel()

    def filters(self, channels: list[Tensor]) -> Tensor:
        """Return one row (C, out channels * kernel) for each channel's filters (out channels, kernel)."""
        return torch.stack([one.reshape(-1) for one in channels])

    def new_filters(self, channels: int) -> Tensor:
        """Return random filters (channels, out channels * kernel), as timm starts a network."""
        return nn.init.trunc_normal_(torch.empty(channels, self.filter_size), std=START_STD)


class Strategy(nn.Module):
    """The adaptive first layer of a network.

    Parameters
    ----------
    stem : the convolution it stands in for
    vocabulary : the channels it knows

    Attributes
    ----------
    accepts : "vocabulary" for channels of the vocabulary in any selection and order, "configurations" for all channels
        of one configuration, "any" for any channels
    per_channel : whether each channel makes an image and an embedding of its own; they are concatenated
    shares_body : whether the configurations share the rest of the network
    keeps_norm : whether a norm that follows the first convolution stays
    unseen : what a channel of a name that was not trained stands for: the "mean" of all others, or one after the other
        of them ("replicate")
    normalised : whether channels are normalised by their means and standard deviations
    """

    accepts: Literal["vocabulary", "configurations", "any"] = "vocabulary"
    per_channel = False
    shares_body = True
    keeps_norm = True
    unseen: Literal["mean", "replicate"] = "mean"
    normalised = True

    def __init__(self, stem: Stem, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.stem = stem
        self.vocabulary = vocabulary

    def weight(self, channels: Tensor) -> Tensor:
        """Return the stem's weights (out channels, C, kernel height, kernel width) for token ids (C,)."""
        raise NotImplementedError

    def bias(self, channels: Tensor) -> Tensor | None:  # noqa: ARG002 - for those that have one
        """Return the stem's bias (out channels,) for token ids (C,), or None."""
        return None

    def forward(self, image: Tensor, channels: Tensor) -> Tensor:
        """Apply the stem: (N, C, H, W) float32 and token ids (C,) int64 -> (N, out channels, H', W')."""
        return self.convolve(image, self.weight(channels), self.bias(channels))

    def convolve(self, image: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """Convolve with the stride and padding of the stem."""
        stem = self.stem
        if stem.same:
            image = pad_same(image, list(stem.kernel), list(stem.stride))
        return F.conv2d(image, weight, bias, stride=stem.stride, padding=stem.padding)

    def as_weight(self, rows: Tensor) -> Tensor:
        """Turn rows (C, out channels * kernel) into weights (out channels, C, kernel height, kernel width)."""
        return rows.reshape(-1, self.stem.out_channels, *self.stem.kernel).transpose(0, 1)
