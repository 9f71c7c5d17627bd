"""Reads JSON documents that others may have written, within bounds. What is wrong with one is one kind of error."""

import re
from pathlib import Path
from typing import TypeVar

import msgspec

from edgeport import files

MOST_DEPTH = 64
_TOKENS = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)

Kind = TypeVar("Kind")


class DocumentError(ValueError):
    """A document that is not what it should be."""


def read(path: Path, kind: type[Kind], most_bytes: int = files.MOST_BYTES) -> Kind:
    """Raises OSError where there is no plain file of at most that size, DocumentError for what it holds."""
    return decoded(files.content(path, most_bytes), kind)


def decoded(data: bytes, kind: type[Kind]) -> Kind:
    """Raises DocumentError for what is no JSON, of another form, or nested so deep that nothing could follow it."""
    if _depth(data) > MOST_DEPTH:
        raise DocumentError(f"it is nested more than {MOST_DEPTH} deep")
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeError) as e:
        raise DocumentError(str(e)) from e


def _depth(data: bytes) -> int:
    deepest = depth = 0
    for token in _TOKENS.finditer(data):
        first = data[token.start()]
        if first in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif first in b"]}":
            depth -= 1
    return deepest
