"""ONNX Runtime: nodes of the graph that it optimised against the file's operators, by every name that survives."""

import re
from collections.abc import Sequence

import msgspec

from edgeport.attribution.classes import class_of, computes, plain
from edgeport.attribution.rows import Attributed, Row
from edgeport.attribution.shuffles import shuffling
from edgeport.formats.graph import Graph, Node, Tensor

_SUFFIX = re.compile(
    r"(_nchwc|_token_\d+|_QuantizeLinear|_DequantizeLinear|_quant|_Output|_scale|_zero_point|/duplicated)+$"
)
_WEIGHT_SUFFIX = re.compile(r"(_quantized|_scale|_zero_point|_DequantizeLinear|_Output)+$")
_PRODUCTS = {"conv", "matmul", "gemm", "convtranspose"}


def attribute_onnxruntime(rows: Sequence[Row], graph: Graph, optimized: Graph | None) -> list[Attributed]:
    """Each executed node's own names are looked up in the file; layout changes go to the operator that they serve."""
    index = _Names(graph)
    executed = _pair_with_optimized(rows, optimized)
    shuffle = shuffling(_with_shapes(optimized, rows, executed)) if optimized else set()
    found = [index.look_up(row, node) for row, node in zip(rows, executed, strict=True)]
    by_output = {o: f for node, f in zip(executed, found, strict=True) if node and f for o in node.outputs}
    by_input = {i: f for node, f in zip(executed, found, strict=True) if node and f for i in node.inputs}
    for k, node in enumerate(executed):
        if found[k] is None and node is not None:
            makers, readers = [by_output.get(i) for i in node.inputs], [by_input.get(o) for o in node.outputs]
            neighbours = readers + makers if node.kind == "ReorderInput" else makers + readers
            found[k] = next((f for f in neighbours if f), None)
    # ONNX Runtime may have turned the axes of what it runs; the file's own operators tell where the channels are.
    cutting = shuffling(graph)
    shuffles = [
        (node is not None and node.index in shuffle)
        or (class_of(row.op) == "data" and f is not None and f.index in cutting)
        for row, node, f in zip(rows, executed, found, strict=True)
    ]
    return [Attributed(*item) for item in zip(rows, found, shuffles, strict=True)]


def _with_shapes(graph: Graph, rows: Sequence[Row], executed: Sequence[Node | None]) -> Graph:
    """The optimised graph, which tells few shapes, with those that the profile saw."""
    tensors = dict(graph.tensors)
    for row, node in zip(rows, executed, strict=True):
        for name, shape in zip(node.outputs if node else (), row.outputs, strict=False):
            known = tensors.get(name)
            tensors[name] = Tensor(name, shape, known.dtype if known else "")
    return msgspec.structs.replace(graph, tensors=tensors)


def _pair_with_optimized(rows: Sequence[Row], optimized: Graph | None) -> list[Node | None]:
    """By name and kind; those that share both are paired in order."""
    waiting: dict[tuple[str, str], list[Node]] = {}
    for node in optimized.nodes if optimized else ():
        waiting.setdefault((node.name, node.kind), []).append(node)
    return [(waiting.get((row.name, row.op)) or [None]).pop(0) for row in rows]  # type: ignore[list-item]


class _Names:
    """Every name in the file that leads to one operator."""

    def __init__(self, graph: Graph) -> None:
        self.producers = graph.producers()
        self.nodes: dict[str, Node] = {}
        for node in graph.nodes:
            self.nodes.setdefault(node.name, node)
        self.readers: dict[str, Node] = {}
        for node in graph.nodes:
            for name in node.inputs:
                if graph.tensors.get(name) is not None and graph.tensors[name].constant:
                    self.readers.setdefault(_WEIGHT_SUFFIX.sub("", name), node)

    def look_up(self, row: Row, executed: Node | None) -> Node | None:
        names = [row.name, *(executed.outputs if executed else ())]
        stems = [_SUFFIX.sub("", name) for name in names]
        for name in (*names, *stems):
            found = self.nodes.get(name) or self.producers.get(name)
            if found is not None:
                return self._product(found) if computes(row.op) else found
        weights = [_WEIGHT_SUFFIX.sub("", name) for name in (executed.inputs if executed else ())]
        for name in weights if computes(row.op) else ():
            reader = self.readers.get(name)
            if reader is not None:
                return self._product(reader, forwards=False)
        return None

    def _product(self, node: Node, forwards: bool = True) -> Node:
        """The convolution or product behind a name that belongs to the activation fused into it."""
        seen = node
        for _ in range(4):
            if plain(seen.kind) in _PRODUCTS or not forwards:
                return seen
            makers = [m for m in (self.producers.get(name) for name in seen.inputs) if m is not None]
            products = [m for m in makers if plain(m.kind) in _PRODUCTS]
            if not makers:
                return node
            seen = (products or makers)[0]
        return seen if plain(seen.kind) in _PRODUCTS else node
