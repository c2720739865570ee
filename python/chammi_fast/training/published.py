"""The published models' adapters as their checkpoints hold them: names, shapes, and how they become ours.

Source: the keys of the checkpoints that the authors of "CHAMMI" (NeurIPS 2023) released. The bank of a strategy that
goes by channel names has a row for each of the eight names in alphabetical order; "separate" parameters lie under the
names of the data sets.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from chammi_fast.training.create import CHAMMI
from chammi_fast.training.torch_archive import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from torch import Tensor

    Weights = Mapping[str, Tensor]
    Shapes = dict[str, tuple[int, ...]]

DATA_SETS = {one.name: one for one in CHAMMI}
NAMES = sorted({channel for one in CHAMMI for channel in one.channels})
TOKENS = sum(len(one.channels) for one in CHAMMI)
KERNEL = (4, 4)  # of the stem
BANK = "conv1_param_bank"
FIXED_STEM = "feature_extractor.0.0"  # FixedChannels' first convolution
# What a checkpoint of each model has, and none of another.
MARKS = {
    "HyperNet": ("hypernet.", "conv1_emb"),
    "TemplateMixing": ("conv1_coefs",),
    "SliceParam": ("class_emb",),
    "TargetParam": ("first_layer.",),
    "Depthwise": ("get_patch_emb.", "conv1depthwise_param_bank", "conv_1x1.", "weighted_sum_pooling"),
    "FixedChannels": (FIXED_STEM,),
}


@dataclass(frozen=True)
class Adapter:
    """The adapter of a checkpoint.

    Attributes
    ----------
    data_sets : whose channels it knows, in the benchmark's order
    options : of our strategy
    shapes : key in the checkpoint -> the shape that it must have
    state : makes the state of our strategy of weights that have all these shapes
    """

    data_sets: tuple[str, ...]
    options: dict[str, Any]
    shapes: Shapes
    state: Callable[[Weights], dict[str, Tensor]]


def recognise(names: Iterable[str]) -> str:
    """Tell from a checkpoint's keys which of the published models it is.

    Raises
    ------
    ValueError
        If it is none of them, or could be several.
    """
    keys = list(names)
    found: dict[str, str] = {}
    for model, marks in MARKS.items():
        if key := next((key for key in keys if key.startswith(marks)), None):
            found[model] = shown(key)
    if not found and BANK in keys:
        return "SliceParam"
    if not found:
        raise ValueError(f"its weights are those of none of the published models ({', '.join(MARKS)})")
    if len(found) > 1:
        named = " and ".join(f"'{key}' as in {model}" for model, key in found.items())
        raise ValueError(f"its weights are those of several published models: {named}")
    return next(iter(found))


def hypernet(weights: Weights, maps: int) -> Adapter:
    """HyperNet: a token's embedding, separate or shared by channel name, and two affine maps."""
    width, hidden = _size(weights, "hypernet.W", 0, 128), _size(weights, "hypernet.W", 2, 256)
    rows = _Rows.find(weights, "conv1_emb", width)
    shapes: Shapes = {
        **rows.shapes,
        "hypernet.W": (width, 1, hidden),
        "hypernet.b": (1, hidden),
        "hypernet.W_out": (hidden, maps, *KERNEL),
        "hypernet.b_out": (maps, *KERNEL),
    }

    def state(own: Weights) -> dict[str, Tensor]:
        return {
            "embedding.rows": rows.table(own),
            "W": own["hypernet.W"][:, 0],
            "b": own["hypernet.b"][0],
            "W_out": own["hypernet.W_out"].flatten(1),
            "b_out": own["hypernet.b_out"].flatten(),
        }

    options = {"embedding_width": width, "hidden_width": hidden, "embeddings": rows.owner}
    return Adapter(rows.data_sets, options, shapes, state)


def template_mixing(weights: Weights, maps: int) -> Adapter:
    """TemplateMixing: templates and a token's coefficients, separate or shared by channel name."""
    templates = _size(weights, BANK, 1, 128)
    rows = _Rows.find(weights, "conv1_coefs", templates)

    def state(own: Weights) -> dict[str, Tensor]:
        return {"coefficients.rows": rows.table(own), "templates": _by_channel(own[BANK])}

    options = {"templates": templates, "coefficients": rows.owner}
    return Adapter(rows.data_sets, options, {**rows.shapes, BANK: (maps, templates, *KERNEL)}, state)


def slice_param(weights: Weights, maps: int) -> Adapter:
    """SliceParam: a slice for each channel name, with or without an offset for each token."""
    shapes: Shapes = {BANK: (maps, len(NAMES), *KERNEL)}
    kept = {BANK: "bank.rows"}
    if "class_emb" in weights:
        shapes["class_emb"] = (maps, TOKENS, *KERNEL)
        kept["class_emb"] = "offsets.rows"

    def state(own: Weights) -> dict[str, Tensor]:
        return {ours: _by_channel(own[theirs]) for theirs, ours in kept.items()}

    return Adapter(tuple(DATA_SETS), {"offsets": "class_emb" in weights}, shapes, state)


