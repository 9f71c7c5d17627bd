"""Operators that int8 leaves in float, because 256 equal steps cannot hold what they compute.

Masks: -inf, the lowest float or any number far below all others is added to scores, or put in their place, so that
softmax makes it zero. One range for both leaves the scores a step or none. What holds such values stays in float, as
far back as they go, and so does the softmax, which then sees them as they are.

Statistics: a square root, a logarithm or a divisor needs its input to a share of its size, where int8 has one step for
small and large. So the variance of a normalisation stays in float, with the operators that make it, and so does what
the result scales: one rounding after a normalisation instead of one after each of its operators.

Fixed ranges: the runtimes' integers of a softmax reach from 0 to 1 whatever its answers are, and so do LiteRT's of a
sigmoid, and those of a tanh from -1 to 1. Answers that fill a small share of it have few steps left.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgeport.export import joins
from edgeport.formats.graph import Graph, Node

Array = NDArray[Any]

WIDEST = 32.0  # of what is raised to a power: steps of an eighth, by which a probability is 6% off
HUGE = 2.0**24  # more than any activation; the runtimes' integers for scales end at 2^31
OCTAVES_APART = 7  # two groups of numbers: of the steps that reach the larger one the smaller has two
# Of its fixed range that an operator's values fill. Less than the first wastes a bit, which counts in what a network
# answers with, and in what softmaxes weigh; within a network others may waste three, for float takes its time.
LOWEST_SHARE, LOWEST_INNER_SHARE = 0.5, 0.125
MOST_VALUES = 1 << 12  # of a tensor and sample that are looked at

FIXED_WIDTHS = {"onnx": {"softmax": 1.0}, "tflite": {"softmax": 1.0, "logistic": 1.0, "tanh": 2.0}}
PRODUCTS = {
    *("conv", "conv2d", "conv3d", "depthwiseconv2d", "convtranspose", "transposeconv", "gemm", "matmul"),
    *("fullyconnected", "batchmatmul", "einsum"),
}
EXPONENTIALS = {"softmax", "logsoftmax", "exp"}
CLIPPED = {"pad", "padv2", "maxpool", "maxpool2d"}  # -inf as padding is no value: the least one does as well
RELATIVE = {"sqrt": 0, "rsqrt": 0, "reciprocal": 0, "log": 0, "pow": 0, "div": 1}  # kind: which input needs it
REDUCTIONS = {"mean", "sum", "reducemean", "reducesum", "reducel1", "reducel2", "reducesumsquare", "globalaveragepool"}
SQUARES = {"square", "pow", "squareddifference", "abs"}
MOVES = {"reshape", "squeeze", "unsqueeze", "expanddims", "expand", "broadcastto", "transpose", "identity", "flatten"}
POINTWISE = {
    *("add", "sub", "mul", "maximum", "minimum", "max", "min", "clip", "neg", "cast", "relu", "exp"),
    *("select", "selectv2", "where", *RELATIVE, *SQUARES),
}


class Values:
    """What is known of the values of each tensor, from parts of samples or the whole of a constant."""

    def __init__(self) -> None:
        self._known: dict[str, _Extent] = {}

    def note(self, name: str, values: Array) -> None:
        flat = values.ravel()
        flat = flat[:: 1 + flat.size // MOST_VALUES] if flat.size else np.zeros(1, np.float32)
        extent = self._known.setdefault(name, _Extent())
        with np.errstate(invalid="ignore"):
            extent.low, extent.high = min(extent.low, float(flat.min())), max(extent.high, float(flat.max()))
        extent.octaves.update(np.unique(np.frexp(flat[np.isfinite(flat) & (flat != 0)])[1]).tolist())

    def is_wide(self, name: str) -> bool:
        extent = self._known.get(name)
        return extent is not None and not extent.high - extent.low <= WIDEST

    def is_huge(self, name: str) -> bool:
        extent = self._known.get(name)
        return extent is not None and not max(-extent.low, extent.high) < HUGE

    def is_apart(self, name: str) -> bool:
        """Whether the values are of two sizes, with nothing between."""
        octaves = sorted(self._known[name].octaves) if name in self._known else []
        pairs = itertools.pairwise(octaves)
        return any(above - below >= OCTAVES_APART and above >= octaves[-1] - 1 for below, above in pairs)

    def highest(self, name: str) -> float | None:
        return self._known[name].high if name in self._known else None

    def width(self, name: str) -> float | None:
        """Of the range that integers need, which has zero in it."""
        return joins.width((self._known[name].low, self._known[name].high)) if name in self._known else None


class _Extent(msgspec.Struct):
    low: float = np.inf
    high: float = -np.inf
    octaves: set[int] = msgspec.field(default_factory=set)


class Watch:
    """Looks at the values that a float network computes, and tells its operators that int8 is to leave in float.

    constant: gives the values of a constant. outputs: tensors that the network answers with.
    """

    def __init__(self, graph: Graph, constant: Callable[[str], Array], outputs: Sequence[str] = ()) -> None:
        self._graph, self._values, self._outputs = graph, Values(), outputs
        nodes = [node for node in graph.nodes if _kind(node) not in PRODUCTS]
        names = {name for node in nodes for name in (*node.inputs, *node.outputs)} & graph.tensors.keys()
        floats = {name for name in names if graph.tensors[name].dtype == "float32"}
        for name in floats:
            if graph.tensors[name].constant:
                self._values.note(name, constant(name))
        self._names = {name for name in floats if not graph.tensors[name].constant}
        self._found: list[str] | None = None

    def note(self, tensors: Mapping[str, Array]) -> None:
        """The values of one sample."""
        for name in self._names & tensors.keys() if self._found is None else ():
            self._values.note(name, tensors[name])

    def operators(self) -> list[str]:
        """By name; the same ever after the first call, by what was seen until then."""
        if self._found is None:
            self._found = find(self._graph, self._values, self._outputs)
        return self._found


def find(graph: Graph, values: Values, outputs: Sequence[str] = ()) -> list[str]:
    """The names of the operators, in the graph's order."""
    search = _Search(graph, values, outputs)
    found = {*search.holding_masks(), *search.of_statistics(), *search.of_small_shares()}
    return [node.name for node in graph.nodes if node.index in found]


