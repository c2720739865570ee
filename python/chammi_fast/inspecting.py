"""What is in an image or a model file, and what chammi-fast makes of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from chammi_fast.choosing import find_files
from chammi_fast.errors import FileReadError, TapeShapeError, UnsupportedFormatError
from chammi_fast.images import ImageInfo, probe, read_image, read_planes
from chammi_fast.model import PACKAGED, load_model
from chammi_fast.runtime import AUTO
from chammi_fast.runtime.graph import embedded_spec, network_inputs, read_onnx, static_dimensions
from chammi_fast.spec import Spec, read_spec_file
from chammi_fast.urls import is_url

if TYPE_CHECKING:
    from onnx import ModelProto, ValueInfoProto

    from chammi_fast.images.reading import Samples

FORMAT_VERSION = 1
IMAGE_HEADS = (b"\x89PNG", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
IMAGE_SUFFIXES = (".png", ".tif", ".tiff")
ONNX_SUFFIX, ONNX_HEAD = ".onnx", b"\x08"  # the version of its format comes first, as a small integer
PALETTE = 3  # TIFF's photometric tag


@dataclass(frozen=True)
class Plane:
    """The values of one channel of an image."""

    minimum: float
    maximum: float
    mean: float


@dataclass(frozen=True)
class ImageReport:
    """What is in an image file.

    Attributes
    ----------
    path, file_bytes : of the file
    info : what the header says; None where the core does not read this kind
    refusal : why not; the image was then decoded by tifffile and imagecodecs
    shape, dtype : of the array that `chammi_fast.read_image` gives
    plane_shape : (height, width) of the planes
    planes : those that `chammi_fast.read_planes` gives; empty where pages differ in size or type
    notes : what reading does besides, a sentence each
    """

    path: Path
    file_bytes: int
    info: ImageInfo | None
    refusal: str
    shape: tuple[int, ...]
    dtype: str
    plane_shape: tuple[int, ...]
    planes: tuple[Plane, ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the document that docs/formats.md describes: builtin types only."""
        return {
            "format_version": FORMAT_VERSION,
            "kind": "image",
            "file": str(self.path),
            "file_bytes": self.file_bytes,
            "header": None if self.info is None else asdict(self.info),
            "refusal": self.refusal,
            "shape": list(self.shape),
            "dtype": self.dtype,
            "plane_shape": list(self.plane_shape),
            "planes": [asdict(plane) for plane in self.planes],
            "notes": list(self.notes),
        }


