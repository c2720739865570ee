"""What scores were computed from, and with what."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from importlib import metadata
from typing import TYPE_CHECKING, Any

import chammi_fast
from chammi_fast.errors import TableError
from chammi_fast.table import RUN_FILE

if TYPE_CHECKING:
    from pathlib import Path

_PACKAGES = ("numpy", "pyarrow", "faiss-cpu", "faiss-gpu", "scikit-learn")
_MODEL_FACTS = ("file", "sha256", "weights_sha256", "backend", "backend_version", "precision")


@dataclass(frozen=True)
class Provenance:
    """What scores were computed from, and with what.

    Attributes
    ----------
    classifier : "knn" or "sgd"
    k : neighbours that vote, or None for "sgd"
    metric : "cosine" or "l2", or None for "sgd"
    sample : at most about so many training rows, and rows of each task, were drawn for a quick look; None for all
    seed : of the sample and of "sgd"
    features : the folder the features came from
    benchmark : name of the task file, "" where the tasks are those of the table's split column
    benchmark_sha256 : of its fields
    models : data set to what its ``run.json`` says of the model; absent where there is none
    data_sha256 : data set to the SHA-256 of the keys and labels of its rows
    versions : of chammi-fast and of the packages that compute
    """

    classifier: str = "knn"
    k: int | None = 1
    metric: str | None = "cosine"
    sample: int | None = None
    seed: int = 0
    features: str = ""
    benchmark: str = ""
    benchmark_sha256: str = ""
    models: dict[str, dict[str, Any]] = field(default_factory=dict)
    data_sha256: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)


def model_of(features: Path) -> dict[str, Any] | None:
    """Return what an embedding table's ``run.json`` says of the model and the versions; None where there is none.

    Raises
    ------
    TableError
        If the file is not what a run writes.
    """
    path = features / RUN_FILE
    if not path.is_file():
        return None
    try:
        run = json.loads(path.read_text(encoding="utf-8"))
        model = run["model"]
        facts = {name: model[name] for name in _MODEL_FACTS if name in model}
        spec = model.get("spec", {})
        facts |= {name: spec[name] for name in ("strategy", "backbone", "embedding_size") if name in spec}
        return facts | {"versions": dict(run.get("versions", {}))}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise TableError(f"{path}: not the record of an embedding run.") from None


def rows_sha256(keys: list[str], labels: list[str]) -> str:
    """SHA-256 over the keys and labels of rows, in order: two results of one hash are about the same rows."""
    return hashlib.sha256(json.dumps([keys, labels]).encode()).hexdigest()


def versions() -> dict[str, str]:
    """Versions of chammi-fast and of the packages that compute scores."""
    found = {"chammi-fast": chammi_fast.__version__}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
