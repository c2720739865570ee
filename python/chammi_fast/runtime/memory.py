"""Remember choices between runs: a small JSON file in the user's cache folder."""

from __future__ import annotations

import contextlib
import hashlib
import json
import platform
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from chammi_fast import _core
from chammi_fast.errors import OutputError
from chammi_fast.files import cache_folder, replacing
from chammi_fast.images.cpus import usable_cpus
from chammi_fast.runtime import nvidia
from chammi_fast.runtime.choice import Choice

if TYPE_CHECKING:
    from collections.abc import Mapping

FILE = "choices.json"
LIBRARIES = ("chammi-fast", "onnxruntime", "onnxruntime-gpu", "openvino", "tensorrt")
MOST_REMEMBERED = 1000


def key_of(question: Mapping[str, Any]) -> str:
    """Hash what a choice depends on: `question` (model, channels, wishes), the hardware and the libraries' versions."""
    asked = {**question, "machine": machine(), "versions": _versions()}
    return hashlib.sha256(json.dumps(asked, sort_keys=True, default=str).encode()).hexdigest()


def recall(key: str) -> Choice | None:
    """Return the choice that was remembered under a key, or None."""
    found = _read().get(key)
    try:
        return msgspec.convert({**found, "remembered": True}, Choice) if isinstance(found, dict) else None
    except msgspec.ValidationError:
        return None


def remember(key: str, choice: Choice) -> None:
    """Keep a choice for later runs; where the cache folder cannot be written to, nothing is kept."""
    kept = dict(list(_read().items())[-MOST_REMEMBERED + 1 :])
    kept[key] = msgspec.to_builtins(choice)
    folder = cache_folder()
    with contextlib.suppress(OSError, OutputError):
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / FILE) as path:
            path.write_text(json.dumps(kept), encoding="utf-8")


def _read() -> dict[str, Any]:
    try:
        found = json.loads((cache_folder() / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


@cache
def machine() -> dict[str, Any]:
    """Name the hardware that decides which form is fastest."""
    processor = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                processor = line.partition(":")[2].strip()
                break
    gpus = nvidia.gpus() if "onnxruntime-gpu" in _versions() else ()
    return {"processor": processor, "cpus": usable_cpus(), "isa": _core.isa(), "gpus": gpus}


@cache
def _versions() -> dict[str, str]:
    found = {}
    for name in LIBRARIES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found
