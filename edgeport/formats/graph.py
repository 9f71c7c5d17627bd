"""The plain graph that every format is read into."""

import msgspec

from edgeport.cost import tensor_bytes
from edgeport.records import Quantization, TensorInfo


class Tensor(msgspec.Struct, frozen=True):
    """shape: sizes, -1 where the file leaves one open; None where the file does not tell."""

    name: str
    shape: tuple[int, ...] | None
    dtype: str
    constant: bool = False
    quantization: Quantization | None = None

    @property
    def nbytes(self) -> int | None:
        """None where its shape or the size of its elements is not known."""
        known = self.shape is not None and min(self.shape, default=1) >= 0
        return tensor_bytes(self.shape or (), self.dtype) if known else None


class Node(msgspec.Struct, frozen=True):
    """An operator. kind: the format's own name for it. custom: not of the format, but of whoever made the file.
    module: see formats.names. madds: None where unknown.

    permutation, axis and indices are set where the operator has them and they are constant: those of a transpose, and
    of an operator that moves whole slices along one axis.
    """

    index: int
    kind: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    module: str | None
    custom: bool = False
    madds: int | None = 0
    permutation: tuple[int, ...] | None = None
    axis: int | None = None
    indices: tuple[int, ...] | None = None


class Axis(msgspec.Struct, frozen=True):
    """An axis of an input whose size the file leaves open. name: what the file calls its size, "" if nothing. stored:
    the size that a TFLite file keeps beside, 1 as a rule; 0 where there is none.
    """

    position: int
    name: str = ""
    stored: int = 0


class Graph(msgspec.Struct, frozen=True):
    """channel_axis: where the format keeps the channels of a four-dimensional tensor. open_axes: by input, of those
    that have any.
    """

    format: str
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    tensors: dict[str, Tensor]
    nodes: tuple[Node, ...]
    channel_axis: int
    opset: int | None = None
    open_axes: dict[str, tuple[Axis, ...]] = {}

    def producers(self) -> dict[str, Node]:
        """The node that makes each tensor."""
        return {name: node for node in self.nodes for name in node.outputs}

    def consumers(self) -> dict[str, list[Node]]:
        found: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in node.inputs:
                found.setdefault(name, []).append(node)
        return found

    def moved_bytes(self, node: Node) -> int | None:
        """Bytes of all inputs (weights too) and outputs; None where one of them is not known."""
        tensors = [self.tensors.get(name) for name in (*node.inputs, *node.outputs)]
        sizes = [tensor.nbytes for tensor in tensors if tensor is not None]
        known = [size for size in sizes if size is not None]
        return sum(known) if len(known) == len(tensors) else None
