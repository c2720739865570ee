"""Make networks of the checkpoints that the authors of CHAMMI released, whole or not at all."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import torch

from chammi_fast.errors import ExportError
from chammi_fast.training.create import NetworkOptions, create_network
from chammi_fast.training.published import ADAPTERS, DATA_SETS, FIXED_STEM, Adapter, recognise
from chammi_fast.training.published_convnext import ConvNeXt
from chammi_fast.training.tensors import first_of, load_exactly
from chammi_fast.training.torch_archive import read_checkpoint, read_training_checkpoint, shown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from chammi_fast.spec import Spec
    from chammi_fast.training.network import ChannelAdaptiveNetwork

    Weights = Mapping[str, Tensor]

__all__ = ["import_checkpoint", "read_checkpoint"]

WRAPPERS = ("module.", "_orig_mod.")  # before every key: DataParallel, torch.compile
COPIES = "adaptive_interface."
PROXIES, PROXIES_MAX = "proxies", 14
SCALE = "logit_scale"
BYTES_MAX = 2**31 - 1  # of a model file


@dataclass(frozen=True)
class _Part:
    """One checkpoint, checked.

    Attributes
    ----------
    model : published name of it
    strategy, body : state of our network's two parts
    provenance : what the description of the network records about it
    """

    path: Path
    model: str
    adapter: Adapter
    backbone: ConvNeXt
    pooling: Literal["avg", "avgmax"]
    strategy: dict[str, Tensor]
    body: dict[str, Tensor]
    provenance: dict[str, Any]


def import_checkpoint(
    paths: Sequence[str | Path], *, data_sets: Sequence[str] = ()
) -> tuple[ChannelAdaptiveNetwork, Spec]:
    """Make a network of a released checkpoint, or one of several FixedChannels checkpoints.

    The keys tell the model, its options and the sizes of its ConvNeXt; nothing that a file pickles beside its weights
    is run. The network's channels are normalised by the published statistics of the data sets.

    Parameters
    ----------
    paths : one file; FixedChannels: one for each data set
    data_sets : FixedChannels: the data set of each file, where its number of channels shall not tell; other models: one
        that the file must know

    Raises
    ------
    ExportError
        If a file cannot be read, its weights are not exactly those of a published model, or its data set is another.
    """
    parts = [_examine(Path(path)) for path in paths]
    if not parts:
        raise ExportError("no checkpoint was given.")
    owners, state = _combine(parts, data_sets)
    first = parts[0]
    options = NetworkOptions(
        strategy=first.model.lower(),
        backbone=first.backbone.name,
        pooling=first.pooling,
        configurations=tuple(DATA_SETS[name] for name in owners),
        strategy_options=first.adapter.options,
        backbone_options=first.backbone.options,
    )
    network, spec = create_network(options)
    load_exactly(network, state, ", ".join(str(part.path) for part in parts))
    training = {"imported": first.model, **first.backbone.options, "files": [part.provenance for part in parts]}
    return network, msgspec.structs.replace(spec, training=training)


def _combine(parts: Sequence[_Part], asked: Sequence[str]) -> tuple[tuple[str, ...], dict[str, Tensor]]:
    """Return the data sets that the network knows, and its state."""
    if any(part.model != "FixedChannels" for part in parts):
        owners = _known_data_sets(parts, asked)
        strategy = parts[0].strategy
        body = {f"body.{key}": value for key, value in parts[0].body.items()}
    else:
        by_owner = _own_data_sets(parts, asked)
        owners = tuple(by_owner)
        strategy = {key: torch.cat([part.strategy[key] for part in by_owner.values()]) for key in parts[0].strategy}
        bodies = enumerate(part.body for part in by_owner.values())
        body = {f"body.bodies.{place}.{key}": value for place, one in bodies for key, value in one.items()}
    return owners, {**{f"strategy.{key}": value for key, value in strategy.items()}, **body}


def _known_data_sets(parts: Sequence[_Part], asked: Sequence[str]) -> tuple[str, ...]:
    """Return the data sets of a checkpoint that knows several, if what was asked for fits it."""
    part = next(part for part in parts if part.model != "FixedChannels")
    if len(parts) > 1:
        raise ExportError(
            f"{part.path}: is a {part.model} checkpoint, but only FixedChannels ones can be put together."
        )
    if len(asked) > 1:
        raise ExportError(f"{part.path}: is one {part.model} checkpoint, but {len(asked)} data sets were named.")
    known = part.adapter.data_sets
    for name in asked:
        if name not in known:
            raise ExportError(f"{part.path}: has no data set '{name}': it has {', '.join(known)}.")
    return known


def _own_data_sets(parts: Sequence[_Part], asked: Sequence[str]) -> dict[str, _Part]:
    """Return the FixedChannels checkpoint of each data set, in the benchmark's order."""
    if asked and len(asked) != len(parts):
        raise ExportError(
            f"{len(parts)} checkpoints, but {len(asked)} data sets: name one for each checkpoint, or none."
        )
    found: dict[str, _Part] = {}
    for i, part in enumerate(parts):
        name = _own_data_set(part, asked[i] if asked else None)
        if name in found:
            raise ExportError(f"{found[name].path} and {part.path} are both of the data set {name}.")
        if (part.backbone, part.pooling) != (parts[0].backbone, parts[0].pooling):
            raise ExportError(f"{parts[0].path} and {part.path} hold networks of different sizes.")
        found[name] = part
    return {name: found[name] for name in DATA_SETS if name in found}


