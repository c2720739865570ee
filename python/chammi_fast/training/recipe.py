"""Recipes: all that decides how a network is trained, as small files.

The package has one for each published row, under ``recipes/``; any TOML or JSON file of the same fields is a recipe,
too. A recipe may extend others; files whose names begin with ``_`` are parts of recipes. The fields are as the CHAMMI
paper means them; what its training code did differently stands in the table ``as_published``.
"""

from __future__ import annotations

import difflib
import tomllib
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec

from chammi_fast.errors import RecipeError
from chammi_fast.files import write_text

if TYPE_CHECKING:
    from collections.abc import Iterable

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Positive = Annotated[float, msgspec.Meta(gt=0)]
NotNegative = Annotated[float, msgspec.Meta(ge=0)]
Count = Annotated[int, msgspec.Meta(ge=1)]

ADDING_UP = ("frozen", "frozen_where_there")


class Recipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How to make and train a network.

    Attributes
    ----------
    name : of the recipe
    description : one line
    published_cps : of the row in the paper that the recipe stands for, or None

    strategy, strategy_options, backbone, backbone_options, pooling, size, init :
        see `chammi_fast.training.create.NetworkOptions`; a size of 0 takes images as they are
    statistics : what normalises the channels: the "published" means and deviations, or those of the training "data"

    epochs, batch_size : a batch mixes all data sets at random; the last, smaller one is dropped
    accumulate : batches per step
    crop_area, crop_aspect : bounds of the random crop: share of the image, width / height
    flips : mirror at random: "none", "horizontal" (left to right), or "all" (also top to bottom and along the diagonal)
    tps : probability of a thin plate spline

    temperature, learn_temperature, temperature_scale : of ProxyNCA++, see `chammi_fast.training.losses.ProxyNCA`
    proxies : whether all data sets share one set of "all" proxies, or each is told apart from its "own" classes only
    ssl_weight : a in a * SimCLR + (1 - a) * supervised
    ssl_temperature, ssl_pairs : of SimCLR; "published" pairs are different images
    supervised : "proxynca", or "cross_entropy" on the embedding itself, as the published code has it beside SimCLR
    miro_weight : of MIRO's regularisation; 0 for none
    miro_layers : 0 is the stem's output, 1 the first stage's, and so on

    learning_rate : at its height; or one for each configuration whose body is its own, the stem taking the smallest
    proxy_rate, miro_rate : of the proxies and of MIRO's variances, relative to that of the network
    learning_rate_end, warmup_from, warmup_epochs : it rises from the one, along a line, and falls to the other, along a
        cosine
    schedule : the learning rate changes at every "step" or every "epoch"; or by epoch as in the "published" runs,
        see `chammi_fast.training.optimisation.published_rate`
    weight_decay : of AdamW
    swad_from : epoch, from 0, from which every step's weights are averaged; None for no averaging
    swad_learning_rate : that the learning rate is annealed to by then
    frozen : patterns of the names of parameters that stay as they are ("losses.*.proxies"); each must name one
    frozen_where_there : the same, but a pattern may name none: what was frozen in the published runs of a recipe has
        no parameters in some of its variants
    precision : of the network's computation
    seed : of weights, order and augmentation
    """

    name: str
    description: str = ""
    published_cps: float | None = None

    strategy: str
    strategy_options: dict[str, Any] = {}
    backbone: str = "convnext_tiny.fb_in22k"
    backbone_options: dict[str, Any] = {}
    pooling: Literal["avg", "max", "avgmax"] = "avg"
    size: Annotated[int, msgspec.Meta(ge=0, le=4096)] = 224
    init: str = "imagenet"
    statistics: Literal["published", "data"] = "published"

    epochs: Annotated[int, msgspec.Meta(ge=0)] = 15
    batch_size: Count = 128
    accumulate: Count = 1
    crop_area: tuple[Share, Share] = (0.8, 1.0)
    crop_aspect: tuple[Positive, Positive] = (0.9, 1.1)
    flips: Literal["none", "horizontal", "all"] = "horizontal"
    tps: Share = 0.0

    temperature: Positive = 0.07
    learn_temperature: bool = False
    temperature_scale: Literal["sqrt", "published"] = "sqrt"
    proxies: Literal["all", "own"] = "all"
    ssl_weight: Share = 0.0
    ssl_temperature: Positive = 0.07
    ssl_pairs: Literal["true", "published"] = "true"
    supervised: Literal["proxynca", "cross_entropy"] = "proxynca"
    miro_weight: NotNegative = 0.0
    miro_layers: tuple[Annotated[int, msgspec.Meta(ge=0)], ...] = (0, 1, 2, 3)

    learning_rate: Positive | dict[str, Positive] = 4e-4
    proxy_rate: NotNegative = 10.0
    miro_rate: NotNegative = 10.0
    learning_rate_end: NotNegative = 1e-7
    warmup_from: NotNegative = 1e-5
    warmup_epochs: NotNegative = 3
    schedule: Literal["step", "epoch", "published"] = "step"
    weight_decay: NotNegative = 5e-4
    swad_from: NotNegative | None = None
    swad_learning_rate: Positive | None = None
    frozen: tuple[str, ...] = ()
    frozen_where_there: tuple[str, ...] = ()
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    seed: Annotated[int, msgspec.Meta(ge=0, le=2**62)] = 0

    def __post_init__(self) -> None:
        for name in ("crop_area", "crop_aspect"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ValueError(f"{name} must rise from above 0, not {low} to {high}")
        if self.epochs and self.strategy == "channelreplication":
            raise ValueError("channelreplication trains nothing: its epochs are 0")
        if self.epochs and self.size < 16:
            raise ValueError(f"size must be at least 16 pixels for training, not {self.size}")
        if self.miro_weight > 0 and not self.miro_layers:
            raise ValueError("miro_layers must name a layer where miro_weight is above 0")
        if self.swad_from is not None and 0 < self.epochs <= self.swad_from:
            raise ValueError(f"swad_from must be below the {self.epochs} epochs, not {self.swad_from:g}")
        if self.learning_rate == {}:
            raise ValueError("learning_rate must be a number, or a table with one for each configuration")


def recipe_names() -> list[str]:
    """Return the names of the package's recipes."""
    return sorted(path.stem for path in _folder().glob("[!_]*.toml"))


