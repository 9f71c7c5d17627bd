"""LiteRT: XNNPACK's events, in order, against the file's operators in order."""

import re
from collections.abc import Sequence
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
    """As TFLite groups operators: again and again all that are ready and of one side (delegate or own)."""
    made = {name for n in graph.nodes for name in n.outputs}
    done: set[str] = set()
    left, order = list(graph.nodes), []
    while left:
        ready = next((n for n in left if all(i in done or i not in made for i in n.inputs)), left[0])
        side, rest = ready.index in own, []
        for node in left:
            is_ready = node is ready or all(i in done or i not in made for i in node.inputs)
            if is_ready and (node.index in own) == side:
                order.append(node.index)
                done.update(node.outputs)
            else:
                rest.append(node)
        left = rest
    return order


def align(events: Sequence[str], kinds: Sequence[str], most: Sequence[int]) -> list[int | None]:
    """For each event the position of the operator that gave it, or None: the cheapest monotonic matching.

    An operator gives no event (dear, unless its kind is one that XNNPACK elides), one, or up to most[i] (a bit
    dear). An event that fits nowhere in order stays unmatched.
    """
    n, m = len(kinds), len(events)
    fits = {(k, e): _fits(k, e) for k in set(kinds) for e in set(events)}
    skip = [_SKIP_ELIDED if k in _ELIDED else _SKIP_OTHER for k in kinds]
    cost = np.full((n + 1, m + 1), np.inf)
    step = np.zeros((n + 1, m + 1), np.int32)  # events given by operator i, or -1 for an unmatched event
    cost[0] = np.arange(m + 1) * _SKIP_EVENT
    step[0] = -1
    for i in range(1, n + 1):
        for j in range(m + 1):
            best, how = cost[i - 1, j] + skip[i - 1], 0
            if j and cost[i, j - 1] + _SKIP_EVENT < best:
                best, how = cost[i, j - 1] + _SKIP_EVENT, -1
            for k in range(1, min(most[i - 1], j) + 1):
                if not fits[kinds[i - 1], events[j - k]]:
                    break
                found = cost[i - 1, j - k] + (k - 1) * _EXTRA_EVENT
                if found < best:
                    best, how = found, k
            cost[i, j], step[i, j] = best, how
    return _trace_back(step)


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
