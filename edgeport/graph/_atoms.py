"""Runs of channels that stay together on their way through a network, and room for channels of zeros behind them.

A tensor's channels are cut into atoms wherever somebody cuts it or a tensor that shares channels with it. Atoms that
are one another's copies, or are computed from one another channel by channel, make a family: they can all get channels
of zeros behind their last one, if every operator that reads or makes one of them can.
"""

import operator
from collections import defaultdict
from collections.abc import Iterator, Mapping
from itertools import accumulate, pairwise

import msgspec
import torch
from torch.fx import GraphModule, Node

from edgeport.graph._channels import CHANNELS
from edgeport.graph._nodes import argument, shape_of
from edgeport.graph._roles import GROUPS, Role, input_of, is_depthwise, role_of
from edgeport.graph._state import add_state, get_state

aten = torch.ops.aten

# Of zero, all of these make a finite number.
HARMLESS = (
    *(aten.relu.default, aten.relu6.default, aten.hardtanh.default, aten.sigmoid.default, aten.hardswish.default),
    *(aten.silu.default, aten.max_pool2d.default, aten.avg_pool2d.default, aten.adaptive_avg_pool2d.default),
    *(aten.add.Tensor, aten.mul.Tensor, aten.mean.dim),
)

Atom = tuple[Node, int]  # a tensor, and the first channel


class Family(msgspec.Struct, frozen=True):
    """size: channels of each of its atoms."""

    atoms: frozenset[Atom]
    size: int

    def tensors(self) -> set[Node]:
        return {tensor for tensor, _ in self.atoms}


class _Same(msgspec.Struct, frozen=True):
    """size channels of one tensor, from first, are those of another, from other_first."""

    tensor: Node
    first: int
    other: Node
    other_first: int
    size: int

    def turned(self) -> "_Same":
        return _Same(self.other, self.other_first, self.tensor, self.first, self.size)


class Atoms:
    """All atoms of a graph."""

    def __init__(self, gm: GraphModule) -> None:
        self.gm = gm
        self.tensors = [n for n in gm.graph.nodes if n.op != "get_attr" and len(shape_of(n)) > CHANNELS]
        self._links = defaultdict(list)
        for node in self.tensors:
            for link in _links(gm, node):
                self._links[link.tensor].append(link)
                self._links[link.other].append(link.turned())
        self._cuts = {node: {0, shape_of(node)[CHANNELS]} for node in self.tensors}
        self._cut()

    def sizes(self, tensor: Node) -> dict[int, int]:
        """Of its atoms, by their first channels."""
        return {start: end - start for start, end in pairwise(sorted(self._cuts[tensor]))}

    def families(self) -> Iterator[Family]:
        """Those that can grow, in the order in which the network runs."""
        fixed = {node for node in self.tensors if not _can_grow(self.gm, node)}
        seen: set[Atom] = set()
        for tensor in self.tensors:
            for start, size in self.sizes(tensor).items():
                if (tensor, start) in seen:
                    continue
                atoms = self._family((tensor, start))
                seen |= atoms
                if not any(node in fixed for node, _ in atoms):
                    yield Family(frozenset(atoms), size)

    def grow(self, more: Mapping[Atom, int]) -> None:
        """Channels of zeros behind atoms; whole families alike."""
        grown = {tensor for tensor, _ in more}
        zeros = {t: [(s, n, more.get((t, s), 0)) for s, n in self.sizes(t).items()] for t in grown}
        readers = {user for tensor in grown for user in tensor.users}
        for tensor in grown:
            if role_of(self.gm, tensor) is Role.MIXES or is_depthwise(tensor):
                for i in (1, 2):
                    _spread(self.gm, tensor, i, 0, zeros[tensor])
        for reader in readers:
            if role_of(self.gm, reader) is Role.MIXES:
                _spread(self.gm, reader, 1, 1, zeros[input_of(reader)])
            elif reader.target in (aten.split_with_sizes.default, aten.slice.Tensor):
                _cut_anew(reader, zeros[input_of(reader)])
        depthwise = {tensor for tensor in grown if is_depthwise(tensor)}
        for tensor in grown:
            channels = sum(size + extra for _, size, extra in zeros[tensor])
            tensor.meta["val"] = _with_channels(tensor.meta["val"], channels)
            if tensor in depthwise:
                tensor.args = (*tensor.args[:GROUPS], channels, *tensor.args[GROUPS + 1 :])

    def _cut(self) -> None:
        """Every cut of a tensor is one of all that share the channels on both sides."""
        waiting = [(tensor, cut) for tensor, cuts in self._cuts.items() for cut in cuts]
        for links in self._links.values():
            waiting += [(ln.tensor, cut) for ln in links for cut in (ln.first, ln.first + ln.size)]
        while waiting:
            tensor, cut = waiting.pop()
            self._cuts[tensor].add(cut)
            for link in self._links[tensor]:
                other = link.other_first + cut - link.first
                if link.first <= cut <= link.first + link.size and other not in self._cuts[link.other]:
                    self._cuts[link.other].add(other)
                    waiting.append((link.other, other))

    def _family(self, start: Atom) -> set[Atom]:
        found, waiting = {start}, [start]
        while waiting:
            tensor, first = waiting.pop()
            for link in self._links[tensor]:
                other = (link.other, link.other_first + first - link.first)
                if link.first <= first < link.first + link.size and other not in found:
                    found.add(other)
                    waiting.append(other)
        return found


