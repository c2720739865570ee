"""Patterns of file names: a path with ``{well}``, ``{site}``, ``{channel}``, ``*``, or a regular expression."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from chammi_fast import files
from chammi_fast.errors import ManifestError
from chammi_fast.urls import as_path, relative

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_TOKEN = re.compile(r"\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)?\}|(?P<deep>\*\*/)|(?P<star>\*)")
_SHAPES = {
    "well": r"[A-Za-z]{1,2}[0-9]{1,3}|[rR][0-9]+[cC][0-9]+",
    "site": "[0-9]+",
    "field": "[0-9]+",
    "row": "[0-9]+|[A-Za-z]{1,2}",
    "column": "[0-9]+",
}
_REGEX = "(?P<"


@dataclass(frozen=True)
class Found:
    """A file whose name fits a pattern.

    Attributes
    ----------
    path : the file
    parts : what the pattern's names stand for in it
    """

    path: Path
    parts: dict[str, str]


@dataclass(frozen=True)
class Pattern:
    """A folder and what the names of files below it look like.

    Attributes
    ----------
    text : as the user wrote it
    root : the folder that is searched, with all folders below it
    regex : that a file's path relative to `root`, with ``/`` between its parts, must match as a whole
    """

    text: str
    root: Path
    regex: re.Pattern[str]

    @property
    def names(self) -> frozenset[str]:
        """Names that the pattern gives to parts of a path."""
        return frozenset(self.regex.groupindex)

    def scan(self) -> Iterator[Found]:
        """Find the files that fit, in the order of their paths.

        Raises
        ------
        ManifestError
            If the folder is not there.
        """
        for path in files_below(self.root):
            match = self.regex.fullmatch(relative(path, self.root))
            if match:
                yield Found(path, {name: value for name, value in match.groupdict().items() if value is not None})


def is_pattern(text: str) -> bool:
    """Whether a path has places to fill in, as opposed to naming one file or folder."""
    return _REGEX in text or _TOKEN.search(text) is not None


def pattern_of(text: str | Path, *, root: str | Path | None = None) -> Pattern:
    """Read a pattern.

    Parameters
    ----------
    text : a path in which ``{well}``, ``{site}`` and other names in braces stand for parts of names, ``{}`` and ``*``
        for anything within one name, and ``**/`` for any folders; or one with a regular expression's named groups.
        The folders before the first such part are searched.
    root : the folder that the pattern starts from

    Raises
    ------
    ManifestError
        If it is no valid regular expression.
    """
    text = str(text)
    parts = text.split("/")
    fixed = next((place for place, part in enumerate(parts) if is_pattern(part)), len(parts) - 1)
    folder = as_path("/".join(parts[:fixed]) or ("/" if text.startswith("/") else "."))
    rest = "/".join(parts[fixed:])
    try:
        regex = re.compile(rest if _REGEX in rest else _translate(rest))
    except re.error as error:
        raise ManifestError(f"pattern '{text}': is not a regular expression: {error}.") from None
    return Pattern(text=text, root=folder if root is None else as_path(root).joinpath(*folder.parts), regex=regex)


def files_below(folder: Path) -> list[Path]:
    """List all files in and below a folder, sorted.

    Raises
    ------
    ManifestError
        If there is no such folder.
    """
    if not folder.is_dir():
        raise ManifestError(f"{folder}: no such folder.")
    return files.files_below(folder)


def _translate(template: str) -> str:
    regex, end, seen = "", 0, set()
    for token in _TOKEN.finditer(template):
        regex += re.escape(template[end : token.start()])
        end = token.end()
        name = token["name"]
        if token["deep"]:
            regex += "(?:.*/)?"
        elif token["star"]:
            regex += "[^/]*"
        elif name is None:
            regex += "[^/]+?"
        elif name in seen:
            regex += f"(?P={name})"
        else:
            seen.add(name)
            regex += f"(?P<{name}>{_SHAPES.get(name, '[^/]+?')})"
    return regex + re.escape(template[end:])
