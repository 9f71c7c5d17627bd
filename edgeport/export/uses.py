"""What a captured graph does with its inputs, as far as it tells which numbers they may be.

Each input is followed through moves, casts, sums and products with constants, and comparisons, element by element: what
stands at a place is factor * (an element of the input) + offset. Where that indexes rows of an embedding, or places
along an axis, it tells the element's limits; where it decides what a network leaves out, it tells a mask.
"""

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np
import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.utils import _pytree

from edgeport.export import draws
from edgeport.export.draws import Draw, Mask, Normal, Whole
from edgeport.export.pieces import MOVES
from edgeport.graph._nodes import argument, fixed_shape
from edgeport.graph._state import get_state
from edgeport.records import TensorInfo

aten = torch.ops.aten

MOST_ELEMENTS = 1 << 22  # of an input, or a constant, that are followed one by one
HUGE = 1e3  # what is taken from a score that softmax is to make nothing of
CASTS = (aten.to.dtype, aten.to.dtype_layout, aten._to_copy.default, aten.type_as.default, aten.to.device)
LIMITS = (aten.clamp.default, aten.clamp_min.default, aten.clamp_max.default, aten.remainder.Scalar)
SUMS: dict[Any, Callable[[Any, Any], Any]] = {
    **dict.fromkeys((aten.add.Tensor, aten.add.Scalar, aten.add_.Tensor), operator.add),
    **dict.fromkeys((aten.sub.Tensor, aten.sub.Scalar, aten.sub_.Tensor), operator.sub),
    **dict.fromkeys((aten.rsub.Scalar, aten.rsub.Tensor), lambda a, b: b - a),
}
PRODUCTS: dict[Any, Callable[[Any, Any], Any]] = {
    **dict.fromkeys((aten.mul.Tensor, aten.mul.Scalar, aten.mul_.Tensor), operator.mul),
    **dict.fromkeys((aten.div.Tensor, aten.div.Scalar, aten.div_.Tensor), operator.truediv),
    **dict.fromkeys((aten.div.Tensor_mode, aten.floor_divide.default), operator.truediv),
}
COMPARISONS: dict[Any, Callable[[Any, Any], Any]] = {
    getattr(getattr(aten, name), kind): getattr(operator, name)
    for name in ("eq", "ne", "lt", "le", "gt", "ge")
    for kind in ("Scalar", "Tensor")
}
NOTS = (aten.logical_not.default, aten.bitwise_not.default)
BOTHS = (aten.logical_and.default, aten.bitwise_and.Tensor, aten.logical_or.default, aten.bitwise_or.Tensor)
# Operators that index their first argument along one axis, the second one, by the third.
ALONG_AXIS = (
    *(aten.gather.default, aten.index_select.default, aten.scatter_reduce.two, aten.index_add.default),
    *(aten.scatter.src, aten.scatter.value, aten.scatter_add.default, aten.index_copy.default),
    *(aten.scatter_.src, aten.scatter_.value, aten.scatter_add_.default),
)
EMBEDDINGS = (aten.embedding.default, aten.embedding_bag.padding_idx, aten._embedding_bag.default)
INDEXED = (aten.index.Tensor, aten.index_put.default, aten.index_put_.default)
# What reads no element of its argument.
SHAPES_ONLY = (
    *(aten.zeros_like.default, aten.ones_like.default, aten.full_like.default, aten.empty_like.default),
    *(aten.new_zeros.default, aten.new_ones.default, aten.new_full.default, aten.new_empty.default),
    *(aten._assert_tensor_metadata.default, aten.sym_size.int),
)
CHOICES = (aten.where.self, aten.where.Scalar, aten.where.ScalarSelf, aten.where.ScalarOther)
FILLS = (aten.masked_fill.Scalar, aten.masked_fill_.Scalar, aten.masked_fill.Tensor, aten.masked_fill_.Tensor)


def draws_for(gm: GraphModule, inputs: Sequence[TensorInfo]) -> tuple[Draw, ...]:
    """How to draw each input of a captured graph."""
    nodes = [node for node in gm.graph.nodes if node.op == "placeholder"]
    return tuple(_draw(gm, node, info) for node, info in zip(nodes, inputs, strict=True))


