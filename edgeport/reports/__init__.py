"""How results are shown: one format a file, as_<format>.py with render(results, view) -> str, found by its name.

A format's name has hyphens where its file's has underscores.
"""

import importlib
import pkgutil
from collections.abc import Sequence

import msgspec

from edgeport.errors import UsageError, nearest
from edgeport.records import Result

PREFIX = "as_"


class View(msgspec.Struct, frozen=True):
    """by: class, op or module; depth: of modules; top: the most operators to list (0: all); width: of the terminal."""

    by: str = "class"
    depth: int = 2
    top: int = 10
    width: int = 100


def format_names() -> list[str]:
    found = (m.name for m in pkgutil.iter_modules(__path__))
    return sorted(name.removeprefix(PREFIX).replace("_", "-") for name in found if name.startswith(PREFIX))


def check(format: str) -> None:
    """Raises UsageError for a format that there is not."""
    if format not in format_names():
        known = ", ".join(format_names())
        raise UsageError(f"unknown format {format!r}; there are {known}{nearest(format, format_names())}")


def render(results: Sequence[Result], format: str, view: View) -> str:
    check(format)
    module = importlib.import_module(f"{__name__}.{PREFIX}{format.replace('-', '_')}")
    return str(module.render(results, view))
