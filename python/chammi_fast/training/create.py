"""Create a network and its description by name, with random, pretrained or saved weights."""

from __future__ import annotations

import difflib
import math
import urllib.error
import urllib.request
from collections.abc import Mapping  # noqa: TC003 - msgspec reads the annotations
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from chammi_fast.chammi import DATA_SETS
from chammi_fast.errors import ExportError
from chammi_fast.extras import require
from chammi_fast.spec import Preprocessing, Spec, Token, with_averages
from chammi_fast.training.network import Body, ChannelAdaptiveNetwork
from chammi_fast.training.strategies import Vocabulary, create_strategy, strategy_class
from chammi_fast.training.tensors import load_backbone, read_tensors

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor

    from chammi_fast.chammi import DataSet

HUB_FILE = "model.safetensors"  # in every repository of timm's
HUB_TIMEOUT_S = 5
RANDOM = ("random", "lecun")
# What timm's factory takes beside a network's own options: it would load files by these, be they pickled programs, or
# make something else than the network. A file of weights brings options with it, so these are no matter of trust.
FACTORY = (
    "model_name",
    "checkpoint_path",
    "cache_dir",
    "scriptable",
    "exportable",
    "no_jit",
    "in_chans",
    "num_classes",
    "features_only",
    "out_indices",
    "feature_cfg",
    "model_cfg",
    "kwargs_filter",
)


@dataclass(frozen=True)
class Configuration:
    """Channels that come together: those of one study.

    Attributes
    ----------
    name : "CP"
    channels : names in tape order
    mean, std : per channel, of pixels scaled to [0, 1]
    """

    name: str
    channels: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def tokens(self) -> tuple[str, ...]:
        """Token names of the channels in tape order, such as "CP/nucleus"."""
        return tuple(f"{self.name}/{channel}" for channel in self.channels)

    @classmethod
    def of(cls, data_set: DataSet) -> Configuration:
        """Return the configuration of one of the benchmark's data sets, with the published statistics."""
        return cls(data_set.name, data_set.channels, data_set.mean, data_set.std)


CHAMMI = tuple(Configuration.of(data_set) for data_set in DATA_SETS.values())


@dataclass(frozen=True)
class NetworkOptions:
    """What network to create.

    Attributes
    ----------
    strategy : a key of `chammi_fast.training.strategies.STRATEGIES`
    backbone : timm's name of any model that begins with one convolution, also as a patch embedding
    pooling : global pooling
    size : side of the input in pixels; None for images as they are, or for the one size that a network has (ViT, Swin)
    init : "random", as timm starts a network; "lecun", random with a deviation of 1 / sqrt(fan in), which keeps the
        signal's size in networks much narrower than those that timm's start is made for; "imagenet" (timm downloads the
        backbone's weights); or a file with the backbone's weights as timm publishes them
    seed : of the random weights
    configurations : the channels and their statistics
    strategy_options, backbone_options : keywords for the two, where their defaults are not wanted
    """

    strategy: str = "hypernet"
    backbone: str = "convnext_tiny.fb_in22k"
    pooling: Literal["avg", "max", "avgmax"] = "avg"
    size: int | None = 224
    init: str = "random"
    seed: int = 0
    configurations: tuple[Configuration, ...] = CHAMMI
    strategy_options: Mapping[str, Any] = field(default_factory=dict)
    backbone_options: Mapping[str, Any] = field(default_factory=dict)


