"""Losses that pull an image's embedding to its class, or to that of another view of the same image."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own name for it
from torch import nn

if TYPE_CHECKING:
    from torch import Tensor


class ProxyNCA(nn.Module):
    """ProxyNCA++: each class has a proxy, a point that its images are pulled to and all others are pushed from.

    Embeddings and proxies are L2-normalised and multiplied by s; minus their squared distances are the logits of a
    cross entropy. Source: Teh et al., "ProxyNCA++", ECCV 2020, as used by Chen et al., "CHAMMI", NeurIPS 2023.

    Parameters
    ----------
    classes : number of proxies; the data sets of a benchmark share them, each with classes of its own
    width : D, of an embedding
    temperature : T, above 0; the smaller, the more the nearest proxies decide
    learn_temperature : train log T as well
    scale : "sqrt" is s = sqrt(1 / T), as the paper means it. "published" is s = 1 / T, as in the training code behind
        the paper where it calls T learnable: 1 / T^2 acts there, so that T = 0.15 is as sharp as 0.0225

    Attributes
    ----------
    proxies : (classes, D), trained; they start normal with a standard deviation of 1 / 8
    log_temperature : (), takes a gradient only with `learn_temperature`
    """

    def __init__(
        self,
        classes: int,
        width: int,
        temperature: float = 0.07,
        *,
        learn_temperature: bool = False,
        scale: Literal["sqrt", "published"] = "sqrt",
    ) -> None:
        super().__init__()
        self.proxies = nn.Parameter(torch.randn(classes, width) / 8)
        self.log_temperature = nn.Parameter(torch.tensor(math.log(temperature)), requires_grad=learn_temperature)
        self.power = {"sqrt": 1, "published": 2}[scale]

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Return the mean loss, float32 (), of embeddings (N, D) of any float type with classes (N,) int64."""
        with torch.autocast(embeddings.device.type, enabled=False):
            cosines = _unit(embeddings) @ _unit(self.proxies).T
            squared_scale = torch.exp(-self.power * self.log_temperature)
            # |a - b|^2 = 2 - 2 a.b for unit vectors, which needs no (N, classes, D) tensor of differences.
            return F.cross_entropy(-squared_scale * (2 - 2 * cosines), labels)


def simclr(first: Tensor, second: Tensor, temperature: float = 0.07) -> Tensor:
    """InfoNCE over two views of each image: a view shall know the other among all 2 N - 1 views but itself.

    Source: Chen et al., "A simple framework for contrastive learning of visual representations", ICML 2020.

    Parameters
    ----------
    first, second : (N, D) of any float type, embeddings of two views; row i of both is image i
    temperature : divides the cosine similarities

    Returns
    -------
    float32 (), the mean over all 2 N views; 0 for a single image, which nothing is told apart from
    """
    return _info_nce(torch.stack((first, second)).flatten(0, 1), temperature)


def simclr_as_published(first: Tensor, second: Tensor, temperature: float = 0.07) -> Tensor:
    """InfoNCE over the wrong pairs, as the training code behind the CHAMMI paper computed it.

    That code lays the views out image by image (image 1 view 1, image 1 view 2, image 2 view 1, ...) but takes row i
    and row i + N for a pair, as if all first views came first. So it pulls *different* images together and counts the
    true pairs among the negatives. It is here only to compare the published recipes with what `simclr` gains.
    Parameters and result are those of `simclr`.
    """
    return _info_nce(torch.stack((first, second), dim=1).flatten(0, 1), temperature)


def _info_nce(views: Tensor, temperature: float) -> Tensor:
    """InfoNCE over views (2 N, D) of which row i and row i + N are a pair."""
    count = len(views)
    with torch.autocast(views.device.type, enabled=False):
        units = _unit(views)
        itself = torch.eye(count, dtype=torch.bool, device=views.device)
        logits = (units @ units.T / temperature).masked_fill(itself, -math.inf)
        return F.cross_entropy(logits, torch.arange(count, device=views.device).roll(count // 2))


def _unit(vectors: Tensor) -> Tensor:
    """L2-normalise the rows, in float32 at least: a temperature of 0.07 makes 30 times more of a rounding error."""
    return F.normalize(vectors.to(torch.promote_types(vectors.dtype, torch.float32)))
