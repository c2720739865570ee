# The C++ core as Python sees it. Private: chammi_fast.images validates arguments and raises errors.

import os
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias, TypedDict

import numpy as np
from numpy.typing import NDArray

# The path of an image file, or its bytes.
_Source: TypeAlias = str | os.PathLike[str] | bytes

# Code ("ok", "missing", "unreadable", "truncated", "corrupt", "unsupported", "limit", "shape", "outside" or "edge"),
# byte offset, cause.
_Status: TypeAlias = tuple[str, int | None, str]
Preprocessed: TypeAlias = tuple[_Status, NDArray[np.float32] | None]
_Choice: TypeAlias = Literal["chosen", "absent", "unknown"]
_Samples: TypeAlias = NDArray[np.integer[Any] | np.floating[Any]]

# What a stream does with each image; see chammi_fast.images.Preprocess. A size of 0 keeps each image's own, 0 channels
# are those of a batch's first image; mean and std are empty or have a value for each channel.
class StreamOptions(TypedDict):
    size: int
    resize: bool
    value_range: tuple[float, float] | None
    mask: str
    mean: list[float]
    std: list[float]
    channels: int
    batch_size: int
    threads: int
    look_ahead: int
    pixel_limit: int

# Batches of images in input order, prepared by threads of its own. Windows are (N, 4), flips (N,), both C-contiguous.
class Stream:
    def __init__(
        self,
        sources: Sequence[_Source],
        channel_widths: list[int],
        options: StreamOptions,
        windows: NDArray[np.int64] | None = None,
        flips: NDArray[np.bool_] | None = None,
    ) -> None: ...
    # Waits for the next batch; None after the last one. A status of None means that all is well.
    def next(self) -> tuple[NDArray[np.float32], list[_Status | None]] | None: ...
    # Stops the threads and waits for them; next() returns None afterwards.
    def close(self) -> None: ...

# How fields become crops; see chammi_fast.images.CropSettings. Scale "none" keeps samples as they are; a size of 0
# keeps that of the crops, 0 channels are those of each field. Arrays are `decoded` where they come from files.
class CropOptions(TypedDict):
    crop_size: int
    edge: str
    scale: str
    percentiles: tuple[float, float]
    range: tuple[float, float] | None
    hide_neighbours: bool
    size: int
    resize: bool
    mean: list[float]
    std: list[float]
    channels: int
    batch_size: int
    threads: int
    look_ahead: int
    decoded: bool
    pixel_limit: int

# A batch of one field: statuses of None mean that all is well; the culprit is the source that `field` is about, or the
# number of sources for the labels.
class LoadedCrops(TypedDict):
    images: NDArray[Any]
    touches_edge: NDArray[np.bool_]
    cells: list[_Status | None]
    field: _Status | None
    culprit: int
    first: int
    last: bool
    bounds: NDArray[np.float64]

# Crops of fields in the order in which those were pushed, prepared by threads of its own. Arrays are C-contiguous;
# those among the sources (C, H, W).
class Crops:
    def __init__(self, options: CropOptions) -> None: ...
    def push(
        self,
        sources: Sequence[_Source | NDArray[Any]],
        illumination: list[NDArray[np.float32] | None] | None,
        labels: NDArray[np.int32] | None,
        centres: NDArray[np.float64],
        objects: NDArray[np.int32] | None,
    ) -> None: ...
    # Waits for the next batch; None where all fields that were pushed were handed out.
    def next(self) -> LoadedCrops | None: ...
    # Stops the threads and waits for them; next() returns None afterwards.
    def close(self) -> None: ...

def probe(source: _Source, page: int, pixel_limit: int) -> tuple[_Status, dict[str, Any] | None]: ...
def decode(source: _Source, page: int, pixel_limit: int) -> tuple[_Status, _Samples | None]: ...
def decode_planes(source: _Source, channel_width: int, pixel_limit: int) -> tuple[_Status, _Samples | None]: ...

# Planes (C, H, W), C-contiguous, as one image (C, H, W) of a batch; of the options, only those about the image matter.
# The window is (1, 4). Where the image decides on the batch's shape, `images` of its kind must not be too much.
def preprocess(
    planes: _Samples,
    options: StreamOptions,
    window: NDArray[np.int64] | None = None,
    flip: bool = False,
    images: int = 1,
) -> Preprocessed: ...
def refold(tape: _Samples, channel_width: int) -> _Samples: ...

# The libraries of compression that are built in, by name, and their versions.
def codecs() -> dict[str, str]: ...
def isa() -> str: ...
def use_isa(name: str) -> _Choice: ...
def inflate() -> str: ...
def use_inflate(name: str) -> _Choice: ...
