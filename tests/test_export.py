"""The written file against its network in PyTorch, and what is refused."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("timm")
onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
huggingface_hub = pytest.importorskip("huggingface_hub")

from chammi_fast.errors import ChannelError, ExportError, OutputError  # noqa: E402
from chammi_fast.model import load_model  # noqa: E402
from chammi_fast.spec import METADATA_KEY, parse_spec  # noqa: E402
from chammi_fast.training import create, export  # noqa: E402
from chammi_fast.training.create import NetworkOptions, create_network  # noqa: E402
from chammi_fast.training.export import ExportOptions, export_model, export_onnx, relative_difference  # noqa: E402
from chammi_fast.training.weights import load_network, save_weights  # noqa: E402
from networks import SMALL, small_network, spread_weights  # noqa: E402

CASES = [
    "Allen",
    "HPA",
    "CP",
    "CP/mito,CP/nucleus,CP/golgi,CP/er,CP/rna",
    "HPA/er,HPA/nucleus",
    "Allen/protein",
    "DNA=nucleus,er,mito,protein",
    "nucleus,*",
]


@pytest.fixture(scope="module")
def adaptive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    network, spec = small_network()
    path = tmp_path_factory.mktemp("models") / "small.onnx"
    export_onnx(network, spec, path)
    return path


@pytest.fixture(scope="module")
def cell_painting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    network, spec = small_network()
    path = tmp_path_factory.mktemp("models") / "small-cp.onnx"
    export_onnx(network, spec, path, channels="CP")
    return path


def embeddings(path: Path, channels: str, images: np.ndarray) -> dict[str, np.ndarray]:
    """The same images through PyTorch, the adaptive graph, and the graph bound to its channels."""
    network, spec = small_network()
    bound = load_model(path).bind(channels)
    ids = np.array([spec.token_ids[channel.token] for channel in bound.channels])
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    with torch.inference_mode():
        expected = network(torch.from_numpy(images), torch.from_numpy(ids)).numpy()
    return {
        "torch": expected,
        "adaptive": session.run(["embedding"], {"image": images, "channels": ids})[0],
        "bound": bound.embed(images),
    }


def random_images(channels: int, *, count: int = 3, size: int = 64) -> np.ndarray:
    return np.random.default_rng(channels).standard_normal((count, channels, size, size), dtype=np.float32)


@pytest.mark.parametrize("channels", CASES)
def test_both_forms_equal_pytorch(adaptive: Path, channels: str) -> None:
    count = len(load_model(adaptive).bind(channels).channels)
    found = embeddings(adaptive, channels, random_images(count))
    assert relative_difference(found["adaptive"], found["torch"]) < 1e-5
    assert relative_difference(found["bound"], found["torch"]) < 1e-5
    assert relative_difference(found["bound"], found["adaptive"]) < 1e-5


def test_channels_change_the_embedding(adaptive: Path) -> None:
    """The comparison above would pass if nothing mattered: other tokens must give other embeddings."""
    images = random_images(2)
    one, other = (load_model(adaptive).bind(names).embed(images) for names in ("HPA/er,HPA/nucleus", "CP/er,*"))
    assert relative_difference(one, other) > 0.05


def test_permuting_channels_and_tokens_together_changes_nothing(adaptive: Path) -> None:
    model, images = load_model(adaptive), random_images(5)
    names = model.spec.configurations["CP"]
    straight = model.bind(names).embed(images)
    order = [3, 0, 4, 2, 1]
    permuted = model.bind([names[i] for i in order]).embed(np.ascontiguousarray(images[:, order]))
    assert relative_difference(permuted, straight) < 1e-5
    assert relative_difference(model.bind(names).embed(images[:, order]), straight) > 0.05


def test_specialised_file_equals_pytorch_and_holds_one_plain_convolution(cell_painting: Path) -> None:
    network, spec = small_network()
    images = random_images(5)
    ids = torch.tensor([spec.token_ids[name] for name in spec.configurations["CP"]])
    with torch.inference_mode():
        expected = network(torch.from_numpy(images), ids).numpy()
        stem = network.strategy.weight(ids).numpy()
    assert relative_difference(load_model(cell_painting).bind("CP").embed(images), expected) < 1e-5
    graph = onnx.load(cell_painting).graph
    assert [value.name for value in graph.input] == ["image"]
    assert graph.input[0].type.tensor_type.shape.dim[1].dim_value == 5
    weights = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    assert not [name for name in weights if name.startswith("strategy.")]
    first = graph.node[0]
    assert (first.op_type, first.input[0]) == ("Conv", "image")
    np.testing.assert_allclose(weights[first.input[1]], stem, atol=1e-6)


def test_file_describes_itself(adaptive: Path, cell_painting: Path) -> None:
    _, spec = small_network()
    for path in (adaptive, cell_painting):
        model = onnx.load(path)
        onnx.checker.check_model(model, full_check=True)
        assert (model.ir_version, [(o.domain, o.version) for o in model.opset_import]) == (10, [("", 18)])
        document = {entry.key: entry.value for entry in model.metadata_props}
        carried = parse_spec(document[METADATA_KEY], origin="test")
        assert carried.tokens == spec.tokens
        assert carried.configurations == spec.configurations
        digest = hashlib.sha256()
        for tensor in sorted(model.graph.initializer, key=lambda tensor: str(tensor.name)):
            digest.update(onnx.numpy_helper.to_array(tensor).tobytes())
        assert carried.weights_sha256 == digest.hexdigest()
    assert load_model(adaptive).spec.form == "adaptive"
    assert load_model(cell_painting).spec.fixed_channels == spec.configurations["CP"]


def test_file_holds_readable_names_and_no_trace_of_the_machine(adaptive: Path) -> None:
    network, _ = small_network()
    graph = onnx.load(adaptive).graph
    large = {tensor.name.removesuffix(".T") for tensor in graph.initializer if np.prod(tensor.dims) > 8}
    assert large == {name for name, value in network.state_dict().items() if value.numel() > 8}
    content = adaptive.read_bytes()
    for trace in (b"site-packages", b"stack_trace", b".py", str(Path(__file__).parent.parent).encode()):
        assert trace not in content


def test_same_network_gives_the_same_file(adaptive: Path, tmp_path: Path) -> None:
    network, spec = small_network()
    export_onnx(network, spec, tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == adaptive.read_bytes()


@pytest.mark.parametrize("pooling", ["max", "avgmax"])
def test_other_poolings(tmp_path: Path, pooling: str) -> None:
    network, spec = small_network(pooling)
    report = export_onnx(network, spec, tmp_path / "a.onnx")
    assert max(report.differences.values()) < 1e-5
    assert report.spec.embedding_size == (64 if pooling == "avgmax" else 32)


@pytest.mark.parametrize(
    "backbone", ["convnext_atto_ols", "convnextv2_atto", "convnext_tiny_hnf", "convnext_zepto_rms"]
)
def test_other_convnexts(tmp_path: Path, backbone: str) -> None:
    options = NetworkOptions(
        backbone=backbone,
        backbone_options={"depths": (1, 1, 1, 1), "dims": (8, 16, 24, 32)},
        strategy_options=SMALL.strategy_options,
        size=64,
    )
    network, spec = create_network(options)
    spread_weights(network)
    report = export_onnx(network, spec, tmp_path / "a.onnx")
    assert max(report.differences.values()) < 1e-5


def test_convnext_tiny(tmp_path: Path) -> None:
    network, spec = create_network(NetworkOptions())
    spread_weights(network)
    report = export_onnx(network, spec, tmp_path / "tiny.onnx")
    assert sorted(report.differences) == sorted(
        f"{case} ({form})" for case in ("Allen", "HPA", "CP", "all tokens") for form in ("adaptive", "bound")
    )
    assert max(report.differences.values()) < 1e-4
    text = report.render()
    assert "tiny.onnx" in text
    assert "224x224 -> 768" in text


def test_a_file_that_differs_is_not_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trace = export._trace

    def wrong(*arguments: Any) -> Any:
        model = trace(*arguments)
        gamma = next(tensor for tensor in model.graph.initializer if tensor.name.endswith("gamma"))
        value = onnx.numpy_helper.to_array(gamma) * np.float32(1.001)
        gamma.CopyFrom(onnx.numpy_helper.from_array(value, gamma.name))
        return model

    monkeypatch.setattr(export, "_trace", wrong)
    network, spec = small_network()
    with pytest.raises(ExportError, match="would differ from the network by"):
        export_onnx(network, spec, tmp_path / "a.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_network_of_nan_is_not_written(tmp_path: Path) -> None:
    network, spec = create_network(SMALL)
    with torch.no_grad():
        network.get_parameter("body.model.stages.0.blocks.0.conv_dw.bias").fill_(float("nan"))
    with pytest.raises(ExportError, match="not written"):
        export_onnx(network, spec, tmp_path / "a.onnx")
    assert list(tmp_path.iterdir()) == []


def test_unknown_channels_and_unwritable_output_are_refused_before_work(tmp_path: Path) -> None:
    network, spec = small_network()
    with pytest.raises(ChannelError, match="no channel 'nukleus'"):
        export_onnx(network, spec, tmp_path / "a.onnx", channels="nukleus")
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="file"):
        export_onnx(network, spec, tmp_path / "file" / "a.onnx")


def test_saved_weights_come_back_with_their_network(tmp_path: Path) -> None:
    options = NetworkOptions(backbone="convnext_atto", size=32, seed=1, strategy="sliceparam", pooling="max")
    trained, spec = create_network(options)
    spread_weights(trained)
    save_weights(trained, spec, options, tmp_path / "described.pt")
    torch.save(trained.state_dict(), tmp_path / "bare.pt")
    asked: dict[str, Any] = {"backbone": "convnext_atto", "size": 32, "strategy": "sliceparam", "pooling": "max"}
    for name, given in (("described.pt", {}), ("bare.pt", asked)):
        fresh, found = load_network(tmp_path / name, given)
        assert (found.tokens, found.strategy, found.pooling) == (spec.tokens, spec.strategy, spec.pooling)
        for ours, theirs in zip(fresh.parameters(), trained.parameters(), strict=True):
            assert torch.equal(ours, theirs)
    export_model(ExportOptions(tmp_path / "a.onnx", weights=tmp_path / "described.pt", channels="HPA"))
    images, ids = random_images(4, size=32), torch.tensor([3, 4, 5, 6])
    with torch.inference_mode():
        expected = trained(torch.from_numpy(images), ids).numpy()
    assert relative_difference(load_model(tmp_path / "a.onnx").bind("HPA").embed(images), expected) < 1e-5


def test_pretrained_backbone_from_a_file(tmp_path: Path) -> None:
    import timm
    from safetensors.torch import save_file

    torch.manual_seed(8)
    donor = timm.create_model(SMALL.backbone, num_classes=5, **SMALL.backbone_options)
    save_file(donor.state_dict(), tmp_path / "model.safetensors")
    torch.save(donor.state_dict(), tmp_path / "model.pth")
    for name in ("model.safetensors", "model.pth"):
        network, _ = create_network(NetworkOptions(**{**vars(SMALL), "init": str(tmp_path / name)}))
        for key, value in network.state_dict().items():
            if not key.startswith("strategy."):
                assert torch.equal(value, donor.state_dict()[key.removeprefix("body.model.")]), key


def test_imagenet_without_a_network_says_what_to_fetch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(create, "_hub_is_reachable", lambda: False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ExportError, match=r"model\.safetensors .* timm/convnext_atto\.d2_in1k .* --init FILE"):
        create_network(NetworkOptions(backbone="convnext_atto.d2_in1k", init="imagenet"))


def test_imagenet_takes_what_the_hub_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import timm
    from safetensors.torch import save_file

    donor = timm.create_model("convnext_atto", num_classes=5)
    save_file(donor.state_dict(), tmp_path / "model.safetensors")

    def download(repository: str, file: str, **_: Any) -> str:
        assert repository == "timm/convnext_atto.d2_in1k"
        return str(tmp_path / file)

    monkeypatch.setattr(create, "_hub_is_reachable", lambda: True)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    network, _ = create_network(NetworkOptions(backbone="convnext_atto.d2_in1k", init="imagenet"))
    found = network.get_parameter("body.model.stages.3.blocks.1.mlp.fc1.weight")
    assert torch.equal(found, donor.get_parameter("stages.3.blocks.1.mlp.fc1.weight"))


class Runs:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("ran"),))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backbone": "convnext_tinny"}, r"no backbone 'convnext_tinny' \(did you mean convnext_tiny"),
        ({"backbone": "convnext_atto.nope"}, r"refuses .*did you mean convnext_atto\.d2_in1k"),
        ({"backbone": "crossvit_9_240"}, "'crossvit_9_240' does not begin with one convolution"),
        ({"strategy": "nope"}, "no strategy 'nope'"),
        ({"init": "absent.safetensors"}, r"absent\.safetensors: the weights cannot be read: No such file"),
        ({"init": "text.pth"}, r"text\.pth: is not a file of weights"),
        ({"weights": Path("absent.pt")}, r"absent\.pt: the weights cannot be read: No such file"),
        ({"weights": Path("empty.pt")}, r"empty\.pt: is not a file of weights"),
        ({"weights": Path("pickled.pt")}, r"pickled\.pt: .* run code that it brings: it is refused"),
        ({"weights": Path("list.pt")}, r"list\.pt: holds a list instead of named weights"),
        ({"weights": Path("foreign.pt")}, r"foreign\.pt: .*missing: .* more; foreign: fc\.bias, fc\.weight\)"),
        (
            {"weights": Path("shape.pt")},
            r"its weight 'body\.model\.stem\.1\.weight' has shape \(3,\) instead of \(40,\)",
        ),
    ],
)
def test_bad_options_are_one_sentence(
    options: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    bad_weight_files()
    with pytest.raises(ExportError, match=message) as caught:
        export_model(ExportOptions(**{"out": Path("a.onnx"), "backbone": "convnext_atto", "size": 32, **options}))
    assert "\n" not in str(caught.value)
    assert not Path("a.onnx").exists()
    assert not Path("ran").exists()


def bad_weight_files() -> None:
    Path("text.pth").write_text("weights")
    Path("empty.pt").touch()
    torch.save({"state_dict": Runs()}, "pickled.pt")
    torch.save([torch.zeros(1)], "list.pt")
    torch.save({"fc.weight": torch.zeros(1), "fc.bias": torch.zeros(1)}, "foreign.pt")
    network, _ = create_network(NetworkOptions(backbone="convnext_atto"))
    torch.save({**network.state_dict(), "body.model.stem.1.weight": torch.zeros(3)}, "shape.pt")


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    options = NetworkOptions(backbone="convnext_atto")
    network, spec = create_network(options)
    save_weights(network, spec, options, tmp_path / "a.pt")
    content = torch.load(tmp_path / "a.pt", weights_only=True)
    torch.save({**content, "spec": "{}"}, tmp_path / "b.pt")
    with pytest.raises(ExportError, match=r"a\.pt: holds a network with pooling 'avg', not 'max'"):
        export_model(ExportOptions(tmp_path / "a.onnx", weights=tmp_path / "a.pt", pooling="max"))
    with pytest.raises(ExportError, match=r"b\.pt: .*describes itself in format version None"):
        export_model(ExportOptions(tmp_path / "a.onnx", weights=tmp_path / "b.pt"))
