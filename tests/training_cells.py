"""Small data sets and recipes for tests of training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import tifffile

from chammi_fast.chammi import DATA_SETS
from chammi_fast.training.create import Configuration, create_network
from chammi_fast.training.data import TrainingSet
from chammi_fast.training.recipe import Recipe
from chammi_fast.training.run import network_options

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from chammi_fast.spec import Spec
    from chammi_fast.training.network import ChannelAdaptiveNetwork

SMALL: dict[str, Any] = {
    "name": "small",
    "strategy": "hypernet",
    "strategy_options": {"embedding_width": 6, "hidden_width": 10},
    "backbone": "convnext_atto",
    "backbone_options": {"depths": (1, 1, 1, 1), "dims": (8, 16, 24, 32), "ls_init_value": 0.3},
    "init": "lecun",
    "statistics": "data",
    "size": 32,
    "epochs": 3,
    "batch_size": 8,
    "learning_rate": 3e-3,
    "warmup_epochs": 1,
}


def small_recipe(**changes: Any) -> Recipe:
    """Return a recipe that trains in seconds."""
    fields = SMALL | changes
    if fields["strategy"] != "hypernet" and "strategy_options" not in changes:
        fields["strategy_options"] = {}
    return Recipe(**fields)


def painted_set(folder: Path, name: str, count: int, *, seed: int = 0) -> TrainingSet:
    """Write tapes whose class is the brightness of their first channel."""
    rng = np.random.default_rng([seed, len(name)])
    data_set = DATA_SETS[name]
    channels, classes = len(data_set.channels), data_set.train_labels
    labels = rng.integers(0, len(classes), count)
    paths, sizes = [], []
    for place, label in enumerate(labels):
        height, width = int(rng.integers(40, 56)), 44
        planes = rng.integers(0, 60, (channels, height, width), dtype=np.uint8)
        planes[0] += np.uint8(30 * label)
        path = folder / f"{name}-{place}.tif"
        tifffile.imwrite(path, planes.transpose(1, 0, 2).reshape(height, channels * width))
        paths.append(str(path))
        sizes.append((height, width))
    configuration = Configuration(name, data_set.channels, (0.2,) * channels, (0.15,) * channels)
    return TrainingSet(configuration, tuple(classes), paths, [44] * count, np.array(sizes), labels)


def network_for(recipe: Recipe, sets: Sequence[TrainingSet]) -> tuple[ChannelAdaptiveNetwork, Spec]:
    """Create the recipe's network for some data sets."""
    return create_network(network_options(recipe, tuple(one.configuration for one in sets)))
