"""Reads a .tflite or .onnx file, anybody's, as one plain graph: tensors, and operators in the order of the file."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from edgeport.errors import ModelFileError
from edgeport.formats.graph import Axis, Graph, Node, Tensor

__all__ = ["Axis", "Graph", "Node", "Tensor", "read"]


def read(path: Path, shapes: Mapping[str, Sequence[int]] | None = None) -> Graph:
    """shapes: of inputs, by name, where the file leaves sizes open, and of any tensor that a runtime told; others
    follow from them where they can.

    Raises ModelFileError for a file that is missing, damaged or of another kind.
    """
    if not path.is_file():
        raise ModelFileError(f"there is no file {path}")
    if path.suffix.lower() == ".tflite":
        from edgeport.formats import tflite

        return tflite.read(path, shapes)
    from edgeport.formats import onnx

    return onnx.read(path, shapes)
