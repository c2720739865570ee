"""Networks to benchmark with, whose weights have a size at which every layer matters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chammi_fast.training.create import NetworkOptions, create_network
from chammi_fast.training.export import export_onnx
from networks import spread_weights

if TYPE_CHECKING:
    from pathlib import Path

    from chammi_fast.training.network import ChannelAdaptiveNetwork

TINY = "ConvNeXt-Tiny"
OPTIONS = {
    TINY: NetworkOptions(backbone="convnext_tiny"),
    "demo-sized": NetworkOptions(
        backbone="convnext_atto", backbone_options={"depths": (1, 1, 3, 1), "dims": (24, 48, 96, 160), "conv_mlp": True}
    ),
}


def write_network(name: str, path: Path) -> ChannelAdaptiveNetwork:
    """Write a HyperNet as an ONNX file; return it in PyTorch."""
    network, spec = create_network(OPTIONS[name])
    spread_weights(network)
    export_onnx(network, spec, path, verify=False)
    return network
