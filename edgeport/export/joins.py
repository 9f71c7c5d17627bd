"""Which int8 tensors have one range.

Operators that only move numbers, or pick some (slice, padding with zero, max pooling), work on integers as they are if
what goes in and what comes out have one range: nothing is lost, since what they move has been rounded already.

A join (concat, stack) is different. Its result has the range of all its pieces. A piece that takes that range too needs
not be requantised for the join, but its steps become larger for everybody else who reads it. That is free where nobody
else does; elsewhere it costs signal to noise, 20 log10 of how much wider the range is. Plans are made for several
bounds on that cost, and the search for the best int8 takes what it measures to be good.
"""

import math
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from edgeport.export.ranges import Range
from edgeport.formats.graph import Graph, Node
from edgeport.formats.names import module_of
from edgeport.records import JoinedRange

JOINS = ("concat", "concatenation", "pack")
CUTS = ("split", "splitv", "slice", "stridedslice", "unpack", "gather")
MOVES = (
    *(*CUTS, "pad", "maxpool", "maxpool2d"),
    *("reshape", "transpose", "squeeze", "unsqueeze", "expanddims", "flatten", "identity"),
    *("depthtospace", "spacetodepth", "tile", "mirrorpad"),
)
# What changes every element in its place, so that pieces stay where they are.
ELEMENTWISE = ("add", "sub", "mul", "div", "neg", "exp", "sigmoid", "logistic", "tanh", "relu", "relu6", "clip", "abs")
UNBOUNDED_DB = math.inf
UNLIKE_DB = 1.0  # pieces of an output's last join whose ranges differ by more are joined in float
CUT_APART_DB = 6.0  # and pieces of a join within a network that are cut apart again
ROUNDING_DB = 0.5  # that a range may grow by being counted in bins
EVERYTHING: Range = (-math.inf, math.inf)


class Plan(msgspec.Struct, frozen=True):
    """ranges: of all tensors, by name; joins: what was decided at each, in the order of the graph."""

    ranges: dict[str, Range]
    joins: tuple[JoinedRange, ...] = ()


class Rules(msgspec.Struct, frozen=True):
    """What a plan keeps to.

    outputs: tensors that the network answers with. limits: what the range of a tensor must not leave, because an
    activation is left to it. floats: names of operators that are not quantised, and so share nothing.
    """

    outputs: Sequence[str] = ()
    limits: Mapping[str, Range] = {}
    floats: Sequence[str] = ()


def plan(graph: Graph, ranges: Mapping[str, Range], rules: Rules, most_db: float = UNBOUNDED_DB) -> Plan:
    """One range for what is moved, and for what is joined where that costs at most most_db.

    ranges: measured, by tensor.
    """
    groups = _Groups(ranges, rules.limits, _computed_with(graph, rules.outputs))
    joins, floats = [], set(rules.floats)
    for node in graph.nodes:
        if node.name in floats:
            continue
        sources, results = ([n for n in names if n in ranges] for names in (node.inputs, node.outputs))
        if not sources or not results or plain(node.kind) not in (*JOINS, *MOVES):
            continue
        if plain(node.kind) in JOINS or _adds_values(sources, results, ranges):
            joins.append((node, sources, results[0]))
        else:
            groups.unite([*sources, *results])
    told = [groups.join(*joined, most_db) for joined in joins]
    return Plan({name: groups.range_of(name) for name in ranges}, tuple(told))


def _adds_values(sources: Sequence[str], results: Sequence[str], ranges: Mapping[str, Range]) -> bool:
    """Whether a move makes values that are no input's: padding with a number that lies far out."""
    before, after = (widest(ranges[name] for name in names) for names in (sources, results))
    return steps_db(widest([before, after]), before) > ROUNDING_DB


def _computed_with(graph: Graph, outputs: Sequence[str]) -> set[str]:
    """Tensors that somebody computes with: operators that do not only move them, and whoever uses the network."""
    readers = (node for node in graph.nodes if plain(node.kind) not in (*JOINS, *MOVES))
    return {name for node in readers for name in node.inputs} | set(outputs)


class _Group(msgspec.Struct):
    """Tensors of one range. parts: the ranges that those had of their own which somebody computes with."""

    span: Range
    limit: Range
    parts: list[Range]

    def with_(self, other: "_Group") -> "_Group":
        limit = max(self.limit[0], other.limit[0]), min(self.limit[1], other.limit[1])
        return _Group(widest([self.span, other.span]), limit, [*self.parts, *other.parts])

    def cost_db(self) -> float:
        """By how much the steps of a part are larger than its own range asks for."""
        return max((steps_db(self.span, part) for part in self.parts), default=0.0)

    def keeps_activations(self) -> bool:
        return self.limit[0] <= min(self.span[0], 0.0) and max(self.span[1], 0.0) <= self.limit[1]


