"""LiteRT: XNNPACK's events, in order, against the file's operators in order."""

import heapq
import re
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import msgspec
import numpy as np

from edgeport.attribution.classes import plain
from edgeport.attribution.rows import Attributed, Row
from edgeport.attribution.shuffles import shuffling
from edgeport.formats.graph import Graph, Node

EVENT_PATTERNS = {
    "conv2d": r"Convolution|Fully Connected|DWConv",
    "depthwiseconv2d": r"DWConv|Convolution",
    "fullyconnected": r"Fully Connected",
    "transposeconv": r"Deconvolution|Subconv",
    "batchmatmul": r"Batch Matrix Multiply|Fully Connected",
    "concatenation": r"Copy|Concat",
    "split": r"Split|Slice|Copy",
    "slice": r"Slice",
    "stridedslice": r"Slice",
    "pack": r"Copy|Concat|Reshape",
    "mean": r"Mean|Global Average Pooling|Sum|Reduce",
    "sum": r"Sum|Reduce",
    "averagepool2d": r"Average Pooling",
    "maxpool2d": r"Max Pooling",
    "pad": r"Pad",
    "padv2": r"Pad",
    "transpose": r"Transpose",
    "reshape": r"Reshape|Copy",
    "squeeze": r"Reshape|Copy",
    "expanddims": r"Reshape|Copy",
    "quantize": r"Convert",
    "dequantize": r"Convert",
    "cast": r"Convert",
    "relu": r"Clamp|Relu",
    "relu6": r"Clamp|Relu",
    "relun1to1": r"Clamp|Relu",
    "logistic": r"Sigmoid",
    "hardswish": r"HardSwish|Hard Swish",
    "leakyrelu": r"Leaky",
    "prelu": r"PReLU|Leaky",
    "mul": r"Multiply",
    "add": r"Add",
    "sub": r"Subtract",
    "div": r"Divide",
    "resizebilinear": r"Resize",
    "softmax": r"Softmax",
    "neg": r"Neg",
    "square": r"Square",
    "spacetodepth": r"Space",
    "depthtospace": r"Depth",
    "rsqrt": r"Reciprocal Square Root",
    "sqrt": r"Square Root",
    "squareddifference": r"Squared Difference",
    "exp": r"Exp",
    "log": r"Log",
    "abs": r"Abs",
    "elu": r"ELU",
    "gelu": r"GELU",
    "tanh": r"Tanh|Hyperbolic",
    "maximum": r"Maximum",
    "minimum": r"Minimum",
}
# What XNNPACK calls functions of one tensor that it computes from a table, as it does in eight bits.
UNNAMED_UNARY = "Invalid Unary Op"
FUSED_ACTIVATIONS = ("Clamp", UNNAMED_UNARY)
UNARY = """
    abs ceil cos elu exp floor gelu hardswish leakyrelu log logistic neg round rsqrt sign sin sqrt square tanh
"""
# Kinds that XNNPACK may leave out: folded into a neighbour, or nothing to do.
_ELIDED = {"pad", "reshape", "squeeze", "expanddims", "quantize", "dequantize", "relu", "relu6", "densify", "transpose"}
MOST_PAIRS = 30_000_000  # of an operator and an event
_SKIP_ELIDED, _SKIP_OTHER, _SKIP_EVENT, _EXTRA_EVENT = 1.0, 8.0, 6.0, 0.5


def attribute_litert(rows: Sequence[Row], graph: Graph) -> list[Attributed]:
    """Rows that LiteRT ran itself carry the operator's index; XNNPACK's are aligned by order and kind."""
    own = {row.index for row in rows if row.source == "runtime"}
    events = [row for row in rows if row.source == "delegate"]
    nodes = [graph.nodes[i] for i in _execution_order(graph, own) if i not in own]
    matched = align([e.name for e in events], [plain(n.kind) for n in nodes], [_most_events(n) for n in nodes])
    made = {id(event): nodes[m] if m is not None else None for event, m in zip(events, matched, strict=True)}
    shuffle = shuffling(graph)
    attributed = []
    for row in rows:
        node = made.get(id(row))
        if row.source == "runtime" and row.index < len(graph.nodes):
            node = graph.nodes[row.index]
        attributed.append(Attributed(row, node, node is not None and node.index in shuffle))
    return _with_gaps_filled(attributed)


def _with_gaps_filled(attributed: Sequence[Attributed]) -> list[Attributed]:
    """Events that fit no operator: a function of one tensor is the activation fused into the operator before, a
    reshape right before a product belongs to that, and others between operators of one module are that module's.
    """
    nodes = [item.node for item in attributed]
    around = zip(attributed, _last_known(nodes), _last_known(nodes[::-1])[::-1], strict=True)
    return [item if item.node else _filled(item, *nodes) for item, *nodes in around]


def _last_known(nodes: Sequence[Node | None]) -> list[Node | None]:
    """At each place the nearest node up to it."""
    known: list[Node | None] = []
    for node in nodes:
        known.append(node or (known[-1] if known else None))
    return known


def _filled(item: Attributed, before: Node | None, behind: Node | None) -> Attributed:
    if before and any(name in item.row.name for name in FUSED_ACTIVATIONS):
        return msgspec.structs.replace(item, node=before)
    if behind and (_prepares(item.row, behind) or (before and before.module == behind.module)):
        return msgspec.structs.replace(item, module=behind.module)
    return item


def _prepares(row: Row, node: Node) -> bool:
    return "Reshape" in row.name and plain(node.kind) in ("fullyconnected", "batchmatmul")


