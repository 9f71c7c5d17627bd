"""Reads a .tflite or .onnx file, anybody's, as one plain graph: tensors, and operators in the order of the file."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType

import msgspec

from edgeport import confined, files
from edgeport.errors import ModelFileError
from edgeport.formats.graph import Axis, Graph, Node, Tensor

__all__ = ["Axis", "Graph", "Node", "Tensor", "read"]

# Of the child that reads a file: so much in any case, and so much for each byte of it.
FREE_SECONDS, BYTES_A_SECOND = 5.0, 10_000_000
FREE_MEMORY, MEMORY_A_BYTE = 400_000_000, 16
FREE_ANSWER, ANSWER_A_BYTE = 16_000_000, 16
READ, REFUSED = b"\x01", b"\x00"  # the first byte of its answer


def read(path: Path, shapes: Mapping[str, Sequence[int]] | None = None) -> Graph:
    """shapes: of inputs, by name, where the file leaves sizes open, and of any tensor that a runtime told; others
    follow from them where they can.

    It is read in a child process, since a file may make the libraries that read it crash, or take any amount of memory
    or time. Raises ModelFileError for a file that is missing, damaged, of another kind, or does so.
    """
    if not path.is_file():
        raise ModelFileError(f"there is no file {path}")
    try:
        limits = _limits(path.stat().st_size)
    except OSError as e:
        raise ModelFileError(f"cannot read {path}: {files.reason(e)}") from e
    reader = _reader(path)
    try:
        answer = confined.call(lambda: _answer(reader, path, shapes), limits)
    except confined.ConfinedError as e:
        raise ModelFileError(
            f"reading {path} was given up: {e}; what is written in it becomes far more than its size gives reason to "
            "expect, or it is damaged: export it again"
        ) from e
    if answer[:1] == REFUSED:
        raise ModelFileError(answer[1:].decode())
    return msgspec.msgpack.decode(memoryview(answer)[1:], type=Graph)


def _limits(size: int) -> confined.Limits:
    return confined.Limits(
        seconds=FREE_SECONDS + size / BYTES_A_SECOND,
        memory=FREE_MEMORY + MEMORY_A_BYTE * size,
        answer=FREE_ANSWER + ANSWER_A_BYTE * size,
    )


def _reader(path: Path) -> ModuleType:
    """Imported before the child begins, so that it is imported once."""
    if path.suffix.lower() == ".tflite":
        from edgeport.formats import tflite

        return tflite
    from edgeport.formats import onnx

    return onnx


def _answer(reader: ModuleType, path: Path, shapes: Mapping[str, Sequence[int]] | None) -> bytes:
    try:
        graph: Graph = reader.read(path, shapes)
        return READ + msgspec.msgpack.encode(graph)
    except ModelFileError as e:
        return REFUSED + str(e).encode(errors="backslashreplace")
