"""Save a network with all that is needed to make it again, and make it again."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import msgspec

from chammi_fast.errors import ExportError, SpecError
from chammi_fast.spec import parse_spec
from chammi_fast.training.create import NetworkOptions, create_network
from chammi_fast.training.tensors import load_exactly, read_tensors, save_tensors, tensors_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import nn

    from chammi_fast.spec import Spec
    from chammi_fast.training.network import ChannelAdaptiveNetwork


def save_weights(network: nn.Module, spec: Spec, options: NetworkOptions, path: Path) -> None:
    """Save a network's weights with all that is needed to make it again, whole or not at all; see `load_network`."""
    description = {"spec": spec.to_json(), "network": msgspec.json.encode(options).decode()}
    save_tensors({"state_dict": network.state_dict(), **description}, path)


def load_network(path: Path, asked: Mapping[str, Any]) -> tuple[ChannelAdaptiveNetwork, Spec]:
    """Make the network whose weights a file holds.

    Parameters
    ----------
    path : what `save_weights` wrote, or a bare state dict of a network
    asked : attributes of `NetworkOptions`: those of a network whose weights come bare; a saved network's must agree

    Raises
    ------
    ExportError
        If the file cannot be read without running code that it holds, or does not fit the network.
    """
    content = read_tensors(path)
    if not {"state_dict", "spec", "network"} <= content.keys():
        network, spec = create_network(NetworkOptions(**asked))
        load_exactly(network, tensors_of(content, path), path)
        return network, msgspec.structs.replace(spec, training={"weights": path.name})
    try:
        options = msgspec.json.decode(content["network"], type=NetworkOptions)
        spec = parse_spec(content["spec"], origin=str(path))
    except (SpecError, msgspec.DecodeError) as error:
        raise ExportError(f"{path}: its description is not valid: {error}") from None
    for name, value in asked.items():
        if getattr(options, name) != value:
            raise ExportError(f"{path}: holds a network with {name} '{getattr(options, name)}', not '{value}'.")
    network, _ = create_network(dataclasses.replace(options, init="random"))
    load_exactly(network, tensors_of(content, path), path)
    return network, spec
