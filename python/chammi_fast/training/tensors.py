"""Read files of weights without running code that they may hold, and load them only where they fit."""

from __future__ import annotations

import io
import pickle
import sys
import zipfile
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from chammi_fast.errors import ExportError
from chammi_fast.files import replacing

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from torch import Tensor, nn

CLASSIFIER = ("head.", "fc.", "classifier.", "fc_norm.", "norm_pre.", "head_dist.")
CLASSIFIER_TENSORS = 2  # weight and bias, at a file's end


def read_tensors(path: Path) -> dict[str, Any]:
    """Read a file of tensors (safetensors or torch.save) without running code that it may hold.

    Raises
    ------
    ExportError
        If the file cannot be read, is none of weights, or holds more than tensors and plain values.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ExportError(f"{path}: the weights cannot be read: {error.strerror or error}.") from None
    except pickle.UnpicklingError:
        if not zipfile.is_zipfile(path):
            raise ExportError(f"{path}: is not a file of weights.") from None
        raise ExportError(
            f"{path}: holds more than tensors, and loading it would run code that it brings: it is refused."
        ) from None
    except (SafetensorError, RuntimeError, EOFError, ValueError, LookupError, TypeError, AttributeError) as error:
        cause = str(error).partition("\n")[0]
        raise ExportError(f"{path}: is not a file of weights, or is damaged: {cause}.") from None
    if not isinstance(content, dict):
        raise ExportError(f"{path}: holds a {type(content).__name__} instead of named weights.")
    return content


def save_tensors(content: dict[str, Any], path: Path) -> None:
    """Save with torch.save, whole or not at all.

    Raises
    ------
    OutputError
        If the file cannot be written; one that was there before stays.
    """
    buffer = io.BytesIO()  # torch's own writer hides why a disk refuses
    torch.save(content, buffer)
    with replacing(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def load_exactly(module: nn.Module, state: Mapping[str, Tensor], origin: object) -> None:
    """Load weights that must be all of a module's and no others.

    Raises
    ------
    ExportError
        If a weight is missing, foreign, or of another shape; the message names it.
    """
    own = module.state_dict()
    missing, foreign = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    if missing or foreign:
        parts = [f"{what}: {first_of(keys)}" for what, keys in (("missing", missing), ("foreign", foreign)) if keys]
        raise ExportError(f"{origin}: its weights are not those of this network ({'; '.join(parts)}).")
    for key, value in own.items():
        if state[key].shape != value.shape:
            raise ExportError(
                f"{origin}: its weight '{key}' has shape {tuple(state[key].shape)} instead of {tuple(value.shape)}."
            )
    module.load_state_dict(dict(state))


def tensors_of(content: Mapping[str, Any], origin: object) -> dict[str, Tensor]:
    """Return the named weights of a file, be they all that it holds or one of its entries.

    Raises
    ------
    ExportError
        If there is anything but tensors among them.
    """
    for entry in ("state_dict", "model"):
        if isinstance(content.get(entry), dict):
            content = content[entry]
    for name, value in content.items():
        if not isinstance(value, torch.Tensor):
            raise ExportError(f"{origin}: its entry '{name}' is no weight, but a {type(value).__name__}.")
    return dict(content)


def load_backbone(backbone: nn.Module, state: Mapping[str, Any], origin: object) -> None:
    """Load the weights of a whole timm model, but for those of its classifier.

    Files of other libraries that hold the same network under other names (torchvision's MobileNetV2, for one) are taken
    where all shapes agree in order.

    Raises
    ------
    ExportError
        If they are not those of this model.
    """
    state = tensors_of(state, origin)
    own = backbone.state_dict()
    translate = getattr(sys.modules[type(backbone).__module__], "checkpoint_filter_fn", None)
    if own.keys().isdisjoint(state) and (in_order := _by_place(own, state)) is not None:
        state = in_order
    elif translate is not None:
        state = _translated(translate, state, backbone, origin)
    kept = {key: value for key, value in state.items() if key in own or not key.startswith(CLASSIFIER)}
    replaced = {key: value for key, value in own.items() if key.startswith(CLASSIFIER) and key not in kept}
    load_exactly(backbone, {**kept, **replaced}, origin)


def _translated(
    translate: Callable[[dict[str, Tensor], nn.Module], dict[str, Tensor]],
    state: Mapping[str, Tensor],
    backbone: nn.Module,
    origin: object,
) -> dict[str, Tensor]:
    """Give weights timm's names by its own function, which takes for granted that it knows where they come from."""
    try:
        return translate(dict(state), backbone)
    except (LookupError, AttributeError, RuntimeError, TypeError, ValueError, AssertionError):
        raise ExportError(
            f"{origin}: its weights are not those of this network, nor such as timm translates to it."
        ) from None


def _by_place(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """Give weights the names of those in the same place, if their shapes say that it is the same network."""
    values = list(state.values())
    surplus = len(values) - len(own)
    same = 0 <= surplus <= CLASSIFIER_TENSORS and all(
        value.shape == mine.shape for value, mine in zip(values, own.values(), strict=False)
    )
    return dict(zip(own, values, strict=False)) if same else None


def first_of(keys: Sequence[str]) -> str:
    """Return the first few of many names, for a message."""
    more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
    return ", ".join(keys[:3]) + more
