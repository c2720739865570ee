"""What ``chammi-fast --version`` says: what bug reports need, without importing any of it."""

from __future__ import annotations

import platform
from importlib import metadata

from chammi_fast import __version__

INFLATE = {"isal": "ISA-L", "libdeflate": "libdeflate"}
LIBRARIES = {
    "backends": ("openvino", "onnxruntime", "onnxruntime-gpu", "tensorrt"),
    "search": ("faiss-cpu", "faiss-gpu"),
}


def describe() -> str:
    """Return the version, and a line each about Python, the core, its codecs, and the installed backends and search."""
    from chammi_fast import _core

    codecs = ", ".join(f"{name} {version}" for name, version in _core.codecs().items())
    lines = {
        "python": f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        "core": f"{_core.isa()}, inflate by {INFLATE[_core.inflate()]}",
        "codecs": codecs,
    }
    for kind, distributions in LIBRARIES.items():
        lines[kind] = ", ".join(_installed(distributions)) or "none: pip install 'chammi-fast[cpu]'"
    return "\n".join([f"chammi-fast {__version__}", *(f"{name:<9} {what}" for name, what in lines.items())])


def _installed(distributions: tuple[str, ...]) -> list[str]:
    found = []
    for name in distributions:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    return found
