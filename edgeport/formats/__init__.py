"""Reads a .tflite or .onnx file, anybody's, as one plain graph: tensors, and operators in the order of the file."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from edgeport.errors import ModelFileError
from edgeport.formats.graph import Graph, Node, Tensor

__all__ = ["Graph", "Node", "Tensor", "read"]


def read(path: Path, input_shapes: Mapping[str, Sequence[int]] | None = None) -> Graph:
    """input_shapes: sizes by input name where the file leaves them open; shapes inside follow where they can.

    Raises ModelFileError for a file that is missing, damaged or of another kind.
    """
    if not path.is_file():
        raise ModelFileError(f"there is no file {path}")
    if path.suffix.lower() == ".tflite":
        from edgeport.formats import tflite

        return tflite.read(path)
    from edgeport.formats import onnx

    return onnx.read(path, input_shapes)
