"""Which operators of a graph shuffle channels, or split them."""

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from edgeport.attribution.classes import plain
from edgeport.formats.graph import Graph, Node

# Operators that only move data, as they are named in either format.
RESHAPES = ("reshape", "flatten", "squeeze", "unsqueeze", "expanddims")
CUTS = ("slice", "stridedslice", "split", "splitv")
JOINS = ("concat", "concatenation", "qlinearconcat")
MOVES = (*RESHAPES, *CUTS, *JOINS, "transpose", "gather")
MOST_ELEMENTS = 4_000_000
MOST_AXES = 32  # that NumPy has in all versions
# A file of anybody may have thousands of operators on tensors of this size, one after the other.
MOST_WORK, COMPARISON = 400_000_000, 20_000  # elements; what it costs to look at any tensor
LONGEST_CHAIN = 16  # of operators that together change the places of channels


def shuffling(graph: Graph) -> set[int]:
    """Indices of the nodes that implement a channel shuffle or a channel split: class "shuffle", not "data".

    Operators that only move data are taken together where one feeds the next. Such a region counts as shuffle if in it
    channels are cut apart (ShuffleNetV2's channel split), gathered, or change places along their axis (the channel
    shuffle, however many reshapes and transposes it is made of). A region that merely changes the layout, pads, joins
    or flattens stays data.
    """
    found: set[int] = set()
    work = _Work(graph)
    for region in _regions(graph):
        if any(_cuts_channels(graph, node) for node in region) or _permutes_one_axis(graph, region, work):
            found |= {node.index for node in region}
    return found


class _Work:
    """What a search may still cost. left: in elements; without any, a region counts as one that shuffles nothing.
    steps: those that read each tensor as their data.
    """

    def __init__(self, graph: Graph) -> None:
        self.left = MOST_WORK
        self.producers = graph.producers()
        self.steps: dict[str, list[Node]] = {}
        for node in graph.nodes:
            if _is_step(node):
                for name in dict.fromkeys(node.inputs):
                    self.steps.setdefault(name, []).append(node)


def _regions(graph: Graph) -> list[list[Node]]:
    """Maximal connected sets of nodes that only move data, each in order."""
    moving = {n.index: n for n in graph.nodes if plain(n.kind) in MOVES}
    root = {i: i for i in moving}

    def find(i: int) -> int:
        while root[i] != i:
            root[i] = root[root[i]]
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


def _permutes_one_axis(graph: Graph, region: Sequence[Node], work: "_Work") -> bool:
    """Whether some stretch of reshapes and transposes in the region gives back an image with its channels rearranged.

    The chain is run on the numbers 0, 1, 2, ... in place of data, so the answer is exact.
    """
    inside = {node.index for node in region}
    starts = [node for node in region if _is_step(node) and not _extends(node, work.producers, inside)]
    left: list[tuple[Node, tuple[Any, ...]]] = [(node, ()) for node in starts]
    visited: set[int] = set()
    while left and work.left > 0:
        node, seen = left.pop()
        if not seen:
            seen = (_start_numbers(graph, node),)
        numbers = _step(graph, node, seen[-1]) if seen[-1] is not None and node.index not in visited else None
        visited.add(node.index)
        if numbers is None:
            continue
        alike = [before for before in seen if before.ndim == 4 and before.shape == numbers.shape]
        work.left -= (numbers.size + COMPARISON) * (1 + len(alike))
        if any(_rearranges(before, numbers, graph.channel_axis) for before in alike):
            return True
        following = work.steps.get(node.outputs[0], []) if node.outputs else []
        left += [(n, (*seen, numbers)[-LONGEST_CHAIN:]) for n in following]
    return False


def _is_step(node: Node) -> bool:
    return plain(node.kind) in (*RESHAPES, "transpose")


def _extends(node: Node, producers: dict[str, Node], inside: set[int]) -> bool:
    makers = (producers.get(name) for name in node.inputs)
    return any(m is not None and m.index in inside and _is_step(m) for m in makers)


def _start_numbers(graph: Graph, node: Node) -> Any:
    tensor = _data_input(graph, node)
    if tensor is None or not tensor.shape or min(tensor.shape) < 1 or len(tensor.shape) > MOST_AXES:
        return None
    n = prod(tensor.shape)
    return np.arange(n, dtype=np.int32).reshape(tensor.shape) if n <= MOST_ELEMENTS else None


def _step(graph: Graph, node: Node, numbers: Any) -> Any:
    if plain(node.kind) == "transpose":
        order = node.permutation
        return numbers.transpose(order) if order and sorted(order) == list(range(numbers.ndim)) else None
    out = graph.tensors.get(node.outputs[0]) if node.outputs else None
    shape = out.shape if out is not None else None
    fits = shape and min(shape) >= 1 and len(shape) <= MOST_AXES and prod(shape) == numbers.size
    return numbers.reshape(shape) if fits else None


def _rearranges(before: Any, after: Any, axis: int) -> bool:
    """Whether after is before, an image of the same shape, with its channels in another order."""
    if (before == after).all():
        return False
    rows = np.moveaxis(before, axis, 0).reshape(before.shape[axis], -1)
    moved = np.moveaxis(after, axis, 0).reshape(after.shape[axis], -1)
    firsts, sought = rows[:, 0], moved[:, 0]
    places = firsts.argsort()
    at = np.searchsorted(firsts, sought, sorter=places).clip(max=len(places) - 1)
    order = places[at]
    return bool((firsts[order] == sought).all() and (rows[order] == moved).all())
