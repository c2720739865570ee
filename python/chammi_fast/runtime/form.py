"""What may be chosen about running a network, and which choices this machine offers."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from chammi_fast.errors import BackendError
from chammi_fast.extras import require

if TYPE_CHECKING:
    from chammi_fast.runtime import Library

AUTO = "auto"
PRECISIONS = ("fp32", "bf16", "fp16", "int8")
GPU_BATCH = 128
_DEVICE = re.compile(r"cpu|cuda:\d{1,3}")


@dataclass(frozen=True)
class Form:
    """How a network is compiled and run.

    Attributes
    ----------
    backend : a key of `chammi_fast.runtime.BACKENDS`
    device : "cpu" or "cuda:0", "cuda:1", ...
    precision : "fp32", "bf16", "fp16"; "int8" for a quantised file
    threads : that a call uses, one per usable processor at most; 0 means as many as that
    streams : parts of a batch that are computed side by side, by one thread each; 0 leaves it to the backend
    fixed_batch : images that every call computes, filled up where there are fewer: on a GPU a part of what is
        compiled; 0 means any number
    """

    backend: str = "onnxruntime"
    device: str = "cpu"
    precision: str = "fp32"
    threads: int = 0
    streams: int = 0
    fixed_batch: int = 0

    def __str__(self) -> str:
        text = f"{self.backend} {self.precision} on {self.device}"
        if self.device != "cpu" or not self.threads:
            return text
        if self.streams > 1:
            return f"{text}, {self.streams} streams, {self.threads} threads"
        return f"{text}, {self.threads} thread{'s' if self.threads > 1 else ''}"


def possible_forms(
    wish: Form, libraries: dict[str, Library], *, floating: bool, quantised: bool, fixed_size: bool
) -> list[Form]:
    """List the forms that fulfil a wish on this machine, the likely fastest first.

    Nothing is opened for it: whether a device that a library knows really works shows when a network is opened.

    Parameters
    ----------
    wish : backend, device and precision may be "auto"; its `fixed_batch` is that of GPUs, 0 for a usual one
    libraries : those there are, `chammi_fast.runtime.BACKENDS`
    floating, quantised : whether there is a file of floats, and one of 8-bit integers
    fixed_size : whether all images are of one size

    Raises
    ------
    BackendError
        If there is none; it names what there is.
    MissingExtraError
        If the wished backend's package is not installed.
    """
    _check(wish, libraries)
    forms = []
    for name, library in libraries.items():
        if wish.backend not in (AUTO, name) or not _installed(library, wish) or not (fixed_size or library.any_size):
            continue
        for device in _devices(library, wish.device):
            forms += [
                replace(wish, backend=name, device=device, precision=precision)
                for precision in _precisions(library, device, floating=floating, quantised=quantised)
                if wish.precision in (AUTO, precision)
            ]
    if wish.streams > 1:
        forms = [form for form in forms if libraries[form.backend].streams]
    if not forms:
        raise BackendError(_nothing(wish, libraries, floating=floating, quantised=quantised))
    batch = (wish.fixed_batch or GPU_BATCH) if fixed_size else 0
    return [replace(form, fixed_batch=0 if form.device == "cpu" else batch) for form in forms]


def _check(wish: Form, libraries: dict[str, Library]) -> None:
    if wish.backend not in (AUTO, *libraries):
        raise BackendError(f"there is no backend '{wish.backend}': choose from auto, {', '.join(libraries)}.")
    if wish.precision not in (AUTO, *PRECISIONS):
        raise BackendError(f"there is no precision '{wish.precision}': choose from auto, {', '.join(PRECISIONS)}.")
    if wish.device != AUTO and not _DEVICE.fullmatch(wish.device):
        raise BackendError(f"there is no device '{wish.device}': choose from auto, cpu, cuda:0, cuda:1, ...")
    for number, what in ((wish.threads, "threads"), (wish.streams, "streams")):
        if number < 0:
            raise BackendError(f"the number of {what} must not be negative, and {number} is.")


def _installed(library: Library, wish: Form) -> bool:
    if wish.backend != AUTO:
        require(library.package, purpose="computing embeddings")
    return find_spec(library.package) is not None


def _devices(library: Library, wished: str) -> list[str]:
    """Devices of a library that fulfil a wish; a GPU comes first."""
    there = library.devices()
    return [name for name in (("cuda:0", "cpu") if wished == AUTO else (wished,)) if name in there]


def _precisions(library: Library, device: str, *, floating: bool, quantised: bool) -> list[str]:
    there = library.precisions(device)
    return [one for one in there if (quantised if one == "int8" else floating)]


def _nothing(wish: Form, libraries: dict[str, Library], *, floating: bool, quantised: bool) -> str:
    """Say why no form fulfils a wish, and what there is."""
    there = {name: library for name, library in libraries.items() if find_spec(library.package) is not None}
    if not there:
        return "there is no backend: pip install 'chammi-fast[cpu]' (or chammi-fast[gpu] for an NVIDIA GPU)."
    if wish.precision == "int8" and not quantised:
        return "precision int8 needs a quantised file beside the model: make it with chammi-fast quantize."
    if wish.precision not in (AUTO, "int8") and not floating:
        return f"precision {wish.precision} needs the file of floats that the quantised one was made from: name that."
    offers = []
    for name, library in there.items():
        offers += [f"{name} on {device} in {', '.join(library.precisions(device))}" for device in library.devices()]
    wished = ", ".join(
        f"{what} {value}"
        for what, value in (("backend", wish.backend), ("device", wish.device), ("precision", wish.precision))
        if value != AUTO
    )
    more = "" if wish.streams < 2 else f" with {wish.streams} streams, which {_with_streams(libraries)} alone has"
    gpu = wish.device.startswith("cuda") or wish.backend == "tensorrt"
    needs = ". A GPU needs chammi-fast[gpu] and a driver that shows it to this process (docs/gpu.md)" if gpu else ""
    return f"there is no {wished or 'backend'}{more} for this model here; there is {'; '.join(offers)}{needs}."


def _with_streams(libraries: dict[str, Library]) -> str:
    return " or ".join(name for name, library in libraries.items() if library.streams)


def describe(form: Form, version: str, isa: str) -> dict[str, Any]:
    """Return what decides the bits of an embedding, besides the model: what shares a run has to agree in it.

    Threads and streams are left out: each image is computed by itself, in the same order whoever does it.
    """
    said = asdict(form)
    del said["threads"], said["streams"]
    return said | {"backend_version": version, "isa": isa}
