"""ONNX Runtime: nodes of the graph that it optimised against the file's operators, by every name that survives."""

import re
from collections import deque
from collections.abc import Sequence

import msgspec

from edgeport.attribution.classes import class_of, computes, plain
from edgeport.attribution.rows import Attributed, Row
from edgeport.attribution.shuffles import shuffling
from edgeport.formats.graph import Graph, Node, Tensor

# What ONNX Runtime and quantizers put behind names, in any number. They are looked for from the end, in reversed names:
# a pattern that had to end with the name would be tried from each of its characters.
_SUFFIXES = [
    "_nchwc",
    "_QuantizeLinear",
    "_DequantizeLinear",
    "_quant",
    "_Output",
    "_scale",
    "_zero_point",
    "/duplicated",
]
_WEIGHT_SUFFIXES = ["_quantized", "_scale", "_zero_point", "_DequantizeLinear", "_Output"]
_BEHIND = re.compile("(?:{}|[0-9]+_nekot_)+".format("|".join(suffix[::-1] for suffix in _SUFFIXES)))
_BEHIND_WEIGHTS = re.compile("(?:{})+".format("|".join(suffix[::-1] for suffix in _WEIGHT_SUFFIXES)))
_PRODUCTS = {"conv", "matmul", "gemm", "convtranspose"}


def attribute_onnxruntime(rows: Sequence[Row], graph: Graph, optimized: Graph | None) -> list[Attributed]:
    """Each executed node's own names are looked up in the file; those of which no name is left are told by what they
    stand between.
    """
    index = _Names(graph)
    executed = pair_with_optimized(rows, optimized)
    shuffle = shuffling(_with_shapes(optimized, rows, executed)) if optimized else set()
    found = [index.look_up(row, node) for row, node in zip(rows, executed, strict=True)]
    _Surroundings(graph, executed, found).fill_in()
    # ONNX Runtime may have turned the axes of what it runs; the file's own operators tell where the channels are.
    cutting = shuffling(graph)
    shuffles = [
        (node is not None and node.index in shuffle)
        or (class_of(row.op) == "data" and f is not None and f.index in cutting)
        for row, node, f in zip(rows, executed, found, strict=True)
    ]
    return [Attributed(*item) for item in zip(rows, found, shuffles, strict=True)]


class _Surroundings:
    """Tells the operators of executed nodes from those of the nodes around them.

    found: the operator of each executed node, None where no name leads to one.
    """

    def __init__(self, graph: Graph, executed: Sequence[Node | None], found: list[Node | None]) -> None:
        self.executed, self.found = executed, found
        self.producers = graph.producers()
        self.claimed = {node.index for node in found if node is not None}
        self.makers = {name: k for k, node in enumerate(executed) if node for name in node.outputs}
        self.readers: dict[str, list[int]] = {}
        for k, node in enumerate(executed):
            for name in node.inputs if node else ():
                self.readers.setdefault(name, []).append(k)

    def fill_in(self) -> None:
        """First what computes, from the end: it belongs to what its readers read in the file. Then what moves data or
        changes its layout, which belongs to a node beside it.
        """
        inferred: dict[int, Node] = {}
        for k in reversed(range(len(self.executed))):
            if self.found[k] is None and self._is_lost(k):
                operator = self._behind(k, inferred)
                if operator is not None:
                    self.found[k] = inferred[k] = operator
        for order in (range(len(self.executed)), reversed(range(len(self.executed)))):
            for k in order:
                if self.found[k] is None:
                    self.found[k] = self._beside(k)

    def _is_lost(self, k: int) -> bool:
        node = self.executed[k]
        return node is not None and class_of(node.kind) != "data"

    def _behind(self, k: int, inferred: dict[int, Node]) -> Node | None:
        """The operator of the file that makes what the node's readers read, and that no other node is known to run."""
        for reader in self._readers(k):
            if reader in inferred:
                return inferred[reader]
            operator = self.found[reader]
            if operator is not None and self._is_part(reader, operator):
                return operator
            makers = [self.producers.get(name) for name in (operator.inputs if operator else ())]
            for maker in makers:
                if maker is not None and maker.index not in self.claimed:
                    return maker
        return None

    def _is_part(self, k: int, operator: Node) -> bool:
        """Whether the executed node is one of several that an operator was taken apart into."""
        node = self.executed[k]
        kind = plain(node.kind).removeprefix("qlinear") if node else ""
        return class_of(kind) == "elemwise" and kind != plain(operator.kind)

    def _beside(self, k: int) -> Node | None:
        node = self.executed[k]
        if node is None:
            return None
        makers = [self.found[self.makers[name]] for name in node.inputs if name in self.makers]
        readers = [self.found[reader] for reader in self._readers(k)]
        neighbours = readers + makers if node.kind == "ReorderInput" else makers + readers
        return next((f for f in neighbours if f), None)

    def _readers(self, k: int) -> list[int]:
        node = self.executed[k]
        return [reader for name in (node.outputs if node else ()) for reader in self.readers.get(name, [])]


def _with_shapes(graph: Graph, rows: Sequence[Row], executed: Sequence[Node | None]) -> Graph:
    """The optimised graph, which tells few shapes, with those that the profile saw."""
    tensors = dict(graph.tensors)
    for row, node in zip(rows, executed, strict=True):
        for name, shape in zip(node.outputs if node else (), row.outputs, strict=False):
            known = tensors.get(name)
            tensors[name] = Tensor(name, shape, known.dtype if known else "")
    return msgspec.structs.replace(graph, tensors=tensors)


def shapes_that_ran(rows: Sequence[Row], optimized: Graph | None) -> dict[str, tuple[int, ...]]:
    """By tensor, those that the profile saw, of tensors that ONNX Runtime's own graph still has by their name."""
    executed = pair_with_optimized(rows, optimized)
    pairs = ((node, row) for node, row in zip(executed, rows, strict=True) if node)
    return {name: shape for node, row in pairs for name, shape in zip(node.outputs, row.outputs, strict=False)}


def pair_with_optimized(rows: Sequence[Row], optimized: Graph | None) -> list[Node | None]:
    """By name and kind; those that share both are paired in order. ONNX Runtime's profiler makes up names for nodes
    that have none.
    """
    waiting: dict[tuple[str, str], deque[Node]] = {}
    known = {row.name for row in rows}
    for node in optimized.nodes if optimized else ():
        # A node without a name is known here by what it makes, as in every format.
        name = "" if node.name in node.outputs and node.name not in known else node.name
        waiting.setdefault((name, node.kind), deque()).append(node)
    pairs: list[Node | None] = []
    for row in rows:
        nodes = waiting.get((row.name, row.op)) or waiting.get(("", row.op))
        pairs.append(nodes.popleft() if nodes else None)
    return pairs


def _stem(name: str, behind: re.Pattern[str]) -> str:
    """The name without what was put behind it."""
    found = behind.match(name[::-1])
    return name[: len(name) - found.end()] if found else name


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
                    self.readers.setdefault(_stem(name, _BEHIND_WEIGHTS), node)

    def look_up(self, row: Row, executed: Node | None) -> Node | None:
        names = [row.name, *(executed.outputs if executed else ())]
        stems = [_stem(name, _BEHIND) for name in names]
        for name in (*names, *stems):
            found = self.nodes.get(name) or self.producers.get(name)
            if found is not None:
                return self._product(found) if computes(row.op) else found
        weights = [_stem(name, _BEHIND_WEIGHTS) for name in (executed.inputs if executed else ())]
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
