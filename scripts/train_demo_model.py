"""Train the small network that ships with the package, and write it and its untrained twin.

It learns from the training rows of a synthetic CHAMMI (`chammi_fast.synthetic`), of another seed than the demo's, and
is scored on the test rows. Fixed seeds make the same network again up to rounding, which training does not amplify:
with another number of threads, or with weights changed by one millionth at the start, all scores agree to three digits.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import torch
from rich.console import Console
from torch import nn

import chammi_fast
from chammi_fast.embedding import embed
from chammi_fast.evaluation import Scores, evaluate
from chammi_fast.synthetic import synthesise
from chammi_fast.training.create import Configuration, NetworkOptions, create_network
from chammi_fast.training.data import load_training_sets
from chammi_fast.training.export import export_onnx
from chammi_fast.training.loop import TrainSettings, train
from chammi_fast.training.losses import ProxyNCA

if TYPE_CHECKING:
    from chammi_fast.spec import Spec

IMAGES, DATA_SEED = 1000, 1000  # per data set
TEMPERATURE = 0.07
SIZE = 128
DEPTHS, DIMS = (1, 1, 3, 1), (24, 48, 96, 160)
OPTIONS = NetworkOptions(
    backbone="convnext_atto",
    size=SIZE,
    strategy_options={"embedding_width": 16, "hidden_width": 64},
    backbone_options={"depths": DEPTHS, "dims": DIMS, "conv_mlp": True, "ls_init_value": 0.3},
)
SETTINGS = TrainSettings(
    epochs=70, batch_size=64, learning_rate=2e-3, proxy_learning_rate=2e-2, warmup=0.1, weight_decay=0.05
)
ASSETS = Path(chammi_fast.__file__).parent / "assets"
CONSOLE = Console()


def main() -> None:
    """Synthesise, train, export, score."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ASSETS, help="folder for the two files")
    parser.add_argument("--data", type=Path, help="the synthetic data, if they have been made before")
    arguments = parser.parse_args()
    torch.use_deterministic_algorithms(mode=True)
    with tempfile.TemporaryDirectory() as folder:
        data = arguments.data or Path(folder) / "data"
        if arguments.data is None:
            synthesise(data, images=IMAGES, seed=DATA_SEED)
            CONSOLE.print(f"{IMAGES} images of each data set")
        files = make_models(data, arguments.out)
        print_scores({name: score(path, data, Path(folder) / name) for name, path in files.items()})


def make_models(data: Path, out: Path) -> dict[str, Path]:
    """Train on the training rows of a CHAMMI folder; write the network before and after."""
    sets = load_training_sets(data, SIZE)
    network, spec = create_network(
        dataclasses.replace(OPTIONS, configurations=tuple(Configuration.of(one.data_set) for one in sets))
    )
    spec = msgspec.structs.replace(spec, backbone=f"ConvNeXt, depths {DEPTHS}, dims {DIMS}")
    torch.manual_seed(OPTIONS.seed)
    keep_signal(network)
    loss = ProxyNCA(sum(len(one.data_set.train_labels) for one in sets), spec.embedding_size, TEMPERATURE)
    files = {"untrained": out / "demo-untrained.onnx", "trained": out / "demo.onnx"}
    export_onnx(network, with_provenance(spec, "random start"), files["untrained"])
    started = time.monotonic()
    train(network, loss, sets, spec, SETTINGS, report)
    CONSOLE.print(f"trained in {time.monotonic() - started:.0f} s")
    export_onnx(network, with_provenance(spec, "ProxyNCA++ on synthetic cells"), files["trained"])
    return files


def with_provenance(spec: Spec, recipe: str) -> Spec:
    """Say in the file where its weights come from."""
    data = {"images": IMAGES, "seed": DATA_SEED, "rows": "Train"}
    settings = {**vars(SETTINGS), "temperature": TEMPERATURE}
    training = {"recipe": recipe, "script": Path(__file__).name, "synthetic_data": data, "settings": settings}
    return msgspec.structs.replace(spec, training=training)


def keep_signal(network: nn.Module) -> None:
    """Start the body's weights at a size that keeps the signal's: ConvNeXt's own suits layers ten times as wide."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.trunc_normal_(module.weight, std=1 / math.sqrt(module.weight[0].numel()))


def report(epoch: int, mean: float) -> None:
    """Print an epoch's mean loss."""
    CONSOLE.print(f"epoch {epoch:2} of {SETTINGS.epochs}: loss {mean:.3f}")


def score(model: Path, data: Path, features: Path) -> Scores:
    """Embed and score a CHAMMI folder."""
    embed(model, data=data, out=features)
    return evaluate(data, features)


def print_scores(scores: dict[str, Scores]) -> None:
    """Print the tasks of all models side by side."""
    CONSOLE.print(f"{'macro F1':18}" + "".join(f"{name:>12}" for name in scores))
    for task in scores["trained"].tasks:
        CONSOLE.print(f"{task:18}" + "".join(f"{one.tasks[task].f1_macro:12.3f}" for one in scores.values()))
    CONSOLE.print(f"{'CPS':18}" + "".join(f"{one.cps or 0:12.3f}" for one in scores.values()))


if __name__ == "__main__":
    main()
