"""How to embed, and what a run did."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from chammi_fast.runtime.form import AUTO, Form

if TYPE_CHECKING:
    from pathlib import Path

    from chammi_fast.channels import UnknownPolicy
    from chammi_fast.manifest import Manifest
    from chammi_fast.runtime.choice import Choice


@dataclass(frozen=True)
class EmbedSettings:
    """How to embed.

    Attributes
    ----------
    backend : "onnxruntime", "openvino" or "tensorrt"
    device : "cpu", "cuda:0", "cuda:1", ...
    precision : "fp32", "bf16", "fp16", or "int8" where a quantised file is beside the model; "auto" in these three
        means the fastest that is accurate enough, which is found out once and remembered
    min_cosine : to float32; where the worst of the first images is below, a lower precision is refused
    threads : for decoding and for the network, each; 0 means one per usable processor
    streams : parts of a batch that the network computes side by side; 0 leaves it to the backend
    batch_size : images per network call, 0 for a usual number; on a processor it does not change the vectors
    store : "float32" or "float16": how the table holds the vectors
    strict : stop at the first image that fails, instead of listing it
    npy : also write ``<model name>.npy``, (N, D) float32 in row order, NaN for a failed image
    mask : what to do with a mask in the tapes' last channel: "keep" it as a channel, "drop" it, or "apply" it
    unknown : what an unknown channel name means (`chammi_fast.channels.resolve_channels`)
    """

    backend: str = AUTO
    device: str = AUTO
    precision: str = AUTO
    min_cosine: float = 0.999
    threads: int = 0
    streams: int = 0
    batch_size: int = 0
    store: Literal["float32", "float16"] = "float32"
    strict: bool = False
    npy: bool = False
    mask: Literal["keep", "drop", "apply"] = "keep"
    unknown: UnknownPolicy = "error"

    @property
    def wish(self) -> Form:
        """The form that is wished for."""
        return Form(
            backend=self.backend,
            device=self.device,
            precision=self.precision,
            threads=self.threads,
            streams=self.streams,
            fixed_batch=self.batch_size,
        )


@dataclass(frozen=True)
class EmbedReport:
    """What a run did for one data set.

    Attributes
    ----------
    name : of the data set or table
    folder : where the embedding table is
    images : rows of the manifest
    failed : images listed in ``errors.parquet``
    seconds : wall time
    choice : how the network was run, and why
    first_cause : the first failed image and what is wrong with it; empty where none failed

    Where all images failed, nothing is written.
    """

    name: str
    folder: Path
    images: int
    failed: int
    seconds: float
    choice: Choice
    first_cause: str = ""


@dataclass(frozen=True)
class Job:
    """One table of images to embed.

    Attributes
    ----------
    channels : in image order, in the channel grammar
    folder : for the embedding table
    """

    rows: Manifest
    channels: str
    folder: Path
