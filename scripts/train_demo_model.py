"""Train the small network that ships with the package, and write it and its untrained twin.

It learns from the training rows of a synthetic CHAMMI (`chammi_fast.synthetic`), of another seed than the demo's, and
is scored on the test rows. The recipe is demo-model.toml.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import torch
from rich.console import Console

import chammi_fast
from chammi_fast.embedding import embed
from chammi_fast.evaluation import Scores, evaluate
from chammi_fast.synthetic import synthesise
from chammi_fast.training.create import create_network
from chammi_fast.training.data import Source, load_training_sets
from chammi_fast.training.export import export_onnx
from chammi_fast.training.loop import Hooks, Log, train
from chammi_fast.training.recipe import load_recipe
from chammi_fast.training.run import network_options

if TYPE_CHECKING:
    from chammi_fast.spec import Spec

IMAGES, DATA_SEED = 1000, 1000  # per data set
RECIPE = load_recipe(str(Path(__file__).with_name("demo-model.toml")))
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
    sets = load_training_sets(Source(data))
    network, spec = create_network(network_options(RECIPE, tuple(one.configuration for one in sets)))
    spec = msgspec.structs.replace(spec, backbone=f"ConvNeXt {RECIPE.backbone_options}")
    files = {"untrained": out / "demo-untrained.onnx", "trained": out / "demo.onnx"}
    export_onnx(network, with_provenance(spec, "random start"), files["untrained"])
    started = time.monotonic()
    trained, _ = train(network, spec, sets, RECIPE, Hooks(logged=report))
    CONSOLE.print(f"trained in {time.monotonic() - started:.0f} s")
    export_onnx(trained, with_provenance(spec, "ProxyNCA++ on synthetic cells"), files["trained"])
    return files


def with_provenance(spec: Spec, weights: str) -> Spec:
    """Say in the file where its weights come from."""
    data = {"images": IMAGES, "seed": DATA_SEED, "rows": "Train"}
    recipe = msgspec.to_builtins(RECIPE)
    training = {"weights": weights, "script": Path(__file__).name, "synthetic_data": data, "recipe": recipe}
    return msgspec.structs.replace(spec, training=training)


def report(log: list[Log]) -> None:
    """Print an epoch's mean loss."""
    CONSOLE.print(f"epoch {log[-1].epoch:2} of {RECIPE.epochs}: loss {log[-1].loss:.3f}")


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
