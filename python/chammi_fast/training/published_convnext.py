"""The published models' ConvNeXt as their checkpoints hold it: a list of modules behind the stem's convolution.

Source: the keys of the checkpoints that the authors of "CHAMMI" (NeurIPS 2023) released. The list holds the stem's
norm, stages 0 and 1 whole, and stages 2 and 3 taken apart into their downsampling and their blocks. Depthwise has no
norm, so that all are one place earlier; FixedChannels has the whole stem at its first place.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from chammi_fast.extras import require

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from torch import Tensor

PREFIX = "feature_extractor"
TINY_DEPTHS, TINY_DIMS = (3, 3, 9, 3), (96, 192, 384, 768)
# No ConvNeXt has a hundred blocks: a foreign file shall not make one.
ENTRY = re.compile(PREFIX + r"\.(\d{1,2})\.(?:blocks\.(\d{1,2})\.)?(\w+)")


@dataclass(frozen=True)
class ConvNeXt:
    """A ConvNeXt of a checkpoint.

    Attributes
    ----------
    depths, dims : timm's words for the stages' numbers of blocks and of maps
    modules : name in timm -> name in the checkpoint
    """

    depths: tuple[int, ...]
    dims: tuple[int, ...]
    modules: dict[str, str]

    @classmethod
    def find(cls, model: str, weights: Mapping[str, Tensor]) -> ConvNeXt:
        """Tell depths and dims from the keys and shapes; those of ConvNeXt-Tiny where they are not there to tell."""
        first = 0 if model == "Depthwise" else 1
        depths = _depths(weights, first)
        norm = {"FixedChannels": {"stem.1": "0.1"}, "Depthwise": {}}.get(model, {"stem.1": "0"})
        places = {
            "stages.0": first,
            "stages.1": first + 1,
            "stages.2.downsample": first + 2,
            **{f"stages.2.blocks.{i}": first + 3 + i for i in range(depths[2])},
            "stages.3.downsample": first + 3 + depths[2],
            **{f"stages.3.blocks.{i}": first + 4 + depths[2] + i for i in range(depths[3])},
        }
        modules = {ours: f"{PREFIX}.{theirs}" for ours, theirs in {**norm, **places}.items()}
        return cls(depths, _dims(weights, modules), modules)

    @property
    def name(self) -> str:
        """Timm's name of the model that `options` make the right one."""
        return "convnext_tiny" if self.options else "convnext_tiny.fb_in22k"

    @property
    def options(self) -> dict[str, Any]:
        """Keywords for timm: none for a ConvNeXt-Tiny."""
        tiny = self.depths == TINY_DEPTHS and self.dims == TINY_DIMS
        return {} if tiny else {"depths": self.depths, "dims": self.dims}

    def parameters(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Return each weight's name in timm -> its key in the checkpoint and its shape.

        Raises
        ------
        MissingExtraError
            If timm is not installed.
        """
        timm = require("timm", purpose="importing a checkpoint")
        with torch.device("meta"):  # shapes only: the file is not trusted yet
            whole = timm.create_model("convnext_tiny", num_classes=0, depths=self.depths, dims=self.dims).state_dict()
        return {
            name: (theirs + name.removeprefix(ours), tuple(value.shape))
            for name, value in whole.items()
            for ours, theirs in self.modules.items()
            if name.startswith(f"{ours}.")
        }


def _depths(keys: Iterable[str], first: int) -> tuple[int, ...]:
    """Count the blocks of the stages, the first of which is at place `first` of the list."""
    whole, downsamples, last = [0, 0], [], 0
    for match in filter(None, map(ENTRY.match, keys)):
        place, block = int(match[1]) - first, match[2]
        if place in (0, 1) and block is not None:
            whole[place] = max(whole[place], int(block) + 1)
        elif place > 2 and match[3].isdigit():
            downsamples.append(place)
        last = max(last, place)
    second = min(downsamples, default=3 + TINY_DEPTHS[2])
    found = (*whole, second - 3, last - second)
    return tuple(own if own > 0 else tiny for own, tiny in zip(found, TINY_DEPTHS, strict=True))


def _dims(weights: Mapping[str, Tensor], modules: Mapping[str, str]) -> tuple[int, ...]:
    """Tell the stages' numbers of maps from one weight of each."""
    weight_of = (
        *(f"{modules[stage]}.blocks.0.conv_dw.weight" for stage in ("stages.0", "stages.1")),
        *(f"{modules[stage]}.1.weight" for stage in ("stages.2.downsample", "stages.3.downsample")),
    )
    shapes = [tuple(weights[key].shape) if key in weights else () for key in weight_of]
    return tuple((shape or (0,))[0] or tiny for shape, tiny in zip(shapes, TINY_DIMS, strict=True))
