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
    def nbytes(self) -> int:
        known = self.shape is not None and min(self.shape, default=1) >= 0
        return tensor_bytes(self.shape or (), self.dtype) if known else 0


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


class Graph(msgspec.Struct, frozen=True):
    """channel_axis: where the format keeps the channels of a four-dimensional tensor."""

    format: str
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    tensors: dict[str, Tensor]
    nodes: tuple[Node, ...]
    channel_axis: int
    opset: int | None = None

    def producers(self) -> dict[str, Node]:
        """The node that makes each tensor."""
        return {name: node for node in self.nodes for name in node.outputs}

    def consumers(self) -> dict[str, list[Node]]:
        found: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in node.inputs:
                found.setdefault(name, []).append(node)
        return found

    def moved_bytes(self, node: Node) -> int:
        """Bytes of all inputs (weights too) and outputs."""
        return sum(self.tensors[n].nbytes for n in (*node.inputs, *node.outputs) if n in self.tensors)
