"""Every strategy's adaptive file against its network in PyTorch: configurations, subsets, permutations, sizes."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("timm")
onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from chammi_fast.errors import ChannelError  # noqa: E402
from chammi_fast.model import Model, load_model  # noqa: E402
from chammi_fast.training.create import NetworkOptions, create_network  # noqa: E402
from chammi_fast.training.export import export_onnx, relative_difference  # noqa: E402
from chammi_fast.training.strategies import STRATEGIES  # noqa: E402
from networks import SMALL, small_network, spread_weights  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Sequence

WHOLE = ["Allen", "HPA", "CP"]
SOME = ["CP/mito,CP/nucleus", "HPA/er", "DNA=nucleus,er,mito,protein", "nucleus,*", "HPA/er,CP/er,Allen/protein"]
FLEXIBLE = [name for name in STRATEGIES if STRATEGIES[name].accepts != "configurations"]
WHOLE_ONLY = [name for name in STRATEGIES if name not in FLEXIBLE]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("models")
    return path


@cache
def exported(strategy: str, folder: Path) -> Model:
    network, spec = small_network(strategy=strategy)
    path = folder / f"{strategy}.onnx"
    export_onnx(network, spec, path)
    return load_model(path)


def images_of(count: int, *, size: int = 64) -> np.ndarray:
    return np.random.default_rng(count).standard_normal((3, count, size, size), dtype=np.float32)


def by_torch(strategy: str, tokens: Sequence[str], images: np.ndarray) -> np.ndarray:
    network, spec = small_network(strategy=strategy)
    with torch.inference_mode():
        found: np.ndarray = network(
            torch.from_numpy(images), torch.tensor([spec.token_ids[name] for name in tokens])
        ).numpy()
    return found


@pytest.mark.parametrize(
    ("strategy", "channels"),
    [(one, names) for one in STRATEGIES for names in (WHOLE + SOME if one in FLEXIBLE else WHOLE)],
)
def test_adaptive_and_bound_equal_pytorch(strategy: str, channels: str, folder: Path) -> None:
    model = exported(strategy, folder)
    bound = model.bind(channels)
    images = images_of(len(bound.channels))
    tokens = [channel.token for channel in bound.channels]
    expected = by_torch(strategy, tokens, images)
    session = onnxruntime.InferenceSession(model.path, providers=["CPUExecutionProvider"])
    ids = np.array([channel.token_id for channel in bound.channels])
    (adaptive,) = session.run(["embedding"], {"image": images, "channels": ids})
    assert expected.shape == (3, bound.embedding_size)
    assert relative_difference(adaptive, expected) < 1e-5
    assert relative_difference(bound.embed(images), expected) < 1e-5


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_permuting_channels_and_tokens_together_changes_nothing_but_the_order(strategy: str, folder: Path) -> None:
    model, images, order = exported(strategy, folder), images_of(5), [3, 0, 4, 2, 1]
    names = model.spec.configurations["CP"]
    straight = model.bind(names).embed(images)
    permuted = model.bind([names[i] for i in order]).embed(np.ascontiguousarray(images[:, order]))
    if strategy == "channelreplication":
        straight = straight.reshape(3, 5, -1)[:, order].reshape(3, -1)
    assert relative_difference(permuted, straight) < 1e-5
    if strategy != "channelreplication":
        assert relative_difference(model.bind(names).embed(images[:, order]), straight) > 0.01


@pytest.mark.parametrize("strategy", [name for name in STRATEGIES if name != "channelreplication"])
def test_tokens_matter(strategy: str, folder: Path) -> None:
    """The comparisons above would pass if nothing mattered: the same images as another configuration differ."""
    model = exported(strategy, folder)
    network, spec = small_network(strategy=strategy)
    images = images_of(4)
    as_hpa = model.bind("HPA").embed(images)
    ids = torch.tensor([spec.token_ids[name] for name in (*spec.configurations["Allen"], "HPA/er")])
    with torch.inference_mode():
        other = network(torch.from_numpy(images), ids).numpy()
    assert relative_difference(as_hpa, other) > 0.01


@pytest.mark.parametrize("strategy", WHOLE_ONLY)
def test_strategies_of_whole_configurations_take_nothing_else(strategy: str, folder: Path) -> None:
    model = exported(strategy, folder)
    with pytest.raises(ChannelError, match=f"a {strategy} model takes all channels of one configuration"):
        model.bind("CP/nucleus,CP/er")
    with pytest.raises(ChannelError, match=r"\(Allen, HPA, CP\), not nucleus, er"):
        model.bind("nucleus,er")


def test_channel_replication_takes_any_channels_and_sizes(folder: Path) -> None:
    model = exported("channelreplication", folder)
    bound = model.bind("whatever,unheard of,nucleus")
    assert bound.embedding_size == 3 * 32
    images = np.random.default_rng(0).standard_normal((2, 3, 96, 64), dtype=np.float32)
    found = bound.embed(images)
    for channel in range(3):
        alone = model.bind("x").embed(np.ascontiguousarray(images[:, channel : channel + 1]))
        assert relative_difference(found[:, 32 * channel : 32 * channel + 32], alone) < 1e-5
    assert bound.preprocess.size is None
    assert (set(bound.preprocess.mean or ()), set(bound.preprocess.std or ())) == ({0.0}, {1.0})


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_specialised_files_hold_ordinary_networks(strategy: str, tmp_path: Path) -> None:
    """One configuration's weights, no trace of the adapter, and for one-convolution stems a plain first convolution."""
    network, spec = small_network(strategy=strategy)
    report = export_onnx(network, spec, tmp_path / "cp.onnx", channels="CP")
    assert max(report.differences.values()) < 1e-5
    model = load_model(tmp_path / "cp.onnx")
    images = images_of(5)
    expected = by_torch(strategy, spec.configurations["CP"], images)
    assert relative_difference(model.bind("CP").embed(images), expected) < 1e-5
    graph = model.network.graph
    assert [value.name for value in graph.input] == ["image"]
    assert not {node.op_type for node in graph.node} & {"Gather", "GatherElements", "Softmax", "If", "Loop"}
    if strategy not in ("depthwise", "channelreplication"):
        assert (graph.node[0].op_type, graph.node[0].input[0]) == ("Conv", "image")
    adaptive = sum(np.prod(tensor.dims) for tensor in exported(strategy, tmp_path).network.graph.initializer)
    own = sum(np.prod(tensor.dims) for tensor in graph.initializer)
    assert own <= adaptive
    if strategy == "fixedchannels":
        assert own < 0.4 * adaptive


