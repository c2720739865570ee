"""Quantise a model: 8-bit integers where they keep the embeddings, float32 where they would not."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from chammi_fast.embedding import EmbedSettings
from chammi_fast.embedding.inputs import Inputs
from chammi_fast.errors import EvaluationError, QuantisationError
from chammi_fast.extras import require
from chammi_fast.files import make_folder, replacing
from chammi_fast.model import Model, load_model
from chammi_fast.quantisation.judging import Judge, Limits
from chammi_fast.quantisation.report import QuantiseReport
from chammi_fast.quantisation.sampling import draw
from chammi_fast.quantisation.scoring import Labels, Scoring
from chammi_fast.quantisation.searching import AUTO, Result, search
from chammi_fast.quantisation.timing import processor_forms, rates
from chammi_fast.quantisation.tools import PURPOSE, TOOLS
from chammi_fast.runtime.graph import embed_spec, weights_sha256
from chammi_fast.spec import Quantisation

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Labels", "QuantiseReport", "QuantiseSettings", "quantise"]

OLDEST_OPSET = 13  # the first whose weights can be quantised channel by channel


@dataclass(frozen=True)
class QuantiseSettings:
    """How to quantise.

    Attributes
    ----------
    images : to calibrate with and to measure on, in all
    min_cosine : to float32, of every image that is measured
    min_agreement : share of the measured images whose nearest neighbour stays the same
    tool : "nncf", "onnxruntime", or "auto" for the installed one that leaves the smaller error
    seed : of the choice of images
    threads : for decoding; 0 means one per usable processor
    """

    images: int = 640
    min_cosine: float = 0.999
    min_agreement: float = 0.98
    tool: str = AUTO
    seed: int = 0
    threads: int = 0

    def __post_init__(self) -> None:
        if self.tool not in (AUTO, *TOOLS):
            raise QuantisationError(f"there is no tool '{self.tool}': choose from {', '.join((AUTO, *TOOLS))}.")


def quantise(  # noqa: PLR0913 - the public face: each argument is one decision of the user's
    model: str | Path | Model,
    *,
    out: str | Path,
    data: str | Path | None = None,
    data_sets: Sequence[str] | None = None,
    manifest: str | Path | None = None,
    channels: str | None = None,
    where: str | None = None,
    labels: Labels | None = None,
    settings: QuantiseSettings | None = None,
    told: Callable[[str], None] = lambda _: None,
) -> QuantiseReport:
    """Write a file of a model whose layers compute with 8-bit integers, and measure what that costs.

    The adapter and the stem stay float32, and so do the layers whose error is not worth it or breaks the limits. The
    file serves all channels that the model does: each of its configurations is calibrated and measured, on images of
    its own or on other images that stand in. `chammi_fast.embed` takes it where it is called ``M.int8.onnx`` and lies
    beside ``M.onnx``.

    Parameters
    ----------
    model : a model file, "demo", or a loaded `Model`, in float32
    out : the ONNX file to write
    data, data_sets, manifest, channels, where : images, as for `chammi_fast.embed`
    labels : columns of `manifest`, to also score the measured images by both files; a CHAMMI folder needs none
    told : called with a sentence about what is done next

    Raises
    ------
    QuantisationError
        If the model cannot be quantised, there are too few images, or the limits cannot be held.
    ChammiFastError
        If something cannot be read, scored or written.
    """
    began = time.perf_counter()
    settings = settings or QuantiseSettings()
    inputs = Inputs(data, data_sets, manifest, channels, where)
    model = model if isinstance(model, Model) else load_model(model)
    out = Path(out)
    _check(model, out, settings)
    make_folder(out.parent)
    how = EmbedSettings(threads=settings.threads)
    cases = draw(model, inputs.jobs(model, out.parent, how), how, settings.images, settings.seed)
    judge = Judge(model, cases, processor_forms(model, quantised=True))
    told(f"embedding the images of {len(cases)} lists of channels in float32.")
    scoring, remarks = _scoring(judge, inputs, labels)
    result = search(model, judge, Limits(settings.min_cosine, settings.min_agreement), settings.tool, told)
    quantised = _write(model, result, out)
    return QuantiseReport(
        model=model.path,
        path=out,
        sizes=(model.path.stat().st_size, out.stat().st_size),
        result=result,
        rates=rates(model, quantised, cases[0]),
        changes=tuple(scoring.changes(result.verdicts)) if scoring is not None else (),
        remarks=remarks,
        seconds=time.perf_counter() - began,
    )


def _check(model: Model, out: Path, settings: QuantiseSettings) -> None:
    """Refuse what cannot come to a good end, before any image is read."""
    said = model.spec.quantisation
    if said is not None:
        raise QuantisationError(f"{model.path}: is quantised already: quantise {said.reference}, which it comes from.")
    if out.resolve() == model.path.resolve():
        raise QuantisationError(f"{out}: is the model itself: name another file, such as {model.path.stem}.int8.onnx.")
    opset = max((one.version for one in model.network.opset_import if not one.domain), default=0)
    if opset < OLDEST_OPSET:
        raise QuantisationError(f"{model.path}: is of ONNX opset {opset}, and at least {OLDEST_OPSET} is needed.")
    if settings.tool != AUTO:
        require(settings.tool, purpose=PURPOSE)


def _scoring(judge: Judge, inputs: Inputs, labels: Labels | None) -> tuple[Scoring | None, tuple[str, ...]]:
    """Score the reference where labels are named, or a CHAMMI folder brings them."""
    if labels is not None and inputs.manifest is not None:
        return Scoring.of(judge, inputs, labels), ()
    if inputs.manifest is not None:
        return None, ()
    try:
        return Scoring.of(judge, inputs, labels or Labels()), ()
    except EvaluationError as error:  # the few images that are measured need not hold every task
        return None, (f"not scored: {error}",)


def _write(model: Model, result: Result, out: Path) -> Model:
    """Write the file with its description, and read it back."""
    verdicts = result.verdicts
    own = [verdict for verdict in verdicts if verdict.agreement is not None]
    images = sum(verdict.accuracy.images for verdict in own)
    agreed = sum((verdict.agreement or 0.0) * verdict.accuracy.images for verdict in own)
    said = Quantisation(
        reference=model.path.name,
        reference_sha256=model.sha256,
        tool="nncf" if result.tool == "nncf" else "onnxruntime",
        worst_cosine=min(verdict.accuracy.worst for verdict in verdicts),
        mean_cosine=sum(verdict.accuracy.mean * verdict.accuracy.images for verdict in own) / images,
        neighbour_agreement=agreed / images,
        images=images // len({verdict.backend for verdict in own}),
        kept=result.kept_titles,
    )
    network = result.network
    spec = msgspec.structs.replace(model.spec, quantisation=said, weights_sha256=weights_sha256(network))
    embed_spec(network, spec)
    with replacing(out) as temporary:
        temporary.write_bytes(network.SerializeToString())
    return load_model(out)
