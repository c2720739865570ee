"""What of a run takes how much of the time, and what would make it faster."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chammi_fast.benchmarking.stages import Kind
    from chammi_fast.runtime.choice import Candidate

STAGES = ("decode", "preprocess", "network")


@dataclass(frozen=True)
class Seconds:
    """What one image takes by itself, with all processors.

    Attributes
    ----------
    read : the first time, from wherever the files lie; while a run reads, it computes
    decode : from the system's cache into planes
    stream : decode, and all else until it stands in a batch
    network : the network alone
    """

    read: float
    decode: float
    stream: float
    network: float

    @property
    def work(self) -> dict[str, float]:
        """Return stage -> what it adds."""
        # Decoding alone goes through a pool of Python's threads, and may seem slower than the stream it is a part of.
        decode = min(self.decode, self.stream)
        return {"decode": decode, "preprocess": self.stream - decode, "network": self.network}

    @property
    def shares(self) -> dict[str, float]:
        """Return stage -> its share of the work."""
        work = self.work
        return {stage: taken / sum(work.values()) for stage, taken in work.items()}


@dataclass(frozen=True)
class Limit:
    """The stage that decides how fast a run is.

    Attributes
    ----------
    stage : "storage", or one of `STAGES`
    share : of the work; of storage, how many times as long as all the work it takes
    advice : what would help: one sentence
    """

    stage: str
    share: float
    advice: str


def find_limit(
    seconds: Sequence[Seconds], kinds: Sequence[Kind], tried: Sequence[Candidate], taken: Candidate
) -> Limit:
    """Tell what limits a run over some sets of images, one of each kind counting as much as one of another."""
    totals = {stage: sum(one.work[stage] for one in seconds) for stage in STAGES}
    work, read = sum(totals.values()), sum(one.read for one in seconds)
    if read > work:
        return Limit(
            "storage", read / work, "The files come too slowly: a faster disk, or a copy nearer by, would help."
        )
    stage = max(STAGES, key=lambda stage: totals[stage])
    advice = {
        "decode": _of_decoding(kinds),
        "preprocess": _of_preprocessing(kinds),
        "network": _of_network(tried, taken),
    }
    return Limit(stage, totals[stage] / work, advice[stage])


def _of_decoding(kinds: Sequence[Kind]) -> str:
    if any(kind.format == "other" for kind in kinds):
        return (
            "Some files are of a kind that the core leaves to slower libraries: save them as ZSTD or LZW TIFF, or PNG."
        )
    packed = sorted({f"{kind.compression} {kind.format.upper()}" for kind in kinds if kind.compression != "none"})
    if packed:
        return (
            f"Unpacking {' and '.join(packed)} takes most: uncompressed or ZSTD TIFF, or more processors, would help."
        )
    return "The files are large and not compressed: more processors would help."


def _of_preprocessing(kinds: Sequence[Kind]) -> str:
    largest = max(kinds, key=lambda kind: kind.height * kind.width)
    size = f"{largest.height} x {largest.width}"
    return f"Resizing planes of {size} takes most: smaller images, or more processors, would help."


def _of_network(tried: Sequence[Candidate], taken: Candidate) -> str:
    if taken.form.device != "cpu":
        return "The network takes most: a smaller one, or a faster GPU, would help."
    backends = {one.form.backend for one in tried}
    if "openvino" not in backends:
        return "The network takes most: OpenVINO (chammi-fast[cpu] on x86-64), or a GPU, would help."
    if not any(one.form.precision == "int8" for one in tried):
        return "The network takes most: a quantised file (chammi-fast quantize), more processors, or a GPU would help."
    return "The network takes most: more processors, a GPU, or a smaller network would help."
