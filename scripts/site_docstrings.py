"""Docstrings as this package writes them, made readable for mkdocstrings.

Types stand in the signatures, so docstrings say ``name : what it is`` where numpydoc has ``name : type``, and what is
returned in a sentence.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

PROSE = re.compile(r"^(Returns|Yields)\n-+\n(.*?)(?:\n\n(?=\S)|\Z)", re.MULTILINE | re.DOTALL)
FIELDS = re.compile(r"^(?:Parameters|Attributes)\n-+\n(.*?)(?=\n\n\S|\Z)", re.MULTILINE | re.DOTALL)
FIELD = re.compile(r"^(\w+(?:, \w+)*) : (.*)$", re.MULTILINE)
SECTION = re.compile(r"^\w+\n-{3,}$|\Z", re.MULTILINE)


class Sentences(griffe.Extension):
    """Rewrites docstrings before they are parsed."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite one object's."""
        if obj.docstring is not None:
            obj.docstring.value = readable(obj.docstring.value)


def readable(text: str) -> str:
    """Put what each field is on a line of its own, and what is returned before the sections, as prose."""
    returned = "".join(f"**{found[1]}:** {found[2]}\n\n" for found in PROSE.finditer(text))
    text = FIELDS.sub(lambda section: FIELD.sub(r"\1\n    \2", section[0]), PROSE.sub("", text))
    return SECTION.sub(lambda first: f"\n\n{returned}{first[0]}", text, count=1) if returned else text
