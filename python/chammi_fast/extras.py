"""Import optional packages, or say which extra brings them."""

from __future__ import annotations

import importlib
from importlib import metadata
from typing import TYPE_CHECKING

from chammi_fast.errors import MissingExtraError

if TYPE_CHECKING:
    from types import ModuleType

EXTRA_OF = {
    "anndata": "profile",
    "copairs": "profile",
    "pycytominer": "profile",
    "pandas": "profile",
    "polars": "profile",
    "faiss": "cpu",
    "fsspec": "remote",
    "tenacity": "remote",
    "upath": "remote",
    "nncf": "quantize",
    "onnx": "cpu",
    "onnxruntime": "cpu",
    "openvino": "cpu",
    "torch": "train",
    "timm": "train",
    "onnxscript": "train",
    "accelerate": "train",
    "matplotlib": "train",
    "bokeh": "report",
    "jinja2": "report",
    "umap": "report",
    "ray": "ray",
    "scipy": "plates",
    "sklearn": "report",
}
# Distributions that install the same files: whichever was installed last has overwritten part of the other.
OVERLAPPING = (("onnxruntime", "onnxruntime-gpu"), ("faiss-cpu", "faiss-gpu"))


def require(module: str, *, purpose: str) -> ModuleType:
    """Import `module`, an optional package, for `purpose` (a phrase such as "computing embeddings").

    Raises
    ------
    MissingExtraError
        If the package is not installed (the message names the extra to install), or cannot be loaded.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module.partition(".")[0]:
            raise
        extra = EXTRA_OF[error.name]
        alternative = " (or chammi-fast[gpu] on a machine with an NVIDIA GPU)" if extra == "cpu" else ""
        raise MissingExtraError(
            f"{purpose} needs {error.name}: pip install 'chammi-fast[{extra}]'{alternative}."
        ) from None
    except ImportError as error:
        causes = " ".join([f"{module} is installed but cannot be loaded: {error}.", *mixed_installations()])
        raise MissingExtraError(causes) from None


def mixed_installations() -> list[str]:
    """One sentence for each pair of installed distributions that overwrite each other's files."""
    found = []
    for pair in OVERLAPPING:
        if all(_installed(name) for name in pair):
            keep_cpu, keep_gpu = pair
            found.append(
                f"{keep_cpu} and {keep_gpu} are both installed and overwrite each other's files: "
                f"uninstall both, then install the one you want."
            )
    return found


def _installed(distribution: str) -> bool:
    try:
        metadata.distribution(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True
