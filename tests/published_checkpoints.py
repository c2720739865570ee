"""Checkpoints as the authors of CHAMMI released them, with random weights, and what the models in them compute.

Written from the published description of the models and of their checkpoints' keys: nothing of the package's own
networks is used. All is computed in float64; images are normalised already.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import timm
import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own name for it

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    Weights = dict[str, Tensor]

CHANNELS = {
    "Allen": ("nucleus", "membrane", "protein"),
    "HPA": ("microtubules", "protein", "nucleus", "er"),
    "CP": ("nucleus", "er", "rna", "golgi", "mito"),
}
SORTED = ("er", "golgi", "membrane", "microtubules", "mito", "nucleus", "protein", "rna")
FIRST_TOKEN = {"Allen": 0, "HPA": 3, "CP": 7}
SMALL_DEPTHS, SMALL_DIMS = (2, 1, 3, 2), (10, 16, 24, 32)
# Module of timm's ConvNeXt -> place in the checkpoint's list, where the stem's norm is at place 0.
SMALL_PLACES = {
    "stages.0": 1,
    "stages.1": 2,
    "stages.2.downsample": 3,
    "stages.2.blocks.0": 4,
    "stages.2.blocks.1": 5,
    "stages.2.blocks.2": 6,
    "stages.3.downsample": 7,
    "stages.3.blocks.0": 8,
    "stages.3.blocks.1": 9,
}
TINY_PLACES = {
    "stages.0": 1,
    "stages.1": 2,
    "stages.2.downsample": 3,
    "stages.2.blocks.0": 4,
    "stages.2.blocks.1": 5,
    "stages.2.blocks.2": 6,
    "stages.2.blocks.3": 7,
    "stages.2.blocks.4": 8,
    "stages.2.blocks.5": 9,
    "stages.2.blocks.6": 10,
    "stages.2.blocks.7": 11,
    "stages.2.blocks.8": 12,
    "stages.3.downsample": 13,
    "stages.3.blocks.0": 14,
    "stages.3.blocks.1": 15,
    "stages.3.blocks.2": 16,
}


@dataclass
class Published:
    """A model of the benchmark.

    Attributes
    ----------
    name : of the model
    shared : whether HyperNet's embeddings or TemplateMixing's coefficients belong to channel names
    offsets : whether SliceParam has `class_emb`
    size : z of HyperNet, k of TemplateMixing and Depthwise; HyperNet's d is 5 larger
    pooling : avg or avgmax
    """

    name: str
    data_sets: tuple[str, ...] = ("Allen", "HPA", "CP")
    shared: bool = False
    offsets: bool = True
    size: int = 11
    pooling: str = "avg"
    tiny: bool = False
    seed: int = 0
    weights: Weights = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.random = torch.Generator().manual_seed(self.seed)
        sizes: dict[str, Any] = {} if self.tiny else {"depths": SMALL_DEPTHS, "dims": SMALL_DIMS}
        self.body: Any = _convnext(**sizes)
        self.maps: int = self.body.stem[0].out_channels
        for name, parameter in self.body.named_parameters():
            kind = name.rpartition(".")[2]
            flat = parameter.ndim == 1
            mean = {"gamma": 0.3, "weight": 1.0 if flat else 0.0}.get(kind, 0.0)
            value = self.normal(*parameter.shape, std=0.05 if flat else 1.2 / parameter[0].numel() ** 0.5)
            with torch.no_grad():
                parameter.copy_(value + mean)
        self.adapter: Weights = getattr(self, f"_make_{self.name.lower()}")()
        self.weights = {**self._body_weights(), **self.adapter}

    def normal(self, *shape: int, std: float = 1.0) -> Tensor:
        """Random float32 numbers."""
        return torch.randn(*shape, generator=self.random) * std

    def _body_weights(self) -> Weights:
        places = TINY_PLACES if self.tiny else SMALL_PLACES
        shift = 1 if self.name == "Depthwise" else 0
        where = {f"{ours}.": f"feature_extractor.{place - shift}." for ours, place in places.items()}
        if self.name == "FixedChannels":
            where |= {"stem.1.": "feature_extractor.0.1."}
        elif self.name != "Depthwise":
            where |= {"stem.1.": "feature_extractor.0."}
        state = self.body.state_dict().items()
        return {
            theirs + key.removeprefix(ours): value.float()
            for key, value in state
            for ours, theirs in where.items()
            if key.startswith(ours)
        }

    def _rows(self, name: str, shared_name: str, width: int) -> Weights:
        if self.shared:
            return {shared_name: self.normal(8, width)}
        return {f"{name}.{one}": self.normal(len(CHANNELS[one]), width) for one in self.data_sets}

    def _make_hypernet(self) -> Weights:
        z, d = self.size, self.size + 5
        return {
            **self._rows("conv1_emb", "conv1_emb.weight", z),
            "hypernet.W": self.normal(z, 1, d, std=0.1),
            "hypernet.b": self.normal(1, d, std=0.3),
            "hypernet.W_out": self.normal(d, self.maps, 4, 4, std=0.1),
            "hypernet.b_out": self.normal(self.maps, 4, 4, std=0.1),
        }

    def _make_sliceparam(self) -> Weights:
        own = {"conv1_param_bank": self.normal(self.maps, 8, 4, 4, std=0.2)}
        return own | ({"class_emb": self.normal(self.maps, 12, 4, 4, std=0.125)} if self.offsets else {})

    def _make_templatemixing(self) -> Weights:
        rows = self._rows("conv1_coefs", "conv1_coefs", self.size)
        return {"conv1_param_bank": self.normal(self.maps, self.size, 4, 4, std=0.1), **rows}

    def _make_targetparam(self) -> Weights:
        own: Weights = {}
        for one in self.data_sets:
            own[f"first_layer.{one}.weight"] = self.normal(self.maps, len(CHANNELS[one]), 4, 4, std=0.2)
            own[f"first_layer.{one}.bias"] = self.normal(self.maps)
        return own

    def _make_fixedchannels(self) -> Weights:
        (one,) = self.data_sets
        return {
            "feature_extractor.0.0.weight": self.normal(self.maps, len(CHANNELS[one]), 4, 4, std=0.2),
            "feature_extractor.0.0.bias": self.normal(self.maps),
        }

    def _make_depthwise(self) -> Weights:
        own: Weights = {}
        for one in self.data_sets:
            own[f"get_patch_emb.{one}.weight"] = self.normal(len(CHANNELS[one]), 1, 4, 4, std=0.3)
            own[f"get_patch_emb.{one}.bias"] = self.normal(len(CHANNELS[one]))
        return {
            **own,
            "conv1depthwise_param_bank": self.normal(8 * self.size, 1, 3, 3, std=0.3),
            "conv_1x1.weight": self.normal(self.maps, self.size, 1, 1, std=0.3),
            "norm.weight": self.normal(self.maps, std=0.2) + 1,
            "norm.bias": self.normal(self.maps, std=0.2),
            "weighted_sum_pooling": self.normal(8),
        }

    def training_state(self) -> Weights:
        """What a checkpoint holds beside the network: proxies, the temperature's parameter, the adapter once more."""
        groups: dict[str, int] = {}
        copies: Weights = {}
        for key, value in self.adapter.items():
            if self.name != "FixedChannels" and key != "class_emb" and not key.startswith("norm."):
                module, _, rest = key.partition(".")
                place = groups.setdefault(module, len(groups))
                copies[".".join(filter(None, ["adaptive_interface", str(place), rest]))] = value
        width = self.body.num_features * (2 if self.pooling == "avgmax" else 1)
        return {"proxies": self.normal(14, width), "logit_scale": torch.tensor(0.07), **copies}

    def embed(self, images: Tensor, data_set: str) -> np.ndarray:
        """Embed normalised images (N, C, H, W) of a data set: (N, D) float64."""
        own = {key: value.double() for key, value in self.adapter.items()}
        images = images.double()
        with torch.inference_mode():
            if self.name == "Depthwise":
                maps = self._depthwise(own, images, data_set)
            else:
                weight, bias = getattr(self, f"_stem_{self.name.lower()}")(own, data_set)
                maps = self.body.stem[1](F.conv2d(images, weight, bias, stride=4))
            features = self.body.stages(maps)
            pooled = [features.mean((2, 3))]
            if self.pooling == "avgmax":
                pooled.append(features.amax((2, 3)))
        return torch.cat(pooled, 1).numpy()

    def _row(self, own: Weights, name: str, data_set: str, channel: int) -> Tensor:
        if self.shared:
            table = own.get(f"{name}.weight", own.get(name))
            assert table is not None
            return table[SORTED.index(CHANNELS[data_set][channel])]
        return own[f"{name}.{data_set}"][channel]

    def _stem_hypernet(self, own: Weights, data_set: str) -> tuple[Tensor, None]:
        filters = []
        for channel in range(len(CHANNELS[data_set])):
            z = self._row(own, "conv1_emb", data_set, channel)
            hidden = torch.einsum("z,zd->d", z, own["hypernet.W"][:, 0]) + own["hypernet.b"][0]
            filters.append(torch.einsum("d,dohw->ohw", hidden, own["hypernet.W_out"]) + own["hypernet.b_out"])
        return torch.stack(filters, 1), None

    def _stem_sliceparam(self, own: Weights, data_set: str) -> tuple[Tensor, None]:
        filters = []
        for place, channel in enumerate(CHANNELS[data_set]):
            one = own["conv1_param_bank"][:, SORTED.index(channel)]
            filters.append(one + own["class_emb"][:, FIRST_TOKEN[data_set] + place] if self.offsets else one)
        return torch.stack(filters, 1), None

    def _stem_templatemixing(self, own: Weights, data_set: str) -> tuple[Tensor, None]:
        filters = [
            torch.einsum("k,okhw->ohw", self._row(own, "conv1_coefs", data_set, channel), own["conv1_param_bank"])
            for channel in range(len(CHANNELS[data_set]))
        ]
        return torch.stack(filters, 1), None

    def _stem_targetparam(self, own: Weights, data_set: str) -> tuple[Tensor, Tensor]:
        return own[f"first_layer.{data_set}.weight"], own[f"first_layer.{data_set}.bias"]

    def _stem_fixedchannels(self, own: Weights, data_set: str) -> tuple[Tensor, Tensor]:
        assert self.data_sets == (data_set,)
        return own["feature_extractor.0.0.weight"], own["feature_extractor.0.0.bias"]

    def _depthwise(self, own: Weights, images: Tensor, data_set: str) -> Tensor:
        names, k = CHANNELS[data_set], self.size
        weight, bias = own[f"get_patch_emb.{data_set}.weight"], own[f"get_patch_emb.{data_set}.bias"]
        patches = F.conv2d(images, weight, bias, stride=4, groups=len(names))
        bank = own["conv1depthwise_param_bank"]
        filters = torch.cat([bank[SORTED.index(name) * k : (SORTED.index(name) + 1) * k] for name in names])
        responses = F.conv2d(patches, filters, padding=1, groups=len(names))
        responses = responses.reshape(len(images), len(names), k, *responses.shape[2:])
        shares = torch.stack([own["weighted_sum_pooling"][SORTED.index(name)] for name in names]).exp()
        pooled = sum(share / shares.sum() * responses[:, i] for i, share in enumerate(shares))
        mixed = torch.einsum("ok,nkhw->nohw", own["conv_1x1.weight"][:, :, 0, 0], pooled)
        centred = mixed - mixed.mean((2, 3), keepdim=True)
        normal = centred / (centred.square().mean((2, 3), keepdim=True) + 1e-5).sqrt()
        return normal * own["norm.weight"][:, None, None] + own["norm.bias"][:, None, None]


def _convnext(**sizes: Any) -> Any:
    return timm.create_model("convnext_tiny", num_classes=0, **sizes).double().eval()


class Config:
    """Stands in for the configuration object that the released files pickle."""

    def __setstate__(self, _: object) -> None:
        raise AssertionError("a pickled object has been made")


def save(path: Path, weights: Weights, **entries: Any) -> Path:
    """Write a checkpoint as the training code does."""
    config = Config()
    config.__dict__["model"] = {"name": "x"}
    content = {
        "epoch": 15,
        "accuracy": 0.5,
        "config": config,
        "optimizer_params": {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 1e-4, "params": [0]}]},
        "model_params": weights,
        "scheduler_params": {"last_epoch": 15},
        "scaler_params": {},
        "datetime": "2023-06-01",
    }
    torch.save({**content, **entries}, path)
    return path
