"""Quantised files against the networks they come from; the parts of the search against brute force."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import csv as arrow_csv
from typer.testing import CliRunner

torch = pytest.importorskip("torch")
pytest.importorskip("timm")
onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from chammi_fast.choosing import find_files  # noqa: E402
from chammi_fast.cli import app  # noqa: E402
from chammi_fast.embedding import EmbedSettings, embed  # noqa: E402
from chammi_fast.embedding.inputs import Inputs  # noqa: E402
from chammi_fast.errors import (  # noqa: E402
    ChammiFastError,
    ChannelError,
    MissingExtraError,
    QuantisationError,
)
from chammi_fast.model import load_model  # noqa: E402
from chammi_fast.quantisation import Labels, QuantiseReport, QuantiseSettings, quantise  # noqa: E402
from chammi_fast.quantisation.cutting import cut, layers, restored  # noqa: E402
from chammi_fast.quantisation.flattening import flatten, shapes_of  # noqa: E402
from chammi_fast.quantisation.judging import individual_error, same_neighbours  # noqa: E402
from chammi_fast.quantisation.sampling import STAND_INS, Case, _measured, draw  # noqa: E402
from chammi_fast.quantisation.searching import fewest, not_worth, prepare  # noqa: E402
from chammi_fast.quantisation.tools import TOOLS  # noqa: E402
from chammi_fast.runtime import Form  # noqa: E402
from chammi_fast.runtime.graph import embedded_spec, specialise, weights_sha256  # noqa: E402
from chammi_fast.table import embedding_matrix, read_embeddings  # noqa: E402
from chammi_fast.training.export import export_onnx  # noqa: E402
from networks import small_network  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CHANNELS = "CP/nucleus,CP/er"
INT8 = Form(precision="int8")
STRATEGIES = ("hypernet", "depthwise", "channelreplication", "fixedchannels")  # each of another structure
CUT = STRATEGIES[:3]  # whose layers are the same for all channels
EASY = QuantiseSettings(images=40, tool="onnxruntime", min_cosine=0.9, min_agreement=0.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("quantisation")
    return path


@pytest.fixture(scope="module")
def model(folder: Path) -> Path:
    return exported("hypernet", folder)


def exported(strategy: str, folder: Path, channels: str | None = None) -> Path:
    path = folder / f"{strategy}{'' if channels is None else '-fixed'}.onnx"
    if not path.exists():
        export_onnx(*small_network(strategy=strategy), path, channels=channels, verify=False)
    return path


@pytest.fixture(scope="module")
def cells(folder: Path) -> Path:
    """A table of forty two-channel tapes of blobs, two kinds of them, for training and two tasks."""
    rng = np.random.default_rng(5)
    rows = []
    down, right = np.mgrid[0:48, 0:48]
    for number in range(40):
        planes = []
        for channel in range(2):
            centre, width = rng.uniform(15, 33, 2), rng.uniform(4, 8) + 6 * (number % 2) * channel
            blob = np.exp(-((down - centre[0]) ** 2 + (right - centre[1]) ** 2) / (2 * width**2))
            planes.append(np.clip(200 * blob + rng.normal(20, 4, (48, 48)), 0, 255))
        Image.fromarray(np.hstack(planes).astype(np.uint8)).save(folder / f"cell{number}.png")
        kind = "wide" if number % 2 else "narrow"
        split = ("Train", "Task_one", "Task_two")[number % 3]
        rows.append({"file_path": f"cell{number}.png", "channel_width": 48, "kind": kind, "train_test_split": split})
    arrow_csv.write_csv(pa.Table.from_pylist(rows), folder / "cells.csv")
    return folder / "cells.csv"


@pytest.fixture(scope="module")
def report(model: Path, cells: Path) -> QuantiseReport:
    """The small HyperNet, quantised by ONNX Runtime."""
    return run(model, cells, labels=Labels(label="kind"))


def run(model: Path, cells: Path, out: str = "", **changes: Any) -> QuantiseReport:
    named: dict[str, Any] = {"manifest": cells, "channels": CHANNELS, "settings": EASY} | changes
    return quantise(model, out=model.with_name(out or f"{model.stem}.int8.onnx"), **named)


def computed(network: Any, feed: dict[str, np.ndarray], outputs: list[str] | None = None) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(network.SerializeToString(), providers=["CPUExecutionProvider"])
    known = {value.name for value in session.get_inputs()}
    found: list[np.ndarray] = session.run(outputs, {name: value for name, value in feed.items() if name in known})
    return found


def images_of(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((3, count, 64, 64), dtype=np.float32)


def feed_of(channels: int = 5) -> dict[str, np.ndarray]:
    return {"image": images_of(channels), "channels": np.arange(7, 7 + channels)}


def cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    found: np.ndarray = (one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)
    return found


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_network_that_is_cut_and_joined_again_computes_the_same(strategy: str, folder: Path) -> None:
    network = load_model(exported(strategy, folder)).network
    parts = cut(network)
    (expected,) = computed(network, feed_of())
    (found,) = computed(parts.joined_with(parts.body), feed_of())
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("strategy", CUT)
def test_a_body_knows_nothing_of_the_channels(strategy: str, folder: Path) -> None:
    parts = cut(load_model(exported(strategy, folder)).network)
    assert "channels" not in {name for node in parts.body.graph.node for name in node.input}
    assert "Conv" in {node.op_type for node in parts.head.graph.node}
    ends = {value.name for value in parts.head.graph.output} | {value.name for value in parts.head.graph.input}
    assert {value.name for value in parts.body.graph.input} <= ends


def test_products_of_images_are_flattened_and_compute_the_same(model: Path) -> None:
    network = load_model(model).network
    flat = onnx.ModelProto()
    flat.CopyFrom(network)
    flatten(flat)
    ranks = {
        len(shapes_of(onnx.shape_inference.infer_shapes(flat).graph)[node.output[0]])
        for node in flat.graph.node
        if node.op_type in ("LayerNormalization", "Erf") or (node.op_type == "MatMul" and ".mlp." in node.input[1])
    }
    assert ranks == {3}
    onnx.checker.check_model(flat, full_check=True)
    (expected,) = computed(network, feed_of())
    (found,) = computed(flat, feed_of())
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    again = flat.SerializeToString()
    flatten(flat)
    assert flat.SerializeToString() == again


def test_networks_of_any_size_are_not_flattened(folder: Path) -> None:
    network = load_model(exported("channelreplication", folder)).network
    flat = onnx.ModelProto()
    flat.CopyFrom(network)
    flatten(flat)
    assert flat.SerializeToString() == network.SerializeToString()


def test_multiplications_are_those_that_pytorch_does(model: Path) -> None:
    network, _ = small_network()
    counted: dict[str, int] = {}

    def count(name: str) -> Callable[[Any, Any, Any], None]:
        def hook(module: Any, _: Any, output: Any) -> None:
            counted[name] = output[0].numel() * module.weight[0].numel()

        return hook

    modules = [
        (name.removeprefix("body.model."), module)
        for name, module in network.named_modules()
        if name.startswith("body.model.stages") and isinstance(module, torch.nn.Linear | torch.nn.Conv2d)
    ]
    hooks = [module.register_forward_hook(count(name)) for name, module in modules]
    feed = feed_of()
    with torch.inference_mode():
        network(torch.from_numpy(feed["image"]), torch.from_numpy(feed["channels"]))
    for one in hooks:
        one.remove()
    parts = cut(load_model(model).network)
    names = [value.name for value in parts.body.graph.input]
    example = dict(zip(names, computed(parts.head, feed, names), strict=True))
    assert {layer.title: layer.multiplications for layer in layers(parts.body, example)} == counted


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("strategy", CUT)
def test_layers_that_are_restored_compute_as_before(strategy: str, tool: str, folder: Path) -> None:
    pytest.importorskip(tool)
    parts = cut(load_model(exported(strategy, folder)).network)
    names = [value.name for value in parts.body.graph.input]
    known = {value.name for value in parts.head.graph.output}
    feed = feed_of()
    example = dict(zip(known, computed(parts.head, feed, list(known)), strict=True))
    example |= {name: feed[name] for name in names if name not in known}
    found = [layer.name for layer in layers(parts.body, example)]
    quantised = TOOLS[tool](parts.body, [example], found)
    (expected,) = computed(parts.body, example)
    differences = []
    for kept in ((), found[::2], found):
        body = restored(quantised, parts.body, kept)
        onnx.checker.check_model(body, full_check=True)
        (embeddings,) = computed(body, example)
        differences.append(np.abs(embeddings - expected).max() / np.abs(expected).max())
        scales = {node.input[1] for node in body.graph.node if node.op_type == "QuantizeLinear"}
        assert bool(scales) == (len(kept) < len(found))
    assert differences[2] < 1e-5 < 1e-4 < differences[0] < 0.2


def test_nearest_neighbours_are_those_of_brute_force() -> None:
    rng = np.random.default_rng(0)
    one = rng.standard_normal((700, 5)).astype(np.float32)
    other = one + 0.2 * rng.standard_normal(one.shape).astype(np.float32)

    def nearest(rows: np.ndarray) -> list[int]:
        exact = rows.astype(np.float64)
        best = []
        for place, row in enumerate(exact):
            similar = exact @ row / np.linalg.norm(exact, axis=1) / np.linalg.norm(row)
            similar[place] = -2
            best.append(int(similar.argmax()))
        return best

    expected = np.mean([a == b for a, b in zip(nearest(one), nearest(other), strict=True)])
    assert 0.1 < expected < 0.9
    assert same_neighbours(one, other) == expected
    assert same_neighbours(one, 3 * one) == 1.0


def test_what_all_images_share_is_no_individual_error() -> None:
    rng = np.random.default_rng(1)
    directions = rng.standard_normal((50, 8))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    noise = 1e-3 * rng.standard_normal(directions.shape)
    noise -= noise.mean(axis=0)
    error = individual_error(2 * (directions + noise + 1e-6), directions)
    assert error == pytest.approx((noise**2).sum(1).mean(), rel=0.2)
    assert individual_error(directions, 7 * directions) == pytest.approx(0, abs=1e-20)


@pytest.mark.parametrize("needed", range(12))
def test_bisection_finds_the_fewest_that_hold(needed: int) -> None:
    asked: list[int] = []

    def holds(count: int) -> bool:
        asked.append(count)
        return count >= needed

    found = fewest(holds, 2, 10)
    assert found == (max(needed, 2) if needed < 10 else None)
    assert len(asked) == len(set(asked)) <= 2 + math.log2(10)


def test_layers_are_not_worth_much_more_error_than_work() -> None:
    assert not_worth([1, 1, 1], [10, 10, 10]) == 0
    assert not_worth([50, 40, 5, 5], [1, 1, 49, 49]) == 2
    # The second looks harmless only beside the first.
    assert not_worth([1000, 10, 1, 1], [10, 10, 100, 100]) == 2
    assert not_worth([0, 0], [5, 5]) == 0


def test_the_file_says_what_it_comes_from_and_stays_near(report: QuantiseReport, model: Path, cells: Path) -> None:
    reference, quantised = load_model(model), load_model(report.path)
    said = quantised.spec.quantisation
    assert said is not None
    assert (said.reference, said.reference_sha256, said.tool) == (model.name, reference.sha256, "onnxruntime")
    assert msgspec.structs.replace(quantised.spec, quantisation=None, weights_sha256="") == msgspec.structs.replace(
        reference.spec, weights_sha256=""
    )
    assert quantised.spec.weights_sha256 == weights_sha256(quantised.network)
    onnx.checker.check_model(quantised.network, full_check=True)

    # The same figures by the public parts alone.
    settings = EmbedSettings()
    jobs = Inputs(manifest=cells, channels=CHANNELS).jobs(reference, cells.parent, settings)
    own, *others = draw(reference, jobs, settings, EASY.images, EASY.seed)
    assert [case.name for case in others] == [f"{name}*" for name in reference.spec.configurations]
    worst = []
    for case in (own, *others):
        images = np.concatenate(list(case.batches()))
        one = quantised.bind(case.channels, form=INT8).embed(images)
        other = reference.bind(case.channels).embed(images)
        worst.append(cosines(one, other).min())
        if case is own:
            assert len(images) == said.images == 30
            verdict = next(verdict for verdict in report.result.verdicts if verdict.backend == "onnxruntime")
            assert verdict.accuracy.mean == pytest.approx(cosines(one, other).mean(), abs=1e-6)
            assert verdict.agreement == same_neighbours(one, other)
    assert 0.99 < said.worst_cosine <= min(worst) + 1e-6 < 1
    assert said.kept == report.result.kept_titles
    assert 0 < len(said.kept) < len(report.result.layers)


def test_images_to_measure_on_are_others_than_those_to_calibrate_with(model: Path, cells: Path) -> None:
    reference, settings = load_model(model), EmbedSettings()
    jobs = Inputs(manifest=cells, channels=CHANNELS).jobs(reference, cells.parent, settings)
    case, *_ = draw(reference, jobs, settings, 40, 0)
    measured = np.concatenate(list(case.batches()))
    assert (len(case.calibration), len(measured), case.rows().num_rows) == (10, 30, 30)
    assert not {one.tobytes() for one in case.calibration} & {one.tobytes() for one in measured}
    again, *_ = draw(reference, jobs, settings, 40, 0)
    np.testing.assert_array_equal(again.calibration, case.calibration)
    other, *_ = draw(reference, jobs, settings, 40, 1)
    assert not np.array_equal(other.calibration, case.calibration)


def test_stand_ins_are_gathered_over_batches_and_missed_ones_named() -> None:
    images = np.random.default_rng(0).random((40, 2, 3, 3), np.float32)
    np.testing.assert_array_equal(_measured(Case("a", "x", images[:8], others=images)), images[:STAND_INS])
    with pytest.raises(QuantisationError, match="a: none of the images to measure on can be read"):
        _measured(Case("a", "x", images[:8]))


def test_adapter_and_stem_stay_float32(report: QuantiseReport, model: Path) -> None:
    quantised, reference = load_model(report.path).network, load_model(model).network
    before = {tensor.name: tensor for tensor in reference.graph.initializer}
    after = {tensor.name: tensor for tensor in quantised.graph.initializer}
    own = [name for name in before if name.startswith("strategy.")]
    assert own
    assert all(after[name].SerializeToString() == before[name].SerializeToString() for name in own)
    made = {node.output[0]: node for node in quantised.graph.node}
    stem = next(node for node in quantised.graph.node if node.op_type == "Conv" and node.input[0] == "image")
    seen, waiting = set(), list(stem.input)
    while waiting:
        name = waiting.pop()
        if name in made and name not in seen:
            seen.add(name)
            waiting.extend(made[name].input)
    assert not {made[name].op_type for name in seen} & {"QuantizeLinear", "DequantizeLinear"}


def test_weights_are_int8_for_each_channel_and_activations_uint8(report: QuantiseReport) -> None:
    graph = load_model(report.path).network.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    quantised = [node for node in graph.node if node.op_type == "DequantizeLinear" and node.input[0] in weights]
    matrices = [node for node in quantised if len(weights[node.input[0]].dims) > 1]
    assert len(matrices) == len(report.result.layers) - len(report.result.kept)
    for node in matrices:
        assert weights[node.input[0]].data_type == onnx.TensorProto.INT8
        assert len(weights[node.input[1]].dims) == 1
        assert weights[node.input[1]].dims[0] > 1
    ranges = [node for node in graph.node if node.op_type == "QuantizeLinear"]
    assert {weights[node.input[2]].data_type for node in ranges} == {onnx.TensorProto.UINT8}


def test_onnxruntime_multiplies_integers(report: QuantiseReport, tmp_path: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 3
    network = specialise(load_model(report.path).network, [7, 8])
    onnxruntime.InferenceSession(network.SerializeToString(), options, providers=["CPUExecutionProvider"])
    kinds = [node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node]
    products = [layer for layer in report.result.layers if ".mlp." in layer.title]
    expected = [layer for layer in products if layer.name not in report.result.kept]
    assert expected
    assert sum(kind in ("MatMulIntegerToFloat", "QLinearMatMul") for kind in kinds) == len(expected)


def test_openvino_multiplies_integers(report: QuantiseReport) -> None:
    openvino = pytest.importorskip("openvino")
    core = openvino.Core()
    if "INT8" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this processor has no instructions for 8-bit integers")
    network = specialise(load_model(report.path).network, [7, 8])
    compiled = core.compile_model(core.read_model(network.SerializeToString()), "CPU")
    found = [
        info["runtimePrecision"].astype(str)
        for info in (node.get_rt_info() for node in compiled.get_runtime_model().get_ordered_ops())
        if info["layerType"].astype(str) == "FullyConnected"
    ]
    expected = [
        layer for layer in report.result.layers if ".mlp." in layer.title and layer.name not in report.result.kept
    ]
    assert sum(precision in ("u8", "i8") for precision in found) == len(expected)


def test_embed_takes_the_file_beside_the_model(report: QuantiseReport, model: Path, cells: Path) -> None:
    found = find_files(load_model(model), "int8").quantised
    assert found is not None
    assert found.path == report.path
    settings = EmbedSettings(precision="int8", backend="onnxruntime", min_cosine=0.9)
    out = model.parent / "embedded"
    embed(model, manifest=cells, channels=CHANNELS, out=out, settings=settings)
    vectors = embedding_matrix(read_embeddings(out))
    embed(model, manifest=cells, channels=CHANNELS, out=out / "float", settings=replace(settings, precision="fp32"))
    plain = embedding_matrix(read_embeddings(out / "float"))
    assert 1e-6 < 1 - cosines(vectors, plain).min() < 0.02
    assert json.loads((out / "run.json").read_text())["model"]["sha256"] == found.sha256


def test_the_report_tells_speed_accuracy_and_scores(report: QuantiseReport) -> None:
    assert {form.precision for form in report.rates} >= {"fp32", "int8"}
    assert all(rate > 0 for rate in report.rates.values())
    tasks = {(change.task, change.images) for change in report.changes}
    assert {name for name, _ in tasks} == {"Task_one", "Task_two"}
    assert all(0 <= change.before <= 1 and 0 <= change.after <= 1 for change in report.changes)
    assert report.sizes == (report.model.stat().st_size, report.path.stat().st_size)


def test_the_same_inputs_give_the_same_file(report: QuantiseReport, model: Path, cells: Path) -> None:
    again = run(model, cells, out="again.onnx", labels=None)
    assert again.path.read_bytes() == report.path.read_bytes()
    assert again.changes == ()


def test_nncf_quantises_and_auto_takes_the_smaller_error(model: Path, cells: Path) -> None:
    pytest.importorskip("nncf")
    said: list[str] = []
    found = run(model, cells, out="auto.onnx", settings=replace(EASY, tool="auto"), told=said.append)
    assert {"nncf quantises 15 layers.", "onnxruntime quantises 15 layers."} <= set(said)
    alone = run(model, cells, out="nncf.onnx", settings=replace(EASY, tool="nncf"))
    assert found.result.tool in TOOLS
    assert alone.result.tool == "nncf"
    if found.result.tool == "nncf":
        assert found.path.read_bytes() == alone.path.read_bytes()


def test_a_specialised_file_is_quantised_too(folder: Path, cells: Path) -> None:
    sliced = exported("sliceparam", folder, channels=CHANNELS)
    found = load_model(run(sliced, cells).path)
    images = images_of(2)
    one, other = found.bind(CHANNELS, form=INT8).embed(images), load_model(sliced).bind(CHANNELS).embed(images)
    assert 1e-7 < 1 - cosines(one, other).min() < 0.02
    with pytest.raises(ChannelError, match="is made for the channels"):
        run(sliced, cells, channels="CP/er,CP/nucleus")


@pytest.mark.parametrize("size", [1, 3])
def test_a_network_of_one_batch_size_is_calibrated_with_the_same_images(size: int, folder: Path) -> None:
    free = load_model(exported("hypernet", folder, CHANNELS))
    network = onnx.ModelProto()
    network.CopyFrom(free.network)
    network.graph.input[0].type.tensor_type.shape.dim[0].dim_value = size
    fixed = replace(free, network=network)
    calibration = np.random.default_rng(1).standard_normal((10, 2, 64, 64), dtype=np.float32)
    cases = [Case("a", CHANNELS, calibration)]
    one, other = (prepare(model, cases, lambda _: None) for model in (free, fixed))
    assert {len(value) for feed in other.feeds for value in feed.values()} == {size}
    for name in one.feeds[0]:
        expected, found = (np.concatenate([feed[name] for feed in bench.feeds]) for bench in (one, other))
        np.testing.assert_allclose(found[:10], expected, atol=1e-5)
        assert len(found) == -(-10 // size) * size
    assert [bench.tried * len(next(iter(bench.feeds[0].values()))) >= 16 for bench in (one, other)] == [True, True]


def test_a_network_of_one_batch_size_is_quantised(folder: Path, cells: Path) -> None:
    network = onnx.load(exported("hypernet", folder, CHANNELS))
    network.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(network, folder / "one.onnx")
    found = run(folder / "one.onnx", cells)
    assert load_model(found.path).fixed_batch == 1
    images = np.random.default_rng(2).standard_normal((5, 2, 64, 64), dtype=np.float32)
    one, other = (load_model(path).bind(CHANNELS).embed(images) for path in (folder / "one.onnx", found.path))
    assert cosines(one, other).min() > 0.9


def test_a_network_of_its_own_for_every_configuration_is_refused(folder: Path, cells: Path) -> None:
    path = exported("fixedchannels", folder)
    table = cells.with_name("three.csv")
    rows = [{"file_path": f"cell{number}.png", "channel_width": 32} for number in range(40)]
    arrow_csv.write_csv(pa.Table.from_pylist(rows), table)
    with pytest.raises(QuantisationError, match=r"chammi-fast export --channels"):
        run(path, table, channels="Allen")
    assert not path.with_name("fixedchannels.int8.onnx").exists()


@pytest.mark.parametrize(
    ("changes", "error", "sentence"),
    [
        ({"out": "hypernet.onnx"}, QuantisationError, "is the model itself"),
        ({"channels": "CP/nucleus"}, ChannelError, "2 channels, but 1 are named"),
        ({"channels": None}, ChannelError, "name its channels"),
        ({"where": 'kind == "round"'}, ChammiFastError, "no rows"),
        (
            {"where": 'file_path in ["cell1.png", "cell2.png"]'},
            QuantisationError,
            "of 2 images, 2 can be read, but at least 8",
        ),
        ({"settings": replace(EASY, min_cosine=1.0)}, QuantisationError, "no layer can be quantised within the limits"),
        ({"labels": Labels(label="shape")}, ChammiFastError, "shape"),
    ],
)
def test_what_cannot_come_to_a_good_end_is_one_sentence(
    changes: dict[str, Any], error: type[ChammiFastError], sentence: str, model: Path, cells: Path
) -> None:
    before = model.read_bytes()
    with pytest.raises(error, match=sentence) as caught:
        run(model, cells, **({"out": "refused.onnx"} | changes))
    assert "\n" not in str(caught.value)
    assert not model.with_name("refused.onnx").exists()
    assert model.read_bytes() == before


def test_a_quantised_file_is_not_quantised_again(report: QuantiseReport, cells: Path) -> None:
    with pytest.raises(QuantisationError, match=r"is quantised already: quantise hypernet\.onnx"):
        run(report.path, cells, out="twice.onnx")


def test_unreadable_images_are_left_out_and_counted(model: Path, cells: Path, tmp_path: Path) -> None:
    rows = [{"file_path": f"{cells.parent}/cell{number}.png", "channel_width": 48} for number in range(40)]
    for number in range(0, 40, 3):
        rows[number]["file_path"] = str(tmp_path / f"broken{number}.png")
        (tmp_path / f"broken{number}.png").write_bytes(b"no image")
    arrow_csv.write_csv(pa.Table.from_pylist(rows), tmp_path / "some.csv")
    broken = [row for row in rows if "broken" in str(row["file_path"])] + rows[1:3]
    arrow_csv.write_csv(pa.Table.from_pylist(broken), tmp_path / "most.csv")
    settings = replace(EASY, images=44)
    found = load_model(run(model, tmp_path / "some.csv", out="some.onnx", settings=settings).path).spec.quantisation
    assert found is not None
    assert found.images < 26 - 8
    with pytest.raises(QuantisationError, match=r"of 16 images, 2 can be read, but at least 8 are needed; .*broken"):
        run(model, tmp_path / "most.csv", out="most.onnx")


def test_old_networks_and_missing_tools_are_named(model: Path, cells: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = load_model(model)
    network = onnx.ModelProto()
    network.CopyFrom(loaded.network)
    network.opset_import[0].version = 12
    with pytest.raises(QuantisationError, match="opset 12"):
        quantise(replace(loaded, network=network), out=model.with_name("old.onnx"), manifest=cells, channels=CHANNELS)
    with pytest.raises(QuantisationError, match="there is no tool 'best'"):
        QuantiseSettings(tool="best")
    monkeypatch.setitem(__import__("sys").modules, "nncf", None)
    with pytest.raises(MissingExtraError, match="chammi-fast\\[quantize\\]"):
        run(model, cells, out="none.onnx", settings=replace(EASY, tool="nncf"))


def test_the_command_prints_one_table(model: Path, cells: Path) -> None:
    arguments = ["quantize", "--model", str(model), "--calibrate", str(cells), "--channels", CHANNELS]
    arguments += ["--out", str(model.with_name("printed.onnx")), "--images", "40", "--tool", "onnxruntime"]
    arguments += ["--min-cosine", "0.9", "--min-agreement", "0", "--label", "kind"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    for words in ("worst cosine", "same nearest neighbour", "images/s, int8", "Task_one (", "of the multiplications"):
        assert words in result.stdout
    assert embedded_spec(onnx.load(model.with_name("printed.onnx")), origin=model) is not None
