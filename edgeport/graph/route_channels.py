"""Lets weights do what splits, concats and channel shuffles do: each channel is written where it will be read.

A convolution may write its output channels in any order, if whoever reads them has its weights in that order too. So
each tensor's channels are sorted by who reads them; then a reader's input is a few slices, and what was only moved
about between (ShuffleNet's shuffle, and the channels that pass a unit untouched) is not moved. Operators that treat
each channel by itself (depthwise convolution, activation, pooling, addition) take whatever order suits their readers.

Exact: every product and every sum is still made, some sums in another order.
"""

import operator
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from math import prod
from typing import Any

import msgspec
import torch
from torch.fx import GraphModule, Node
from torch.utils import _pytree

from edgeport.graph._channels import CHANNELS, Wire, Wiring, runs
from edgeport.graph._nodes import Partition, create, shape_of
from edgeport.graph._roles import ELEMENTWISE, Role, groups_of, input_of, role_of
from edgeport.graph._state import add_state, get_state
from edgeport.graph._turns import turning_orders

FORMATS = ("onnx", "tflite")
ORDER = 30

aten = torch.ops.aten

# Operators that put pieces side by side or take them apart, and those that move nothing; all others shuffle.
CUTTING = (
    *(aten.cat.default, aten.stack.default, aten.chunk.default, aten.split.Tensor, aten.split_with_sizes.default),
    *(aten.slice.Tensor, aten.select.int, aten.narrow.default, aten.unbind.int),
)
SHUFFLING = (
    *(aten.permute.default, aten.transpose.int, aten.t.default, aten.flip.default, aten.roll.default),
    *(aten.channel_shuffle.default, aten.index_select.default, aten.index.Tensor),
    *(aten.pixel_shuffle.default, aten.pixel_unshuffle.default),
)
# What it costs to shuffle an element, to start a piece at each pixel, and to run one more operator, in elements copied
# as part of a long piece. Measured in LiteRT, int8: transposes take 2.5 ns an element, slices and concats 0.15 ns and
# about 2 ns a piece and pixel. An operator takes 1 us beside what it does, 3 in ONNX Runtime and with several threads;
# that it is worth more than that was tried out on ShuffleNetV1 of 3 groups, which with 60,000 and more takes 6% less
# time in LiteRT fp32 than with 40,000 (9% less with two threads), and as little or less in ONNX Runtime.
SHUFFLED, PIECE, OPERATOR = 16, 12, 60_000


class Read(msgspec.Struct, frozen=True, eq=False):
    """A tensor that an operator computes from. sorts: whether the operator lets it come in another order."""

    reader: Node
    value: Node
    wires: tuple[Wire, ...]
    sorts: bool


Pieces = tuple[tuple[Node, int, int], ...]  # tensor, first channel as it lies in memory, how many


def run(gm: GraphModule) -> int:
    """Returns how many operators that moved channels went; as many cuts and joins may have come in their stead."""
    if any(_writes_in_place(node) for node in gm.graph.nodes):
        return 0  # a view of a tensor may be written to, and moving it would copy it
    wiring = Wiring(gm)
    if not wiring.movers:
        return 0
    moving = {node for node in gm.graph.nodes if node.target in (*CUTTING, *SHUFFLING)}
    _Router(gm, wiring).rewrite()
    gm.graph.eliminate_dead_code()
    return len(moving - set(gm.graph.nodes))


