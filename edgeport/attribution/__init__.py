"""From what a runtime's profiler says to what the network is made of: class, PyTorch module, cost."""

import re
from collections.abc import Callable, Sequence

import msgspec

from edgeport.attribution.classes import CLASS_NAMES, CLASSES, class_of, computes, plain
from edgeport.attribution.litert import EVENT_PATTERNS, align, attribute_litert
from edgeport.attribution.onnxruntime import attribute_onnxruntime, pair_with_optimized, shapes_that_ran
from edgeport.attribution.rows import Attributed, Row
from edgeport.attribution.shuffles import shuffling
from edgeport.formats.graph import Graph, Node
from edgeport.formats.names import layer_of
from edgeport.records import OpTime

__all__ = [
    "CLASSES",
    "CLASS_NAMES",
    "Attributed",
    "Modules",
    "Row",
    "align",
    "attribute",
    "attribute_litert",
    "attribute_onnxruntime",
    "class_of",
    "op_times",
    "pair_with_optimized",
    "plain",
    "shapes_that_ran",
    "shuffling",
]


Neighbours = Callable[[Node], list[Node]]


def attribute(rows: Sequence[Row], graph: Graph, optimized: Graph | None) -> list[Attributed]:
    """Each row with its operator and its module, in execution order.

    graph: the file; optimized: what ONNX Runtime made of it, None for LiteRT.
    """
    modules = Modules(graph)
    if graph.format == "tflite":
        attributed = attribute_litert(rows, graph)
    else:
        attributed = attribute_onnxruntime(rows, graph, optimized)
    return [msgspec.structs.replace(a, module=modules.of(a.node) if a.node else a.module) for a in attributed]


def op_times(rows: Sequence[Row], graph: Graph, optimized: Graph | None) -> tuple[OpTime, ...]:
    """The breakdown of one profile, in execution order; rows of the same operator of the file are added up.

    graph and optimized: as for attribute().
    """
    merged: dict[object, OpTime] = {}
    counted: set[int] = set()
    for n, item in enumerate(attribute(rows, graph, optimized)):
        op = item.row.op or (item.node.kind if item.node else item.row.name)
        key = (item.node.index, op) if item.node else n
        if key in merged:
            merged[key] = _with_times(merged[key], item.row)
        else:
            merged[key] = _op_time(item, op, graph, counted)
    return tuple(merged.values())


def _with_times(op: OpTime, row: Row) -> OpTime:
    """With those of another row of the same operator."""
    runs = tuple(a + b for a, b in zip(op.runs_us, row.runs_us, strict=True))
    return msgspec.structs.replace(op, us=op.us + row.us, runs_us=runs)


def _op_time(item: Attributed, op: str, graph: Graph, counted: set[int]) -> OpTime:
    """counted: nodes whose cost an earlier row has; an operator that ran as several rows costs once."""
    row, node = item.row, item.node
    first = node is not None and node.index not in counted
    if node is not None and (computes(op) or not node.madds):
        counted.add(node.index)
    else:
        first = False
    shape = row.outputs[0] if row.outputs else _shape(graph, node)
    return OpTime(
        name=row.name,
        op=op,
        class_="shuffle" if item.shuffle else _class(op, row),
        module=item.module,
        shape=shape,
        us=row.us,
        madds=node.madds if first and node else _other_madds(op, row, node),
        bytes=graph.moved_bytes(node) if first and node else row.moved_bytes,
        runs_us=row.runs_us,
    )


def _other_madds(op: str, row: Row, node: Node | None) -> int | None:
    """Of a row that no operator of the file stands for, or that another row of the same operator has counted."""
    return None if node is None and _class(op, row) in ("conv", "other") else 0


def _shape(graph: Graph, node: Node | None) -> tuple[int, ...]:
    tensor = graph.tensors.get(node.outputs[0]) if node and node.outputs else None
    return (tensor.shape or ()) if tensor else ()


def _class(op: str, row: Row) -> str:
    """By the operator's kind; for an event of a delegate that fits no operator, by the event's name."""
    if op != row.name:
        return class_of(op)
    kinds = (kind for kind, pattern in EVENT_PATTERNS.items() if re.search(pattern, row.name, re.IGNORECASE))
    return class_of(next(kinds, op))


class Modules:
    """The module of each node, or the layer: its own name in a file that tells no modules.

    One that only converts or moves data for others, and tells none, has its neighbour's: first of those that read what
    it makes, then of those that make what it reads, however many of its kind stand between.
    """

    def __init__(self, graph: Graph) -> None:
        self.consumers, self.producers = graph.consumers(), graph.producers()
        ways = ((self._readers, self._makers), (self._makers, self._readers))
        self.nearest = [_nearest(graph.nodes, ahead, back) for ahead, back in ways]

    def of(self, node: Node) -> str | None:
        if node.module is not None:
            return node.module
        if class_of(node.kind) == "data":
            for modules in self.nearest:
                if node.index in modules:
                    return modules[node.index]
        return layer_of(node.name) or None

    def _readers(self, node: Node) -> list[Node]:
        return [reader for name in node.outputs for reader in self.consumers.get(name, [])]

    def _makers(self, node: Node) -> list[Node]:
        return [self.producers[name] for name in node.inputs if name in self.producers]


def _nearest(nodes: Sequence[Node], ahead: Neighbours, back: Neighbours) -> dict[int, str]:
    """The module of each node by index: its own; of one that only converts or moves data that of the nearest node ahead
    which has one, the first of those at the same distance. All are found in one sweep from the nodes with modules.
    """
    modules = {node.index: node.module for node in nodes if node.module is not None}
    front = {node.index: node for node in nodes if node.index in modules}
    while front:
        behind = (n for node in front.values() for n in back(node))
        reached = {n.index: n for n in behind if n.index not in modules and class_of(n.kind) == "data"}
        first = {index: next((a.index for a in ahead(n) if a.index in front), None) for index, n in reached.items()}
        modules |= {index: modules[near] for index, near in first.items() if near is not None}
        front = {index: n for index, n in reached.items() if index in modules}
    return modules