def _own_data_set(part: _Part, asked: str | None) -> str:
    channels = part.adapter.shapes[f"{FIXED_STEM}.weight"][1]
    sizes = ", ".join(f"{name} {len(one.channels)}" for name, one in DATA_SETS.items())
    if asked is None:
        if len(part.adapter.data_sets) != 1:
            raise ExportError(f"{part.path}: takes {channels} channels, but the data sets have others: {sizes}.")
        return part.adapter.data_sets[0]
    if asked not in DATA_SETS:
        raise ExportError(f"there is no data set '{asked}': choose from {', '.join(DATA_SETS)}.")
    if asked not in part.adapter.data_sets:
        raise ExportError(
            f"{part.path}: takes {channels} channels, but {asked} has {len(DATA_SETS[asked].channels)} ({sizes})."
        )
    return asked


def _examine(path: Path) -> _Part:
    content = read_training_checkpoint(path)
    try:
        weights = _unwrap(content.weights)
        model = recognise(weights)
        backbone = ConvNeXt.find(model, weights)
        adapter = ADAPTERS[model](weights, backbone.dims[0])
        parameters = backbone.parameters()
        own = _check(model, weights, adapter, dict(parameters.values()))
        pooling = _check_training_state(weights, backbone.dims[3])
    except ValueError as error:
        raise ExportError(f"{path}: {error}.") from None
    with path.open("rb") as file:
        provenance: dict[str, Any] = {"file": path.name, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
    if content.epoch is not None:
        provenance["epoch"] = content.epoch
    body = {f"model.{name}": own[key] for name, (key, _) in parameters.items()}
    return _Part(path, model, adapter, backbone, pooling, adapter.state(own), body, provenance)


def _unwrap(weights: Weights) -> Weights:
    """Return weights by the names that they had before anything wrapped the network."""
    while weights and (wrapper := next((one for one in WRAPPERS if all(key.startswith(one) for key in weights)), None)):
        weights = {key.removeprefix(wrapper): value for key, value in weights.items()}
    return weights


def _check_training_state(weights: Weights, width: int) -> Literal["avg", "avgmax"]:
    """Check what a network needs for training only; return the pooling that the width of the proxies tells."""
    scale = weights.get(SCALE)
    if scale is not None and scale.numel() != 1:
        raise ValueError(f"its '{SCALE}' has shape {tuple(scale.shape)} instead of being one number")
    proxies = weights.get(PROXIES)
    if proxies is None:
        return "avg"
    shape = tuple(proxies.shape)
    if len(shape) != 2 or not 1 <= shape[0] <= PROXIES_MAX or shape[1] not in (width, 2 * width):
        raise ValueError(
            f"its '{PROXIES}' have shape {shape} instead of ({PROXIES_MAX} or fewer, {width}), or twice that width"
        )
    return "avg" if shape[1] == width else "avgmax"


def _check(model: str, weights: Weights, adapter: Adapter, body: Mapping[str, tuple[int, ...]]) -> Weights:
    """Return a model's own weights as float32, if none is missing or left over and all have the right shapes."""
    shapes = {**body, **adapter.shapes}
    if 4 * sum(map(math.prod, shapes.values())) > BYTES_MAX:
        raise ValueError("its weights take more than 2 GB, the most that one model file can hold")
    copies = set() if model == "FixedChannels" else {key for key in weights if _is_copy(key, weights, adapter)}
    expected = {*shapes, *copies, PROXIES, SCALE}
    foreign = [shown(key) for key in weights if key not in expected]
    missing = [key for key in shapes if key not in weights]
    if missing or foreign:
        said = [
            f"{verb} {len(keys)} weight{'s' * (len(keys) > 1)} ({first_of(keys)})"
            for verb, keys in (("lacks", missing), ("has a surplus of", foreign))
            if keys
        ]
        raise ValueError(f"is no whole {model} checkpoint: it {' and '.join(said)}")
    for key, shape in shapes.items():
        if tuple(weights[key].shape) != shape:
            raise ValueError(f"its weight '{key}' has shape {tuple(weights[key].shape)} instead of {shape}")
    own = {key: weights[key].float() for key in shapes}
    for key, value in own.items():
        if not weights[key].is_floating_point() or not value.isfinite().all():
            raise ValueError(f"its weight '{key}' holds something else than finite floating-point numbers")
    return own


def _is_copy(key: str, weights: Weights, adapter: Adapter) -> bool:
    """Whether a weight repeats one of the adapter's, under the end of its name with list places in between."""
    if not key.startswith(COPIES):
        return False
    end = [part for part in key.split(".")[1:] if not part.isdigit()]
    twins = [one for one in adapter.shapes if one in weights and f".{one}".endswith(".".join(["", *end]))]
    alike = [one for one in twins if weights[one].shape == weights[key].shape]
    if any(_equal(weights[one], weights[key]) for one in alike):
        return True
    named = alike or (twins if end else [])
    if named:
        raise ValueError(f"its weight '{shown(key)}' differs from '{named[0]}', which it repeats in whole checkpoints")
    return False


def _equal(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and torch.allclose(one, other, rtol=0, atol=0, equal_nan=True)
