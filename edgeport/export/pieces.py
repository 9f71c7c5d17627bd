"""The pieces of a network's outputs: what it joins last is judged piece by piece, as if each were an output of its own.

A detector that joins boxes, in pixels, with scores from 0 to 1 has two pieces in one output. Over all elements the
boxes decide every figure, and an artifact whose scores are all zero looks good.
"""

import operator
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch.fx import GraphModule, Node
from torch.utils import _pytree

from edgeport.graph._nodes import fixed_shape

aten = torch.ops.aten
MOST_PIECES = 64  # of one output; one of more is judged as a whole

JOINS = (aten.cat.default, aten.stack.default)
MOVES = (
    *JOINS,
    *(aten.view.default, aten.reshape.default, aten._unsafe_view.default, aten.flatten.using_ints),
    *(aten.unflatten.int, aten.squeeze.default, aten.squeeze.dim, aten.squeeze.dims, aten.unsqueeze.default),
    *(aten.permute.default, aten.transpose.int, aten.t.default, aten.contiguous.default, aten.clone.default),
    *(aten.alias.default, aten.detach.default, aten.slice.Tensor, aten.select.int, aten.narrow.default),
    *(aten.chunk.default, aten.split.Tensor, aten.split_with_sizes.default, aten.unbind.int, operator.getitem),
    *(aten.dropout.default, aten.flip.default, aten.expand.default),
)
# What changes every element in its place, whatever its neighbours are.
ELEMENTWISE = (
    *(aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor, aten.neg.default, aten.exp.default),
    *(aten.sigmoid.default, aten.tanh.default, aten.relu.default, aten.relu6.default, aten.hardtanh.default),
    *(aten.clamp.default, aten.clamp_min.default, aten.abs.default, aten.sqrt.default, aten.hardsigmoid.default),
)


class Pieces(msgspec.Struct, frozen=True):
    """The pieces of one output. labels: of each element the number of its piece, in the output's PyTorch shape.

    names: of each piece where it lies ("[:, 0:4]"), or the operator that made it; "" where the output is one piece.
    """

    names: tuple[str, ...]
    labels: NDArray[Any]

    def split(self, values: NDArray[Any]) -> Iterator[NDArray[Any]]:
        """Each piece's elements of values (samples, *shape of the output), as (samples, elements)."""
        flat, labels = values.reshape(len(values), -1), self.labels.ravel()
        for number in range(len(self.names)):
            yield flat if len(self.names) == 1 else flat[:, labels == number]


def of_outputs(gm: GraphModule) -> tuple[Pieces, ...]:
    """The pieces of each output of a captured graph (flat tensors of fixed shape)."""
    results = gm.graph.output_node().args[0]
    assert isinstance(results, (tuple, list))
    constants = _constants(gm)
    return tuple(_of_output(node, constants) for node in results if isinstance(node, Node))


def _of_output(node: Node, constants: set[Node]) -> Pieces:
    shape = fixed_shape(node.meta["val"]) or ()
    whole = Pieces(("",), np.zeros(shape, np.int16))
    join = _last_join(node, constants)
    if join is None or not shape:
        return whole
    leaves = dict.fromkeys(_leaves(join))
    if not 1 < len(leaves) <= MOST_PIECES:
        return whole
    numbers = _labels(node, {leaf: n for n, leaf in enumerate(leaves)}, constants)
    present, labels = np.unique(numbers, return_inverse=True)
    if len(present) < 2:
        return whole
    labels = labels.reshape(shape).astype(np.int16)
    makers = list(leaves)
    names = [_where(labels == i) or makers[int(n)].name for i, n in enumerate(present)]
    return Pieces(tuple(names), labels)


def _last_join(node: Node, constants: set[Node]) -> Node | None:
    """The join that is nearest to the output, behind moves and element-wise operators of it alone."""
    while node.target not in JOINS:
        sources = [n for n in node.all_input_nodes if n not in constants]
        if len(sources) != 1 or not (node.target in MOVES or _keeps_places(node, sources[0])):
            return None
        node = sources[0]
    return node


def _constants(gm: GraphModule) -> set[Node]:
    """The nodes that hang on no input."""
    found: set[Node] = set()
    for node in gm.graph.nodes:
        if node.op != "placeholder" and found.issuperset(node.all_input_nodes):
            found.add(node)
    return found


def _keeps_places(node: Node, source: Node) -> bool:
    return node.target in ELEMENTWISE and fixed_shape(node.meta.get("val")) == fixed_shape(source.meta.get("val"))


def _leaves(node: Node) -> Iterator[Node]:
    """What is joined: the results that are moved, and not computed with, on their way."""
    if node.target not in MOVES:
        yield node
        return
    for source in node.all_input_nodes:
        yield from _leaves(source)


def _labels(node: Node, numbers: dict[Node, int], constants: set[Node]) -> NDArray[Any]:
    """The moves run on the numbers of the pieces, in place of data."""
    known: dict[Node, Any] = {}
    for leaf, number in numbers.items():
        known[leaf] = _filled(leaf.meta["val"], number)

    def labels_of(at: Node) -> Any:
        if at not in known:
            args = _pytree.tree_map_only(Node, labels_of, (at.args, at.kwargs)) if at.target in MOVES else None
            # Operators behind the join change every element in its place.
            source = next(n for n in at.all_input_nodes if n not in constants)
            known[at] = at.target(*args[0], **args[1]) if args else labels_of(source)  # type: ignore[operator]
        return known[at]

    return np.asarray(labels_of(node).numpy())


def _filled(value: Any, number: int) -> Any:
    """A tensor, or a tuple of some, of the same shapes and full of the number."""
    return _pytree.tree_map_only(torch.Tensor, lambda t: torch.full(t.shape, number, dtype=torch.int16), value)


def _where(inside: NDArray[np.bool_]) -> str | None:
    """The slice that the elements fill, None where they fill none."""
    spans: list[tuple[int, int]] = []
    for axis in range(inside.ndim):
        others = tuple(a for a in range(inside.ndim) if a != axis)
        places = np.flatnonzero(inside.any(axis=others))
        spans.append((int(places[0]), int(places[-1]) + 1))
    box = tuple(slice(*span) for span in spans)
    if not inside[box].all():
        return None
    parts = [":" if span == (0, n) else f"{span[0]}:{span[1]}" for span, n in zip(spans, inside.shape, strict=True)]
    while parts and parts[-1] == ":":
        parts.pop()
    return f"[{', '.join(parts)}]"
