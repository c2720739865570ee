"""What a model file says about itself: channels, statistics, pre-processing and provenance.

The description is one JSON document under one metadata key of the ONNX file (`METADATA_KEY`); the same document
in a file of its own describes a foreign ONNX file (``--spec``). docs/formats.md holds its grammar.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from chammi_fast.errors import SpecError
from chammi_fast.urls import cause_of

METADATA_KEY = "chammi_fast.spec"
FORMAT_VERSION = 1

Positive = Annotated[int, msgspec.Meta(ge=1)]
Side = Annotated[int, msgspec.Meta(ge=1, le=16384)]


class Token(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One row of the adapter's channel table.

    Attributes
    ----------
    name : "CP/nucleus" for a channel of one configuration, "nucleus" for the average over the configurations
        that have it, "*" for the mean of all channels
    mean, std : of the channel's pixels scaled to [0, 1]; for an average, the averages of its members'
    members : names of the tokens that an average stands for; empty for a channel of one configuration
    """

    name: str
    mean: float
    std: Annotated[float, msgspec.Meta(gt=0)]
    members: tuple[str, ...] = ()


class Preprocessing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How planes in [0, 1] become network input, before (x - mean) / std.

    Attributes
    ----------
    size : side of the square input in pixels, or None where the network takes images as they are
    resize : "shorter" resizes the shorter side to `size` (antialiased bilinear), "none" only crops
    """

    size: Side | None = 224
    resize: Literal["shorter", "none"] = "shorter"

    def __post_init__(self) -> None:
        if self.size is None and self.resize != "none":
            raise ValueError("resize 'shorter' needs a size")


class Quantisation(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How a file of 8-bit integers came from a file of float32, and how near to it it stays.

    Attributes
    ----------
    reference : name of the float32 file
    reference_sha256 : of that file, hexadecimal
    tool : library that quantised it
    worst_cosine, mean_cosine : between an image's embeddings by both files
    neighbour_agreement : share of images whose nearest other image (cosine) is the same by both files
    images : that these were measured on
    kept : layers that stay float32
    """

    reference: str
    reference_sha256: str
    tool: Literal["onnxruntime", "nncf"]
    worst_cosine: float
    mean_cosine: float
    neighbour_agreement: float
    images: Positive
    kept: tuple[str, ...] = ()


class Spec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Everything needed to use a model file.

    Attributes
    ----------
    tokens : the channel vocabulary; a token's id is its place here
    configurations : configuration name -> token names in tape order
    form : "adaptive" files take token ids as the input ``channels``; "specialised" files have
        `fixed_channels` built in
    fixed_channels : token names of a specialised file, in input order
    embedding_size : length of an embedding; of one channel's where `per_channel`
    per_channel : whether an image's embedding is those of its channels one after another
    accepts : channels that the network takes: any of the "vocabulary" in any order, all channels of one of the
        "configurations" in any order, or "any" channel, known or not
    weights_sha256 : of the parameters' bytes in the order of their names (see docs/formats.md)
    training : free-form provenance
    quantisation : of a file of 8-bit integers, or None
    """

    strategy: str
    backbone: str
    tokens: tuple[Token, ...]
    configurations: dict[str, tuple[str, ...]]
    embedding_size: Positive
    per_channel: bool = False
    accepts: Literal["vocabulary", "configurations", "any"] = "vocabulary"
    preprocessing: Preprocessing = Preprocessing()
    pooling: Literal["avg", "max", "avgmax"] = "avg"
    form: Literal["adaptive", "specialised"] = "adaptive"
    fixed_channels: tuple[str, ...] | None = None
    weights_sha256: str = ""
    training: dict[str, Any] = {}
    quantisation: Quantisation | None = None
    format_version: Literal[1] = 1

    def __post_init__(self) -> None:
        ids = self.token_ids
        if not ids or len(ids) != len(self.tokens):
            raise ValueError("token names must be present and unique")
        for name, channels in self.configurations.items():
            if not channels or len(set(channels)) != len(channels):
                raise ValueError(f"configuration '{name}' is empty or repeats a channel")
            self._check_known(channels, f"configuration '{name}'")
        for token in self.tokens:
            self._check_known(token.members, f"token '{token.name}'")
        if (self.form == "specialised") != (self.fixed_channels is not None):
            raise ValueError("fixed_channels belongs to specialised files, and only to them")
        if self.fixed_channels is not None:
            self._check_known(self.fixed_channels, "fixed_channels")

    def _check_known(self, names: tuple[str, ...], where: str) -> None:
        for name in names:
            if name not in self.token_ids:
                raise ValueError(f"{where} names an unknown token '{name}'")

    @property
    def token_ids(self) -> dict[str, int]:
        """Token name -> id."""
        return {token.name: i for i, token in enumerate(self.tokens)}

    def to_json(self) -> str:
        """Return the document that travels in the model file."""
        return msgspec.json.encode(self).decode()


def parse_spec(text: str | bytes, *, origin: str) -> Spec:
    """Read a model description.

    Parameters
    ----------
    text : the JSON document
    origin : the file it came from, for error messages

    Raises
    ------
    SpecError
        If the document is not JSON, of another format version, or contradicts itself.
    """
    try:
        version = msgspec.json.decode(text, type=dict[str, Any]).get("format_version")
        if version != FORMAT_VERSION:
            raise SpecError(
                f"{origin}: describes itself in format version {version}, this chammi-fast reads "
                f"version {FORMAT_VERSION}: install a newer chammi-fast or export the model again."
            )
        return msgspec.json.decode(text, type=Spec)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise SpecError(f"{origin}: its description is not valid: {error}.") from None


def read_spec_file(path: str | Path) -> Spec:
    """Read a model description from a JSON file of its own (``--spec``)."""
    try:
        text = (Path(path) if isinstance(path, str) else path).read_bytes()
    except OSError as error:
        raise SpecError(f"{path}: cannot be read: {error.strerror or cause_of(error)}.") from None
    return parse_spec(text, origin=str(path))


def with_averages(tokens: tuple[Token, ...]) -> tuple[Token, ...]:
    """Append the averages that make bare and unknown names usable.

    A bare name carried by several tokens ("CP/nucleus", "HPA/nucleus") gets an average token "nucleus"; the mean of
    all tokens gets the name "*".
    """
    by_bare_name: dict[str, list[Token]] = {}
    for token in tokens:
        by_bare_name.setdefault(token.name.rpartition("/")[2], []).append(token)
    shared = [_average(name, members) for name, members in by_bare_name.items() if len(members) > 1]
    return (*tokens, *shared, _average("*", list(tokens)))


def _average(name: str, members: list[Token]) -> Token:
    return Token(
        name=name,
        mean=sum(token.mean for token in members) / len(members),
        std=sum(token.std for token in members) / len(members),
        members=tuple(token.name for token in members),
    )