def _most_events(node: Node) -> int:
    """How many events one operator may give: a concat copies each input, a split each output."""
    kind = plain(node.kind)
    if kind in ("concatenation", "pack"):
        return len(node.inputs)
    return len(node.outputs) if kind in ("split", "splitv") else 2


def _execution_order(graph: Graph, own: set[int]) -> list[int]:
    """As TFLite groups operators: again and again all that are ready and of one side (delegate or own), in the order of
    the file. Where operators wait for each other in a circle, the first of them counts as ready.
    """
    producers, consumers = graph.producers(), graph.consumers()
    missing = {n.index: len({i for i in n.inputs if i in producers}) for n in graph.nodes}
    queue = _Queue(own, [index for index, count in missing.items() if not count])
    made: set[str] = set()
    order: list[int] = []
    for index in queue.drained(missing):
        order.append(index)
        for name in {*graph.nodes[index].outputs} - made:
            made.add(name)
            for reader in {n.index for n in consumers.get(name, ())}:
                missing[reader] -= 1
                if not missing[reader]:
                    queue.add(reader)
    return order


class _Queue:
    """Operators that are ready, by side. own: those that the runtime runs itself."""

    def __init__(self, own: set[int], ready: Sequence[int]) -> None:
        self.own = own
        self.ready: tuple[list[int], list[int]] = ([], [])  # heaps: of the delegate, of the runtime
        self.taken: set[int] = set()
        for index in ready:
            self.add(index)

    def add(self, index: int) -> None:
        if index not in self.taken:
            heapq.heappush(self.ready[index in self.own], index)

    def drained(self, every: Collection[int]) -> Iterator[int]:
        """All of them once; what is added meanwhile comes when its turn does. every: in the order of the file."""
        left = iter(every)
        while True:
            heads = [heap[0] for heap in self.ready if heap]
            first = min(heads) if heads else next((i for i in left if i not in self.taken), None)
            if first is None:
                return
            if not heads:
                self.add(first)
            yield from self._turn(self.ready[first in self.own])

    def _turn(self, heap: list[int]) -> Iterator[int]:
        """Those of one side, up the file; one that becomes ready behind the place reached waits for the next turn."""
        place = -1
        later: list[int] = []
        while heap:
            index = heapq.heappop(heap)
            if index in self.taken:
                continue
            if index < place:
                later.append(index)
                continue
            place = index
            self.taken.add(index)
            yield index
        for index in later:
            heapq.heappush(heap, index)


def align(events: Sequence[str], kinds: Sequence[str], most: Sequence[int]) -> list[int | None]:
    """For each event the position of the operator that gave it, or None: the cheapest monotonic matching.

    An operator gives no event (dear, unless its kind is one that XNNPACK elides), one, or up to most[i] (a bit
    dear). An event that fits nowhere in order stays unmatched; so do all where there are too many to be compared.
    """
    n, m = len(kinds), len(events)
    if (n + 1) * (m + 1) > MOST_PAIRS:
        return [None] * m
    names = {event: k for k, event in enumerate(dict.fromkeys(events))}
    numbers = np.array([names[event] for event in events], np.int64)
    fits = {kind: np.array([_fits(kind, event) for event in names], bool)[numbers] for kind in set(kinds)}
    cost = np.arange(m + 1) * _SKIP_EVENT
    step = np.zeros((n + 1, m + 1), np.int32)  # events given by operator i, or -1 for an unmatched event
    step[0] = -1
    for i, kind in enumerate(kinds):
        skip = _SKIP_ELIDED if kind in _ELIDED else _SKIP_OTHER
        cost, step[i + 1] = _with_operator(cost, fits[kind], skip, most[i])
    return _trace_back(step)


def _with_operator(cost: Any, fits: Any, skip: float, most: int) -> tuple[Any, Any]:
    """The next row of align's costs and steps. Of equally cheap steps the operator gives rather no event than that one
    is unmatched, and that rather than several.

    cost: without the operator, of the first j events. fits: whether it may give each event. skip: what none costs.
    """
    m, given = len(fits), cost + skip
    count = np.zeros(m + 1, np.int32)
    runs = fits  # whether the k events up to each place all fit
    for k in range(1, min(most, m) + 1):
        runs = fits if k == 1 else runs[:-1] & fits[k - 1 :]
        if not runs.any():
            break
        found = np.where(runs, cost[: m - k + 1] + (k - 1) * _EXTRA_EVENT, np.inf)
        better = found < given[k:]
        given[k:][better], count[k:][better] = found[better], k
    events = np.arange(m + 1) * _SKIP_EVENT
    best = np.minimum.accumulate(given - events) + events
    unmatched = np.append(False, best[:-1] + _SKIP_EVENT <= best[1:])
    return best, np.where(unmatched & ((count > 0) | (best < given)), -1, count)


def _trace_back(step: Any) -> list[int | None]:
    i, j = step.shape[0] - 1, step.shape[1] - 1
    matched: list[int | None] = [None] * j
    while i or j:
        how = int(step[i, j])
        if how == -1:
            j -= 1
            continue
        for k in range(how):
            matched[j - 1 - k] = i - 1
        i, j = i - 1, j - how
    return matched


def _fits(kind: str, event: str) -> bool:
    if UNNAMED_UNARY in event:
        return kind in UNARY.split()
    pattern = EVENT_PATTERNS.get(kind)
    if pattern is None:
        return kind[:5] in re.sub(r"[^a-z0-9]", "", event.lower())
    return re.search(pattern, event, re.IGNORECASE) is not None