def test_fixed_channels_has_a_body_for_each_configuration(folder: Path) -> None:
    network: Any
    network, spec = small_network(strategy="fixedchannels")
    state = [dict(one.state_dict()) for one in network.body.bodies]
    assert len(state) == 3
    changed, _ = create_network(NetworkOptions(**{**vars(SMALL), "strategy": "fixedchannels", "strategy_options": {}}))
    changed.load_state_dict(network.state_dict())
    other: Any = changed.body
    with torch.no_grad():
        other.bodies[2].model.stages[0].blocks[0].conv_dw.weight.mul_(2)
    export_onnx(changed, spec, folder / "changed.onnx")
    one, two = exported("fixedchannels", folder), load_model(folder / "changed.onnx")
    for name, count, same in (("Allen", 3, True), ("HPA", 4, True), ("CP", 5, False)):
        images = images_of(count)
        difference = relative_difference(one.bind(name).embed(images), two.bind(name).embed(images))
        assert (difference < 1e-6) == same


@pytest.mark.parametrize(
    ("strategy", "options"),
    [
        ("hypernet", {"embeddings": "shared"}),
        ("templatemixing", {"coefficients": "shared"}),
        ("sliceparam", {"offsets": False}),
        ("depthwise", {"pooling": "mean"}),
        ("depthwise", {"pooling": "sum"}),
        ("depthwise", {"pooling": "attention"}),
    ],
)
def test_options_export_too(strategy: str, options: dict[str, Any], tmp_path: Path) -> None:
    network, spec = create_network(NetworkOptions(**{**vars(SMALL), "strategy": strategy, "strategy_options": options}))
    spread_weights(network)
    assert max(export_onnx(network, spec, tmp_path / "a.onnx").differences.values()) < 1e-5


SWIN = {"depths": (1, 1), "embed_dim": 12, "num_heads": (1, 2)}


@pytest.mark.parametrize(
    ("strategy", "backbone", "size", "options"),
    [
        ("sliceparam", "resnet10t", 64, {}),
        ("sliceparam", "tf_efficientnet_lite0", 64, {}),
        ("fixedchannels", "mobilenetv3_small_050", 64, {}),
        ("sliceparam", "vit_tiny_patch16_224", 64, {}),
        ("sliceparam", "swin_tiny_patch4_window7_224", 56, SWIN),
        ("fixedchannels", "swin_tiny_patch4_window7_224", 56, SWIN),
    ],
)
def test_other_backbones_export(
    strategy: str, backbone: str, size: int, options: dict[str, Any], tmp_path: Path
) -> None:
    """FixedChannels with batch norm and convolutions without bias, too: each body's buffers go with it."""
    network: Any
    network, spec = create_network(
        NetworkOptions(backbone=backbone, size=size, strategy=strategy, backbone_options=options)
    )
    if strategy == "fixedchannels":
        with torch.no_grad():
            for parameter in network.body.bodies[2].parameters():
                parameter.mul_(1.1)
    assert max(export_onnx(network, spec, tmp_path / "a.onnx").differences.values()) < 1e-4


@pytest.mark.parametrize(
    ("backbone", "options", "size"),
    [
        ("vit_tiny_patch16_224", {"depth": 1, "embed_dim": 24, "num_heads": 2}, 224),
        ("vit_tiny_patch16_224", {"depth": 1, "embed_dim": 24, "num_heads": 2, "img_size": 96}, 96),
        ("vit_small_patch16_384", {"depth": 1, "embed_dim": 24, "num_heads": 2}, 384),
        ("resnet10t", {}, None),
    ],
)
def test_images_as_they_are_where_the_backbone_takes_them(
    backbone: str, options: dict[str, Any], size: int | None, tmp_path: Path
) -> None:
    asked = NetworkOptions(strategy="channelreplication", backbone=backbone, size=None, backbone_options=options)
    network, spec = create_network(asked)
    assert (spec.preprocessing.size, spec.preprocessing.resize) == (size, "none" if size is None else "shorter")
    assert max(export_onnx(network, spec, tmp_path / "a.onnx").differences.values()) < 1e-4
