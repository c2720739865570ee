"""Quantise ConvNeXt-Tiny and record what it costs and gives on real tapes: benchmarks/results/quantisation.json.

Usage: prove_quantisation.py [--short] [--no-record]. The network is a HyperNet with weights spread so that every part
of it acts (tests/networks.py): at its initial layer scale, ConvNeXt would hide every error of quantisation. It is
calibrated on cells of the translocation assay, two channels, and measured on the rest of these and on every other set
of real tapes. Each tool is also measured with all layers quantised, and with the layers that were chosen, and the whole
way from files to embeddings beside plain Python (benchmarks/pipelines.py).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
from dataclasses import replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "benchmarks")]

import numpy as np  # noqa: E402
import torch  # noqa: E402
from rich.console import Console  # noqa: E402

from chammi_fast import _core  # noqa: E402
from chammi_fast.chammi import DATA_SETS  # noqa: E402
from chammi_fast.embedding import EmbedSettings  # noqa: E402
from chammi_fast.embedding.filling import pace_of  # noqa: E402
from chammi_fast.embedding.inputs import Inputs  # noqa: E402
from chammi_fast.images.cpus import usable_cpus  # noqa: E402
from chammi_fast.model import Model, load_model  # noqa: E402
from chammi_fast.quantisation import Labels, QuantiseReport, QuantiseSettings, quantise  # noqa: E402
from chammi_fast.quantisation.judging import Judge, Verdict, embed, same_neighbours  # noqa: E402
from chammi_fast.quantisation.sampling import BATCH, Case, draw  # noqa: E402
from chammi_fast.quantisation.searching import prepare  # noqa: E402
from chammi_fast.quantisation.timing import processor_forms, rates  # noqa: E402
from chammi_fast.quantisation.tools import TOOLS  # noqa: E402
from chammi_fast.runtime.accuracy import compare  # noqa: E402
from chammi_fast.synthetic import synthesise  # noqa: E402
from chammi_fast.training.create import NetworkOptions, create_network  # noqa: E402
from chammi_fast.training.export import export_onnx  # noqa: E402
from networks import spread_weights  # noqa: E402
from pipelines import Work, ours, plain  # noqa: E402

if TYPE_CHECKING:
    from chammi_fast.embedding.settings import Job
    from chammi_fast.training.network import ChannelAdaptiveNetwork

DATA = ROOT.parent / "shared" / "data"
RESULT = ROOT / "benchmarks" / "results" / "quantisation.json"
MANIFEST = DATA / "tapes" / "manifest.csv"
# Sets of real tapes -> what their channels are taken for.
SETS = {
    "SBS": "CP/nucleus,CP/er",
    "BBBC013": "CP/nucleus,CP/er",
    "NF1": "Allen",
    "4ch": "HPA",
    "CP": "CP",
}
CALIBRATED = "SBS"
SEED = 0
PACKAGES = ("chammi-fast", "nncf", "numpy", "onnx", "onnxruntime", "openvino", "timm", "torch")
CONSOLE = Console(soft_wrap=True)


def main() -> None:
    """Quantise, measure, record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true", help="a small network, few images")
    parser.add_argument("--no-record", action="store_true", help="leave the committed result as it is")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder  # so that ways are tried
        network, model = make_model(Path(folder), short=options.short)
        report = quantise(
            model,
            out=Path(folder) / "tiny.int8.onnx",
            manifest=MANIFEST,
            channels=SETS[CALIBRATED],
            where=f'chunk == "{CALIBRATED}"',
            labels=Labels(label="label"),
            settings=QuantiseSettings(images=128 if options.short else 640, seed=SEED),
            told=CONSOLE.print,
        )
        CONSOLE.print(report.table)
        quantised = load_model(report.path)
        record = {
            **circumstances(),
            "network": {"backbone": model.spec.backbone, "strategy": model.spec.strategy, "bytes": report.sizes[0]},
            "quantised": summary(report),
            "sets": {name: measured_set(model, quantised, name) for name in SETS},
            "rates": speeds(model, quantised, rounds=9),
            "pipeline": pipelines(Path(folder), network, model, images=64 if options.short else 352),
            "tools": tools(model, report.result.kept, images=128 if options.short else 320),
        }
    CONSOLE.print_json(data=record)
    if not (options.no_record or options.short):
        RESULT.write_text(json.dumps(record, indent=2) + "\n")


def make_model(folder: Path, *, short: bool) -> tuple[ChannelAdaptiveNetwork, Model]:
    """Export a HyperNet on ConvNeXt-Tiny with spread weights, always the same."""
    network, spec = create_network(NetworkOptions(backbone="convnext_atto" if short else "convnext_tiny"))
    spread_weights(network)
    export_onnx(network, spec, folder / "tiny.onnx")
    return network, load_model(folder / "tiny.onnx")


