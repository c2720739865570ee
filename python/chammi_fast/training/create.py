"""Create a network and its description by name, with random, pretrained or saved weights."""

from __future__ import annotations

import difflib
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from chammi_fast.chammi import DATA_SETS, DataSet
from chammi_fast.errors import ExportError, SpecError
from chammi_fast.extras import require
from chammi_fast.files import replacing
from chammi_fast.spec import Preprocessing, Spec, Token, parse_spec, with_averages
from chammi_fast.training.network import ChannelAdaptiveNetwork, stem_shape
from chammi_fast.training.strategies import create_strategy

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from timm.models.convnext import ConvNeXt
    from torch import Tensor, nn

HUB_FILE = "model.safetensors"  # in every repository of timm's
HUB_TIMEOUT_S = 5


@dataclass(frozen=True)
class NetworkOptions:
    """What network to create.

    Attributes
    ----------
    strategy : a key of `chammi_fast.training.strategies.STRATEGIES`
    backbone : timm's name of any ConvNeXt
    pooling : global pooling
    size : side of the input in pixels
    init : "random", "imagenet" (timm downloads the backbone's weights), or a file with the backbone's weights as timm
        publishes them; the adaptive stem starts at random in any case
    seed : of the random weights
    data_sets : configurations with their channels and statistics
    strategy_options, backbone_options : keywords for the two, where their defaults are not wanted
    """

    strategy: str = "hypernet"
    backbone: str = "convnext_tiny.fb_in22k"
    pooling: Literal["avg", "max", "avgmax"] = "avg"
    size: int = 224
    init: str = "random"
    seed: int = 0
    data_sets: tuple[DataSet, ...] = tuple(DATA_SETS.values())
    strategy_options: Mapping[str, int] = field(default_factory=dict)
    backbone_options: Mapping[str, Any] = field(default_factory=dict)


def create_network(options: NetworkOptions) -> tuple[ChannelAdaptiveNetwork, Spec]:
    """Create a network and its description.

    Raises
    ------
    ExportError
        If the strategy or backbone is unknown, or the weights cannot be had.
    MissingExtraError
        If timm is not installed.
    """
    tokens = tokens_of(options.data_sets)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        backbone = _create_backbone(options)
        strategy = create_strategy(options.strategy, stem_shape(backbone), tokens, **options.strategy_options)
    network = ChannelAdaptiveNetwork(strategy, backbone, options.pooling).eval()
    spec = Spec(
        strategy=options.strategy,
        backbone=options.backbone,
        tokens=tokens,
        configurations={data_set.name: data_set.tokens for data_set in options.data_sets},
        embedding_size=network.embedding_size,
        preprocessing=Preprocessing(size=options.size),
        pooling=options.pooling,
        training={"init": Path(options.init).name, "seed": options.seed},
    )
    return network, spec


def tokens_of(data_sets: Iterable[DataSet]) -> tuple[Token, ...]:
    """Return the vocabulary of some configurations: their tokens, then the averages."""
    return with_averages(
        tuple(
            Token(name, mean, std)
            for data_set in data_sets
            for name, mean, std in zip(data_set.tokens, data_set.mean, data_set.std, strict=True)
        )
    )


def save_weights(network: nn.Module, spec: Spec, path: Path) -> None:
    """Save a network's weights and its description, whole or not at all, as a file that `load_weights` reads."""
    with replacing(path) as temporary:
        torch.save({"state_dict": network.state_dict(), "spec": spec.to_json()}, temporary)


def load_weights(network: nn.Module, path: Path) -> Spec | None:
    """Load the weights that `save_weights` wrote, or a bare state dict of the same network.

    Returns
    -------
    The description that was saved with them, or None for a bare state dict.

    Raises
    ------
    ExportError
        If the file cannot be read without running code that it holds, or does not fit the network.
    """
    content = _read_tensors(path)
    saved = content.get("spec")
    _load_exactly(network, content.get("state_dict", content), path)
    if saved is None:
        return None
    try:
        return parse_spec(saved, origin=str(path))
    except SpecError as error:
        raise ExportError(str(error)) from None


