"""The forms in which networks can be run here."""

from __future__ import annotations

from chammi_fast.runtime import BACKENDS, Form, possible_forms


def processor_forms() -> list[Form]:
    """Return those on the processor, for files of floats and for quantised ones; threads are left to the backend."""
    wish = Form("auto", "cpu", "auto")
    return possible_forms(wish, BACKENDS, floating=True, quantised=True, fixed_size=True)
