"""What is minimised: the losses of a batch, all computed in one forward pass of one module."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own name for it
from torch import Tensor, nn

from chammi_fast.errors import RecipeError
from chammi_fast.training.losses import ProxyNCA, simclr, simclr_as_published
from chammi_fast.training.miro import MutualInformation, collect
from chammi_fast.training.network import BodyPerConfiguration

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chammi_fast.spec import Spec
    from chammi_fast.training.batches import Part
    from chammi_fast.training.data import TrainingSet
    from chammi_fast.training.network import ChannelAdaptiveNetwork
    from chammi_fast.training.recipe import Recipe

PAIRINGS = {"true": simclr, "published": simclr_as_published}


class Objective(nn.Module):
    """The loss of a batch: each data set's images have a forward pass and a mean loss of their own, and these add up.

    Parameters
    ----------
    network : trained in place
    spec : of the network
    sets : the data sets, for their classes
    recipe : which losses

    Attributes
    ----------
    network : the network
    losses : the parts of the loss that have parameters
    """

    def __init__(
        self, network: ChannelAdaptiveNetwork, spec: Spec, sets: Sequence[TrainingSet], recipe: Recipe
    ) -> None:
        super().__init__()
        self.network = network
        self.recipe = recipe
        self.tokens = {name: [spec.token_ids[one] for one in names] for name, names in spec.configurations.items()}
        counts = [len(one.classes) for one in sets]
        starts = [sum(counts[:place]) for place in range(len(counts))]
        names = [one.configuration.name for one in sets]
        groups = dict(zip(names, zip(starts, counts, strict=True), strict=True))
        if recipe.proxies == "all":
            groups = {"all": (0, sum(counts))}
        self.first_class = {name: first for name, (first, _) in groups.items()}
        self.losses = nn.ModuleList()  # by place: a configuration may have any name
        self.loss_place = {name: place for place, name in enumerate(groups)}
        if recipe.ssl_weight < 1 and recipe.supervised == "proxynca":
            for _, count in groups.values():
                self.losses.append(
                    ProxyNCA(
                        count,
                        spec.embedding_size,
                        recipe.temperature,
                        learn_temperature=recipe.learn_temperature,
                        scale=recipe.temperature_scale,
                    )
                )
        elif recipe.ssl_weight < 1 and sum(counts) > spec.embedding_size:
            raise RecipeError(
                f"supervised: cross entropy on an embedding of {spec.embedding_size} numbers has no room for "
                f"{sum(counts)} classes."
            )
        self.miro: MutualInformation | None = None
        self.twin: list[ChannelAdaptiveNetwork] = []  # in a list: it is not trained, and comes again with each start
        if recipe.miro_weight > 0:
            self.twin = [copy.deepcopy(network).eval().requires_grad_(requires_grad=False)]
            self.miro = MutualInformation(self._feature_widths(next(iter(self.tokens)), spec))

    def forward(self, parts: Sequence[Part]) -> Tensor:
        """Return the loss () of a batch."""
        if not parts:  # as can be where many processes share a small batch: they still wait for each other's gradients
            return torch.stack([0 * one.sum() for one in self.parameters() if one.requires_grad]).sum()
        return torch.stack([part.share * self._of(part) for part in parts]).sum()

    def _of(self, part: Part) -> Tensor:
        recipe = self.recipe
        channels = torch.tensor(self.tokens[part.configuration], device=part.images.device)
        total = part.images.new_zeros(())
        if self.miro is None:
            embeddings = self.network(part.images, channels)
        else:
            embeddings, features = self._with_features(self.network, part, channels)
            with torch.no_grad():
                _, reference = self._with_features(self.twin[0], part, channels)
            total = total + recipe.miro_weight * self.miro(features, reference)
        if recipe.ssl_weight > 0:
            first, second = embeddings.float().chunk(2)
            contrast = PAIRINGS[recipe.ssl_pairs](first, second, recipe.ssl_temperature)
            total = total + recipe.ssl_weight * contrast
        if recipe.ssl_weight < 1:
            total = total + (1 - recipe.ssl_weight) * self._supervised(embeddings, part)
        return total

    def _supervised(self, embeddings: Tensor, part: Part) -> Tensor:
        labels = part.labels.repeat(len(embeddings) // len(part.labels))
        if self.recipe.supervised == "cross_entropy":
            return F.cross_entropy(embeddings.float(), labels)
        name = "all" if self.recipe.proxies == "all" else part.configuration
        loss: Tensor = self.losses[self.loss_place[name]](embeddings, labels - self.first_class[name])
        return loss

    def _layers(self, network: ChannelAdaptiveNetwork, configuration: str) -> list[nn.Module]:
        body: Any = network.body
        if isinstance(body, BodyPerConfiguration):
            body = body.bodies[list(self.tokens).index(configuration)]
        every = [network.strategy, *body.stages()]
        last = max(self.recipe.miro_layers)
        if last >= len(every):
            raise RecipeError(f"miro_layers: the backbone has {len(every) - 1} stages, not {last}.")
        return [every[place] for place in self.recipe.miro_layers]

    def _with_features(
        self, network: ChannelAdaptiveNetwork, part: Part, channels: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        with collect(self._layers(network, part.configuration)) as features:
            embeddings = network(part.images, channels)
        return embeddings, self._channels_second(network, features)

    @staticmethod
    def _channels_second(network: ChannelAdaptiveNetwork, features: list[Tensor]) -> list[Tensor]:
        """Turn the maps of models that have the channels last (Swin); the stem's output is never one of them."""
        body: Any = network.body.bodies[0] if isinstance(network.body, BodyPerConfiguration) else network.body
        if getattr(body.model, "output_fmt", "NCHW") == "NCHW":
            return features
        stem = features[:1] if features[0].shape[1] == network.strategy.stem.out_channels else []
        return [*stem, *(one.permute(0, 3, 1, 2) if one.ndim == 4 else one for one in features[len(stem) :])]

    def _feature_widths(self, configuration: str, spec: Spec) -> list[int]:
        size = spec.preprocessing.size or 224
        channels = torch.tensor(self.tokens[configuration])
        twin = self.twin[0]
        with torch.no_grad(), collect(self._layers(twin, configuration)) as found:
            twin(torch.zeros(1, len(channels), size, size), channels)
        features = self._channels_second(twin, found)
        return [one.shape[1] if one.ndim == 4 else one.shape[-1] for one in features]