@dataclass(frozen=True)
class Port:
    """An input or output of a network; None stands for a free dimension."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]


@dataclass(frozen=True)
class ModelReport:
    """What is in a model file.

    Attributes
    ----------
    path, file_bytes, sha256 : of the file
    spec : its description; None where it carries none and none was given
    inputs, outputs : of the network
    weights : numbers in it
    opset, ir_version, producer : as ONNX has them
    beside : name of the quantised file that was made from this one, or the one this was made from, where it lies there
    """

    path: Path
    file_bytes: int
    sha256: str
    spec: Spec | None
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    weights: int
    opset: int
    ir_version: int
    producer: str
    beside: str | None

    def to_json(self) -> dict[str, Any]:
        """Return the document that docs/formats.md describes: builtin types only."""
        return {
            "format_version": FORMAT_VERSION,
            "kind": "model",
            "file": str(self.path),
            "file_bytes": self.file_bytes,
            "sha256": self.sha256,
            "spec": None if self.spec is None else msgspec.to_builtins(self.spec),
            "inputs": [asdict(port) | {"shape": list(port.shape)} for port in self.inputs],
            "outputs": [asdict(port) | {"shape": list(port.shape)} for port in self.outputs],
            "weights": self.weights,
            "opset": self.opset,
            "ir_version": self.ir_version,
            "producer": self.producer,
            "beside": self.beside,
        }


def inspect_file(
    path: str | Path, *, channel_width: int | None = None, spec: str | Path | None = None
) -> ImageReport | ModelReport:
    """Tell what is in a file.

    Parameters
    ----------
    path : a TIFF, a PNG, an ONNX file, or the name of a packaged model
    channel_width : of an image that is a side-by-side tape, in pixels
    spec : description (JSON) of a model that carries none

    Raises
    ------
    DecodeError
        If there is no such file, it is of another kind, or an image that cannot be read.
    SpecError
        If a model cannot be read, or its description is wrong.
    MissingExtraError
        If a model's file needs the onnx package, and it is not installed.
    """
    if str(path) in PACKAGED:
        return _inspect_model(load_model(path).path, spec)
    if is_url(str(path)):
        raise UnsupportedFormatError(str(path), None, "is a URL: copy the file to this machine to look into it")
    path = Path(path)
    head, suffix = _head(path), path.suffix.lower()
    if head.startswith(IMAGE_HEADS) or suffix in IMAGE_SUFFIXES:
        return _inspect_image(path, channel_width)
    if suffix == ONNX_SUFFIX or head.startswith(ONNX_HEAD):
        return _inspect_model(path, spec)
    raise UnsupportedFormatError(str(path), None, "is neither an image (TIFF, PNG) nor a model (ONNX)")


def _head(path: Path) -> bytes:
    if path.is_dir():
        raise FileReadError(str(path), None, "is a folder: name one image or model in it")
    try:
        with path.open("rb") as file:
            return file.read(4)
    except OSError as error:
        raise FileReadError(str(path), None, f"cannot be read: {error.strerror}") from None


def _inspect_image(path: Path, channel_width: int | None) -> ImageReport:
    info, refusal = None, ""
    try:
        info = probe(path)
    except UnsupportedFormatError as error:
        refusal = error.cause
    image = read_image(path)
    notes = [] if info is None else _notes(info)
    try:
        planes: Samples = read_planes(path, channel_width)
    except TapeShapeError as error:
        if channel_width is not None:
            raise
        notes.append(f"It is not read as channels: {error.cause}.")
        planes = np.empty((0, 0, 0), image.dtype)
    return ImageReport(
        path=path,
        file_bytes=path.stat().st_size,
        info=info,
        refusal=refusal,
        shape=image.shape,
        dtype=image.dtype.name,
        plane_shape=planes.shape[1:],
        planes=tuple(_plane(plane) for plane in planes),
        notes=(*notes, *_for_networks(planes, channel_width)),
    )


def _plane(plane: Samples) -> Plane:
    with np.errstate(all="ignore"):  # floats may be anything
        return Plane(float(plane.min()), float(plane.max()), float(plane.mean(dtype=np.float64)))


def _notes(info: ImageInfo) -> list[str]:
    """Say what reading does with samples that are not simply there."""
    tiff = info.format == "tiff"
    said = {
        f"The first of its {info.pages} pages is the image; as channels, all of them are read.": info.pages > 1,
        "White is zero in the file; reading turns that round.": info.inverted,
        "Its palette is ignored: reading gives the indices.": tiff and info.photometric == PALETTE,
        "Its palette, transparent colour or few bits become colours, alpha or 0 to 255.": info.expanded,
        "Its bits become 0 and 255.": tiff and info.bits == 1,
        f"Its numbers of {info.bits} bits stay what they are, in {info.dtype}.": tiff and 8 < info.bits < 16,
        "It is stored from coarse to fine (interlaced), which reads slower.": info.interlaced,
        "Its samples are stored plane by plane; reading puts them side by side.": info.planar,
        "Its most significant bytes come first; reading turns them round.": tiff
        and info.byte_order == "big"
        and info.bits > 8,
    }
    return [sentence for sentence, true in said.items() if true]


def _for_networks(planes: Samples, channel_width: int | None) -> list[str]:
    said = []
    if planes.size and planes.dtype.kind in "iu":
        said.append(f"For a network, values are divided by {np.iinfo(planes.dtype.name).max:,}.")
    elif planes.size:
        said.append("For a network, values are taken as they are: floats should lie between 0 and 1.")
    if channel_width is None and len(planes) == 1 and planes.shape[2] >= 2 * planes.shape[1]:
        said.append("If it is a tape of channels side by side, --channel-width shows each of them.")
    return said


def _inspect_model(path: Path, given: str | Path | None) -> ModelReport:
    network, sha256 = read_onnx(path)
    spec = embedded_spec(network, origin=path) if given is None else read_spec_file(given)
    beside = None
    if spec is not None:
        model = load_model(path, spec=spec)  # compares the description with the network
        files = find_files(model, AUTO)
        other = files.floating if spec.quantisation is not None else files.quantised
        beside = None if other is None else other.path.name
    return ModelReport(
        path=path,
        file_bytes=path.stat().st_size,
        sha256=sha256,
        spec=spec,
        inputs=tuple(_port(value) for value in network_inputs(network)),
        outputs=tuple(_port(value) for value in network.graph.output),
        weights=sum(prod(tensor.dims) for tensor in network.graph.initializer),
        opset=_opset(network),
        ir_version=network.ir_version,
        producer=" ".join(filter(None, (network.producer_name, network.producer_version))),
        beside=beside,
    )


def _opset(network: ModelProto) -> int:
    return next((entry.version for entry in network.opset_import if entry.domain in ("", "ai.onnx")), 0)


def _port(value: ValueInfoProto) -> Port:
    from onnx import TensorProto

    kind = TensorProto.DataType.Name(value.type.tensor_type.elem_type).lower()
    return Port(value.name, {"float": "float32", "double": "float64"}.get(kind, kind), static_dimensions(value))
