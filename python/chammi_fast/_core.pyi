# The C++ core as Python sees it. Private: chammi_fast.images validates arguments and raises errors.

import os
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias, TypedDict

import numpy as np
from numpy.typing import NDArray

# The path of an image file, or its bytes.
_Source: TypeAlias = str | os.PathLike[str] | bytes

# Code ("ok", "missing", "unreadable", "truncated", "corrupt", "unsupported", "limit" or "shape"), byte offset, cause.
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
def isa() -> str: ...
def use_isa(name: str) -> _Choice: ...
def inflate() -> str: ...
def use_inflate(name: str) -> _Choice: ...
