"""Importing the released checkpoints, against definitions of the models written from their description."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("timm")

from typer.testing import CliRunner  # noqa: E402

from chammi_fast.cli import app  # noqa: E402
from chammi_fast.errors import ChammiFastError, ExportError  # noqa: E402
from chammi_fast.model import load_model  # noqa: E402
from chammi_fast.training.checkpoint import import_checkpoint  # noqa: E402
from published_checkpoints import CHANNELS, Published, save  # noqa: E402

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from chammi_fast.spec import Spec

DATA_SETS = ("Allen", "HPA", "CP")
# Published means and standard deviations, by data set in tape order.
MEANS = {
    "Allen": (0.17299604, 0.21203263, 0.06717164),
    "HPA": (0.08290475, 0.04112732, 0.064044476, 0.08445487),
    "CP": (0.09957533, 0.19229738, 0.16250879, 0.18240248, 0.14978176),
}
STDS = {
    "Allen": (0.1803914, 0.1947802, 0.08771174),
    "HPA": (0.08106554, 0.052796874, 0.0885671, 0.0815554),
    "CP": (0.077283904, 0.074369825, 0.06784963, 0.066472545, 0.068180084),
}
VARIANTS: dict[str, dict[str, Any]] = {
    "HyperNet": {"name": "HyperNet"},
    "HyperNet, shared": {"name": "HyperNet", "shared": True},
    "HyperNet, two data sets": {"name": "HyperNet", "data_sets": ("Allen", "CP")},
    "HyperNet, avg+max": {"name": "HyperNet", "pooling": "avgmax"},
    "TemplateMixing": {"name": "TemplateMixing"},
    "TemplateMixing, shared": {"name": "TemplateMixing", "shared": True},
    "TemplateMixing, 8 templates": {"name": "TemplateMixing", "size": 8},
    "TemplateMixing, one data set": {"name": "TemplateMixing", "data_sets": ("HPA",)},
    "SliceParam": {"name": "SliceParam"},
    "SliceParam, no offsets": {"name": "SliceParam", "offsets": False},
    "TargetParam": {"name": "TargetParam"},
    "TargetParam, two data sets": {"name": "TargetParam", "data_sets": ("HPA", "CP")},
    "Depthwise": {"name": "Depthwise"},
    "Depthwise, 3 filters": {"name": "Depthwise", "size": 3},
    "Depthwise, two data sets": {"name": "Depthwise", "data_sets": ("Allen", "HPA"), "pooling": "avgmax"},
    "FixedChannels, Allen": {"name": "FixedChannels", "data_sets": ("Allen",)},
    "FixedChannels, HPA": {"name": "FixedChannels", "data_sets": ("HPA",)},
    "FixedChannels, CP": {"name": "FixedChannels", "data_sets": ("CP",), "pooling": "avgmax"},
}


def checkpoint(path: Path, model: Published, **changes: Tensor | None) -> Path:
    """Save a model with its training state; a change of None takes a weight away."""
    weights = {**model.weights, **model.training_state(), **changes}
    return save(path, {key: value for key, value in weights.items() if value is not None})


def assert_same(found: np.ndarray, expected: np.ndarray, tolerance: float = 1e-5) -> None:
    scale = np.abs(expected).max(axis=1, keepdims=True)
    assert found.shape == expected.shape
    assert (np.abs(found - expected) / scale).max() < tolerance


def assert_embeds_as(network: Any, spec: Spec, model: Published, size: int = 64) -> None:
    for name in model.data_sets:
        images = torch.randn(2, len(CHANNELS[name]), size, size, generator=torch.Generator().manual_seed(3))
        ids = torch.tensor([spec.token_ids[token] for token in spec.configurations[name]])
        with torch.inference_mode():
            found = network(images, ids).numpy()
        expected = model.embed(images, name)
        assert np.abs(expected[0] - expected[1]).max() > 0.1 * np.abs(expected).max()  # the images matter
        assert_same(found, expected)


@pytest.mark.parametrize("variant", VARIANTS)
def test_an_imported_checkpoint_equals_its_definition(tmp_path: Path, variant: str) -> None:
    model = Published(**VARIANTS[variant])
    network, spec = import_checkpoint([checkpoint(tmp_path / "a.pt", model)])
    assert_embeds_as(network, spec, model)
    assert tuple(spec.configurations) == model.data_sets
    assert spec.strategy == model.name.lower()
    assert (spec.pooling, spec.embedding_size) == (model.pooling, 64 if model.pooling == "avgmax" else 32)


def test_the_description_of_an_imported_checkpoint(tmp_path: Path) -> None:
    model = Published("HyperNet")
    path = checkpoint(tmp_path / "a.pt", model)
    _, spec = import_checkpoint([path])
    assert (spec.preprocessing.size, spec.preprocessing.resize) == (224, "shorter")
    assert [token.name for token in spec.tokens[:12]] == [f"{one}/{c}" for one in DATA_SETS for c in CHANNELS[one]]
    for name in DATA_SETS:
        tokens = [spec.tokens[spec.token_ids[token]] for token in spec.configurations[name]]
        assert tuple(token.mean for token in tokens) == MEANS[name]
        assert tuple(token.std for token in tokens) == STDS[name]
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert spec.training == {
        "imported": "HyperNet",
        "depths": (2, 1, 3, 2),
        "dims": (10, 16, 24, 32),
        "files": [{"file": "a.pt", "sha256": digest, "epoch": 15}],
    }


@pytest.mark.parametrize("name", ["HyperNet", "FixedChannels"])
def test_the_published_size(tmp_path: Path, name: str) -> None:
    """28,253,952 weights with the 14 proxies, as the training code counts them; 83.47 M for three fixed networks."""
    data_sets = DATA_SETS if name == "HyperNet" else ("Allen",)
    model = Published(name, data_sets=data_sets, size=128, tiny=True)
    if name == "HyperNet":
        wide = {"hypernet.W": (128, 1, 256), "hypernet.b": (1, 256), "hypernet.W_out": (256, 96, 4, 4)}
        model.adapter |= {key: model.normal(*shape, std=0.05) for key, shape in wide.items()}
        model.weights |= model.adapter
    network, spec = import_checkpoint([checkpoint(tmp_path / "a.pt", model)])
    assert (spec.backbone, spec.embedding_size) == ("convnext_tiny.fb_in22k", 768)
    assert "depths" not in spec.training
    assert_embeds_as(network, spec, model)
    weights = sum(parameter.numel() for parameter in network.parameters())
    if name == "HyperNet":
        assert weights + 14 * 768 == 28_253_952
    else:
        more = 3 * weights + (1 + 2) * 96 * 16 + (6 + 4 + 4) * 768
        assert round(more / 1e6, 2) == 83.47


def test_three_fixed_networks_become_one(tmp_path: Path) -> None:
    models = [Published("FixedChannels", data_sets=(name,), seed=i) for i, name in enumerate(DATA_SETS)]
    paths = [checkpoint(tmp_path / f"{i}.pt", model) for i, model in enumerate(models)]
    for names in ((), ("CP", "Allen", "HPA")):
        network, spec = import_checkpoint([paths[2], paths[0], paths[1]], data_sets=names)
        assert tuple(spec.configurations) == DATA_SETS
        assert [file["file"] for file in spec.training["files"]] == ["2.pt", "0.pt", "1.pt"]
        for model in models:
            assert_embeds_as(network, spec, model)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_wrappers_of_the_network_are_taken_off(tmp_path: Path, prefix: str) -> None:
    model = Published("Depthwise")
    weights = {prefix + key: value for key, value in {**model.weights, **model.training_state()}.items()}
    network, spec = import_checkpoint([save(tmp_path / "a.pt", weights)])
    assert_embeds_as(network, spec, model)


@pytest.mark.parametrize("name", ["HyperNet", "SliceParam", "TemplateMixing", "TargetParam", "Depthwise"])
def test_the_adapter_may_be_repeated_or_not(tmp_path: Path, name: str) -> None:
    model = Published(name)
    whole = {f"adaptive_interface.{key}": value for key, value in model.adapter.items()}
    numbered = {f"adaptive_interface.{i}.0": value for i, value in enumerate(model.adapter.values())}
    for copies in (whole, numbered, {}):
        network, spec = import_checkpoint([save(tmp_path / "a.pt", {**model.weights, **copies})])
        assert_embeds_as(network, spec, model)


def test_other_entries_and_types_of_weights(tmp_path: Path) -> None:
    model = Published("TemplateMixing", shared=True)
    rows = model.weights.pop("conv1_coefs")
    weights = {**model.weights, "conv1_coefs.weight": rows, "logit_scale": torch.tensor([1.0])}
    network, spec = import_checkpoint([save(tmp_path / "a.pt", weights, epoch=torch.tensor(3))])
    assert_embeds_as(network, spec, model)
    assert "epoch" not in spec.training["files"][0]
    double = {key: value.double() for key, value in weights.items()}
    network, spec = import_checkpoint([save(tmp_path / "a.pt", double)])
    assert_embeds_as(network, spec, model)
    assert all(value.dtype == torch.float32 for value in network.state_dict().values())


LAST = "feature_extractor.9.mlp.fc2.bias"
NAN, ONES = torch.full((32,), float("nan")), torch.ones(4, 11)
BANK, COPY, FIXED = "conv1_param_bank", "adaptive_interface.0", "feature_extractor.0.0.weight"
FIRST_OF_STAGE = "feature_extractor.2.blocks.0.conv_dw.weight"


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("HyperNet", {LAST: None}, rf"is no whole HyperNet checkpoint: it lacks 1 weight \({LAST}\)"),
        ("HyperNet", {"hypernet.b": None}, r"lacks 1 weight \(hypernet\.b\) and has a surplus of 1 weight \(adaptive_"),
        ("HyperNet", {"conv1_emb.CP": None}, r"has a surplus of 1 weight \(adaptive_interface\.0\.CP\)"),
        ("HyperNet", dict.fromkeys("abcde", NAN), r"surplus of 5 weights \(a, b, c and 2 more\)"),
        ("HyperNet", {"head.fc": NAN, LAST: None}, rf"lacks 1 weight \({LAST}\) and has a surplus of 1 weight \(head"),
        ("HyperNet", {"x\n\x1b[2J": NAN}, r"surplus of 1 weight \(x\\n\\x1b\[2J\)"),
        ("HyperNet", {LAST: torch.ones(31)}, rf"'{LAST}' has shape \(31,\) instead of \(32,\)"),
        ("HyperNet", {LAST: NAN}, rf"'{LAST}' holds something else than finite floating-point numbers"),
        ("HyperNet", {LAST: torch.ones(32).long()}, rf"'{LAST}' holds something else than finite floating-point numb"),
        ("HyperNet", {LAST: torch.ones(32) * 1j}, rf"'{LAST}' is stored as torch\.ComplexFloatStorage, which is not"),
        ("HyperNet", {"conv1_emb.CP": ONES}, r"'adaptive_interface\.0\.CP' differs from 'conv1_emb\.CP'"),
        ("HyperNet", {"conv1_emb.JUMP": ONES}, r"it has 'conv1_emb\.JUMP', but the data sets are Allen, HPA, CP"),
        ("HyperNet", {"adaptive_interface.1.W": torch.ones(11, 1, 16)}, r"1\.W' differs from 'hypernet\.W', which it"),
        ("HyperNet", {"adaptive_interface.1.W": ONES}, r"1\.W' differs from 'hypernet\.W', which it repeats"),
        (
            "HyperNet",
            {"first_layer.CP.bias": NAN},
            r"several published models: 'conv1_emb\.Allen' as in .* 'first_layer",
        ),
        (
            "HyperNet",
            {"proxies": torch.ones(14, 48)},
            r"'proxies' have shape \(14, 48\) instead of \(14 or fewer, 32\)",
        ),
        ("HyperNet", {"proxies": torch.ones(15, 32)}, r"'proxies' have shape \(15, 32\) instead of"),
        ("HyperNet", {"logit_scale": torch.ones(2)}, r"'logit_scale' has shape \(2,\) instead of being one number"),
        ("SliceParam", {BANK: None}, r"no whole SliceParam checkpoint: it lacks 1 weight \(conv1_param_bank\)"),
        ("SliceParam", {COPY: torch.ones(10, 8, 4, 4)}, r"interface\.0' differs from 'conv1_param_bank'"),
        ("SliceParam", {COPY: torch.ones(10, 9, 4, 4)}, r"surplus of 1 weight \(adaptive_interface\.0\)"),
        (
            "SliceParam",
            {"class_emb": torch.ones(10, 11, 4, 4)},
            r"'class_emb' has shape \(10, 11, 4, 4\) instead of \(",
        ),
        ("TemplateMixing", {BANK: None}, r"no whole TemplateMixing checkpoint: it lacks 1 weight \(conv1_param_bank\)"),
        ("TemplateMixing", {"conv1_coefs.HPA": None}, r"surplus of 1 weight \(adaptive_interface\.1\.HPA\)"),
        ("TargetParam", {"first_layer.HPA.bias": None}, r"lacks 1 weight \(first_layer\.HPA\.bias\) and has a surplus"),
        ("TargetParam", {"first_layer.HPA.gain": NAN}, r"has a surplus of 1 weight \(first_layer\.HPA\.gain\)"),
        ("TargetParam", {"feature_extractor.0.weight": None}, r"lacks 1 weight \(feature_extractor\.0\.weight\)"),
        ("TargetParam", {"feature_extractor.7.1.weight": None}, r"lacks 1 weight \(feature_extractor\.7\.1\.weight\)"),
        ("TargetParam", {"feature_extractor.5.gamma": None}, r"lacks 1 weight \(feature_extractor\.5\.gamma\)"),
        ("TargetParam", {FIRST_OF_STAGE: None}, r"lacks 1 weight \(feature_extractor\.2\.blocks\.0\.conv_dw\.weight\)"),
        (
            "Depthwise",
            {"weighted_sum_pooling": None},
            r"lacks 1 weight \(weighted_sum_pooling\) and has a surplus of 1",
        ),
        ("Depthwise", {"conv_1x1.weight": torch.ones(10, 12, 1, 1)}, r"'adaptive_\S*weight' differs from 'conv_1x1\."),
        (
            "Depthwise",
            {"feature_extractor.8.gamma": NAN},
            "'feature_extractor.8.gamma' holds something else than finite",
        ),
        (
            "Depthwise",
            {"feature_extractor.9.gamma": torch.ones(32)},
            r"lacks 8 weights \(feature_extractor\.9\.\S*, .* 5 more",
        ),
        ("FixedChannels", {COPY: NAN}, r"surplus of 1 weight \(adaptive_interface\.0\)"),
        ("FixedChannels", {"feature_extractor.0.0.bias": None}, r"lacks 1 weight \(feature_extractor\.0\.0\.bias\)"),
        (
            "FixedChannels",
            {FIXED: torch.ones(10, 2, 4, 4)},
            r"takes 2 channels, but the data sets have others: Allen 3",
        ),
        ("FixedChannels", {FIXED: torch.ones(10, 3, 7, 7)}, r"has shape \(10, 3, 7, 7\) instead of \(10, 3, 4, 4\)"),
    ],
)
def test_what_is_no_published_checkpoint_is_told(
    tmp_path: Path, name: str, changes: dict[str, Any], message: str
) -> None:
    model = Published(name, data_sets=("Allen",) if name == "FixedChannels" else DATA_SETS)
    with pytest.raises(ExportError, match=message) as caught:
        import_checkpoint([checkpoint(tmp_path / "a.pt", model, **changes)])
    assert str(caught.value).startswith(f"{tmp_path / 'a.pt'}: ")
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(".")


def test_other_networks_are_told(tmp_path: Path) -> None:
    path = save(tmp_path / "a.pt", {"conv1.weight": torch.ones(3)})
    with pytest.raises(ExportError, match=r"none of the published models \(HyperNet, .*, FixedChannels\)\.$"):
        import_checkpoint([path])
    with pytest.raises(ExportError, match=r"none of the published models"):
        import_checkpoint([save(tmp_path / "a.pt", {})])
    huge = {f"feature_extractor.{i}.gamma": torch.ones(1) for i in (50, 10**9)}
    path = save(tmp_path / "a.pt", {**huge, "hypernet.b": torch.ones(1)})
    with pytest.raises(ExportError, match=r"it lacks \d\d\d weights .* and has a surplus of 1 weight "):
        import_checkpoint([path])
    with pytest.raises(ExportError, match="no checkpoint was given"):
        import_checkpoint([])


def test_a_few_numbers_that_pretend_to_be_a_large_network(tmp_path: Path) -> None:
    """The keys alone tell sizes: nothing is made of them before they are found to be too large."""
    weights = {f"feature_extractor.{i}.gamma": torch.ones(1) for i in range(4, 90)}
    weights |= {"feature_extractor.3.1.weight": torch.ones(10_000), "feature_extractor.90.1.weight": torch.ones(10_000)}
    path = save(tmp_path / "a.pt", {**weights, "class_emb": torch.ones(1)})
    with pytest.raises(ExportError, match=r"its weights take more than 2 GB, the most that one model file can hold\.$"):
        import_checkpoint([path])


def test_data_sets_that_do_not_fit_are_told(tmp_path: Path) -> None:
    hypernet = checkpoint(tmp_path / "h.pt", Published("HyperNet", data_sets=("Allen", "HPA")))
    allen = checkpoint(tmp_path / "a.pt", Published("FixedChannels", data_sets=("Allen",)))
    hpa = checkpoint(tmp_path / "b.pt", Published("FixedChannels", data_sets=("HPA",), pooling="avgmax"))
    for paths, data_sets, message in [
        ([hypernet], ["CP"], r"h\.pt: has no data set 'CP': it has Allen, HPA\.$"),
        ([hypernet], ["Allen", "HPA"], r"h\.pt: is one HyperNet checkpoint, but 2 data sets were named\.$"),
        ([allen, hypernet], [], r"h\.pt: is a HyperNet checkpoint, but only FixedChannels ones can be put together\.$"),
        ([allen], ["JUMP"], r"there is no data set 'JUMP': choose from Allen, HPA, CP\.$"),
        ([allen], ["CP"], r"a\.pt: takes 3 channels, but CP has 5 \(Allen 3, HPA 4, CP 5\)\.$"),
        ([allen, hpa], ["Allen"], r"2 checkpoints, but 1 data sets: name one for each checkpoint, or none\.$"),
        ([allen, allen], [], r"a\.pt and .*a\.pt are both of the data set Allen\.$"),
        ([allen, hpa], [], r"a\.pt and .*b\.pt hold networks of different sizes\.$"),
    ]:
        with pytest.raises(ExportError, match=message):
            import_checkpoint(paths, data_sets=data_sets)
    _, spec = import_checkpoint([hypernet], data_sets=["HPA"])
    assert tuple(spec.configurations) == ("Allen", "HPA")


def run_export(*arguments: object) -> str:
    """Run the command; return what it prints, or raise its error."""
    result = CliRunner().invoke(app, ["export", *map(str, arguments)])
    if isinstance(result.exception, ChammiFastError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def assert_file_embeds_as(path: Path, channels: str, model: Published) -> None:
    images = torch.randn(2, len(CHANNELS[channels]), 224, 224, generator=torch.Generator().manual_seed(4))
    assert_same(load_model(path).bind(channels).embed(images.numpy()), model.embed(images, channels), 1e-4)


def test_from_a_released_file_to_onnx(tmp_path: Path) -> None:
    model, out = Published("HyperNet"), tmp_path / "a.onnx"
    path = checkpoint(tmp_path / "a.pt", model)
    said = run_export("--checkpoint", path, "--out", out)
    assert "adaptive hypernet on convnext_tiny" in said
    assert "differs from PyTorch by" in said
    for name in DATA_SETS:
        assert_file_embeds_as(out, name, model)
    run_export("--checkpoint", path, "--out", out, "--dataset", "CP", "--no-verify")
    fixed = load_model(out).spec
    assert fixed.fixed_channels == tuple(f"CP/{channel}" for channel in CHANNELS["CP"])
    assert_file_embeds_as(out, "CP", model)


def test_from_fixed_channels_files_to_one_onnx(tmp_path: Path) -> None:
    models = {name: Published("FixedChannels", data_sets=(name,), seed=i) for i, name in enumerate(DATA_SETS)}
    arguments: list[object] = []
    for name, model in models.items():
        arguments += ["--checkpoint", checkpoint(tmp_path / f"{name}.pt", model), "--dataset", name]
    run_export(*arguments, "--out", tmp_path / "a.onnx", "--no-verify")
    for name, model in models.items():
        assert_file_embeds_as(tmp_path / "a.onnx", name, model)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--checkpoint", "a.pt", "--strategy", "hypernet"],
            "brings a network with it: leave out --strategy",
        ),
        (["--checkpoint", "a.pt", "--backbone", "resnet18"], "leave out --backbone"),
        (["--checkpoint", "a.pt", "--weights", "b.pt"], "leave out --weights"),
        (["--checkpoint", "a.pt", "--init", "random"], "leave out --init"),
        (["--checkpoint", "a.pt", "--size", "64"], "leave out --size"),
        (["--checkpoint", "a.pt"], "a.pt: the checkpoint cannot be read: No such file or directory"),
        (["--dataset", "CP"], "--dataset belongs to --checkpoint"),
        (["--weights", "b.pt", "--init", "imagenet"], "leave out --init and --seed"),
    ],
)
def test_options_that_contradict_each_other(tmp_path: Path, arguments: list[str], message: str) -> None:
    with pytest.raises(ExportError, match=message):
        run_export(*arguments, "--out", tmp_path / "a.onnx")
    assert not (tmp_path / "a.onnx").exists()


def test_data_set_and_channels_contradict_each_other(tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "a.pt", Published("SliceParam"))
    with pytest.raises(ExportError, match="both say which channels the file is for: leave one out"):
        run_export("--checkpoint", path, "--dataset", "CP", "--channels", "HPA", "--out", tmp_path / "a.onnx")
