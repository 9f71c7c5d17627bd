"""Rules of the lowering for normalisations by the values of the input itself, and for what they are written with.

One operator that the lowering does not know sends the whole network through litert-torch, which refuses forms of
convolutions and divisions that are lowered here. F.normalize and layer normalisation are the most frequent of those.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.fx import Node

from edgeport.export import layout
from edgeport.export.lowering import (
    Lowering,
    UnsupportedError,
    Value,
    as_array,
    dtype_of,
    lowers,
    shape_of,
)
from edgeport.graph._nodes import argument
from edgeport.graph._state import get_state

aten = torch.ops.aten


@lowers(aten.linalg_vector_norm.default)
def vector_norm(lowering: Lowering, node: Node) -> Value:
    """The root of the sum of squares, or the sum of absolute values."""
    source, kind = node.args[0], argument(node, 1, 2)
    assert isinstance(source, Node)
    if kind not in (1, 2) or node.kwargs.get("dtype") is not None:
        raise UnsupportedError(f"a norm of order {kind} or of another type than its input")
    value, shape = lowering.value(source), shape_of(source)
    terms, table = ("ABS", "Abs") if kind == 1 else ("SQUARE", "Square")
    value = lowering.emit(node, terms, [value.tensor], shape, value.order, (table, {}))
    value = _reduced(lowering, node, "SUM", value, shape, argument(node, 2), bool(argument(node, 3, False)))
    return value if kind == 1 else lowering.emit(node, "SQRT", [value.tensor], shape_of(node), value.order)


@lowers(aten.sum.dim_IntList)
def total(lowering: Lowering, node: Node) -> Value:
    source = node.args[0]
    assert isinstance(source, Node)
    _need_floats(node, source)
    value = lowering.value(source)
    return _reduced(lowering, node, "SUM", value, shape_of(source), argument(node, 1), bool(argument(node, 2, False)))


def _reduced(
    lowering: Lowering, node: Node, kind: str, value: Value, shape: Sequence[int], dims: Any, keep: bool
) -> Value:
    """Over these axes of a PyTorch shape, over all where none is named."""
    rank = len(shape)
    axes = [int(d) % rank for d in (dims or range(rank))]
    where = lowering.constant(np.array(sorted(value.order.index(a) for a in axes), np.int32), "axes")
    order = value.order if keep else layout.dropped(value.order, axes)
    left = [1 if axis in axes else size for axis, size in enumerate(shape) if keep or axis not in axes]
    return lowering.emit(node, kind, [value.tensor, where], left, order, ("Reducer", {"keepDims": keep}))


@lowers(aten.clamp.default, aten.clamp_min.default, aten.clamp_max.default)
def clamp(lowering: Lowering, node: Node) -> Value:
    """The greater of the value and the lower limit, then the lesser of it and the upper one."""
    source = node.args[0]
    assert isinstance(source, Node)
    _need_floats(node, source)
    low = argument(node, 1) if node.target != aten.clamp_max.default else None
    high = (
        argument(node, 2 if node.target == aten.clamp.default else 1) if node.target != aten.clamp_min.default else None
    )
    value = lowering.value(source)
    for kind, limit in (("MAXIMUM", low), ("MINIMUM", high)):
        if limit is not None and math.isfinite(limit):
            inputs = [value.tensor, lowering.constant(np.array(limit, np.float32))]
            value = lowering.emit(node, kind, inputs, shape_of(node), value.order, ("MaximumMinimum", {}))
    return value


@lowers(aten.expand_as.default)
def expand_as(lowering: Lowering, node: Node) -> Value:
    """What it reads, as often as the other tensor needs it."""
    source = node.args[0]
    assert isinstance(source, Node)
    _need_floats(node, source)
    shape, given = shape_of(node), shape_of(source)
    if len(shape) != len(given):
        raise UnsupportedError(f"{node.target} to a higher rank")
    value = lowering.value(source)
    if shape == given or all(_broadcasts(user, node) for user in node.users):
        return value
    sizes = lowering.sizes(layout.in_memory(shape, value.order))
    return lowering.emit(node, "BROADCAST_TO", [value.tensor, sizes], shape, value.order)


def _broadcasts(user: Node, node: Node) -> bool:
    """Whether a user stretches the tensor by itself, beside another one of the full shape."""
    others = [a for a in user.args if isinstance(a, Node) and a is not node and a.op != "get_attr"]
    alike = any(a.target != node.target and shape_of(a) == shape_of(node) for a in others)
    return user.target in (aten.div.Tensor, aten.mul.Tensor, aten.add.Tensor, aten.sub.Tensor) and alike


@lowers(aten.layer_norm.default)
def layer_norm(lowering: Lowering, node: Node) -> Value:
    source, sizes = node.args[0], node.args[1]
    assert isinstance(source, Node)
    assert isinstance(sizes, (list, tuple))
    rank = len(shape_of(source))
    axes = range(rank - len(sizes), rank)
    value = _normalised(lowering, node, lowering.value(source), list(axes), float(argument(node, 4, 1e-5)))
    for kind, state in (("MUL", argument(node, 2)), ("ADD", argument(node, 3))):
        if state is not None:
            value = _with_constant(lowering, node, kind, value, state)
    return value


@lowers(aten.instance_norm.default)
def instance_norm(lowering: Lowering, node: Node) -> Value:
    source = node.args[0]
    assert isinstance(source, Node)
    shape = shape_of(source)
    if argument(node, 3) is not None and not argument(node, 5):
        raise UnsupportedError("an instance normalisation with statistics of its own")
    axes = list(range(2, len(shape)))
    value = _normalised(lowering, node, lowering.value(source), axes, float(argument(node, 7, 1e-5)))
    for kind, state in (("MUL", argument(node, 1)), ("ADD", argument(node, 2))):
        if state is not None:
            value = _with_constant(lowering, node, kind, value, state, (1, shape[1], *([1] * len(axes))))
    return value


def _normalised(lowering: Lowering, node: Node, value: Value, axes: Sequence[int], epsilon: float) -> Value:
    """Less its mean, and by its standard deviation, over these axes."""
    shape, order = shape_of(node), value.order
    small = [1 if axis in axes else size for axis, size in enumerate(shape)]
    mean = _reduced(lowering, node, "MEAN", value, shape, axes, keep=True)
    apart = lowering.emit(node, "SUB", [value.tensor, mean.tensor], shape, order, ("Sub", {}))
    square = lowering.emit(node, "SQUARE", [apart.tensor], shape, order, ("Square", {}))
    variance = _reduced(lowering, node, "MEAN", square, shape, axes, keep=True)
    least = lowering.constant(np.array(epsilon, np.float32))
    variance = lowering.emit(node, "ADD", [variance.tensor, least], small, order, ("Add", {}))
    scale = lowering.emit(node, "RSQRT", [variance.tensor], small, order)
    return lowering.emit(node, "MUL", [apart.tensor, scale.tensor], shape, order, ("Mul", {}))


def _with_constant(
    lowering: Lowering, node: Node, kind: str, value: Value, state: Any, shape: Sequence[int] = ()
) -> Value:
    """Times the constant, or plus it; shape: that in which it stands beside the value, its own with axes before."""
    tensor = get_state(lowering.gm, state)
    if tensor is None:
        raise UnsupportedError(f"{node.target} whose weight or bias is computed")
    array, rank = as_array(tensor), len(value.order)
    array = array.reshape(tuple(shape) or (*([1] * (rank - array.ndim)), *array.shape)).transpose(value.order)
    inputs = [value.tensor, lowering.constant(array, str(state.target))]
    return lowering.emit(node, kind, inputs, shape_of(node), value.order, (kind.capitalize(), {}))


def _need_floats(node: Node, source: Node) -> None:
    if {dtype_of(node), dtype_of(source)} != {"float32"}:
        raise UnsupportedError(f"{node.target} of other types than float32")
