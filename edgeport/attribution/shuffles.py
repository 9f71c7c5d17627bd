"""Which operators of a graph shuffle channels, or split them."""

from collections.abc import Sequence
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
