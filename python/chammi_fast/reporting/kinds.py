"""Give labels and batches their colours: the most frequent ones have their own, the others share one."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

from chammi_fast.reporting import drawing

if TYPE_CHECKING:
    from collections.abc import Iterable

UNKNOWN = "(none)"


@dataclass(frozen=True)
class Kinds:
    """The kinds that a drawing tells apart.

    Attributes
    ----------
    names : those with a colour of their own, in natural order (P2 before P10)
    others : how many kinds share the last colour
    """

    names: tuple[str, ...]
    others: int = 0

    @classmethod
    def of(cls, values: Iterable[str]) -> Self:
        """Choose the kinds to tell apart; an empty value is a kind, too."""
        counts = Counter(str(value) or UNKNOWN for value in values)
        kept = sorted(counts, key=lambda name: (-counts[name], name))
        if len(kept) > drawing.KINDS:
            kept = kept[: drawing.KINDS - 1]
        return cls(tuple(sorted(kept, key=natural)), len(counts) - len(kept))

    @property
    def shown(self) -> list[str]:
        """Names for a legend."""
        return [*self.names, *([f"{self.others} others"] if self.others else [])]

    @property
    def looks(self) -> list[tuple[str, str]]:
        """Colour and marker of each entry of the legend."""
        own = [drawing.kind_style(place) for place in range(len(self.names))]
        return [*own, *([(drawing.OTHER, "o")] if self.others else [])]

    def places(self, values: Iterable[str]) -> np.ndarray:
        """(N,) int64 entry of the legend of each value."""
        known = {name: place for place, name in enumerate(self.names)}
        return np.array([known.get(str(value) or UNKNOWN, len(known)) for value in values], dtype=np.int64)


def natural(text: str) -> list[tuple[int, int, str]]:
    """Return a sort key under which numbers within a text count as numbers."""
    parts = re.split(r"(\d+)", text.lower())
    return [(1, int(part), "") if part.isdecimal() else (0, 0, part) for part in parts]