def target_param(weights: Weights, maps: int) -> Adapter:
    """TargetParam: a first convolution with bias for each data set."""
    names = _data_sets(weights, "first_layer")
    shapes: Shapes = {}
    for name in names:
        shapes[f"first_layer.{name}.weight"] = (maps, len(DATA_SETS[name].channels), *KERNEL)
        shapes[f"first_layer.{name}.bias"] = (maps,)
    return Adapter(names, {}, shapes, _convolutions([f"first_layer.{name}" for name in names]))


def fixed_channels(weights: Weights, maps: int) -> Adapter:
    """FixedChannels: one first convolution; its number of channels tells the data set, if any has that many."""
    channels = _size(weights, f"{FIXED_STEM}.weight", 1, 3)
    names = tuple(name for name, one in DATA_SETS.items() if len(one.channels) == channels)
    shapes: Shapes = {f"{FIXED_STEM}.weight": (maps, channels, *KERNEL), f"{FIXED_STEM}.bias": (maps,)}
    return Adapter(names, {}, shapes, _convolutions([FIXED_STEM]))


def depthwise(weights: Weights, maps: int) -> Adapter:
    """Depthwise: a patch convolution for each data set, filters and pooling weights by channel name."""
    names = _data_sets(weights, "get_patch_emb")
    filters = _size(weights, "conv1depthwise_param_bank", 0, 8 * 64) // len(NAMES)
    shapes: Shapes = {
        "conv1depthwise_param_bank": (len(NAMES) * filters, 1, 3, 3),
        "weighted_sum_pooling": (len(NAMES),),
        "conv_1x1.weight": (maps, filters, 1, 1),
        "norm.weight": (maps,),
        "norm.bias": (maps,),
    }
    for name in names:
        shapes[f"get_patch_emb.{name}.weight"] = (len(DATA_SETS[name].channels), 1, *KERNEL)
        shapes[f"get_patch_emb.{name}.bias"] = (len(DATA_SETS[name].channels),)
    # A network for some of the data sets has rows for their channels only.
    known = sorted({channel for name in names for channel in DATA_SETS[name].channels})
    places = [NAMES.index(channel) for channel in known]

    def state(own: Weights) -> dict[str, Tensor]:
        return {
            "patches.rows": torch.cat([own[f"get_patch_emb.{name}.weight"].flatten(1) for name in names]),
            "patch_biases.rows": torch.cat([own[f"get_patch_emb.{name}.bias"] for name in names])[:, None],
            "filters.rows": own["conv1depthwise_param_bank"].reshape(len(NAMES), -1)[places],
            "scores.rows": own["weighted_sum_pooling"][places, None],
            "mix.weight": own["conv_1x1.weight"],
            "norm.weight": own["norm.weight"],
            "norm.bias": own["norm.bias"],
        }

    return Adapter(names, {"filters": filters}, shapes, state)


ADAPTERS: dict[str, Callable[[Weights, int], Adapter]] = {
    "HyperNet": hypernet,
    "TemplateMixing": template_mixing,
    "SliceParam": slice_param,
    "TargetParam": target_param,
    "Depthwise": depthwise,
    "FixedChannels": fixed_channels,
}


@dataclass(frozen=True)
class _Rows:
    """Rows of tokens, under the names of the data sets, or of channel names, under one name."""

    data_sets: tuple[str, ...]
    owner: str
    shapes: Shapes

    @classmethod
    def find(cls, weights: Weights, name: str, width: int) -> _Rows:
        for shared in (name, f"{name}.weight"):
            if shared in weights:
                return cls(tuple(DATA_SETS), "shared", {shared: (len(NAMES), width)})
        names = _data_sets(weights, name)
        return cls(names, "separate", {f"{name}.{one}": (len(DATA_SETS[one].channels), width) for one in names})

    def table(self, weights: Weights) -> Tensor:
        return torch.cat([weights[key] for key in self.shapes])


def _data_sets(weights: Weights, prefix: str) -> tuple[str, ...]:
    """Return the data sets that have keys below a prefix; all, where none has."""
    found = {key.split(".")[1] for key in weights if key.startswith(f"{prefix}.")}
    unknown = sorted(found - DATA_SETS.keys())
    if unknown:
        raise ValueError(f"it has '{prefix}.{shown(unknown[0])}', but the data sets are {', '.join(DATA_SETS)}")
    return tuple(name for name in DATA_SETS if not found or name in found)


def _size(weights: Weights, key: str, axis: int, published: int) -> int:
    """Return a size that is free to choose; the published one where the weight is not there to tell."""
    shape = weights[key].shape if key in weights else ()
    return shape[axis] if axis < len(shape) and shape[axis] > 0 else published


def _by_channel(filters: Tensor) -> Tensor:
    """Turn (out, C, kernel) into one row (C, out * kernel) per channel."""
    return filters.transpose(0, 1).flatten(1)


def _convolutions(prefixes: list[str]) -> Callable[[Weights], dict[str, Tensor]]:
    def state(own: Weights) -> dict[str, Tensor]:
        return {
            "filters.rows": torch.cat([_by_channel(own[f"{prefix}.weight"]) for prefix in prefixes]),
            "biases.rows": torch.stack([own[f"{prefix}.bias"] for prefix in prefixes]),
        }

    return state