def _create_backbone(options: NetworkOptions) -> ConvNeXt:
    timm = require("timm", purpose="creating a network")
    from timm.models.convnext import ConvNeXt, checkpoint_filter_fn

    name = options.backbone
    if name.partition(".")[0] not in timm.list_models():
        near = difflib.get_close_matches(name, timm.list_models("convnext*"), n=3)
        raise ExportError(f"timm has no backbone '{name}'{_did_you_mean(near)}.")
    try:
        backbone = timm.create_model(name, pretrained=False, num_classes=0, **options.backbone_options)
    except RuntimeError as error:
        tags = timm.list_pretrained(f"{name.partition('.')[0]}.*")
        raise ExportError(f"timm refuses the backbone '{name}': {error}{_did_you_mean(tags)}.") from None
    if not isinstance(backbone, ConvNeXt):
        raise ExportError(f"backbone '{name}' is not a ConvNeXt: choose one of timm's convnext or convnextv2 models.")
    if options.init == "imagenet":
        origin, weights = f"timm's weights of {name}", _download(backbone, name)
    elif options.init != "random":
        origin, weights = options.init, _read_tensors(Path(options.init))
    else:
        return backbone
    _load_body(backbone, checkpoint_filter_fn(weights, backbone), origin)  # type: ignore[no-untyped-call]
    return backbone


def _did_you_mean(names: list[str]) -> str:
    return f" (did you mean {' or '.join(names)}?)" if names else ""


def _download(backbone: ConvNeXt, name: str) -> dict[str, Tensor]:
    from huggingface_hub import hf_hub_download

    published: Any = backbone.pretrained_cfg
    hub = published.get("hf_hub_id") or f"timm/{name}"
    try:
        return _read_tensors(Path(hf_hub_download(hub, HUB_FILE, local_files_only=not _hub_is_reachable())))
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


def _load_body(backbone: ConvNeXt, state: Mapping[str, Tensor], origin: object) -> None:
    """Load a backbone's weights, except those of the parts that the network drops."""
    dropped = ("stem.0.", "norm_pre.", "head.")
    kept = {key: value for key, value in state.items() if not key.startswith(dropped)}
    own = {key: value for key, value in backbone.state_dict().items() if key.startswith(dropped)}
    _load_exactly(backbone, {**kept, **own}, origin)


def _read_tensors(path: Path) -> dict[str, Any]:
    """Read a file of tensors (safetensors or torch.save) without running code that it may hold."""
    import pickle
    import zipfile

    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ExportError(f"{path}: the weights cannot be read: {error.strerror or error}.") from None
    except pickle.UnpicklingError:
        if not zipfile.is_zipfile(path):
            raise ExportError(f"{path}: is not a file of weights.") from None
        raise ExportError(
            f"{path}: holds more than tensors, and loading it would run code that it brings: it is refused."
        ) from None
    except (SafetensorError, RuntimeError, EOFError, ValueError) as error:
        cause = str(error).partition("\n")[0]
        raise ExportError(f"{path}: is not a file of weights, or is damaged: {cause}.") from None
    if not isinstance(content, dict):
        raise ExportError(f"{path}: holds a {type(content).__name__} instead of named weights.")
    return content


def _load_exactly(module: nn.Module, state: Mapping[str, Tensor], origin: object) -> None:
    own = module.state_dict()
    missing, foreign = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    if missing or foreign:
        parts = [f"{what}: {_first_of(keys)}" for what, keys in (("missing", missing), ("foreign", foreign)) if keys]
        raise ExportError(f"{origin}: its weights are not those of this network ({'; '.join(parts)}).")
    for key, value in own.items():
        if state[key].shape != value.shape:
            raise ExportError(
                f"{origin}: its weight '{key}' has shape {tuple(state[key].shape)} instead of {tuple(value.shape)}."
            )
    module.load_state_dict(dict(state))


def _first_of(keys: list[str]) -> str:
    more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
    return ", ".join(keys[:3]) + more
