"""Where the channels of a tensor come from: operators that only move data, followed element by element.

Instead of patterns for every way to write a channel shuffle, the movement operators are run on tensors of element
numbers. What comes out says which element of which tensor stands where, whatever views, permutes, chunks, flips and
concats were between; and if whole channels have moved, that is a list of wires.
"""

import operator
from collections.abc import Iterator
from math import prod
from typing import Any

import torch
from torch.fx import GraphModule, Node
from torch.utils import _pytree

from edgeport.graph._nodes import shape_of
from edgeport.graph._state import get_state

aten = torch.ops.aten

CHANNELS = 1  # the axis
MOVES = {
    *(aten.view.default, aten.reshape.default, aten._unsafe_view.default, aten.flatten.using_ints),
    *(aten.unflatten.int, aten.squeeze.dim, aten.squeeze.dims, aten.squeeze.default, aten.unsqueeze.default),
    *(aten.permute.default, aten.transpose.int, aten.t.default, aten.flip.default, aten.roll.default),
    *(aten.cat.default, aten.stack.default, aten.chunk.default, aten.split.Tensor, aten.split_with_sizes.default),
    *(aten.slice.Tensor, aten.select.int, aten.narrow.default, aten.unbind.int, aten.channel_shuffle.default),
    *(aten.index_select.default, aten.index.Tensor, aten.clone.default, aten.contiguous.default, aten.detach.default),
    *(aten.alias.default, aten.dropout.default, aten.feature_dropout.default, aten.pixel_shuffle.default),
    *(aten.pixel_unshuffle.default, operator.getitem),
}
INDEXING = (aten.index_select.default, aten.index.Tensor)
# Wires of tensors larger than this are not followed: the numbers of their elements would take more memory than they.
MOST_ELEMENTS = 1 << 24

Wire = tuple[Node, int]  # a channel of a tensor that some operator computed


class Wiring:
    """Which wires each tensor of a graph carries. Tensors that no movement operator makes carry their own."""

    def __init__(self, gm: GraphModule) -> None:
        self.movers: set[Node] = set()
        self.sources: dict[Node, set[Node]] = {}  # of each mover's value: the tensors that it takes elements from
        self._wires: dict[Node, list[Wire] | None] = {}
        self._numbers: dict[Node, Any] = {}
        self._first: dict[Node, int] = {}  # number of a tensor's first element
        self._count = 0
        for node in gm.graph.nodes:
            if self._moves(node):
                self._move(gm, node)
        self._numbers.clear()

    def wires(self, node: Node) -> list[Wire] | None:
        """One wire a channel; None where elements have moved in another way, or it has no channels."""
        if node in self.movers:
            return self._wires[node]
        shape = shape_of(node)
        return [(node, c) for c in range(shape[CHANNELS])] if len(shape) > CHANNELS and shape[CHANNELS] else None

    def _moves(self, node: Node) -> bool:
        if node.op != "call_function" or node.target not in MOVES:
            return False
        if "dropout" in str(node.target) and node.args[2]:
            return False
        inputs = [i for i in node.all_input_nodes if i.op != "get_attr"]
        if node.target is operator.getitem:
            return inputs[0] in self.movers
        if node.target in INDEXING and not self._is_constant_index(node):
            return False  # where elements go depends on values
        return bool(inputs) and all(i in self.movers or 0 < prod(shape_of(i)) <= MOST_ELEMENTS for i in inputs)

    def _is_constant_index(self, node: Node) -> bool:
        """And not a mask, of which the shape of what it takes is not known before it is run."""
        indices = [i for i in _pytree.tree_leaves(node.args[1:]) if isinstance(i, Node)]
        return all(i.op == "get_attr" for i in indices) and shape_of(node) != ()

    def _move(self, gm: GraphModule, node: Node) -> None:
        def numbers(argument: Any) -> Any:
            if not isinstance(argument, Node):
                return argument
            if argument.op == "get_attr":
                return get_state(gm, argument)
            return self._numbers[argument] if argument in self.movers else self._numbered(argument)

        args, kwargs = _pytree.tree_map(numbers, (node.args, node.kwargs))
        value = node.target(*args, **kwargs)  # type: ignore[operator]
        self.movers.add(node)
        inputs = [i for i in node.all_input_nodes if i.op != "get_attr"]
        self.sources[node] = {s for i in inputs for s in self.sources.get(i, {i})}
        self._numbers[node] = value
        read = any(not self._moves(user) for user in node.users)  # by an operator that computes
        types = {n.meta["val"].dtype for n in (node, *self.sources[node]) if isinstance(n.meta["val"], torch.Tensor)}
        # a concat of several types makes one of them
        self._wires[node] = self._decoded(value, self.sources[node]) if read and len(types) == 1 else None
        for done in inputs:  # numbers are large, and kept no longer than needed
            if done in self.movers and all(u in self.movers or not self._moves(u) for u in done.users):
                del self._numbers[done]

    def _numbered(self, source: Node) -> torch.Tensor:
        shape = shape_of(source)
        if source not in self._first:
            self._first[source], self._count = self._count, self._count + prod(shape)
        first = self._first[source]
        return torch.arange(first, first + prod(shape)).reshape(shape)

    def _decoded(self, numbers: Any, sources: set[Node]) -> list[Wire] | None:
        if not isinstance(numbers, torch.Tensor) or numbers.dim() <= CHANNELS or not numbers.numel():
            return None
        batch, channels = numbers.shape[:2]
        flat = numbers.reshape(batch, channels, -1)
        area = flat.shape[2]
        shapes = {source: shape_of(source) for source in sorted(sources, key=self._first.__getitem__)}
        if any(len(s) <= CHANNELS or s[0] != batch or prod(s[2:]) != area for s in shapes.values()):
            return None
        tensors, firsts = list(shapes), torch.tensor([self._first[source] for source in shapes])
        widths = torch.tensor([shape[CHANNELS] for shape in shapes.values()])
        heads = flat[0, :, 0].contiguous()
        which = torch.searchsorted(firsts, heads, right=True) - 1
        starts = torch.arange(batch)[:, None] * widths[which] * area + heads
        if not torch.equal(flat, starts[:, :, None] + torch.arange(area)):
            return None
        channel = (heads - firsts[which]) // area
        return [(tensors[t], c) for t, c in zip(which.tolist(), channel.tolist(), strict=True)]


def runs(wires: list[Wire]) -> Iterator[tuple[Node, int, int]]:
    """(tensor, first channel, how many) of neighbours that are neighbours in their tensor too."""
    start = 0
    for i in range(1, len(wires) + 1):
        source, channel = wires[i - 1]
        if i == len(wires) or wires[i] != (source, channel + 1):
            yield source, wires[start][1], i - start
            start = i
