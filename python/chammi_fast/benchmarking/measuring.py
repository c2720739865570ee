"""The forms that are possible, the stages of one set of images, and the search."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from chammi_fast.benchmarking.limits import Seconds
from chammi_fast.benchmarking.report import SearchRate, SetReport
from chammi_fast.benchmarking.stages import BATCH, decode_s, kind_of, network_s, per_image, prepare, stream_s
from chammi_fast.benchmarking.whole_run import run_whole
from chammi_fast.choosing import REFERENCE_FORM
from chammi_fast.errors import BackendError, MissingExtraError
from chammi_fast.evaluation.exact_search import search
from chammi_fast.runtime import AUTO, BACKENDS, Form, possible_forms
from chammi_fast.runtime.accuracy import Accuracy
from chammi_fast.runtime.choice import Candidate, Subject, Terms, choose

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chammi_fast.benchmarking.image_sets import ImageSet
    from chammi_fast.benchmarking.stages import Prepared
    from chammi_fast.choosing import Files
    from chammi_fast.images import Preprocess
    from chammi_fast.model import BoundModel, Model

COMPARED_IMAGES = 16
FEWEST_BATCHES, MOST_IMAGES = 4, 20_000
QUERIES, FEWEST_VECTORS, MOST_VECTORS = 512, 10_000, 100_000


@dataclass(frozen=True)
class Loaded:
    """A set whose images are there, and how they were prepared."""

    images: ImageSet
    prepared: Prepared
    preprocess: Preprocess
    channels: int


def load(model: Model, images: ImageSet) -> Loaded:
    """Read a set's images once."""
    named = model.resolve(images.channels)
    preprocess = model.preprocess(named)
    return Loaded(images, prepare(images, preprocess, len(named)), preprocess, len(named))


def try_forms(files: Files, sets: Sequence[Loaded]) -> tuple[Candidate, ...]:
    """Time every form that is possible here on the first set; compare it with float32 on all of them."""
    spec = files.named.spec
    wish = Form(backend=AUTO, device=AUTO, precision=AUTO)
    forms = possible_forms(
        wish,
        BACKENDS,
        floating=files.floating is not None,
        quantised=files.quantised is not None,
        fixed_size=spec.preprocessing.size is not None,
    )
    subjects = [_subject(files, one) for one in sets]
    said = None if files.quantised is None else files.quantised.spec.quantisation
    recorded = None if said is None else Accuracy(said.worst_cosine, said.mean_cosine, images=0)
    choice = choose(forms, subjects, Terms(min_cosine=-1.0, recorded=recorded, origin=str(files.named.path)))
    return choice.tried or (choice.taken,)


def _subject(files: Files, loaded: Loaded) -> Subject:
    def opened(model: Model, form: Form) -> BoundModel:
        return model.bind(loaded.images.channels, form=form)

    floating = files.floating
    return Subject(
        open=lambda form: opened(files.of(form.precision), form),
        reference=None if floating is None else lambda: opened(floating, REFERENCE_FORM),
        images=loaded.prepared.images[:COMPARED_IMAGES],
    )


def fastest(tried: Sequence[Candidate], min_cosine: float, origin: str) -> Candidate:
    """Return the fastest form that is near enough to float32.

    Raises
    ------
    BackendError
        If there is none.
    """
    good = [one for one in tried if not one.fault and (one.accuracy is None or one.accuracy.worst >= min_cosine)]
    if not good:
        causes = "; ".join(f"{one.form}: {one.fault or one.accuracy}" for one in tried)
        raise BackendError(f"{origin}: no way to run it is within a cosine of {min_cosine:g} of fp32: {causes}.")
    return max(good, key=lambda one: one.images_per_s)


def measure_set(files: Files, taken: Candidate, loaded: Loaded, run_s: float) -> SetReport:
    """Measure each stage of a set of images, and a whole run that takes about so long."""
    prepared, how = loaded.prepared, loaded.preprocess
    bound = files.of(taken.form.precision).bind(loaded.images.channels, form=taken.form)
    seconds = Seconds(
        read=prepared.read_s,
        decode=decode_s(prepared),
        stream=stream_s(prepared, how, loaded.channels),
        network=network_s(bound, prepared.images),
    )
    del bound
    count = min(max(int(run_s / max(seconds.network, seconds.stream)), FEWEST_BATCHES * BATCH), MOST_IMAGES)
    return SetReport(
        name=loaded.images.name,
        rows=loaded.images.rows,
        images=len(prepared.images),
        failed=prepared.failed,
        channels=loaded.channels,
        kind=kind_of(prepared.sources[0], None if prepared.widths is None else prepared.widths[0]),
        seconds=seconds,
        whole=run_whole(files, taken, loaded.images, -(-count // BATCH) * BATCH),
    )


def measure_search(vectors: int, dimensions: int) -> SearchRate | None:
    """Search about so many random vectors for the nearest, as scoring does; None where Faiss is not installed."""
    random = np.random.default_rng(0)
    count = min(max(vectors, FEWEST_VECTORS), MOST_VECTORS)
    references = random.standard_normal((count, dimensions), dtype=np.float32)
    queries = random.standard_normal((QUERIES, dimensions), dtype=np.float32)
    try:
        seconds = per_image(lambda: search(queries, references, 1), QUERIES)
    except MissingExtraError:
        return None
    return SearchRate(len(references), dimensions, 1 / seconds)