class _Groups:
    def __init__(self, ranges: Mapping[str, Range], limits: Mapping[str, Range], computed_with: set[str]) -> None:
        self._above = {name: name for name in ranges}
        self._groups = {
            name: _Group(span, limits.get(name, EVERYTHING), [span] if name in computed_with else [])
            for name, span in ranges.items()
        }

    def range_of(self, name: str) -> Range:
        return self._groups[self._of(name)].span

    def unite(self, names: Sequence[str]) -> None:
        """Moved tensors: whoever computes with one of them computes with values of the range that all have."""
        for name in names[1:]:
            self._merge(names[0], name)
        group = self._groups[self._of(names[0])]
        group.parts = [group.span] if group.parts else []

    def join(self, node: Node, pieces: Sequence[str], result: str, most_db: float) -> JoinedRange:
        """Gives the pieces the result's range, those for which that costs no more and loses no activation."""
        costs = []
        for piece in dict.fromkeys(pieces):
            if self._of(piece) == self._of(result):
                costs.append(0.0)
                continue
            both = self._groups[self._of(piece)].with_(self._groups[self._of(result)])
            if both.cost_db() <= most_db and both.keeps_activations():
                self._merge(result, piece)
                costs.append(both.cost_db())
        module = module_of(node.name) or ""
        return JoinedRange(node.name, module, len(dict.fromkeys(pieces)), len(costs), max(costs, default=0.0))

    def _of(self, name: str) -> str:
        while self._above[name] != name:
            name = self._above[name]
        return name

    def _merge(self, first: str, second: str) -> None:
        kept, gone = self._of(first), self._of(second)
        if kept != gone:
            self._groups[kept] = self._groups[kept].with_(self._groups.pop(gone))
            self._above[gone] = kept


def plain(kind: str) -> str:
    """A kind's name in either format, without case and underscores."""
    return kind.replace("_", "").lower()


def steps_db(wide: Range, narrow: Range) -> float:
    """By how much the steps of one range are larger than those of the other, in dB."""
    one, other = width(wide), width(narrow)
    return 20 * math.log10(one / other) if one > 0 and other > 0 else 0.0


def width(span: Range) -> float:
    """Of a range as integers have it, with zero in it."""
    return max(span[1], 0.0) - min(span[0], 0.0)


def widest(spans: Iterable[Range]) -> Range:
    """The range that holds all of them."""
    lows, highs = zip(*spans, strict=True)
    return min(lows), max(highs)


def unlike_at_outputs(graph: Graph, outputs: Sequence[str], ranges: Mapping[str, Range]) -> list[str]:
    """Names of operators that stay in float, so that each piece of an output keeps steps of its own.

    They are the last join of an output whose pieces differ in range, the joins that feed it, and what lies between.
    """
    ends = _Outputs(graph)
    return list(dict.fromkeys(name for output in outputs for name in ends.unlike(output, ranges)))


def unlike_and_cut_apart(graph: Graph, ranges: Mapping[str, Range]) -> list[str]:
    """Names of operators in float with which pieces of unlike ranges that meet only for a while keep their own steps.

    They are joins of such pieces whose results are cut apart before anybody computes with them, and the moves between.
    """
    consumers, found = graph.consumers(), dict[str, None]()
    for node in graph.nodes:
        if plain(node.kind) in JOINS and _spread_db(node.inputs, ranges) > CUT_APART_DB:
            region = _moved_on(node, consumers)
            if any(plain(other.kind) in CUTS for other in region):
                found |= dict.fromkeys(other.name for other in region)
    return list(found)


def _moved_on(node: Node, consumers: Mapping[str, Sequence[Node]]) -> list[Node]:
    """The operator and all behind it that only move what it makes."""
    region, waiting = dict[int, Node](), [node]
    while waiting:
        at = waiting.pop()
        if at.index not in region and plain(at.kind) in (*JOINS, *MOVES):
            region[at.index] = at
            waiting += [reader for name in at.outputs for reader in consumers.get(name, [])]
    return list(region.values())


def _spread_db(pieces: Iterable[str], ranges: Mapping[str, Range]) -> float:
    """By how much the steps of the piece of the widest range are larger than those of the narrowest."""
    widths = [width(ranges[piece]) for piece in pieces if piece in ranges and width(ranges[piece])]
    return 20 * math.log10(max(widths) / min(widths)) if widths else 0.0


class _Outputs:
    def __init__(self, graph: Graph) -> None:
        self._tensors, self._producers = graph.tensors, graph.producers()

    def unlike(self, output: str, ranges: Mapping[str, Range]) -> list[str]:
        behind: list[str] = []
        node = self._producers.get(output)
        while node is not None and plain(node.kind) not in JOINS:
            sources = self._sources(node)
            if len(sources) != 1 or not self._keeps_elements(node, sources[0]):
                return []
            behind.append(node.name)
            node = self._producers.get(sources[0])
        if node is None:
            return []
        joined, pieces = self._joined(node)
        return [*behind, *joined] if _spread_db(pieces, ranges) > UNLIKE_DB else []

    def _joined(self, node: Node) -> tuple[list[str], list[str]]:
        """Operators that join or move before this one, which is one too, and the tensors that they begin with."""
        names, pieces = [node.name], list[str]()
        for source in self._sources(node):
            maker = self._producers.get(source)
            if maker is not None and plain(maker.kind) in JOINS:
                more = self._joined(maker)
            elif maker is not None and plain(maker.kind) in MOVES:
                more = self._joined(maker)
                more = more if len(more[1]) > 1 else ([], [source])  # moves of one tensor may stay as they are
            else:
                more = [], [source]
            names += more[0]
            pieces += more[1]
        return names, pieces

    def _sources(self, node: Node) -> list[str]:
        return [n for n in node.inputs if n in self._tensors and not self._tensors[n].constant]

    def _keeps_elements(self, node: Node, source: str) -> bool:
        if plain(node.kind) in MOVES:
            return True
        shapes = [self._tensors[name].shape for name in (source, node.outputs[0]) if name in self._tensors]
        return plain(node.kind) in ELEMENTWISE and len(shapes) == 2 and shapes[0] == shapes[1]