def _draw(gm: GraphModule, node: Node, info: TensorInfo) -> Draw:
    if math.prod(info.shape) > MOST_ELEMENTS or fixed_shape(node.meta.get("val")) != info.shape:
        return draws.by_type(info)
    uses = _Uses(gm, info)
    uses.follow(node)
    return uses.draw()


class _View(msgspec.Struct, frozen=True):
    """What stands at each place. elements: numbers of the input's, -1 for what is none of them; all fields are of one
    shape, or lists where an operator makes several tensors. is_choice: it is 0 or 1, by a comparison or as a boolean.
    """

    elements: Any
    factor: Any
    offset: Any
    is_choice: bool = False

    def each(self, change: Callable[[Any, int], Any]) -> "_View":
        """With each field changed; the second argument is what stands for places that are no elements."""
        return _View(change(self.elements, -1), change(self.factor, 0), change(self.offset, 0), self.is_choice)

    def at(self, value: int) -> Tensor:
        """What stands there if the input's elements have this value."""
        return self.offset + self.factor * value  # type: ignore[no-any-return]


class _Uses:
    """Evidence of one input. low, high: limits of its elements by what they index; shown: by what they are compared
    with. dropped: values, 0 or 1, of an element that leaves something out. ends: what is computed with.
    """

    def __init__(self, gm: GraphModule, info: TensorInfo) -> None:
        self.gm, self.info = gm, info
        self.views: dict[Node, _View] = {}
        self.low, self.high = (np.full(math.prod(info.shape), end) for end in (-np.inf, np.inf))
        self.shown: tuple[int, int] | None = None
        self.is_compared = self.is_cast = self.is_indexing = False
        self.dropped: set[int] = set()
        self.ends: list[_View] = []
        self.normal: Normal | None = None
        self._constants: dict[Node, Tensor | None] = {}
        self._learnt = {name for name, _ in gm.named_parameters()}

    def follow(self, start: Node) -> None:
        elements = torch.arange(math.prod(self.info.shape)).reshape(self.info.shape)
        ones = torch.ones(self.info.shape, dtype=torch.float64)
        self.views[start] = _View(elements, ones, 0 * ones, self.info.dtype == "bool")
        for node in self.gm.graph.nodes:
            if node.op != "placeholder" and any(n in self.views for n in node.all_input_nodes):
                view = self._read(node)
                if view is not None:
                    self.views[node] = view

    def _read(self, node: Node) -> _View | None:
        """What the node makes of the input, None where that is no longer told element by element."""
        return HANDLERS[node.target](self, node) if node.target in HANDLERS else self._end(node)

    def _item(self, node: Node) -> _View:
        number = node.args[1]
        return self._followed(node).each(lambda field, _: field[number])

    def _followed(self, node: Node) -> _View:
        """The first of its arguments that is followed."""
        return next(self.views[n] for n in node.all_input_nodes if n in self.views)

    def _move(self, node: Node) -> _View:
        view = self._followed(node)

        def moved(which: int, filler: int) -> Any:
            def value(n: Node) -> Any:
                if n in self.views:
                    known = self.views[n]
                    return (known.elements, known.factor, known.offset)[which]
                dtype = torch.int64 if which == 0 else torch.float64
                return torch.full(fixed_shape(n.meta["val"]) or (), filler, dtype=dtype)

            args, kwargs = _pytree.tree_map_only(Node, value, (node.args, node.kwargs))
            return node.target(*args, **kwargs)  # type: ignore[operator]

        return _View(moved(0, -1), moved(1, 0), moved(2, 0), view.is_choice)

    def _cast(self, node: Node) -> _View | None:
        view, made = self.views.get(node.all_input_nodes[0]), node.meta["val"].dtype
        if view is None:
            return None
        self.is_cast |= made.is_floating_point and not self.info.dtype.startswith("float")
        return _View(view.elements, view.factor, view.offset, view.is_choice or made == torch.bool)

    def _sum(self, node: Node) -> _View | None:
        """Of it and a constant."""
        other, view = self._other(node), self._broadcast(node)
        if other is None or node.kwargs.get("alpha", 1) != 1:
            return self._end(node)
        change = SUMS[node.target]
        zero, one = (change(other, view.at(v)) if self._is_second(node) else change(view.at(v), other) for v in (0, 1))
        self._notice_dropped(zero, one)
        return _View(view.elements, one - zero, zero)

    def _product(self, node: Node) -> _View | None:
        """Of it and a constant, or its quotient by one."""
        other, view, change = self._other(node), self._broadcast(node), PRODUCTS[node.target]
        if other is None or (self._is_second(node) and change is operator.truediv):
            return self._end(node)
        made = _View(view.elements, change(view.factor, other), change(view.offset, other))
        self._notice_dropped(made.at(0), made.at(1))
        return made

    def _comparison(self, node: Node) -> _View | None:
        other, view, compare = self._other(node), self._broadcast(node), COMPARISONS[node.target]
        if other is None:
            return None
        if bool((other != other.reshape(-1)[:1]).any()):  # lengths, or numbers of classes, with all that there are
            more = 0 if compare in (operator.eq, operator.ne) else 1
            self.shown = int(other.min()) + more, int(other.max()) + more
            return None
        zero, one = (
            compare(other, view.at(v)) if self._is_second(node) else compare(view.at(v), other) for v in (0, 1)
        )
        if torch.equal(zero, one):
            self.shown = self.shown or (0, max(draws.SMALL, 2 * int(abs(other).max())))
            return None
        self.is_compared = True
        return _View(view.elements, one.double() - zero.double(), zero.double(), True)

    def _not(self, node: Node) -> _View:
        view = self._followed(node)
        return _View(view.elements, -view.factor, 1 - view.offset, True)

    def _both(self, node: Node) -> _View | None:
        """Of two conditions, of which the other one holds or not whatever the input is."""
        is_alone = sum(n in self.views for n in node.all_input_nodes) == 1
        return self._broadcast(node) if is_alone and self._followed(node).is_choice else None

    def _indexed(self, node: Node) -> _View | None:
        """By lists of places, one an axis."""
        source, places = argument(node, 0), argument(node, 1)
        for axis, place in enumerate(places):
            self._limit(place, source, axis)
        known = [self._constant(place) if isinstance(place, Node) else None for place in places]
        is_move = all(k is not None or p is None for k, p in zip(known, places, strict=True))
        if source not in self.views or not is_move or node.target is not aten.index.Tensor:
            return None
        picked = tuple(slice(None) if k is None else k.long() for k in known)
        if [k is not None for k in known] != sorted((k is not None for k in known), reverse=True):
            return None  # what NumPy and PyTorch do with a gap between lists is left alone
        return self.views[source].each(lambda field, _: field[picked])

    def _one_hot(self, node: Node) -> None:
        self._limit(argument(node, 0), node, node.meta["val"].dim() - 1)

    def _embedding(self, node: Node) -> None:
        self._limit(argument(node, 1), argument(node, 0), 0)

    def _along_axis(self, node: Node) -> None:
        self._limit(argument(node, 2), argument(node, 0), argument(node, 1))

    def _limit(self, place: Any, indexed: Node, axis: int) -> None:
        """Notes that elements are places along an axis."""
        view, shape = self.views.get(place), fixed_shape(indexed.meta["val"])
        if view is None or not shape or shape[axis] < 1 or view.is_choice:
            return
        self.is_indexing = True
        inside = (view.elements >= 0) & (view.factor != 0)
        elements, factor, offset = (field[inside].numpy() for field in (view.elements, view.factor, view.offset))
        ends = np.sort(np.stack([(0 - offset) / factor, (shape[axis] - 1 - offset) / factor]), axis=0)
        np.maximum.at(self.low, elements, np.ceil(ends[0]))
        np.minimum.at(self.high, elements, np.floor(ends[1]))

    def _end(self, node: Node) -> _View | None:
        """An operator that computes with it: it is followed no further."""
        view = self._followed(node)
        if not isinstance(view.elements, (list, tuple)):
            self.ends.append(view)
        return None

    def _ignore(self, node: Node) -> None:
        """What reads no element."""

    def _attention(self, node: Node) -> None:
        mask = node.args[3] if len(node.args) > 3 else node.kwargs.get("attn_mask")
        if isinstance(mask, Node) and mask in self.views and self.views[mask].is_choice:
            self._notice_dropped(*(-2 * HUGE * (1 - self.views[mask].at(v)) for v in (0, 1)))
        if any(n in self.views for n in node.all_input_nodes if n is not mask):
            self._end(node)

    def _norm(self, node: Node) -> _View | None:
        """The batch normalisation that comes first tells the mean and spread of what it reads."""
        mean, variance = self._number(node.args[3]), self._number(node.args[4])
        if node.args[0] not in self.views or mean is None or variance is None or self.normal is not None:
            return self._end(node)
        view = self._followed(node)
        shape = [1, -1, *[1] * (view.elements.dim() - 2)]
        spread = variance.double().sqrt().reshape(shape)
        self.normal = self._inverted(view, mean.double().reshape(shape).expand_as(view.factor), spread)
        return None

    def _filled(self, node: Node) -> _View | None:
        filled, condition, value = argument(node, 0), argument(node, 1), self._number(argument(node, 2))
        if condition in self.views and value is not None:
            self.is_compared = True
            self._notice_dropped(*(value.min() * (self.views[condition].at(v) != 0) for v in (0, 1)))
        return self._expanded(self.views[filled], node) if filled in self.views else None

    def _chosen(self, node: Node) -> _View | None:
        condition, *branches = (argument(node, i) for i in range(3))
        if condition in self.views:
            self.is_compared = True
            values = [self._number(branch) for branch in branches]
            yes, no = (torch.zeros(()) if value is None else value.min() for value in values)
            view = self.views[condition]
            self._notice_dropped(*(torch.where(view.at(v) != 0, yes.double(), no.double()) for v in (0, 1)))
        kept = [branch for branch in branches if branch in self.views]
        return self._expanded(self.views[kept[0]], node) if len(kept) == 1 else None

    def _notice_dropped(self, zero: Tensor, one: Tensor) -> None:
        """By what is added to scores if elements are zero, or one."""
        lowest_zero, lowest_one = (float(torch.nan_to_num(v.double()).min()) if v.numel() else 0.0 for v in (zero, one))
        if lowest_zero <= -HUGE < lowest_one:
            self.dropped.add(0)
        if lowest_one <= -HUGE < lowest_zero:
            self.dropped.add(1)

    def _inverted(self, view: _View, mean: Tensor, spread: Tensor) -> Normal | None:
        """Of inputs that make numbers of this mean and spread there."""
        if not bool(((view.factor != 0) & (view.elements >= 0)).all()):
            return None
        means, stds = np.zeros(self.low.shape), np.ones(self.low.shape)
        elements = view.elements.numpy().ravel()
        means[elements] = ((mean - view.offset) / view.factor).numpy().ravel()
        stds[elements] = (spread / view.factor.abs()).expand_as(view.factor).numpy().ravel()
        if not (np.isfinite(means).all() and np.isfinite(stds).all()):
            return None
        if np.all(means == 0) and np.allclose(stds, 1, rtol=1e-6):
            return Normal()
        return Normal(means.reshape(self.info.shape), stds.reshape(self.info.shape))

    def draw(self) -> Draw:
        info = self.info
        named = draws.MASK in info.name.lower()
        masked = Mask(0 if self.dropped == {1} else 1)
        if info.dtype.startswith("float"):
            return masked if named else self._floats()
        if self.is_indexing:
            return self._rows()
        if info.dtype == "bool" or named or self.dropped or (self.is_compared and self.shown is None):
            return masked
        if self.shown is not None:
            return Whole(*self.shown)
        steps = [float(view.factor.abs().max()) for view in self.ends if view.factor.numel()]
        if steps and 0 < max(steps) < 1:  # divided by their largest, as a rule
            return Whole(0, round(1 / max(steps)))
        small = np.iinfo(np.dtype(info.dtype)).bits < 32
        return masked if self.is_cast and not small else draws.by_type(info)

    def _floats(self) -> Normal:
        """Normal numbers; as the network's first normalisation by constants, if everything reads it, has them."""
        if self.normal is not None:
            return self.normal
        if len(self.ends) != 1:
            return Normal()
        view = self.ends[0]
        return self._inverted(view, torch.zeros_like(view.factor), torch.ones_like(view.factor)) or Normal()

    def _rows(self) -> Whole:
        limits = np.iinfo(np.dtype(self.info.dtype))
        high = np.minimum(self.high, min(limits.max, 1 << 62))
        low = np.maximum(self.low, np.minimum(high, 0))
        high = np.where(np.isfinite(self.high), np.maximum(high, low), low + draws.SMALL).astype(np.int64)
        low = low.astype(np.int64)
        if len(set(low)) == len(set(high)) == 1:
            return Whole(int(low[0]), int(high[0]))
        return Whole(low.reshape(self.info.shape), high.reshape(self.info.shape))

    def _other(self, node: Node) -> Tensor | None:
        """The constant beside what is followed, in the shape of the result; None where it is none."""
        if len(node.args) < 2 or sum(n in self.views for n in node.all_input_nodes) != 1:
            return None
        number = self._number(node.args[0 if self._is_second(node) else 1])
        return None if number is None else number.double().expand(fixed_shape(node.meta["val"]) or ())

    def _is_second(self, node: Node) -> bool:
        """Whether what is followed is the operator's second argument."""
        return isinstance(node.args[1], Node) and node.args[1] in self.views

    def _number(self, value: Any) -> Tensor | None:
        if isinstance(value, (bool, int, float)):
            return torch.tensor(float(value), dtype=torch.float64)
        return self._constant(value) if isinstance(value, Node) else None

    def _constant(self, node: Node) -> Tensor | None:
        """The value of a node that hangs on no input and on nothing that the network has learnt."""
        if node not in self._constants:
            self._constants[node] = self._evaluated(node)
        return self._constants[node]

    def _evaluated(self, node: Node) -> Tensor | None:
        if node.op != "call_function":
            return None if node.target in self._learnt else get_state(self.gm, node)
        shape = fixed_shape(node.meta.get("val"))
        known = {n: self._constant(n) for n in node.all_input_nodes}
        if shape is None or math.prod(shape) > MOST_ELEMENTS or any(v is None for v in known.values()):
            return None
        if node.target._schema.is_mutable or torch.Tag.nondeterministic_seeded in node.target.tags:  # type: ignore[union-attr]
            return None
        args, kwargs = _pytree.tree_map_only(Node, known.__getitem__, (node.args, node.kwargs))
        made = node.target(*args, **kwargs)  # type: ignore[operator]
        return made if isinstance(made, Tensor) else None

    def _broadcast(self, node: Node) -> _View:
        return self._expanded(self._followed(node), node)

    def _expanded(self, view: _View, node: Node) -> _View:
        shape = fixed_shape(node.meta["val"]) or ()
        return view.each(lambda field, _: field.expand(shape))


HANDLERS: dict[Any, Callable[[_Uses, Node], _View | None]] = {
    operator.getitem: _Uses._item,
    aten.one_hot.default: _Uses._one_hot,
    **dict.fromkeys(CHOICES, _Uses._chosen),
    aten.scaled_dot_product_attention.default: _Uses._attention,
    aten.batch_norm.default: _Uses._norm,
    **dict.fromkeys((m for m in MOVES if m is not operator.getitem), _Uses._move),
    **dict.fromkeys(EMBEDDINGS, _Uses._embedding),
    **dict.fromkeys(ALONG_AXIS, _Uses._along_axis),
    **dict.fromkeys(INDEXED, _Uses._indexed),
    **dict.fromkeys((*CASTS, *LIMITS), _Uses._cast),
    **dict.fromkeys(SUMS, _Uses._sum),
    **dict.fromkeys(PRODUCTS, _Uses._product),
    **dict.fromkeys(COMPARISONS, _Uses._comparison),
    **dict.fromkeys(NOTS, _Uses._not),
    **dict.fromkeys(BOTHS, _Uses._both),
    **dict.fromkeys(FILLS, _Uses._filled),
    **dict.fromkeys(SHAPES_ONLY, _Uses._ignore),
}
