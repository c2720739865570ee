"""chammi-fast: embed and score microscopy images of any channels.

Names are imported on first use, so that ``import chammi_fast`` stays as light as NumPy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from chammi_fast.cluster import RayExecutor
    from chammi_fast.embedding import embed, embed_batches
    from chammi_fast.embedding_table import EmbeddingTable
    from chammi_fast.evaluation import compare, evaluate, find_neighbours
    from chammi_fast.images import (
        Batch,
        CropBatch,
        CropSettings,
        Field,
        ImageInfo,
        Preprocess,
        cut_crops,
        load_batch,
        load_crops,
        probe,
        read_image,
        read_planes,
        refold,
        stream_batches,
        stream_crops,
    )
    from chammi_fast.model import load_model
    from chammi_fast.plates import Plate
    from chammi_fast.profiling import profile
    from chammi_fast.quantisation import quantise
    from chammi_fast.reporting import report

__version__ = "0.1.0"

__all__ = [
    "Batch",
    "CropBatch",
    "CropSettings",
    "EmbeddingTable",
    "Field",
    "ImageInfo",
    "Plate",
    "Preprocess",
    "RayExecutor",
    "__version__",
    "compare",
    "cut_crops",
    "embed",
    "embed_batches",
    "evaluate",
    "find_neighbours",
    "load_batch",
    "load_crops",
    "load_model",
    "probe",
    "profile",
    "quantise",
    "read_image",
    "read_planes",
    "refold",
    "report",
    "stream_batches",
    "stream_crops",
]

_HOME = {
    "EmbeddingTable": "embedding_table",
    "compare": "evaluation",
    "embed": "embedding",
    "embed_batches": "embedding",
    "evaluate": "evaluation",
    "find_neighbours": "evaluation",
    "load_model": "model",
    "profile": "profiling",
    "quantise": "quantisation",
    "report": "reporting",
    "Plate": "plates",
    "RayExecutor": "cluster",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'chammi_fast' has no attribute '{name}'")
    value = getattr(import_module(f"chammi_fast.{_HOME.get(name, 'images')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
