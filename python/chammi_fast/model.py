"""Model files: read what they say about themselves, bind them to channels, embed images."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from chammi_fast.channels import Channel, resolve_channels
from chammi_fast.errors import BackendError, ChannelError, SpecError
from chammi_fast.runtime import Form, open_backend
from chammi_fast.runtime.graph import (
    CHANNELS_INPUT,
    IMAGE_INPUT,
    embedded_spec,
    network_inputs,
    read_onnx,
    specialise,
    static_dimensions,
)
from chammi_fast.spec import Spec, read_spec_file
from chammi_fast.urls import as_path

if TYPE_CHECKING:
    from collections.abc import Sequence

    from onnx import ModelProto, ValueInfoProto

    from chammi_fast.channels import UnknownPolicy
    from chammi_fast.images import Preprocess
    from chammi_fast.runtime import Backend

FLOAT32 = 1  # onnx.TensorProto.FLOAT
PACKAGED = ("demo", "demo-untrained")
DEFAULT_FORM = Form()


@dataclass(frozen=True)
class Model:
    """A model file.

    Attributes
    ----------
    path : of the ONNX file
    spec : what it says about itself
    sha256 : of the file, hexadecimal
    network : the ONNX model, with its weights
    """

    path: Path
    spec: Spec
    sha256: str
    network: ModelProto

    def __repr__(self) -> str:
        return f"Model({str(self.path)!r}, {self.spec.strategy}, {self.spec.form}, sha256={self.sha256[:12]})"

    @property
    def fixed_batch(self) -> int | None:
        """Batch size that a foreign network insists on; ours take any."""
        return static_dimensions(network_inputs(self.network)[0])[0]

    def resolve(self, channels: str | Sequence[str], *, unknown: UnknownPolicy = "error") -> tuple[Channel, ...]:
        """Look channels up in the model's vocabulary (`chammi_fast.channels.resolve_channels`).

        Raises
        ------
        ChannelError
            If a channel is unknown or repeated, or a specialised file has other channels.
        """
        resolved = resolve_channels(channels, self.spec, unknown=unknown)
        named = tuple(channel.token for channel in resolved)
        if self.spec.form == "specialised" and named != self.spec.fixed_channels:
            own = ", ".join(self.spec.fixed_channels or ())
            raise ChannelError(f"{self.path}: is made for the channels {own} in this order, not {', '.join(named)}.")
        return resolved

    def preprocess(self, channels: Sequence[Channel]) -> Preprocess:
        """How planes in [0, 1] become the network's input."""
        from chammi_fast.images import Preprocess

        return Preprocess(
            size=self.spec.preprocessing.size,
            resize=self.spec.preprocessing.resize,
            mean=tuple(channel.mean for channel in channels),
            std=tuple(channel.std for channel in channels),
        )

    def bind(
        self,
        channels: str | Sequence[str],
        *,
        unknown: UnknownPolicy = "error",
        form: Form = DEFAULT_FORM,
    ) -> BoundModel:
        """Settle the channels and open the network in a backend.

        Parameters
        ----------
        channels : in input order, in the channel grammar (`chammi_fast.channels.resolve_channels`)
        unknown : what an unknown channel name means, see `chammi_fast.channels.resolve_channels`
        form : how to run the network; by default in float32 by ONNX Runtime on the processor, which gives the same
            bits wherever its instruction set is the same (`chammi_fast.embed` looks for what is fastest)

        Raises
        ------
        ChannelError
            If a channel is unknown or repeated, or a specialised file has other channels.
        BackendError, MissingExtraError
            If the backend cannot be opened.
        """
        resolved = self.resolve(channels, unknown=unknown)
        if self.spec.form == "adaptive":
            try:
                network = specialise(self.network, [channel.token_id for channel in resolved])
            except IndexError:
                raise SpecError(f"{self.path}: its description names more tokens than the network has.") from None
        else:
            network = self.network
        from google.protobuf.message import EncodeError  # type: ignore[import-untyped]

        try:
            content = network.SerializeToString()
        except (ValueError, EncodeError) as error:  # which of them is up to protobuf's version
            raise BackendError(f"{self.path}: is too large to be opened: {error}.") from None
        del network  # a copy of all weights
        return BoundModel(model=self, channels=resolved, backend=open_backend(form, content, origin=str(self.path)))


