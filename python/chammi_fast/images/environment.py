"""Let environment variables force which of several equal implementations the core uses, for tests and comparisons."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from chammi_fast import _core
from chammi_fast.errors import BackendError

if TYPE_CHECKING:
    from collections.abc import Callable


def apply_environment() -> None:
    """Obey CHAMMI_FAST_ISA (scalar, avx2, avx512) and CHAMMI_FAST_INFLATE (isal, libdeflate) where they are set.

    Raises
    ------
    BackendError
        If a value is unknown, or is not available in this build or on this processor.
    """
    _choose("CHAMMI_FAST_ISA", _core.use_isa, "scalar, avx2 or avx512")
    _choose("CHAMMI_FAST_INFLATE", _core.use_inflate, "isal or libdeflate")


def _choose(variable: str, use: Callable[[str], str], names: str) -> None:
    wanted = os.environ.get(variable)
    if wanted is None:
        return
    outcome = use(wanted)
    if outcome == "unknown":
        raise BackendError(f"{variable}={wanted} is unknown: it can be {names}.")
    if outcome == "absent":
        raise BackendError(f"{variable}={wanted} is not available on this machine or in this build.")
