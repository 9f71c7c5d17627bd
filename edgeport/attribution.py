"""From what a runtime's profiler says to what the network is made of: class, PyTorch module, cost.

CLASSES is the one table from kinds of operators, of both formats, to the classes of Fig. 2 of the ShuffleNetV2 paper
(arXiv 1807.11164): conv, elemwise, data, shuffle, other. One thing is not in the kind: whether an operator that only
moves data rearranges channels. See shuffling().
"""

import re
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from edgeport.formats.graph import Graph, Node, Tensor
from edgeport.formats.names import layer_of
from edgeport.records import OpTime

CLASS_NAMES = ("conv", "elemwise", "data", "shuffle", "other")

# Both formats' names, without case and underscores: CONV_2D is conv2d.
CLASSES = {
    "conv": """
        conv convinteger convtranspose conv2d conv3d depthwiseconv2d transposeconv convolution2dtransposebias fusedconv
        nhwcfusedconv qlinearconv gemm fusedgemm qgemm matmul fusedmatmul matmulinteger matmulintegertofloat
        qlinearmatmul dynamicquantizematmul batchmatmul fullyconnected einsum matmulnbits
    """,
    "elemwise": """
        abs add biasgelu bitwiseand bitwisenot bitwiseor bitwisexor batchnormalization ceil celu clip cos div elu equal
        erf exp fastgelu floor floordiv floormod fusedelementwise gelu greater greaterequal greaterorequal hardsigmoid
        hardswish hardtanh leakyrelu less lessequal lessorequal log logicaland logicalnot logicalor logistic logsigmoid
        max maximum min minimum mish mod mul neg not notequal or and pow prelu qlinearadd qlinearleakyrelu qlinearmul
        qlinearsigmoid quickgelu reciprocal relu relu0to1 relu6 relun1to1 round rsqrt scaledtanh select selectv2 selu
        sigmoid sign sin softplus softsign sqrt square squareddifference sub sum swish tan tanh thresholdedrelu where
        xor addn
    """,
    "data": """
        batchtospacend broadcastto cast castlike concat concatenation constantofshape depthtospace dequantize
        dequantizelinear dynamicquantizelinear expand expanddims fill flatten gather gatherelements gathernd identity
        memcpyfromhost memcpytohost mirrorpad onehot pack pad padv2 qlinearconcat quantize quantizelinear range
        reorderinput reorderoutput reshape resizebilinear resizenearestneighbor resize reverse reversev2 scatterelements
        scatternd shape size slice spacetobatchnd spacetodepth split splitv squeeze stridedslice tile transpose unpack
        unsqueeze upsample densify
    """,
}
_CLASS_OF = {kind: name for name, kinds in CLASSES.items() for kind in kinds.split()}

