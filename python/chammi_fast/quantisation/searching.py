"""Find which layers can be quantised: those that are worth their error, as many as the limits allow."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from chammi_fast.errors import QuantisationError
from chammi_fast.extras import require
from chammi_fast.quantisation.cutting import Cut, Layer, cut, layers, restored
from chammi_fast.quantisation.judging import individual_error
from chammi_fast.quantisation.tools import PURPOSE, TOOLS
from chammi_fast.runtime.graph import CHANNELS_INPUT, network_inputs

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from onnx import ModelProto

    from chammi_fast.model import Model
    from chammi_fast.quantisation.judging import Judge, Limits, Verdict
    from chammi_fast.quantisation.sampling import Case
    from chammi_fast.quantisation.tools import Feeds

AUTO = "auto"
FEED_IMAGES = 4
TRIED_IMAGES = 16
# A layer whose share of the error is more than so many times its share of the multiplications costs more than it gives.
# Of ConvNeXt-Tiny's layers, the convolutions are at 4 to 17 when their turn comes, and the products below 2.
WORTH = 3.0


@dataclass(frozen=True)
class Result:
    """A quantised network.

    Attributes
    ----------
    network : the whole of it
    tool : the library that quantised it
    layers : of its body, in order of computation
    kept : names of those that stay float32
    verdicts : how near it stays to its reference
    trials : candidates that were measured in full
    """

    network: ModelProto
    tool: str
    layers: tuple[Layer, ...]
    kept: tuple[str, ...]
    verdicts: tuple[Verdict, ...]
    trials: int = 1

    @property
    def kept_titles(self) -> tuple[str, ...]:
        """What people call the layers that stay float32."""
        return tuple(layer.title for layer in self.layers if layer.name in self.kept)

    @property
    def share(self) -> float:
        """Share of the layers' multiplications that are of 8-bit integers."""
        total = sum(layer.multiplications for layer in self.layers)
        return sum(layer.multiplications for layer in self.layers if layer.name not in self.kept) / total


def search(model: Model, judge: Judge, limits: Limits, tool: str, told: Callable[[str], None]) -> Result:
    """Quantise all layers, then give back those that cost too much.

    Each layer's error is measured by itself, on a few images: the errors of single layers add up. Layers that are not
    worth it go first; then, until the limits hold, those with the most error for their multiplications, by bisection.
    With n layers that is n short trials and at most 1 + log2(n) full ones.

    Raises
    ------
    QuantisationError
        If no layer can be quantised, by nature or within the limits.
    """
    bench = prepare(model, judge.cases, told)
    taken, body = bench.quantised(tool)
    order, first = bench.order(body)
    tried: dict[int, Result] = {}

    def holds(count: int) -> bool:
        names = {layer.name for layer in order[:count]}
        told(f"measuring with {len(order) - count} of {len(order)} layers in 8 bits.")
        network = bench.network(body, names)
        kept = tuple(layer.name for layer in bench.layers if layer.name in names)
        tried[count] = Result(network, taken, bench.layers, kept, tuple(judge.verdicts(network)))
        return limits.hold(tried[count].verdicts)

    count = fewest(holds, first, len(order))
    if count is None:
        raise QuantisationError(
            f"{model.path}: no layer can be quantised within the limits, a cosine of {limits.cosine:g} and the same "
            f"nearest neighbour for {100 * limits.agreement:g} % of the images: "
            f"with {tried[max(tried)].share:.0%} of the multiplications in 8 bits, {_worst(tried[max(tried)])}."
        )
    return replace(tried[count], trials=len(tried))


