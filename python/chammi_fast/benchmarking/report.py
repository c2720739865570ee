"""What `chammi_fast.benchmarking.bench` found."""

from __future__ import annotations

import contextlib
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any

from chammi_fast.runtime.memory import LIBRARIES, machine

if TYPE_CHECKING:
    from pathlib import Path

    from chammi_fast.benchmarking.limits import Limit, Seconds
    from chammi_fast.benchmarking.stages import Kind
    from chammi_fast.benchmarking.whole_run import WholeRun
    from chammi_fast.runtime.choice import Candidate

FORMAT_VERSION = 1


@dataclass(frozen=True)
class SetReport:
    """What was measured of one set of images.

    Attributes
    ----------
    name, rows : of the table
    images, failed : that were measured, and those that could not be read
    channels : how many
    kind : of the first image
    seconds : of each stage by itself
    whole : run of `chammi_fast.embed`
    """

    name: str
    rows: int
    images: int
    failed: int
    channels: int
    kind: Kind
    seconds: Seconds
    whole: WholeRun

    def to_json(self) -> dict[str, Any]:
        """Return builtin types: rates in images per second."""
        seconds, whole = self.seconds, self.whole
        return {
            "name": self.name,
            "rows": self.rows,
            "images": self.images,
            "failed": self.failed,
            "channels": self.channels,
            "kind": asdict(self.kind),
            "images_per_s": {
                "read": 1 / seconds.read,
                "decode": 1 / seconds.decode,
                "stream": 1 / seconds.stream,
                "network": 1 / seconds.network,
                "whole": 1 / whole.seconds_per_image,
            },
            "share": seconds.shares,
            "whole_run": {"images": whole.images, "first_s": whole.first_s, "peak_bytes": whole.peak_bytes},
        }


@dataclass(frozen=True)
class SearchRate:
    """Queries per second of an exact search for the nearest of so many vectors."""

    vectors: int
    dimensions: int
    queries_per_s: float


@dataclass(frozen=True)
class BenchReport:
    """What was measured.

    Attributes
    ----------
    model, model_sha256 : the file that was named
    synthetic : whether the images are painted ones
    sets : one per data set
    tried : the forms that are possible here, timed on images of the first set
    taken : that of the whole runs: the fastest that is near enough to float32
    search : None where Faiss is not installed
    limit : what decides how fast a run is
    """

    model: Path
    model_sha256: str
    synthetic: bool
    sets: tuple[SetReport, ...]
    tried: tuple[Candidate, ...]
    taken: Candidate
    search: SearchRate | None
    limit: Limit

    def to_json(self) -> dict[str, Any]:
        """Return the document that docs/bench.md describes: builtin types only."""
        return {
            "format_version": FORMAT_VERSION,
            "model": {"file": self.model.name, "sha256": self.model_sha256},
            "machine": machine() | {"gpus": list(machine()["gpus"])},
            "versions": _versions(),
            "synthetic": self.synthetic,
            "data_sets": [one.to_json() for one in self.sets],
            "networks": [self._network(one) for one in self.tried],
            "search": None if self.search is None else asdict(self.search),
            "limit": asdict(self.limit),
        }

    def _network(self, one: Candidate) -> dict[str, Any]:
        form, accuracy = one.form, one.accuracy
        return {
            "backend": form.backend,
            "device": form.device,
            "precision": form.precision,
            "threads": form.threads,
            "streams": form.streams,
            "images_per_s": one.images_per_s or None,
            "worst_cosine": None if accuracy is None else accuracy.worst,
            "mean_cosine": None if accuracy is None else accuracy.mean,
            "fault": one.fault,
            "taken": one == self.taken,
        }


def _versions() -> dict[str, str]:
    found = {}
    for name in LIBRARIES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found
