"""Ranges of int8 tensors that must be one, so that nothing is requantised on the way.

Operators that only move numbers, or pick some (slice, concat, padding with zero, max pooling), work on integers as they
are if what goes in and what comes out have one scale. So all tensors that such operators connect get the widest range
among them; no information is lost that a concat, whose result has that range, would not have lost.
"""

from collections.abc import Mapping

from edgeport.formats.graph import Graph

Range = tuple[float, float]

MOVERS = {
    *("concat", "concatenation", "split", "splitv", "slice", "stridedslice", "pad", "maxpool", "maxpool2d"),
    *("reshape", "transpose", "squeeze", "unsqueeze", "expanddims", "flatten", "identity", "gather", "pack", "unpack"),
    *("depthtospace", "spacetodepth", "tile", "mirrorpad"),
}


def shared(graph: Graph, ranges: Mapping[str, Range]) -> dict[str, Range]:
    """The ranges of the same tensors, widened to those that they are moved together with. Names are the graph's."""
    group = {name: name for name in ranges}

    def find(name: str) -> str:
        while group[name] != name:
            name = group[name]
        return name

    for node in graph.nodes:
        if node.kind.lower().replace("_", "") in MOVERS:
            together = [find(name) for name in (*node.inputs, *node.outputs) if name in group]
            for name in together[1:]:
                group[find(name)] = find(together[0])
    widest: dict[str, Range] = {}
    for name, (low, high) in ranges.items():
        known = widest.get(find(name), (low, high))
        widest[find(name)] = min(low, known[0]), max(high, known[1])
    return {name: widest[find(name)] for name in ranges}