def _links(gm: GraphModule, node: Node) -> Iterator[_Same]:
    """What a tensor's channels have in common with those that it is made from."""
    channels = shape_of(node)[CHANNELS]
    if role_of(gm, node) is Role.EACH:
        for value in [input_of(node)] if is_depthwise(node) else node.all_input_nodes:
            if value.op != "get_attr" and shape_of(value)[CHANNELS : CHANNELS + 1] == (channels,):
                yield _Same(value, 0, node, 0, channels)
    elif _is_join(node):
        first = 0
        for part in node.args[0]:  # type: ignore[union-attr]
            assert isinstance(part, Node)
            yield _Same(part, 0, node, first, shape_of(part)[CHANNELS])
            first += shape_of(part)[CHANNELS]
    elif node.target == operator.getitem and _is_split(node.args[0]):
        split, i = node.args
        sizes = split.args[1]  # type: ignore[union-attr]
        yield _Same(input_of(split), sum(sizes[:i]), node, 0, channels)  # type: ignore[arg-type, index]
    elif _is_slice(node):
        yield _Same(input_of(node), _span(node)[0], node, 0, channels)


def _can_grow(gm: GraphModule, node: Node) -> bool:
    """Whether whoever makes and whoever reads a tensor can do with more channels of zeros."""
    role, moved = role_of(gm, node), any(True for _ in _links(gm, node))
    makes = role is Role.MIXES or (role is Role.EACH and (is_depthwise(node) or _is_harmless(node)))
    if not makes and (role is Role.EACH or not moved):
        return False
    return all(_can_read_more(gm, user, node) for user in node.users)


def _can_read_more(gm: GraphModule, user: Node, node: Node) -> bool:
    role = role_of(gm, user)
    if role is Role.MIXES:
        return input_of(user) is node
    if role is Role.EACH:
        return is_depthwise(user) or _is_harmless(user)
    return _is_split(user) or _is_slice(user) or _is_join(user)


def _is_harmless(node: Node) -> bool:
    """Whether more channels of zeros do no harm, and all tensors that it reads have the channels of what it makes."""
    images = all(n.op != "get_attr" and shape_of(n)[:2] == shape_of(node)[:2] for n in node.all_input_nodes)
    return node.target in HARMLESS and images


def _is_join(node: Node) -> bool:
    """Whether it concatenates computed tensors along their channels."""
    if node.target != aten.cat.default or any(part.op == "get_attr" for part in node.all_input_nodes):
        return False
    if any(len(shape_of(part)) != len(shape_of(node)) for part in node.all_input_nodes):
        return False  # an empty one, of any shape, adds nothing
    return argument(node, 1, 0) in (CHANNELS, CHANNELS - len(shape_of(node)))


def _is_split(node: object) -> bool:
    if not isinstance(node, Node) or node.target != aten.split_with_sizes.default or _cuts_constant(node):
        return False
    along = argument(node, 2, 0) == CHANNELS
    return bool(along) and all(user.target == operator.getitem for user in node.users)


def _is_slice(node: Node) -> bool:
    along = node.target == aten.slice.Tensor and len(node.args) == 4 and bool(node.args[1] == CHANNELS)
    return along and not _cuts_constant(node)


def _cuts_constant(node: Node) -> bool:
    """Whether what it cuts is a parameter or buffer, which has no atoms."""
    return input_of(node).op == "get_attr"


def _span(node: Node) -> tuple[int, int]:
    """The channels that a slice takes: the first, and the one behind the last."""
    first, end, _ = slice(node.args[2], node.args[3]).indices(shape_of(input_of(node))[CHANNELS])
    return first, end


def _spread(gm: GraphModule, node: Node, i: int, axis: int, zeros: list[tuple[int, int, int]]) -> None:
    """Zeros in a weight or bias, along an axis: (first, size, how many zeros behind) of each run of entries."""
    old = node.args[i] if len(node.args) > i else None
    state = get_state(gm, old)
    if state is None:
        return
    assert isinstance(old, Node)
    parts = []
    for first, size, extra in zeros:
        parts.append(state.narrow(axis, first, size))
        if extra:
            parts.append(state.new_zeros([extra if d == axis else n for d, n in enumerate(state.shape)]))
    new = add_state(gm, str(old.target), torch.cat(parts, axis), node)
    node.args = (*node.args[:i], new, *node.args[i + 1 :])


def _cut_anew(node: Node, zeros: list[tuple[int, int, int]]) -> None:
    """A split or slice of a tensor that grows."""

    def moved(channel: int) -> int:
        return channel + sum(extra for first, _, extra in zeros if first < channel)

    if node.target == aten.slice.Tensor:
        first, end = _span(node)
        node.args = (*node.args[:2], moved(first), moved(end))
        return
    ends = [0, *accumulate(node.args[1])]  # type: ignore[arg-type]
    sizes = [moved(end) - moved(first) for first, end in pairwise(ends)]
    node.args = (node.args[0], sizes, *node.args[2:])
    node.meta["val"] = [_with_channels(part, size) for part, size in zip(node.meta["val"], sizes, strict=True)]


def _with_channels(value: torch.Tensor, channels: int) -> torch.Tensor:
    return value.new_empty((value.shape[0], channels, *value.shape[CHANNELS + 1 :]))