def _writes_in_place(node: Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable


class _Router:
    """order[tensor]: which channel lies at each place in memory; position[tensor, channel]: the reverse."""

    def __init__(self, gm: GraphModule, wiring: Wiring) -> None:
        self.gm, self.wiring = gm, wiring
        self.place = {node: i for i, node in enumerate(gm.graph.nodes)}
        self.nodes = [n for n in self.place if n not in wiring.movers and n.op != "get_attr"]
        self.roles = {node: role_of(gm, node) for node in self.nodes}
        self.frozen: set[Node] = set()  # tensors of which somebody reads more than whole channels
        self.reads = {node: list(self._reads(node)) for node in self.nodes}
        self.ranks = self._ranks()
        self._sort({})
        if turns := self._turns():
            still = self._cost()
            self._sort(turns)
            if self._cost() >= still:  # a tensor that takes part in the rotation has to keep its order
                self._sort({})
        self.routed = self._worth_routing()

    # Who reads what, and how freely

    def _reads(self, node: Node) -> Iterator[Read]:
        for value in node.all_input_nodes:
            if value.op == "get_attr":
                continue
            wires = self.wiring.wires(value)
            if wires is None:
                self.frozen |= self.wiring.sources.get(value, {value})
                self.frozen |= {node} if self.roles[node] is Role.EACH else set()
                continue
            sorts = self.roles[node] is not Role.FIXED and len(wires) == _channels_read(node)
            yield Read(node, value, tuple(wires), sorts)

    def _all_reads(self) -> Iterator[Read]:
        return (read for reads in self.reads.values() for read in reads)

    # Sorting

    def _turns(self) -> dict[Node, list[int]]:
        each = [(n, r.wires) for n in self.nodes if self.roles[n] is Role.EACH for r in self.reads[n] if r.sorts]
        return turning_orders(self.nodes, each)

    def _sort(self, turns: dict[Node, list[int]]) -> None:
        """In the order in which operators run: channels that tie follow the input's, or turn."""
        self.order: dict[Node, list[int]] = {}
        self.position: dict[Wire, int] = {}
        for node, rank in self.ranks.items():
            read = next((r for r in self.reads[node] if r.sorts), None) if self.roles[node] is Role.EACH else None
            wires = read.wires if read else [(node, c) for c in range(len(rank))]
            ties = [(self.place[s], self.position.get((s, c), c)) for s, c in wires]
            if node in turns:
                ties = [(0, place) for place in turns[node]]
            self.order[node] = [c for _, _, c in sorted(zip(rank, ties, range(len(rank)), strict=True))]
            self.position.update({(node, c): i for i, c in enumerate(self.order[node])})
        self.pieces = {id(read): self._pieces(read) for read in self._all_reads()}

    def _ranks(self) -> dict[Node, list[int]]:
        """Of each tensor's channels: their order as far as it matters to their readers, equal where it does not."""
        readers: dict[Wire, list[tuple[Read, int]]] = {}
        for read in self._all_reads():
            for i, wire in enumerate(read.wires):
                readers.setdefault(wire, []).append((read, i))
        ranks: dict[Node, list[int]] = {}
        for node, blocks in reversed(self._blocks().items()):
            keys = []
            for c, block in enumerate(blocks):
                wishes = [(self.place[r.reader], self._wish(r, i, ranks)) for r, i in readers.get((node, c), [])]
                keys.append((block, *wishes))
            ranks[node] = _numbered(keys)
        return dict(reversed(ranks.items()))

    def _wish(self, read: Read, i: int, ranks: dict[Node, list[int]]) -> int:
        """Where a reader would have the i-th channel of what it reads."""
        role = self.roles[read.reader]
        if not read.sorts:
            return i
        if role is Role.EACH:
            return ranks[read.reader][i]
        return i // (len(read.wires) // groups_of(read.reader)) if role is Role.MIXES_GROUPS else 0

    def _blocks(self) -> dict[Node, list[int]]:
        """Of each tensor's channels: the block that they cannot leave.

        Groups of a convolution keep their places. What comes from one tensor alone keeps that one's blocks, so that
        an activation stays with its convolution.
        """
        blocks: dict[Node, list[int]] = {}
        for node in self.nodes:
            shape, role = shape_of(node), self.roles[node]
            if len(shape) <= CHANNELS:
                continue
            channels = range(shape[CHANNELS])
            if role is Role.FIXED or node in self.frozen:
                blocks[node] = list(channels)
            elif role is Role.MIXES_GROUPS:
                blocks[node] = [c // (len(channels) // groups_of(node)) for c in channels]
            else:
                reads = self.reads[node] if role is Role.EACH else []
                inherited = [blocks[r.wires[0][0]] for r in reads if r.sorts and _is_whole(r.wires)]
                blocks[node] = _numbered([tuple(b[c] for b in inherited) for c in channels])
        return blocks

    def _arranged(self, read: Read) -> list[int]:
        """Which of the read channels comes at each place."""
        n, role = len(read.wires), self.roles[read.reader]
        if not read.sorts:
            return list(range(n))
        if role is Role.EACH:
            return self.order[read.reader]
        size = n // (groups_of(read.reader) if role is Role.MIXES_GROUPS else 1)
        where = [(i // size, self.place[s], self.position[s, c]) for i, (s, c) in enumerate(read.wires)]
        return sorted(range(n), key=where.__getitem__)

    def _pieces(self, read: Read) -> Pieces:
        wires = [read.wires[i] for i in self._arranged(read)]
        return tuple(runs([(s, self.position[s, c]) for s, c in wires]))

    # Whether it pays

    def _worth_routing(self) -> set[Node]:
        """Tensors of those parts of the network, connected by moves, in which less is moved when routed."""
        parts = Partition(self.order)
        for read in self._all_reads():
            together = [read.reader] if self.roles[read.reader] is Role.EACH else []
            parts.join([*(s for s, _ in read.wires), *together])
        gain, staying = dict.fromkeys(self.order, 0), self._staying()
        for mover, sources in self.wiring.sources.items():
            known = [s for s in sources if s in self.order]
            parts.join(known)
            if known and mover not in staying:
                gain[known[0]] += _cost_now(mover)
        for pieces, area in self._cuts():
            gain[pieces[0][0]] -= _cost_routed(pieces, area)
        total: dict[Node, int] = {}
        for source, saved in gain.items():
            total[parts.of(source)] = total.get(parts.of(source), 0) + saved
        return {source for source in self.order if total[parts.of(source)] > 0}

    def _cost(self) -> int:
        return sum(_cost_routed(pieces, area) for pieces, area in self._cuts())

    def _cuts(self) -> set[tuple[Pieces, int]]:
        """What is read, once for all that read the same, with the elements of a channel."""
        return {(self.pieces[id(r)], prod(shape_of(r.value)[2:])) for r in self._all_reads()}

    def _staying(self) -> set[Node]:
        """Movers that somebody needs as they are, since they move more than whole channels."""
        found: set[Node] = set()
        waiting = [i for node in self.nodes for i in node.all_input_nodes]
        waiting = [i for i in waiting if i in self.wiring.movers and self.wiring.wires(i) is None]
        while waiting:
            mover = waiting.pop()
            if mover not in found:
                found.add(mover)
                waiting += [i for i in mover.all_input_nodes if i in self.wiring.movers]
        return found

    # Rewriting

    def rewrite(self) -> None:
        joined: dict[tuple[Any, ...], Node] = {}
        cut = self._cut()
        for node in self.nodes:
            reads = [r for r in self.reads[node] if r.wires[0][0] in self.routed]
            inputs: dict[Node, Node] = {}
            for read in reads:
                key = (self.pieces[id(read)], shape_of(read.value))
                if key not in joined:
                    joined[key] = self._join(read, cut)
                inputs[read.value] = joined[key]
            # all at once: what one is replaced by may itself be another
            node.args, node.kwargs = _pytree.tree_map_only(Node, _looked_up(inputs), (node.args, node.kwargs))
            self._sort_weights(node, next((self._arranged(r) for r in reads if r.sorts), None))

    def _cut(self) -> dict[tuple[Node, int, int], Node]:
        """Cuts each routed tensor into the pieces that are read of it: in one go where none overlap."""
        wanted: dict[Node, dict[tuple[int, int], Node]] = {}
        for read in self._all_reads():
            for source, start, size in self.pieces[id(read)] if read.wires[0][0] in self.routed else ():
                wanted.setdefault(source, {}).setdefault((start, start + size), read.value)
        made: dict[tuple[Node, int, int], Node] = {}
        for source, asked in wanted.items():
            channels = shape_of(source)[CHANNELS]
            spans = sorted(span for span in asked if span != (0, channels))
            if len(spans) < len(asked):
                made[source, 0, channels] = source
            if all(x[1] == y[0] for x, y in pairwise([(0, 0), *spans, (channels, channels)])):
                sizes = [end - start for start, end in spans]
                parts = self._call(source, asked[spans[0]], aten.split_with_sizes.default, source, sizes, CHANNELS)
                for i, (start, end) in enumerate(spans):
                    made[source, start, end - start] = self._call(parts, asked[start, end], operator.getitem, parts, i)
                continue
            for start, end in spans:
                piece = self._call(source, asked[start, end], aten.slice.Tensor, source, CHANNELS, start, end)
                made[source, start, end - start] = piece
        return made

    def _join(self, read: Read, cut: dict[tuple[Node, int, int], Node]) -> Node:
        """The pieces of what is read side by side, in the shape of what was read."""
        parts, shape = [], shape_of(read.value)
        for piece in self.pieces[id(read)]:
            part = cut[piece]
            if shape_of(part)[CHANNELS + 1 :] != shape[CHANNELS + 1 :]:
                sizes = [shape[0], piece[2], *shape[CHANNELS + 1 :]]
                part = self._call(part, read.value, aten.reshape.default, part, sizes)
            parts.append(part)
        if len(parts) == 1:
            return parts[0]
        with self.gm.graph.inserting_before(read.reader):
            return create(self.gm, read.value, aten.cat.default, parts, CHANNELS)

    def _call(self, after: Node, scope: Node, target: Any, *args: Any) -> Node:
        with self.gm.graph.inserting_after(after):
            return create(self.gm, scope, target, *args)

    def _sort_weights(self, node: Node, arranged: Sequence[int] | None) -> None:
        """arranged: the channels of the input as they come now, if they are routed."""
        role = self.roles[node]
        order = self.order[node] if node in self.routed else None
        if role is Role.FIXED or (order is None and arranged is None):
            return
        if role is Role.EACH:
            for i, operand in enumerate(node.args):
                self._sort_operand(node, i, operand, order)
            return
        weight = get_state(self.gm, node.args[1])
        assert weight is not None
        if arranged is not None:
            groups, size = groups_of(node), weight.shape[1]
            columns = torch.tensor(arranged).reshape(groups, size) % size  # of each group's rows
            rows = columns.repeat_interleave(len(weight) // groups, dim=0)
            index = rows.reshape(*rows.shape, *[1] * (weight.dim() - 2)).expand_as(weight)
            weight = weight.gather(1, index)
        if order is not None:
            weight = weight[order]
            self._sort_operand(node, 2, node.args[2] if len(node.args) > 2 else None, order)
        self._set(node, 1, weight)

    def _sort_operand(self, node: Node, i: int, operand: Any, order: list[int] | None) -> None:
        """Sorts a constant that has an axis of channels."""
        state = get_state(self.gm, operand)
        if state is None or order is None:
            return
        channels = len(order)
        # weights and statistics have channels first; constants of element-wise operators line up at the last axis
        axis = 0 if node.target not in ELEMENTWISE else CHANNELS - len(shape_of(node)) + state.dim()
        if 0 <= axis < state.dim() and state.shape[axis] == channels:
            self._set(node, i, state.index_select(axis, torch.tensor(order)))

    def _set(self, node: Node, i: int, value: torch.Tensor) -> None:
        old = node.args[i]
        assert isinstance(old, Node)
        new = add_state(self.gm, str(old.target), value, node)
        node.args = (*node.args[:i], new, *node.args[i + 1 :])


def _looked_up(replacements: dict[Node, Node]) -> Callable[[Node], Node]:
    return lambda node: replacements.get(node, node)


def _channels_read(node: Node) -> int:
    """How many channels the inputs that may be sorted have."""
    return shape_of(node)[CHANNELS] if node.target in ELEMENTWISE else shape_of(input_of(node))[CHANNELS]


def _is_whole(wires: Sequence[Wire]) -> bool:
    """Whether they are one tensor's channels, all of them in their order."""
    source = wires[0][0]
    return len(wires) == shape_of(source)[CHANNELS] and all(w == (source, i) for i, w in enumerate(wires))


def _numbered(keys: Sequence[Any]) -> list[int]:
    """Equal numbers for equal keys, in their order."""
    dense = {key: i for i, key in enumerate(sorted(set(keys)))}
    return [dense[key] for key in keys]


def _cost_now(mover: Node) -> int:
    value = mover.meta["val"]
    parts: Sequence[torch.Tensor] = value if isinstance(value, (list, tuple)) else [value]
    elements = sum(part.numel() for part in parts)
    if mover.target in SHUFFLING:
        return SHUFFLED * elements + OPERATOR
    if mover.target not in CUTTING:
        return 0
    area = prod(parts[0].shape[CHANNELS + 1 :])
    if isinstance(mover.args[0], (list, tuple)):
        return elements + len(mover.args[0]) * PIECE * area + OPERATOR
    return elements + len(parts) * (PIECE * area + OPERATOR)


def _cost_routed(pieces: Pieces, area: int) -> int:
    """area: elements of a channel. Each piece that is cut is an operator, and all that join them are one."""
    cut = [size for source, _, size in pieces if size < shape_of(source)[CHANNELS]]
    joined = [size for _, _, size in pieces] if len(pieces) > 1 else []
    copied = sum(area * (size + PIECE) for size in (*cut, *joined))
    return copied + OPERATOR * (len(cut) + bool(joined))