# Operators that only move data, as they are named in either format.
RESHAPES = ("reshape", "flatten", "squeeze", "unsqueeze", "expanddims")
CUTS = ("slice", "stridedslice", "split", "splitv")
JOINS = ("concat", "concatenation", "qlinearconcat")
MOVES = (*RESHAPES, *CUTS, *JOINS, "transpose", "gather")
MOST_ELEMENTS = 4_000_000


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One operator as a runtime's profiler reported it: us is the mean of its typical runs, runs_us what it told of
    each, index the runtime's own number. moved_bytes: that it read and wrote, None where the profiler tells no shapes.
    """

    name: str
    source: str
    index: int
    us: float
    op: str = ""
    outputs: tuple[tuple[int, ...], ...] = ()
    runs_us: tuple[int, ...] = ()
    moved_bytes: int | None = None


class Attributed(msgspec.Struct, frozen=True):
    """A row, the node of the file that it ran (None where it cannot be told), and whether it is part of a shuffle."""

    row: Row
    node: Node | None
    shuffle: bool = False


def op_times(rows: Sequence[Row], graph: Graph, optimized: Graph | None) -> tuple[OpTime, ...]:
    """The breakdown of one profile, in execution order; rows of the same operator of the file are added up.

    graph: the file; optimized: what ONNX Runtime made of it, None for LiteRT.
    """
    if graph.format == "tflite":
        attributed = attribute_litert(rows, graph)
    else:
        attributed = attribute_onnxruntime(rows, graph, optimized)
    modules = _Modules(graph)
    merged: dict[object, OpTime] = {}
    counted: set[int] = set()
    for n, item in enumerate(attributed):
        op = item.row.op or (item.node.kind if item.node else item.row.name)
        key = (item.node.index, op) if item.node else n
        if key in merged:
            merged[key] = _with_times(merged[key], item.row)
        else:
            merged[key] = _op_time(item, op, graph, modules, counted)
    return tuple(merged.values())


def _with_times(op: OpTime, row: Row) -> OpTime:
    """With those of another row of the same operator."""
    runs = tuple(a + b for a, b in zip(op.runs_us, row.runs_us, strict=True))
    return msgspec.structs.replace(op, us=op.us + row.us, runs_us=runs)


def _op_time(item: Attributed, op: str, graph: Graph, modules: "_Modules", counted: set[int]) -> OpTime:
    """counted: nodes whose cost an earlier row has; an operator that ran as several rows costs once."""
    row, node = item.row, item.node
    first = node is not None and node.index not in counted
    if node is not None and (_computes(op) or not node.madds):
        counted.add(node.index)
    else:
        first = False
    shape = row.outputs[0] if row.outputs else _shape(graph, node)
    return OpTime(
        name=row.name,
        op=op,
        class_="shuffle" if item.shuffle else _class(op, row),
        module=modules.of(node) if node else None,
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
    kinds = (kind for kind, pattern in _EVENT_PATTERNS.items() if re.search(pattern, row.name, re.IGNORECASE))
    return class_of(next(kinds, op))


class _Modules:
    """The module of each node, or the layer: its own name in a file that tells no modules.

    One that only converts or moves data for others, and tells none, has its neighbour's.
    """

    def __init__(self, graph: Graph) -> None:
        self.consumers, self.producers = graph.consumers(), graph.producers()

    def of(self, node: Node) -> str | None:
        if node.module is not None:
            return node.module
        if class_of(node.kind) == "data":
            readers = [c for o in node.outputs for c in self.consumers.get(o, [])]
            makers = [m for m in (self.producers.get(i) for i in node.inputs) if m]
            found = next((n.module for n in (*readers, *makers) if n.module is not None), None)
            if found is not None:
                return found
        return layer_of(node.name) or None


def plain(kind: str) -> str:
    """A kind's name without case and underscores, as the tables here have it."""
    return kind.replace("_", "").lower()


def class_of(kind: str) -> str:
    """By kind alone: "other" for what the table does not have (pooling, means, softmax, custom operators)."""
    return _CLASS_OF.get(plain(kind), "other")


def shuffling(graph: Graph) -> set[int]:
    """Indices of the nodes that implement a channel shuffle or a channel split: class "shuffle", not "data".

    Operators that only move data are taken together where one feeds the next. Such a region counts as shuffle if in it
    channels are cut apart (ShuffleNetV2's channel split), gathered, or change places along their axis (the channel
    shuffle, however many reshapes and transposes it is made of). A region that merely changes the layout, pads, joins
    or flattens stays data.
    """
    found: set[int] = set()
    for region in _regions(graph):
        if any(_cuts_channels(graph, node) for node in region) or _permutes_one_axis(graph, region):
            found |= {node.index for node in region}
    return found


def _regions(graph: Graph) -> list[list[Node]]:
    """Maximal connected sets of nodes that only move data, each in order."""
    moving = {n.index: n for n in graph.nodes if plain(n.kind) in MOVES}
    root = {i: i for i in moving}

    def find(i: int) -> int:
        while root[i] != i:
            i = root[i]
        return i

    producers = graph.producers()
    for node in moving.values():
        for name in node.inputs:
            maker = producers.get(name)
            if maker is not None and maker.index in moving:
                root[find(node.index)] = find(maker.index)
    regions: dict[int, list[Node]] = {}
    for i, node in moving.items():
        regions.setdefault(find(i), []).append(node)
    return list(regions.values())


def _cuts_channels(graph: Graph, node: Node) -> bool:
    kind = plain(node.kind)
    if kind not in (*CUTS, "gather") or node.axis is None or not node.inputs:
        return False
    data = _data_input(graph, node)
    rank = len(data.shape) if data is not None and data.shape is not None else 0
    return rank == 4 and node.axis % rank == graph.channel_axis and (kind != "gather" or bool(node.indices))


