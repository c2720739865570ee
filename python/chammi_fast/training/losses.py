"""Losses that pull an image's embedding to its class."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own name for it
from torch import Tensor, nn


class ProxyNCA(nn.Module):
    """ProxyNCA++: each class has a proxy, a point that its images are pulled to and all others are pushed from.

    Embeddings and proxies are L2-normalised and multiplied by s = sqrt(1 / temperature); minus their squared distances
    are the logits of a cross entropy. Source: Teh et al., "ProxyNCA++", ECCV 2020, as used by Chen et al., "CHAMMI",
    NeurIPS 2023, with proxies that are trained.

    Parameters
    ----------
    classes : number of proxies; the data sets of a benchmark share them, each with classes of its own
    width : D, of an embedding
    temperature : the smaller, the more the nearest proxies decide
    """

    def __init__(self, classes: int, width: int, temperature: float = 0.07) -> None:
        super().__init__()
        self.proxies = nn.Parameter(torch.randn(classes, width) / 8)
        self.scale = math.sqrt(1 / temperature)

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Return the mean loss of embeddings (N, D) float32 with classes (N,) int64."""
        points = self.scale * F.normalize(embeddings)
        proxies = self.scale * F.normalize(self.proxies)
        distances = (points[:, None] - proxies).square().sum(dim=2)
        return F.cross_entropy(-distances, labels)