def load_recipe(
    name: str, *, as_published: bool = False, changes: Iterable[str] = (), init: str | None = None
) -> Recipe:
    """Read a recipe and settle its fields.

    Parameters
    ----------
    name : of one of the package's, or a TOML or JSON file
    as_published : do as the published training code did, where that differs from the paper
    changes : "field=value", the value as in TOML (text may go without quotes)
    init : takes the place of the recipe's

    Raises
    ------
    RecipeError
        If there is no such recipe, or a field is unknown or has no such value.
    """
    path = Path(name)
    own = path.suffix in (".toml", ".json")
    fields = _read_file(path) if own else _read_packaged(name)
    published = fields.pop("as_published", {})
    if as_published:
        fields |= published
    fields.setdefault("name", path.stem if own else name)
    for change in changes:
        key, equals, value = change.partition("=")
        if not equals:
            raise RecipeError(f"recipe {name}: '{change}' is not FIELD=VALUE.")
        fields[key.strip()] = _value(value.strip())
    if init is not None:
        fields["init"] = init
    try:
        return msgspec.convert(fields, Recipe)
    except msgspec.ValidationError as error:
        raise RecipeError(f"recipe {name}: {_explained(str(error), fields)}.") from None


def write_recipe(recipe: Recipe, path: Path) -> None:
    """Write a resolved recipe as JSON, which `load_recipe` reads."""
    write_text(path, msgspec.json.format(msgspec.json.encode(recipe), indent=2).decode() + "\n")


def _folder() -> Path:
    return Path(str(resources.files("chammi_fast.training") / "recipes"))


def _read_packaged(name: str) -> dict[str, Any]:
    path = _folder() / f"{name}.toml"
    if not path.is_file():
        near = difflib.get_close_matches(name, recipe_names(), n=3)
        hint = f" (did you mean {' or '.join(near)}?)" if near else ""
        raise RecipeError(f"there is no recipe '{name}'{hint}: chammi-fast recipes lists them.")
    return _read_file(path)


def _read_file(path: Path) -> dict[str, Any]:
    try:
        content = path.read_bytes()
        decode = msgspec.json.decode if path.suffix == ".json" else tomllib.loads
        fields: Any = decode(content.decode())
    except OSError as error:
        raise RecipeError(f"{path}: the recipe cannot be read: {error.strerror}.") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.DecodeError) as error:
        raise RecipeError(f"{path}: is not a recipe: {error}.") from None
    if not isinstance(fields, dict):
        raise RecipeError(f"{path}: is not a recipe, which is a table of fields.")
    extends = fields.pop("extends", [])
    if not isinstance(extends, list) or not isinstance(fields.get("as_published", {}), dict):
        raise RecipeError(f"{path}: extends is a list of recipes, and as_published a table of fields.")
    merged: dict[str, Any] = {}
    for base in extends:
        merged = _merge(merged, _read_packaged(base))
    return _merge(merged, fields)


def _merge(base: dict[str, Any], fields: dict[str, Any]) -> dict[str, Any]:
    """Let fields take the place of those of the same name; what differs as published adds up."""
    tables = base.get("as_published", {}), fields.get("as_published", {})
    published = tables[0] | tables[1]
    for name in ADDING_UP:
        patterns = [pattern for table in tables for pattern in table.get(name, [])]
        if patterns:
            published[name] = patterns
    both = base | fields
    if published:
        both["as_published"] = published
    return both


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _explained(message: str, fields: dict[str, Any]) -> str:
    unknown = sorted(fields.keys() - {field.name for field in msgspec.structs.fields(Recipe)})
    if not unknown:
        return message[:1].lower() + message[1:]
    near = difflib.get_close_matches(unknown[0], [field.name for field in msgspec.structs.fields(Recipe)], n=2)
    hint = f" (did you mean {' or '.join(near)}?)" if near else ""
    return f"there is no field '{unknown[0]}'{hint}"