@dataclass(frozen=True)
class BoundModel:
    """A model whose channels are settled, opened in a backend.

    Attributes
    ----------
    model : the file it comes from
    channels : in input order
    backend : the opened network
    """

    model: Model
    channels: tuple[Channel, ...]
    backend: Backend

    @property
    def name(self) -> str:
        """File name without suffix."""
        return self.model.path.stem

    @property
    def form(self) -> Form:
        """How the network is run."""
        return self.backend.form

    @property
    def embedding_size(self) -> int:
        """Length of an embedding."""
        spec = self.model.spec
        return spec.embedding_size * (len(self.channels) if spec.per_channel else 1)

    @property
    def preprocess(self) -> Preprocess:
        """How planes in [0, 1] become the network's input."""
        return self.model.preprocess(self.channels)

    def embed(self, images: np.ndarray) -> np.ndarray:
        """Embed preprocessed images.

        Parameters
        ----------
        images : (N, C, S, S) float32, channels in the order of `channels`; S is the size in the model's description,
            or any height and width where that has none

        Returns
        -------
        (N, D) float32. The batch size is a matter of speed: an image's embedding does not depend on its neighbours.

        Raises
        ------
        ChannelError
            If the number of channels is not that of `channels`.
        BackendError
            If the shape or dtype is another, or the network refuses the images.
        """
        self._check_images(images)
        if len(images) == 0:
            return np.empty((0, self.embedding_size), dtype=np.float32)
        images = np.ascontiguousarray(images)
        fixed = self.model.fixed_batch
        embeddings = self.backend.run(images) if fixed is None else self._in_batches_of(fixed, images)
        if embeddings.shape != (len(images), self.embedding_size):
            raise BackendError(
                f"{self.model.path}: the network returns {embeddings.shape} for {len(images)} images, but its "
                f"description promises embeddings of {self.embedding_size} numbers."
            )
        return embeddings

    def describe(self) -> dict[str, Any]:
        """Return what ``run.json`` records about the model: builtin types only."""
        return {
            "file": self.model.path.name,
            "sha256": self.model.sha256,
            "weights_sha256": self.model.spec.weights_sha256,
            "spec": msgspec.to_builtins(self.model.spec),
            "channels": [asdict(channel) for channel in self.channels],
            "backend": self.backend.form.backend,
            "backend_version": self.backend.version,
            "device": self.backend.form.device,
            "precision": self.backend.form.precision,
            "threads": self.backend.form.threads,
            "streams": self.backend.form.streams,
        }

    def _in_batches_of(self, size: int, images: np.ndarray) -> np.ndarray:
        filled = np.concatenate([images, np.repeat(images[-1:], -len(images) % size, axis=0)])
        parts = [self.backend.run(filled[i : i + size]) for i in range(0, len(filled), size)]
        return np.concatenate(parts)[: len(images)]

    def _check_images(self, images: np.ndarray) -> None:
        if images.dtype != np.float32:
            raise BackendError(f"{self.model.path}: embeds float32 images, not {images.dtype}.")
        size = self.model.spec.preprocessing.size
        if images.ndim != 4 or (size is not None and images.shape[2:] != (size, size)):
            side = "H, W" if size is None else f"{size}, {size}"
            raise BackendError(f"{self.model.path}: embeds images of shape (N, C, {side}), not {images.shape}.")
        if images.shape[1] != len(self.channels):
            named = ", ".join(channel.token for channel in self.channels)
            raise ChannelError(
                f"{self.model.path}: is bound to {len(self.channels)} channels ({named}), "
                f"but the images have {images.shape[1]}."
            )


def load_model(path: str | Path, *, spec: str | Path | Spec | None = None) -> Model:
    """Read a model file.

    Parameters
    ----------
    path : an ONNX file, or the name of a packaged model: "demo", "demo-untrained" (its untrained twin)
    spec : description of an ONNX file that carries none: a JSON file, or a `Spec`. It replaces the file's own.

    Raises
    ------
    SpecError
        If the file is missing or not ONNX, carries no (valid) description while `spec` is None, or contradicts it.
    MissingExtraError
        If the onnx package is not installed.
    """
    path = _packaged(str(path)) if str(path) in PACKAGED else as_path(path)
    network, sha256 = read_onnx(path)
    if spec is None:
        spec = embedded_spec(network, origin=path)
    elif not isinstance(spec, Spec):
        spec = read_spec_file(as_path(spec))
    if spec is None:
        raise SpecError(
            f"{path}: does not describe its channels and pre-processing: give a description with --spec FILE.json "
            f"(grammar in docs/formats.md)."
        )
    _check_form(path, spec, network)
    return Model(path=path, spec=spec, sha256=sha256, network=network)


def _packaged(name: str) -> Path:
    return Path(str(resources.files("chammi_fast") / "assets" / f"{name}.onnx"))


def _check_form(path: Path, spec: Spec, network: ModelProto) -> None:
    """Compare the inputs that the network has with those that its description implies."""
    inputs = {value.name: value for value in network_inputs(network)}
    if spec.form == "adaptive":
        if set(inputs) != {IMAGE_INPUT, CHANNELS_INPUT}:
            raise SpecError(
                f"{path}: described as adaptive, but its inputs are {', '.join(inputs) or 'none'} instead of image and "
                f"channels; a network of fixed channels is described with form 'specialised' and fixed_channels."
            )
        _check_image_input(path, spec, inputs[IMAGE_INPUT])
        return
    if len(inputs) != 1:
        raise SpecError(f"{path}: described as specialised, but its inputs are {', '.join(inputs) or 'none'}.")
    image = next(iter(inputs.values()))
    channels = _check_image_input(path, spec, image)
    fixed = spec.fixed_channels or ()
    if channels is not None and channels != len(fixed):
        raise SpecError(f"{path}: its input has {channels} channels, but its description fixes {', '.join(fixed)}.")


def _check_image_input(path: Path, spec: Spec, image: ValueInfoProto) -> int | None:
    """Check an input for images; return the number of channels that it fixes."""
    shape = static_dimensions(image)
    if image.type.tensor_type.elem_type != FLOAT32 or len(shape) != 4:
        raise SpecError(f"{path}: its input '{image.name}' is not a float32 (N, C, H, W) image.")
    size = spec.preprocessing.size
    if any(side is not None and side != size for side in shape[2:]):
        own, said = "x".join(map(str, shape[2:])), "of any size" if size is None else f"{size}x{size}"
        raise SpecError(f"{path}: its images are {own} pixels, but its description says {said}.")
    return shape[1]
