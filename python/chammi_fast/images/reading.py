"""Read single images.

PNG is expanded as libpng does it: a palette gives colours, with alpha where some are transparent; RGB with a
transparent colour gets an alpha; 1, 2 and 4 bits of gray become 0..255; a transparent gray is ignored. So are colours
of a palette beyond those that its indices can name, and a chunk of transparency that is longer than the palette, of
another length than one colour takes, or before the palette. An index without a colour is refused, and so is a second
chunk of transparency that would do. TIFF palettes give indices; 1 bit becomes 0 and 255; 9 to 15 bits stay what they
are, in uint16; 1- and 8-bit TIFF where 0 is white is inverted; all samples of a TIFF are kept. Orientation tags are
ignored. What a strip or tile of a TIFF holds behind the pixels of the image is ignored, be it decoded or not, once all
checks of the codec were passed; a PNG that holds more pixels than its size is refused. With the extra [formats],
tifffile and imagecodecs decode the TIFFs that the core does not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import numpy as np

from chammi_fast import _core
from chammi_fast.errors import DecodeError, TapeShapeError, UnsupportedFormatError
from chammi_fast.images import fallback
from chammi_fast.images.status import PIXEL_LIMIT, ImageStatus, Source, name_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

Samples: TypeAlias = "NDArray[np.integer[Any] | np.floating[Any]]"
SampleType: TypeAlias = Literal[
    "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "float16", "float32", "float64"
]
_SAMPLE_TYPES = frozenset(get_args(SampleType))


@dataclass(frozen=True)
class ImageInfo:
    """What a file's header says about one of its images.

    Attributes
    ----------
    samples : values per pixel; `read_image` gives (height, width) for one, (height, width, samples) for several
    pages : images in the file
    bits : per sample in the file
    predictor : TIFF's tag: 1 for none, 2 for horizontal differences, 3 for those of floats
    byte_order : of the samples in the file; arrays have the machine's
    photometric : TIFF's tag: 0 white is zero, 1 black is zero, 2 RGB, 3 palette, 5 inks
    rows_per_strip : 0 where the file stores tiles
    tile : height and width of the tiles that the file stores, if it does
    planar : whether the file stores the samples plane by plane
    inverted : whether reading turns white-is-zero samples round
    interlaced : whether a PNG is stored coarse to fine
    expanded : whether reading makes colours or alpha of a PNG's palette or transparent colour, or 0..255 of fewer bits
    """

    format: Literal["png", "tiff"]
    height: int
    width: int
    samples: int
    pages: int
    dtype: SampleType
    bits: int
    compression: Literal["none", "lzw", "deflate", "packbits", "zstd"]
    predictor: int
    byte_order: Literal["little", "big"]
    photometric: int
    rows_per_strip: int
    tile: tuple[int, int] | None
    planar: bool
    inverted: bool
    interlaced: bool
    expanded: bool


def probe(source: Source, page: int = 0, *, pixel_limit: int = PIXEL_LIMIT) -> ImageInfo:
    """Read the header of an image.

    A file is read whole for it, as its pages may stand anywhere; where pixels are wanted as well, giving its bytes to
    both spares reading it twice. What the header says is checked as `read_image` does it. What it does not tell is not:
    whether the pixels are there and whole, whether strips or tiles share their bytes beyond measure, and whether all
    pages together, which `read_planes` reads, are within the limit.

    Raises
    ------
    DecodeError
        One of its subclasses, as the image is missing, broken, of an unsupported format, or too large.
    """
    status, info = _core.probe(source, _check_page(page), pixel_limit)
    if info is None:
        raise _error(status, source)
    return ImageInfo(**info)


def read_image(source: Source, page: int = 0, *, pixel_limit: int = PIXEL_LIMIT) -> Samples:
    """Decode one page of an image.

    Returns
    -------
    (H, W) array, or (H, W, S) for S > 1 samples per pixel, of the dtype that `probe` names, C-contiguous, freshly owned

    Raises
    ------
    DecodeError
        One of its subclasses, as the image is missing, broken, of an unsupported format, or too large.
    """
    status, samples = _core.decode(source, _check_page(page), pixel_limit)
    if samples is None:
        return fallback.decode_image(source, page, pixel_limit, _refusal(status, source))
    return samples


def read_planes(source: Source, channel_width: int | None = None, *, pixel_limit: int = PIXEL_LIMIT) -> Samples:
    """Decode an image into channel planes.

    Parameters
    ----------
    channel_width : W in pixels of a side-by-side tape (H, C * W). Without it, pages are channels if there are
        several, else the samples of the only page are.

    Returns
    -------
    (C, H, W) array of the dtype that `probe` names, C-contiguous, freshly owned

    Raises
    ------
    TapeShapeError
        If the tape's width is not a multiple of `channel_width`, or pages differ in size or type.
    DecodeError
        As `read_image`.
    """
    status, planes = _core.decode_planes(source, check_width(channel_width), pixel_limit)
    if planes is None:
        return fallback.decode_planes(source, check_width(channel_width), pixel_limit, _refusal(status, source))
    return planes


def refold(tape: Samples, *, channel_width: int) -> Samples:
    """Split a side-by-side tape into channel planes: ``planes[c, h, w] = tape[h, c * W + w]``.

    Parameters
    ----------
    tape : (H, C * W) integers or floats, channels left to right, as CHAMMI stores them
    channel_width : W in pixels, CHAMMI's column of the same name

    Returns
    -------
    (C, H, W) array of the same dtype, C-contiguous, freshly owned

    Raises
    ------
    TapeShapeError
        If the tape's width is not a multiple of ``channel_width``.
    """
    if tape.ndim != 2 or tape.dtype.name not in _SAMPLE_TYPES:
        raise ValueError(f"a tape is (H, C * W) integers or floats, not {tape.shape} {tape.dtype}.")
    if channel_width < 1 or tape.shape[1] % channel_width:
        cause = f"the tape's width of {tape.shape[1]} pixels is not a multiple of the channel width {channel_width}"
        raise TapeShapeError("<array>", None, cause)
    return _core.refold(np.ascontiguousarray(tape), channel_width)


def _check_page(page: int) -> int:
    if not 0 <= page < 2**32:
        raise ValueError(f"page must be 0 or more, not {page}.")
    return page


def check_width(channel_width: int | None) -> int:
    """Return a channel width as the core takes it: 0 for none."""
    if channel_width is not None and not 1 <= channel_width < 2**32:
        raise ValueError(f"channel_width must be at least 1 pixel or None, not {channel_width}.")
    return channel_width or 0


def _refusal(status: tuple[str, int | None, str], source: Source) -> DecodeError:
    """Return what the core says of a kind of file that it does not read; raise whatever else went wrong."""
    error = _error(status, source)
    if not isinstance(error, UnsupportedFormatError):
        raise error
    return error


def _error(status: tuple[str, int | None, str], source: Source) -> DecodeError:
    return ImageStatus(name_of(source), *status).error()