def _kind(node: Node) -> str:
    return node.kind.lower().replace("_", "")


class _Search:
    """Operators go by their index."""

    def __init__(self, graph: Graph, values: Values, outputs: Sequence[str]) -> None:
        self.graph, self.values, self.outputs = graph, values, outputs
        self.makers, self.reduced = graph.producers(), _reduced(graph)

    def holding_masks(self) -> set[int]:
        values = self.values
        found: set[int] = set()
        for node in self.graph.nodes:
            kind, tensors = _kind(node), (*node.inputs, *node.outputs)
            huge = any(values.is_huge(name) for name in tensors)
            apart = kind not in PRODUCTS and any(values.is_apart(name) for name in tensors)
            if kind not in CLIPPED and (huge or apart):
                found.add(node.index)
            if kind in EXPONENTIALS and values.is_wide(node.inputs[0]):
                before = self._wide_makers(node.inputs[0])
                found |= {node.index, *before} if before else set()
        return found

    def of_statistics(self) -> set[int]:
        found: set[int] = set()
        for node in self.graph.nodes:
            if self._is_relative(node):
                found |= {node.index, *self._measuring(node.inputs[RELATIVE[_kind(node)]])}
        return self._with_scaled(found)

    def of_small_shares(self) -> set[int]:
        """Operators of a fixed range of which their values fill little."""
        fixed, answers, found = FIXED_WIDTHS.get(self.graph.format, {}), self._answers(), set[int]()
        for node in self.graph.nodes:
            kind = _kind(node)
            width = self.values.width(node.outputs[0]) if kind in fixed else None
            counts = kind == "softmax" or node.outputs[0] in answers
            if width is not None and width < fixed[kind] * (LOWEST_SHARE if counts else LOWEST_INNER_SHARE):
                found.add(node.index)
        return found

    def _answers(self) -> set[str]:
        """The outputs, and the tensors that they consist of but for moves, joins and constants."""
        found = set(self.outputs)
        for node in reversed(self.graph.nodes):
            kind, sources = _kind(node), self._computed(node.inputs)
            keeps = kind in joins.JOINS or kind in joins.MOVES or (kind in POINTWISE and len(sources) == 1)
            if keeps and not found.isdisjoint(node.outputs):
                found.update(sources)
        return found

    def _wide_makers(self, name: str) -> set[int]:
        """What makes a wide tensor, and the wide ones that it is made of; products end the way."""
        found, names = set[int](), [name]
        while names:
            name = names.pop()
            maker = self.makers.get(name)
            if maker and maker.index not in found and _kind(maker) not in PRODUCTS and self.values.is_wide(name):
                found.add(maker.index)
                names += maker.inputs
        return found

    def _is_relative(self, node: Node) -> bool:
        kind = _kind(node)
        if kind not in RELATIVE or not self._computed(node.inputs[RELATIVE[kind] :][:1]):
            return False
        exponent = self.values.highest(node.inputs[1]) if kind == "pow" else None
        return exponent is None or exponent < 1

    def _measuring(self, name: str) -> set[int]:
        """What makes a statistic, not beyond the tensor that it is of."""
        found, names = set[int](), [(name, False)]
        while names:
            name, is_inner = names.pop()
            maker = self.makers.get(name)
            if maker and maker.index not in found and self._takes_part(maker, is_inner):
                found.add(maker.index)
                inner = is_inner or self._ends_scalars(maker)
                names += [(before, inner) for before in self._computed(maker.inputs)]
        return found

    def _takes_part(self, node: Node, is_inner: bool) -> bool:
        """is_inner: it makes what is summed up, of which only squares and distances from a mean belong to it."""
        kind = _kind(node)
        if not is_inner or kind in REDUCTIONS:
            return kind in REDUCTIONS | POINTWISE | MOVES
        return kind in MOVES or self._is_square(node) or self._is_scaled(node)

    def _ends_scalars(self, node: Node) -> bool:
        """Whether what it reads may be a whole map instead of numbers made for the statistic."""
        several = len(set(self._computed(node.inputs))) > 1 and not self._is_scaled(node)
        return _kind(node) in REDUCTIONS or self._is_square(node) or several

    def _is_square(self, node: Node) -> bool:
        kind, inputs = _kind(node), self._computed(node.inputs)
        return kind in SQUARES or (kind == "mul" and len(inputs) == 2 and len(set(inputs)) == 1)

    def _is_scaled(self, node: Node) -> bool:
        """Whether a statistic scales or shifts something."""
        inputs = self._computed(node.inputs)
        return _kind(node) in POINTWISE and len(inputs) > 1 and not self.reduced.isdisjoint(inputs)

    def _with_scaled(self, found: set[int]) -> set[int]:
        """With what the statistics found scale and shift, and the constants that do so after them."""
        made = {name for node in self.graph.nodes if node.index in found for name in node.outputs}
        for node in self.graph.nodes:
            kind, inputs = _kind(node), set(self._computed(node.inputs))
            by_statistic = bool(inputs & made & self.reduced) and kind in POINTWISE | MOVES
            if by_statistic or (inputs and inputs <= made and kind in POINTWISE):
                found.add(node.index)
                made.update(node.outputs)
        return found

    def _computed(self, names: tuple[str, ...]) -> list[str]:
        """Those that are no constants."""
        tensors = self.graph.tensors
        return [name for name in names if name in tensors and not tensors[name].constant]


def _reduced(graph: Graph) -> set[str]:
    """Means, sums, and what is made of nothing else."""
    found: set[str] = set()
    for node in graph.nodes:
        inputs = {name for name in node.inputs if name in graph.tensors and not graph.tensors[name].constant}
        made_of_them = bool(inputs) and inputs <= found and _kind(node) in POINTWISE | MOVES
        if _kind(node) in REDUCTIONS or made_of_them:
            found.update(node.outputs)
    return found