def prepare(model: Model, cases: Sequence[Case], told: Callable[[str], None]) -> Bench:
    """Cut a network in two, and compute what its body gets of the cases' calibration images.

    Raises
    ------
    QuantisationError
        If there is no layer to quantise.
    """
    parts = cut(model.network)
    size = model.fixed_batch or FEED_IMAGES
    feeds = [feed for case in cases for feed in _feeds(model, parts, case, size)]
    found = tuple(layers(parts.body, feeds[0])) if feeds[0] else ()
    if not found:
        raise QuantisationError(
            f"{model.path}: has no layer whose weights are the same for all channels: export it for its channels "
            f"(chammi-fast export --channels) and quantise that file."
        )
    return Bench(parts, found, feeds, -(-TRIED_IMAGES // size), told)


def fewest(holds: Callable[[int], bool], first: int, count: int) -> int | None:
    """Return the smallest number from `first` to `count` - 1 that holds, by bisection; None where none is found."""
    if holds(first):
        return first
    low, high = first, count
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high if high < count else None


def not_worth(errors: Sequence[float], multiplications: Sequence[int]) -> int:
    """Count the first layers that cost too much, each compared with all that are behind it (`WORTH`).

    Parameters
    ----------
    errors, multiplications : of each layer, those with the most error for their multiplications first
    """
    for count in range(len(errors)):
        error, work = sum(errors[count:]), sum(multiplications[count:])
        if errors[count] * work <= WORTH * error * multiplications[count]:
            return count
    return len(errors)


def _worst(result: Result) -> str:
    cosine = min(verdict.accuracy.worst for verdict in result.verdicts)
    agreement = min(verdict.agreement for verdict in result.verdicts if verdict.agreement is not None)
    return f"they are {cosine:.4f} and {100 * agreement:.1f} %"


@dataclass(frozen=True)
class Bench:
    """A network in two parts, and what its body is fed with.

    Attributes
    ----------
    layers : of the body, in order of computation
    feeds : calibration images as the head gives them to the body, a few at a time
    tried : how many of the feeds a layer's error is measured on
    """

    parts: Cut
    layers: tuple[Layer, ...]
    feeds: Feeds
    tried: int
    told: Callable[[str], None]

    def network(self, body: ModelProto, kept: Collection[str]) -> ModelProto:
        """Return the whole network with a quantised body, of which some layers stay float32."""
        return self.parts.joined_with(restored(body, self.parts.body, kept))

    def quantised(self, tool: str) -> tuple[str, ModelProto]:
        """Quantise all layers by a tool; with "auto", by the installed one that leaves the least error."""
        tools = [name for name in TOOLS if find_spec(name) is not None] if tool == AUTO else [tool]
        if not tools:
            require(next(iter(TOOLS)), purpose=PURPOSE)
        bodies = {}
        for name in tools:
            self.told(f"{name} quantises {len(self.layers)} layers.")
            body = TOOLS[name](self.parts.body, self.feeds, [layer.name for layer in self.layers])
            bodies[name] = restored(body, self.parts.body, ())
        taken = min(bodies, key=lambda name: self._error(bodies[name], ())) if len(bodies) > 1 else tools[0]
        return taken, bodies[taken]

    def order(self, body: ModelProto) -> tuple[list[Layer], int]:
        """Sort layers, those with the most error for their multiplications first; and count those not worth it."""
        self.told(f"measuring the error of each of {len(self.layers)} layers by itself.")
        names = {layer.name for layer in self.layers}
        errors = {layer.name: self._error(body, names - {layer.name}) for layer in self.layers}
        order = sorted(self.layers, key=lambda layer: -errors[layer.name] / max(layer.multiplications, 1))
        return order, not_worth([errors[layer.name] for layer in order], [layer.multiplications for layer in order])

    def _error(self, body: ModelProto, kept: Collection[str]) -> float:
        return individual_error(self._run(restored(body, self.parts.body, kept)), self._reference)

    @cached_property
    def _reference(self) -> np.ndarray:
        return self._run(self.parts.body)

    def _run(self, body: ModelProto) -> np.ndarray:
        session = _open(body)
        return np.concatenate([session.run(None, feed)[0] for feed in self.feeds[: self.tried]])


def _feeds(model: Model, parts: Cut, case: Case, size: int) -> Feeds:
    """Compute what the head gives to the body for a case's calibration images, so many at a time."""
    image = next(value.name for value in network_inputs(model.network) if value.name != CHANNELS_INPUT)
    needed = [value.name for value in network_inputs(parts.body)]
    inputs = [value.name for value in network_inputs(parts.head)]
    session = _open(parts.head)
    ids = np.array([channel.token_id for channel in model.resolve(case.channels)])
    images = case.calibration
    if model.fixed_batch is not None:  # it takes whole batches alone: the first images fill up the last one
        images = np.resize(images, (-(-len(images) // size) * size, *images.shape[1:]))
    feeds = []
    for start in range(0, len(images), size):
        given = {image: images[start : start + size], CHANNELS_INPUT: ids}
        made = [name for name in needed if name not in given]
        computed = session.run(made, {name: given[name] for name in inputs}) if made else []
        feeds.append({name: given[name] for name in needed if name in given} | dict(zip(made, computed, strict=True)))
    return feeds


def _open(network: ModelProto) -> Any:
    library = require("onnxruntime", purpose=PURPOSE)
    options = library.SessionOptions()
    options.log_severity_level = 3
    return library.InferenceSession(network.SerializeToString(), options, providers=["CPUExecutionProvider"])