def circumstances() -> dict[str, Any]:
    """Return where and with what this is measured."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "datetime": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": named[0] if named else platform.processor(),
        "usable_cpus": usable_cpus(),
        "isa": _core.isa(),
        "load_average": round(os.getloadavg()[0], 1),
        "packages": {name: metadata.version(name) for name in PACKAGES},
    }


def summary(report: QuantiseReport) -> dict[str, Any]:
    """Return what the command reports."""
    result = report.result
    return {
        "tool": result.tool,
        "bytes": report.sizes[1],
        "layers": len(result.layers),
        "kept": list(result.kept_titles),
        "share_of_multiplications": round(result.share, 4),
        "candidates": result.trials,
        "seconds": round(report.seconds),
        "task_accuracy": [
            {"backend": one.backend, "task": one.task, "images": one.images, "fp32": one.before, "int8": one.after}
            for one in report.changes
        ],
        "verdicts": [verdict_of(one) for one in result.verdicts],
    }


def verdict_of(verdict: Verdict) -> dict[str, Any]:
    """Return a verdict as JSON has it."""
    accuracy = verdict.accuracy
    return {
        "backend": verdict.backend,
        "images_of": verdict.case,
        "images": accuracy.images,
        "worst_cosine": round(accuracy.worst, 6),
        "mean_cosine": round(accuracy.mean, 6),
        "same_neighbour": None if verdict.agreement is None else round(verdict.agreement, 5),
    }


def measured_set(model: Model, quantised: Model, name: str) -> list[dict[str, Any]]:
    """Measure all images of a set that were not calibrated with, in every form, bf16 for comparison."""
    case = case_of(model, name)
    (reference,) = Judge(model, [case], []).references
    found = []
    for form in (*processor_forms(model, quantised=False), *processor_forms(model, quantised=True)):
        if form.precision != "fp32":
            embeddings = embed(quantised if form.precision == "int8" else model, case, form)
            agreement = same_neighbours(embeddings, reference)
            verdict = Verdict(form.backend, name, compare(embeddings, reference), agreement, embeddings)
            found.append({"precision": form.precision, **verdict_of(verdict)})
    CONSOLE.print(name, found)
    return found


def case_of(model: Model, name: str) -> Case:
    """Return a set's images to measure on: all, but for those that the network is calibrated with."""
    job = job_of(model, name)
    if name == CALIBRATED:
        return draw(model, [job], EmbedSettings(), sum(map(len, keys_of(job).values())), SEED)[0]
    pace = pace_of(model, job, EmbedSettings(), BATCH)
    return Case(name, SETS[name], np.empty((0, pace.channels, 1, 1), np.float32), job, pace, keys_of(job))


def job_of(model: Model, name: str) -> Job:
    """Return the images of a set."""
    inputs = Inputs(manifest=MANIFEST, channels=SETS[name], where=f'chunk == "{name}"')
    (job,) = inputs.jobs(model, Path(), EmbedSettings())
    return job


def keys_of(job: Job) -> dict[int, set[str]]:
    """Return all of a job's images."""
    return {shard: set(job.work.keys(shard)) for shard in range(job.work.shards)}


def speeds(model: Model, quantised: Model, rounds: int) -> list[dict[str, Any]]:
    """Return images per second of every form, of images of five channels, measured in turns."""
    case, *_ = draw(model, [job_of(model, "CP")], EmbedSettings(), 32, SEED)
    return [
        {"backend": form.backend, "precision": form.precision, "images_per_s": round(rate, 1)}
        for form, rate in rates(model, quantised, case, rounds=rounds).items()
    ]


def pipelines(
    folder: Path, network: ChannelAdaptiveNetwork, model: Model, images: int, rounds: int = 3
) -> list[dict[str, Any]]:
    """Time the whole way from synthetic tapes to embeddings in int8 beside plain Python, in turns."""
    torch.set_num_threads(usable_cpus())
    cells = folder / "CHAMMI"
    synthesise(cells, images=images, seed=SEED)
    found = []
    for data_set in DATA_SETS:
        work, settings = Work(cells, data_set, network, model), EmbedSettings(precision="int8")
        went = [(plain(work), ours(work, folder / "table", settings)) for _ in range(rounds)]
        reference, vectors = (one.vectors for one in went[0] if one.vectors is not None)
        near = compare(vectors, reference)
        slow, fast = (statistics.median(one.seconds_per_image for one in way) for way in zip(*went, strict=True))
        found.append(
            {
                "data_set": data_set,
                "images": images,
                "rounds": rounds,
                "images_per_s": {"plain": round(1 / slow, 1), "int8": round(1 / fast, 1)},
                "times_faster": round(slow / fast, 2),
                "worst_cosine": round(near.worst, 6),
                "same_neighbour": round(same_neighbours(vectors, reference), 5),
            }
        )
        CONSOLE.print(found[-1])
    return found


def tools(model: Model, kept: tuple[str, ...], images: int) -> list[dict[str, Any]]:
    """Measure each tool with all layers quantised, and with those that were chosen."""
    cases = draw(model, [job_of(model, CALIBRATED)], EmbedSettings(), images, SEED)
    judge = Judge(model, cases[:1], processor_forms(model, quantised=True))
    bench = prepare(model, cases, CONSOLE.print)
    found = []
    for tool in TOOLS:
        _, body = bench.quantised(tool)
        for layers, names in (("all", ()), ("chosen", kept)):
            network = bench.network(body, names)
            verdicts = [verdict_of(one) for one in judge.verdicts(network)]
            speed = speeds(model, replace(model, network=network), rounds=5)
            found.append({"tool": tool, "layers": layers, "verdicts": verdicts, "rates": speed})
            CONSOLE.print(found[-1])
    return found


if __name__ == "__main__":
    main()