def _data_input(graph: Graph, node: Node) -> Any:
    tensors = (graph.tensors.get(name) for name in node.inputs)
    return next((t for t in tensors if t is not None and not t.constant), None)


def _permutes_one_axis(graph: Graph, region: Sequence[Node]) -> bool:
    """Whether some stretch of reshapes and transposes in the region gives back an image with its channels rearranged.

    The chain is run on the numbers 0, 1, 2, ... in place of data, so the answer is exact.
    """
    inside = {node.index for node in region}
    consumers, producers = graph.consumers(), graph.producers()

    def walk(node: Node, seen: list[Any]) -> bool:
        numbers = _step(graph, node, seen[-1])
        if numbers is None:
            return False
        if any(_rearranges(before, numbers, graph.channel_axis) for before in seen):
            return True
        following = [n for n in consumers.get(node.outputs[0], []) if n.index in inside and _is_step(n)]
        return any(walk(n, [*seen, numbers]) for n in following)

    starts = [node for node in region if _is_step(node) and not _extends(node, producers, inside)]
    numbered = [(node, _start_numbers(graph, node)) for node in starts]
    return any(walk(node, [numbers]) for node, numbers in numbered if numbers is not None)


def _is_step(node: Node) -> bool:
    return plain(node.kind) in (*RESHAPES, "transpose")


def _extends(node: Node, producers: dict[str, Node], inside: set[int]) -> bool:
    makers = (producers.get(name) for name in node.inputs)
    return any(m is not None and m.index in inside and _is_step(m) for m in makers)


def _start_numbers(graph: Graph, node: Node) -> Any:
    tensor = _data_input(graph, node)
    if tensor is None or not tensor.shape or min(tensor.shape) < 1:
        return None
    n = int(np.prod(tensor.shape))
    return np.arange(n).reshape(tensor.shape) if n <= MOST_ELEMENTS else None


def _step(graph: Graph, node: Node, numbers: Any) -> Any:
    if plain(node.kind) == "transpose":
        order = node.permutation
        return numbers.transpose(order) if order and len(order) == numbers.ndim else None
    out = graph.tensors.get(node.outputs[0])
    fits = out is not None and out.shape and min(out.shape) >= 1 and int(np.prod(out.shape)) == numbers.size
    return numbers.reshape(out.shape) if fits and out is not None else None


def _rearranges(before: Any, after: Any, axis: int) -> bool:
    """Whether after is before, an image, with its channels in another order."""
    if before.ndim != 4 or before.shape != after.shape or (before == after).all():
        return False
    rows = np.moveaxis(before, axis, 0).reshape(before.shape[axis], -1)
    moved = np.moveaxis(after, axis, 0).reshape(after.shape[axis], -1)
    position = {int(first): i for i, first in enumerate(rows[:, 0])}
    order = [position.get(int(first), -1) for first in moved[:, 0]]
    return -1 not in order and bool((rows[order] == moved).all())


# LiteRT: XNNPACK's events in order against the file's operators in order

_EVENT_PATTERNS = {
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
}
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
    return attributed


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
    pattern = _EVENT_PATTERNS.get(kind)
    if pattern is None:
        return kind[:5] in re.sub(r"[^a-z0-9]", "", event.lower())
    return re.search(pattern, event, re.IGNORECASE) is not None


# ONNX Runtime: nodes of the graph that it optimised against the file's operators, by every name that survives

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


def shapes_that_ran(rows: Sequence[Row], optimized: Graph | None) -> dict[str, tuple[int, ...]]:
    """By tensor, those that the profile saw, of tensors that ONNX Runtime's own graph still has by their name."""
    executed = _pair_with_optimized(rows, optimized)
    pairs = ((node, row) for node, row in zip(executed, rows, strict=True) if node)
    return {name: shape for node, row in pairs for name, shape in zip(node.outputs, row.outputs, strict=False)}


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
                return self._product(found) if _computes(row.op) else found
        weights = [_WEIGHT_SUFFIX.sub("", name) for name in (executed.inputs if executed else ())]
        for name in weights if _computes(row.op) else ():
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


def _computes(kind: str) -> bool:
    return class_of(kind) == "conv"