def create_network(options: NetworkOptions) -> tuple[ChannelAdaptiveNetwork, Spec]:
    """Create a network and its description.

    Raises
    ------
    ExportError
        If the strategy, the backbone or an option is unknown, or the weights cannot be had.
    MissingExtraError
        If timm is not installed.
    """
    kind = strategy_class(options.strategy)
    options = replace(options, size=options.size or only_size(options.backbone, options.backbone_options))
    vocabulary = Vocabulary(
        tokens_of(options.configurations, normalised=kind.normalised),
        {one.name: one.tokens for one in options.configurations},
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        body = _create_body(options)
        stem = body.stem(pretrained=options.init not in RANDOM)
        strategy = create_strategy(options.strategy, stem, vocabulary, options.strategy_options)
    network = ChannelAdaptiveNetwork(strategy, body, options.pooling).eval()
    spec = Spec(
        strategy=options.strategy,
        backbone=options.backbone,
        tokens=vocabulary.tokens,
        configurations=dict(vocabulary.configurations),
        embedding_size=network.embedding_size,
        per_channel=strategy.per_channel,
        accepts=strategy.accepts,
        preprocessing=Preprocessing(size=options.size, resize="none" if options.size is None else "shorter"),
        pooling=options.pooling,
        training={"init": Path(options.init).name, "seed": options.seed},
    )
    return network, spec


def tokens_of(configurations: Iterable[Configuration], *, normalised: bool = True) -> tuple[Token, ...]:
    """Return the vocabulary of some configurations: their tokens, then the averages."""
    return with_averages(
        tuple(
            Token(name, mean if normalised else 0.0, std if normalised else 1.0)
            for one in configurations
            for name, mean, std in zip(one.tokens, one.mean, one.std, strict=True)
        )
    )


def only_size(backbone: str, options: Mapping[str, Any]) -> int | None:
    """Return the side in pixels of the only images that a backbone takes (ViT, Swin); None where it takes any.

    Parameters
    ----------
    backbone : timm's name
    options : keywords for it

    Raises
    ------
    ExportError
        If timm has no such backbone.
    """
    published = _published(backbone)
    if published is None or not published.fixed_input_size:
        return None
    size = options.get("img_size", published.input_size[-1])
    return int(size[0] if isinstance(size, list | tuple) else size)


def _published(name: str) -> Any:
    """Return what timm says of a backbone and its published weights; None where it says nothing."""
    timm = require("timm", purpose="creating a network")
    if name.partition(".")[0] not in timm.list_models():
        near = difflib.get_close_matches(name, timm.list_models(), n=3)
        raise ExportError(f"timm has no backbone '{name}'{_did_you_mean(near)}.")
    try:
        return timm.get_pretrained_cfg(name)
    except (RuntimeError, ValueError, LookupError) as error:
        raise _refusal(name, error) from None


def _create_body(options: NetworkOptions) -> Body:
    timm = require("timm", purpose="creating a network")
    name, keywords = options.backbone, dict(options.backbone_options)
    _check_own(keywords)
    if only_size(name, keywords) is not None:
        keywords.setdefault("img_size", options.size)
    try:
        backbone = timm.create_model(name, pretrained=False, num_classes=0, **keywords)
    except (RuntimeError, TypeError, ValueError, LookupError, AttributeError, AssertionError) as error:
        raise _refusal(name, error) from None
    if options.init == "imagenet":
        load_backbone(backbone, _download(backbone, name), f"timm's weights of {name}")
    elif options.init not in RANDOM:
        load_backbone(backbone, read_tensors(Path(options.init)), options.init)
    elif options.init == "lecun":
        for module in backbone.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.trunc_normal_(module.weight, std=1 / math.sqrt(module.weight[0].numel()))
    return Body(backbone, name, options.size or 224)


def _check_own(keywords: Mapping[str, Any]) -> None:
    for name in keywords:
        if name in FACTORY or name.startswith("pretrained"):
            raise ExportError(
                f"backbone_options: '{name}' is none of a network's own options: the start of its weights is init, and "
                f"its inputs and outputs are settled."
            )


def _refusal(name: str, error: Exception) -> ExportError:
    tags = require("timm", purpose="creating a network").list_pretrained(f"{name.partition('.')[0]}.*")
    return ExportError(f"timm refuses the backbone '{name}': {error}{_did_you_mean(tags)}.")


def _did_you_mean(names: list[str]) -> str:
    return f" (did you mean {' or '.join(names)}?)" if names else ""


def _download(backbone: nn.Module, name: str) -> dict[str, Tensor]:
    from huggingface_hub import hf_hub_download

    published: Any = backbone.pretrained_cfg
    hub = published.get("hf_hub_id") or f"timm/{name}"
    try:
        return read_tensors(Path(hf_hub_download(hub, HUB_FILE, local_files_only=not _hub_is_reachable())))
    except Exception:
        raise ExportError(
            f"the ImageNet weights of {name} cannot be downloaded: fetch {HUB_FILE} of the Hugging Face repository "
            f"{hub} (timm model {name}) on a machine with a network and pass it as --init FILE."
        ) from None


def _hub_is_reachable() -> bool:
    """Look before the hub's client does, which would try again and again for a minute, and complain each time."""
    from huggingface_hub.constants import ENDPOINT

    try:
        with urllib.request.urlopen(ENDPOINT, timeout=HUB_TIMEOUT_S):  # noqa: S310 - the client's own address
            return True
    except urllib.error.HTTPError:
        return True  # it answers
    except OSError:
        return False
