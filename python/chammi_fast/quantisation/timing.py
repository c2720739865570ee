"""How fast each file and precision is in each backend, measured in turns."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

from chammi_fast.runtime import AUTO, BACKENDS, Form, possible_forms

if TYPE_CHECKING:
    from chammi_fast.model import Model
    from chammi_fast.quantisation.sampling import Case

IMAGES = 32
ROUNDS = 5


def processor_forms(model: Model, *, quantised: bool) -> list[Form]:
    """List the forms of a model on the processor: those of floats, or those of 8-bit integers."""
    forms = possible_forms(
        Form(backend=AUTO, device="cpu", precision="int8" if quantised else AUTO),
        BACKENDS,
        floating=not quantised,
        quantised=quantised,
        fixed_size=model.spec.preprocessing.size is not None,
    )
    return [form for form in forms if (form.precision == "int8") == quantised]


def rates(model: Model, quantised: Model, case: Case, *, rounds: int = ROUNDS) -> dict[Form, float]:
    """Return images per second of the network alone, for every backend and precision; medians of several rounds."""
    images = np.resize(case.calibration, (IMAGES, *case.calibration.shape[1:]))
    ways = dict.fromkeys(processor_forms(model, quantised=False), model)
    ways |= dict.fromkeys(processor_forms(model, quantised=True), quantised)
    bound = {form: file.bind(case.channels, form=form) for form, file in ways.items()}
    seconds: dict[Form, list[float]] = {form: [] for form in ways}
    for _ in range(rounds + 1):  # the first warms up
        for form, one in bound.items():
            began = time.perf_counter()
            one.embed(images)
            seconds[form].append(time.perf_counter() - began)
    return {form: IMAGES / float(np.median(times[1:])) for form, times in seconds.items()}
