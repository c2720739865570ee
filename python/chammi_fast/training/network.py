"""A network for images of any channels: an adaptive stem in place of the first convolution of a timm model."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from timm.layers.conv2d_same import Conv2dSame
from torch import Tensor, nn
from torch.func import functional_call

from chammi_fast.errors import ExportError
from chammi_fast.training.strategies import Stem, Strategy, TokenTable

if TYPE_CHECKING:
    from collections.abc import Callable

    from chammi_fast.training.strategies import Vocabulary

STEMS = ("act1", "bn1", "stem", "features.norm0")  # what timm lists before the first stage of some models

POOLINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "avg": lambda maps: maps.mean((2, 3)),
    "max": lambda maps: maps.amax((2, 3)),
    "avgmax": lambda maps: torch.cat([maps.mean((2, 3)), maps.amax((2, 3))], dim=1),
}


class Body(nn.Module):
    """A timm model without its first convolution, its classifier and whatever leads to that after the last maps.

    Parameters
    ----------
    backbone : becomes part of the body
    name : timm's name of it, for messages
    size : side of the images that it will see, in pixels

    Attributes
    ----------
    first : the convolution that was taken out
    width : D, number of maps or width of the tokens that it gives

    Raises
    ------
    ExportError
        If the model does not begin with one convolution of 3 channels.
    """

    def __init__(self, backbone: nn.Module, name: str, size: int) -> None:
        super().__init__()
        place: Any = getattr(backbone, "pretrained_cfg", {}).get("first_conv")
        first = backbone.get_submodule(place) if isinstance(place, str) else None
        if not isinstance(first, nn.Conv2d) or first.in_channels != 3 or isinstance(first.padding, str):
            raise ExportError(f"backbone '{name}' does not begin with one convolution of 3 channels.")
        self.model: Any = backbone
        owner, _, child = place.rpartition(".")
        parent: Any = backbone.get_submodule(owner)
        setattr(parent, child, nn.Identity())
        if hasattr(parent, "img_size"):
            parent.img_size = None  # or a patch embedding would compare the maps' size with the images'
        with torch.no_grad():
            maps = self._drop_unused(first(torch.zeros(1, 3, size, size)))
        self.width = maps.shape[1]
        self.first = [first]  # in a list, so that its weights are none of the body's

    def stem(self, *, pretrained: bool) -> Stem:
        """Return the convolution that was taken out, for a strategy to stand in for."""
        (first,) = self.first
        bias = None if first.bias is None else first.bias.detach()
        return Stem(
            first.weight.detach(),
            bias,
            stride=(first.stride[0], first.stride[1]),
            padding=(int(first.padding[0]), int(first.padding[1])),
            same=isinstance(first, Conv2dSame),
            pretrained=pretrained,
        )

    def drop_stem_norm(self) -> None:
        """Drop the norm that follows the first convolution of a ConvNeXt."""
        if isinstance(getattr(self.model, "stem", None), nn.Sequential) and len(self.model.stem) == 2:
            self.model.stem[1] = nn.Identity()

    def stages(self) -> list[nn.Module]:
        """Return the modules whose outputs are the model's stages, as timm lists them, without parts of the stem."""
        names = [info["module"] for info in self.model.feature_info]
        return [self.model.get_submodule(name) for name in names if name not in STEMS]

    def forward(self, maps: Tensor) -> Tensor:
        """Compute maps (N, D, H', W') from the stem's maps (N, out channels, H, W)."""
        features: Tensor = self.model.forward_features(maps)
        if features.ndim == 3:  # tokens (N, L, D) of a transformer
            return features[:, self.model.num_prefix_tokens :].transpose(1, 2).unsqueeze(3)
        if getattr(self.model, "output_fmt", "NCHW") == "NHWC":
            return features.permute(0, 3, 1, 2)
        return features

    def _drop_unused(self, example: Tensor) -> Tensor:
        """Drop the children that a forward pass does not reach; return its maps."""
        used: set[str] = set()
        hooks = []
        for name, module in self.model.named_modules():
            child = name.partition(".")[0]
            hooks.append(module.register_forward_hook(lambda *_, child=child: used.add(child)))
        maps: Tensor = self.eval()(example)
        self.train()
        for hook in hooks:
            hook.remove()
        for name, _ in list(self.model.named_children()):
            if name not in used:
                setattr(self.model, name, nn.Identity())
        return maps


