"""How to embed, and what a run did."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from chammi_fast.errors import ManifestError
from chammi_fast.runtime.form import AUTO, Form

if TYPE_CHECKING:
    from pathlib import Path

    from chammi_fast.channels import UnknownPolicy
    from chammi_fast.embedding.work import Work
    from chammi_fast.images import Preprocess
    from chammi_fast.runtime.choice import Choice

_KNOWN = {"store": ("float32", "float16"), "mask": ("keep", "drop", "apply"), "unknown": ("error", "mean")}


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
    overwrite : replace what another run left in the folder, in place of refusing it
    retry_errors : embed the images that an earlier run listed as failed, and no others
    shard : "i/n", the i-th of n parts of the run, from "1/n" to "n/n"; "" for all of it
    plan : file that `chammi_fast.embedding.plan` wrote, which settles backend, device and precision; "" for none
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
    overwrite: bool = False
    retry_errors: bool = False
    shard: str = ""
    plan: str = ""

    def __post_init__(self) -> None:
        for name, known in _KNOWN.items():
            if getattr(self, name) not in known:
                raise ManifestError(f"{name} '{getattr(self, name)}' should be one of {', '.join(known)}.")
        if not self.shard:
            return
        match = re.fullmatch(r"([1-9]\d{0,5})/([1-9]\d{0,5})", self.shard)
        if match is None or int(match[1]) > int(match[2]):
            raise ManifestError(f"shard '{self.shard}' should be i/n, from 1/n to n/n.")

    def shards_of(self, shards: int) -> list[int]:
        """Return those of so many shards that this process embeds: neighbours, as evenly as can be."""
        if not self.shard:
            return list(range(shards))
        number, parts = (int(text) for text in self.shard.split("/"))
        return list(range((number - 1) * shards // parts, number * shards // parts))

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
    before : images that an earlier run had done
    seconds : wall time
    choice : how the network was run, and why
    first_cause : the first failed image and what is wrong with it; empty where none failed

    Where all images failed, nothing is written.
    """

    name: str
    folder: Path
    images: int
    failed: int
    before: int
    seconds: float
    choice: Choice
    first_cause: str = ""


@dataclass(frozen=True)
class Pace:
    """How images are read: into batches of `batch_size`, by `threads` threads, 0 for one per usable processor."""

    preprocess: Preprocess
    channels: int
    batch_size: int
    threads: int


@dataclass(frozen=True)
class Job:
    """One table of images to embed.

    Attributes
    ----------
    work : the images
    channels : in image order, in the channel grammar
    folder : for the embedding table
    """

    work: Work
    channels: str
    folder: Path
