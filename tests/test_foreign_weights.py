"""Weights from elsewhere: what other libraries publish, and files that would have more done than loaded."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")
torchvision = pytest.importorskip("torchvision")

from chammi_fast.errors import ExportError  # noqa: E402
from chammi_fast.training.create import NetworkOptions, create_network  # noqa: E402
from chammi_fast.training.tensors import load_backbone  # noqa: E402
from chammi_fast.training.weights import load_network, save_weights  # noqa: E402

SLIGHT = NetworkOptions(
    backbone="convnext_atto", size=32, backbone_options={"depths": (1, 1, 1, 1), "dims": (8, 16, 24, 32)}
)


class Runs:
    """Leaves a trace where it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, ("ran",))


@pytest.mark.parametrize(
    "keyword",
    [
        {"checkpoint_path": "evil.pt"},
        {"pretrained": True},
        {"pretrained_cfg": {"file": "evil.pt"}},
        {"pretrained_cfg_overlay": {"file": "evil.pt"}},
        {"cache_dir": "elsewhere"},
        {"in_chans": 3},
        {"num_classes": 5},
        {"features_only": True},
    ],
)
def test_a_file_of_weights_has_nothing_else_loaded_or_made(
    keyword: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch, "load", unsafe(torch.load))
    torch.save({"x": Runs()}, "evil.pt")
    network, spec = create_network(SLIGHT)
    options = replace(SLIGHT, backbone_options={**SLIGHT.backbone_options, **keyword})
    save_weights(network, spec, options, Path("weights.pt"))
    with pytest.raises(ExportError, match=rf"^backbone_options: '{next(iter(keyword))}' is none of a network's own"):
        load_network(Path("weights.pt"), {})
    assert not Path("ran").exists()


def unsafe(load: Any) -> Any:
    """Let files of other names than ours be loaded as by timm 1.0.12, which let pickles run."""

    def loads(path: Any, *arguments: Any, **named: Any) -> Any:
        return load(path, *arguments, **named | ({"weights_only": False} if str(path) == "evil.pt" else {}))

    return loads


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("resnet18", "resnet18"),
        ("resnext50_32x4d", "resnext50_32x4d"),
        ("mobilenet_v2", "mobilenetv2_100"),
        ("efficientnet_b0", "efficientnet_b0"),
        ("mnasnet1_0", "mnasnet_100"),
        ("densenet121", "densenet121"),
    ],
)
def test_families_of_torchvision_s_that_fit_compute_the_same(theirs: str, ours: str) -> None:
    torch.manual_seed(0)
    model = getattr(torchvision.models, theirs)(weights=None).eval()
    for key, value in model.state_dict().items():
        if key.endswith("running_mean"):
            value.normal_(0, 0.3)
        elif key.endswith("running_var"):
            value.uniform_(0.1, 0.5)
    backbone = timm.create_model(ours, num_classes=0).eval()
    load_backbone(backbone, model.state_dict(), theirs)
    setattr(model, next(name for name in ("classifier", "fc") if hasattr(model, name)), torch.nn.Identity())
    with torch.inference_mode():
        images = torch.randn(2, 3, 64, 64)
        expected, found = model(images), backbone(images)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("convnext_tiny", "convnext_tiny"),
        ("resnet18", "convnext_tiny"),
        ("swin_t", "swin_tiny_patch4_window7_224"),
        ("regnet_y_400mf", "regnety_004"),
        ("mobilenet_v3_small", "mobilenetv3_small_100"),
    ],
)
def test_families_that_do_not_fit_are_one_sentence(theirs: str, ours: str) -> None:
    state = getattr(torchvision.models, theirs)(weights=None).state_dict()
    with pytest.raises(ExportError, match=r"^a\.pth: its weights are not those of this network") as caught:
        load_backbone(timm.create_model(ours, num_classes=0), state, "a.pth")
    assert "\n" not in str(caught.value)