class BodyPerConfiguration(nn.Module):
    """One body for each configuration; the first channel decides which of them an image goes through.

    Parameters
    ----------
    body : start of all of them
    vocabulary : names the configurations
    """

    configuration: Tensor

    def __init__(self, body: Body, vocabulary: Vocabulary) -> None:
        super().__init__()
        others = [copy.deepcopy(body) for _ in range(len(vocabulary.configurations) - 1)]
        self.bodies = nn.ModuleList([body, *others])  # by place: a configuration may have any name
        self.register_buffer("configuration", torch.tensor(vocabulary.by_configuration()), persistent=False)

    def forward(self, maps: Tensor, channels: Tensor) -> Tensor:
        """Compute maps (N, D, H', W') from the stem's maps and token ids (C,)."""
        return self.bodies[int(self.configuration[channels[0]])](maps)  # type: ignore[no-any-return]


class _StackedBodies(nn.Module):
    """The same with the weights of all bodies side by side, so that a graph can pick one set of them."""

    configuration: Tensor

    def __init__(self, bodies: BodyPerConfiguration) -> None:
        super().__init__()
        every = [dict(one.state_dict()) for one in bodies.bodies]
        first = bodies.bodies[0]
        self.stacked = copy.deepcopy(first)
        for owner in self.stacked.modules():
            # They come back below, with a place for each configuration; a bias that is not there stays so.
            owner._parameters = {name: one for name, one in owner._parameters.items() if one is None}
        for key, _ in first.named_parameters():
            owner, name = self._owner(key)
            owner.register_parameter(name, nn.Parameter(torch.stack([one[key] for one in every]), requires_grad=False))
        for key, _ in first.named_buffers():
            # What is not saved, such as Swin's places of neighbours, follows from the architecture: bodies share it.
            if key in every[0]:
                owner, name = self._owner(key)
                owner.register_buffer(name, torch.stack([one[key] for one in every]))
        self.apart = frozenset(every[0])
        self.template = [first]  # in a list, so that its weights are not part of the graph
        self.register_buffer("configuration", bodies.configuration, persistent=False)

    def _owner(self, key: str) -> tuple[nn.Module, str]:
        parent, _, name = key.rpartition(".")
        return self.stacked.get_submodule(parent), name

    def forward(self, maps: Tensor, channels: Tensor) -> Tensor:
        which = self.configuration.index_select(0, channels[:1])
        named = [*self.stacked.named_parameters(), *self.stacked.named_buffers()]
        weights = {key: value.index_select(0, which)[0] for key, value in named if key in self.apart}
        return functional_call(self.template[0], weights, (maps,))  # type: ignore[no-any-return]


class ChannelAdaptiveNetwork(nn.Module):
    """Strategy in place of the first convolution, then the body, then global pooling.

    Parameters
    ----------
    strategy : made for the `stem` of the body
    body : its modules become part of the network
    pooling : a key of `POOLINGS`
    """

    def __init__(self, strategy: Strategy, body: Body, pooling: str = "avg") -> None:
        super().__init__()
        if not strategy.keeps_norm:
            body.drop_stem_norm()
        self.strategy = strategy
        self.body: nn.Module = body if strategy.shares_body else BodyPerConfiguration(body, strategy.vocabulary)
        self.pooling = pooling
        self.embedding_size: int = body.width * (2 if pooling == "avgmax" else 1)

    def forward(self, image: Tensor, channels: Tensor) -> Tensor:
        """Embed images.

        Parameters
        ----------
        image : (N, C, H, W) float32, normalised
        channels : (C,) int64 token ids, one per channel of the images

        Returns
        -------
        (N, D) float32; (N, C * D) where the strategy embeds each channel on its own
        """
        maps = self.strategy(image, channels)
        maps = self.body(maps) if self.strategy.shares_body else self.body(maps, channels)
        pooled = POOLINGS[self.pooling](maps)
        if self.strategy.per_channel:
            return pooled.reshape(-1, image.shape[1] * self.embedding_size)
        return pooled

    def complete(self) -> None:
        """Bring the network into the form that is exported: every token has a row of its own; training ends here."""
        for module in list(self.modules()):
            if isinstance(module, TokenTable):
                module.complete()
        if isinstance(self.body, BodyPerConfiguration):
            self.body = _StackedBodies(self.body)
