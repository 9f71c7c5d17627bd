"""Captured graph -> TFLite, operator by operator, for the operators of convolutional networks.

Tensors of four dimensions are kept channels last throughout (layout.py), so no transpose is written that the network
does not need, and every operator carries its module's path in its name. What is not known here is left to litert-torch.
"""

import operator
from collections import Counter
from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import msgspec
import numpy as np
import torch
from ai_edge_litert.schema_py_generated import ActivationFunctionType as Activation
from ai_edge_litert.schema_py_generated import MirrorPadMode, Padding
from numpy.typing import NDArray
from torch.fx import GraphModule, Node

from edgeport.export import layout
from edgeport.export.flatbuffer import Builder
from edgeport.export.layout import NHWC, Order
from edgeport.formats.names import operator_name
from edgeport.graph._nodes import argument, fixed_shape, module_path, pair
from edgeport.graph._state import get_state

aten = torch.ops.aten
DTYPES = {torch.float32: "float32", torch.int32: "int32", torch.int64: "int32", torch.bool: "bool"}


class UnsupportedError(Exception):
    """The graph holds something that is not known here; the text says what."""


def unknown_nodes(gm: GraphModule) -> list[Node]:
    """The operators of a graph that no rule is for."""
    return [node for node in gm.graph.nodes if node.op == "call_function" and node.target not in RULES]


class Value(msgspec.Struct, frozen=True):
    """A PyTorch tensor as it is kept in the file: tensor number and order of its axes in memory."""

    tensor: int
    order: Order


Result = Value | list[Value]
Rule = Callable[["Lowering", Node], Result]
RULES: dict[Any, Rule] = {}


def lowers(*targets: Any) -> Callable[[Rule], Rule]:
    def register(rule: Rule) -> Rule:
        RULES.update(dict.fromkeys(targets, rule))
        return rule

    return register


class Lowering:
    """One conversion. Rules read the node's arguments and shapes here and add operators to the builder."""

    def __init__(self, gm: GraphModule) -> None:
        self.gm, self.builder = gm, Builder()
        self.values: dict[Node, Result] = {}
        self.makers: dict[Node, Any] = {}  # the last operator written for a node

    def run(self, input_names: Sequence[str], output_names: Sequence[str]) -> bytes:
        """The .tflite file. Raises UnsupportedError."""
        inputs, names = {}, iter(input_names)
        for node in self.gm.graph.nodes:
            if node.op == "placeholder":
                name = next(names)
                self.values[node] = self._input(node, name)
                inputs[name] = self.value(node).tensor
            elif node.op == "call_function":
                if node.target not in RULES:
                    raise UnsupportedError(f"{node.target} in {module_path(node) or 'the network itself'}")
                self.values[node] = RULES[node.target](self, node)
        results = self.gm.graph.output_node().args[0]
        assert isinstance(results, (tuple, list))
        nodes = [node for node in results if isinstance(node, Node)]
        answers = [(node, self.ordered(node, layout.channels_last(len(shape_of(node))))) for node in nodes]
        shared = {tensor for tensor, n in Counter(value.tensor for _, value in answers).items() if n > 1}
        shared |= {*inputs.values(), *(tensor for op in self.builder.subgraph.operators for tensor in op.inputs)}
        outputs: dict[str, int] = {}
        for name, (node, value) in zip(output_names, answers, strict=True):
            outputs[name] = value.tensor
            if value.tensor in shared:  # an output has a tensor of its own
                sizes = self.sizes(self.builder.shape(value.tensor))
                outputs[name] = self.emit(node, "RESHAPE", [value.tensor, sizes], shape_of(node), value.order).tensor
        return self.builder.finish(inputs, outputs)

    def _input(self, node: Node, name: str) -> Value:
        order = layout.channels_last(len(shape_of(node)))
        tensor = self.builder.tensor(name, layout.in_memory(shape_of(node), order), dtype_of(node))
        return Value(tensor, order)

    def value(self, node: Any) -> Value:
        """What a node has become; a parameter becomes a constant in PyTorch's order."""
        if not isinstance(node, Node):
            raise UnsupportedError(f"the constant {node!r} as a tensor")
        if node.op == "get_attr":
            state = get_state(self.gm, node)
            if state is None:
                raise UnsupportedError(f"the constant {node.target}")
            return Value(self.constant(as_array(state), str(node.target)), layout.identity(state.dim()))
        found = self.values[node]
        if isinstance(found, list):
            raise UnsupportedError(f"{node.target} as one tensor")
        return found

    def ordered(self, node: Any, order: Order) -> Value:
        """The node's value with its axes in this order in memory, transposed if need be."""
        value = self.value(node)
        if value.order == order:
            return value
        if isinstance(node, Node) and node.op == "get_attr":
            state = get_state(self.gm, node)
            assert state is not None
            return Value(self.constant(as_array(state).transpose(order), str(node.target)), order)
        return self.moved(node, value, order)

    def moved(self, node: Node, value: Value, order: Order, shape: Sequence[int] = ()) -> Value:
        """The value transposed; reshaped, which costs nothing, where only axes of size 1 change places.

        shape: PyTorch's, where it is not yet the node's.
        """
        shape = shape or shape_of(node)
        real = [[axis for axis in o if shape[axis] != 1] for o in (value.order, order)]
        if real[0] == real[1]:
            return self.emit(node, "RESHAPE", [value.tensor, self.sizes(layout.in_memory(shape, order))], shape, order)
        moves = np.array([value.order.index(axis) for axis in order], np.int32)
        return self.emit(node, "TRANSPOSE", [value.tensor, self.constant(moves)], shape, order)

    def emit(
        self,
        node: Node,
        kind: str,
        inputs: Sequence[int],
        shape: Sequence[int],
        order: Order,
        options: tuple[str, dict[str, Any]] | None = None,
        dtype: str | None = None,
    ) -> Value:
        """An operator with one output of this PyTorch shape, kept in this order."""
        name = operator_name(module_path(node), kind.lower())
        tensor = self.builder.tensor(name, layout.in_memory(shape, order), dtype or dtype_of(node))
        self.makers[node] = self.builder.operator(kind, inputs, [tensor], options)
        return Value(tensor, order)

    def constant(self, value: NDArray[Any], name: str = "constant") -> int:
        return self.builder.constant(f"/{name}", value)

    def sizes(self, values: Sequence[int]) -> int:
        return self.constant(np.array(values, np.int32), "sizes")


def shape_of(node: Node) -> tuple[int, ...]:
    """PyTorch's. Raises UnsupportedError."""
    shape = fixed_shape(node.meta.get("val"))
    if shape is None:
        raise UnsupportedError(f"{node.name}, whose shape is not fixed")
    return shape


def dtype_of(node: Node) -> str:
    value = node.meta["val"]
    value = value[0] if isinstance(value, (tuple, list)) else value
    if value.dtype not in DTYPES:
        raise UnsupportedError(f"{node.name} of type {value.dtype}")
    return DTYPES[value.dtype]


def as_array(state: torch.Tensor) -> NDArray[Any]:
    """A constant in a type that the file has."""
    if state.dtype not in DTYPES:
        raise UnsupportedError(f"a constant of type {state.dtype}")
    array = state.detach().numpy()
    if array.dtype != np.int64:
        return array
    limits = np.iinfo(np.int32)
    if array.size and (array.min() < limits.min or array.max() > limits.max):
        raise UnsupportedError("a constant integer of more than 32 bits")
    return array.astype(np.int32)


def bias_of(lowering: Lowering, node: Node) -> torch.Tensor | None:
    """The constant bias of a convolution or linear layer, if it has one."""
    bias = argument(node, 2)
    state = get_state(lowering.gm, bias)
    if bias is not None and state is None:
        raise UnsupportedError("a layer whose bias is computed")
    return state


def need_image(node: Node) -> None:
    """Raises UnsupportedError for an input without a batch, whose channels are not where the rule looks for them."""
    if len(shape_of(node)) != 4:
        raise UnsupportedError(f"{node.target} of {len(shape_of(node))} dimensions")


# Convolutions and products


@lowers(aten.conv2d.default, aten.conv2d.padding)
def convolution(lowering: Lowering, node: Node) -> Value:
    need_image(node)
    x, weight = node.args[0], get_state(lowering.gm, node.args[1])
    bias = bias_of(lowering, node)
    if weight is None:
        raise UnsupportedError("a convolution whose weights are computed")
    stride, dilation = pair(argument(node, 3, [1])), pair(argument(node, 5, [1]))
    groups, channels = argument(node, 6, 1), shape_of(x)[1]  # type: ignore[arg-type]
    kernel = tuple(weight.shape[2:])
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    data, padding = padded(lowering, node, _pads(argument(node, 4, [0]), reach), reach, stride)
    values = as_array(weight)
    options = {
        "padding": padding,
        "strideH": stride[0],
        "strideW": stride[1],
        "dilationHFactor": dilation[0],
        "dilationWFactor": dilation[1],
    }
    zeros = np.zeros(weight.shape[0], np.float32)
    offset = lowering.constant(zeros if bias is None else as_array(bias), f"{_path(node.args[1])}.bias")
    depthwise = groups == channels and groups > 1
    if depthwise:
        values, kind, table = values.transpose(1, 2, 3, 0), "DEPTHWISE_CONV_2D", "DepthwiseConv2D"
        options["depthMultiplier"] = weight.shape[0] // channels
    else:
        values, kind, table = values.transpose(0, 2, 3, 1), "CONV_2D", "Conv2D"
    inputs = [data.tensor, lowering.constant(values, _path(node.args[1], "weight")), offset]
    return lowering.emit(node, kind, inputs, shape_of(node), NHWC, (table, options))


def _path(parameter: Any, leaf: str = "") -> str:
    path = str(parameter.target).rpartition(".")[0]
    return f"{path}.{leaf}" if leaf else path


def _pads(padding: Any, reach: Sequence[int]) -> list[tuple[int, int]]:
    """(before, after) of height and width; PyTorch's "same" puts the odd one after."""
    if padding == "valid":
        return [(0, 0), (0, 0)]
    if padding == "same":
        return [((r - 1) // 2, r // 2) for r in reach]
    return [(p, p) for p in pair(padding)]


def padded(
    lowering: Lowering,
    node: Node,
    pads: Sequence[tuple[int, int]],
    reach: Sequence[int],
    stride: Sequence[int],
    mirror: bool = False,
) -> tuple[Value, int]:
    """The input channels last, and the padding that the operator itself can do; a PAD before it does the rest."""
    source = node.args[0]
    assert isinstance(source, Node)
    data = lowering.ordered(source, NHWC)
    own = own_padding(shape_of(source), pads, reach, stride)
    if own is not None:
        return data, own
    return pad_with(lowering, node, data, [(0, 0), (0, 0), *pads], shape_of(source), mirror=mirror), Padding.VALID


def own_padding(
    shape: Sequence[int], pads: Sequence[tuple[int, int]], reach: Sequence[int], stride: Sequence[int]
) -> int | None:
    """The padding of TFLite's operators that is this one. shape: PyTorch's, of the image."""
    same = [_same(n, r, s) for n, r, s in zip(shape[2:], reach, stride, strict=True)]
    found = [(Padding.VALID, [(0, 0), (0, 0)]), (Padding.SAME, same)]
    return next((int(padding) for padding, wanted in found if list(pads) == wanted), None)


def _same(size: int, reach: int, stride: int) -> tuple[int, int]:
    """TFLite's SAME: as much as makes ceil(size / stride) outputs, the odd one after."""
    total = max((-(-size // stride) - 1) * stride + reach - size, 0)
    return total // 2, total - total // 2


def pad_with(
    lowering: Lowering,
    node: Node,
    data: Value,
    pads: Sequence[tuple[int, int]],
    shape: Sequence[int],
    fill: float = 0.0,
    mirror: bool = False,
) -> Value:
    """pads: (before, after) of each PyTorch axis; filled with a number, or with the mirror image, edge included."""
    after = [n + sum(p) for n, p in zip(shape, pads, strict=True)]
    amounts = lowering.constant(np.array([pads[axis] for axis in data.order], np.int32), "pads")
    if mirror:
        options = ("MirrorPad", {"mode": MirrorPadMode.SYMMETRIC})
        return lowering.emit(node, "MIRROR_PAD", [data.tensor, amounts], after, data.order, options)
    if fill == 0:
        return lowering.emit(node, "PAD", [data.tensor, amounts], after, data.order)
    value = lowering.constant(np.array(fill, np.float32), "fill")
    return lowering.emit(node, "PADV2", [data.tensor, amounts, value], after, data.order)


# Weights of a transposed convolution in groups are written with zeros between the groups, up to this many.
MOST_DENSE_WEIGHTS = 1 << 22


@lowers(aten.conv_transpose2d.input)
def transposed_convolution(lowering: Lowering, node: Node) -> Value:
    """The whole of it, of which TFLite's SAME, or a slice, leaves what PyTorch's padding leaves."""
    need_image(node)
    weight, bias = get_state(lowering.gm, node.args[1]), bias_of(lowering, node)
    if weight is None:
        raise UnsupportedError(f"{node.target} whose weights are computed")
    stride, pads = pair(argument(node, 3, [1])), pair(argument(node, 4, [0]))
    more, dilation = pair(argument(node, 5, [0])), pair(argument(node, 7, [1]))
    values = _spread_taps(_one_group(weight, argument(node, 6, 1)), dilation)
    # Rows and columns that are asked for beyond the last one hold nothing but the bias.
    beyond = [max(m - p, 0) for m, p in zip(more, pads, strict=True)]
    values = np.pad(values, [(0, 0), (0, 0), (0, beyond[0]), (0, beyond[1])])
    source, shape = node.args[0], shape_of(node)
    assert isinstance(source, Node)
    before, reach = shape_of(source)[2:], values.shape[2:]
    same = all(
        -(-after // s) == n and _same(after, r, s)[0] == p
        for n, after, r, s, p in zip(before, shape[2:], reach, stride, pads, strict=True)
    )
    whole = [(n - 1) * s + r for n, r, s in zip(before, reach, stride, strict=True)]
    size = shape[2:] if same else whole
    zeros = np.zeros(values.shape[1], np.float32)
    inputs = [
        lowering.sizes((shape[0], *size, shape[1])),
        lowering.constant(values.transpose(1, 2, 3, 0), _path(node.args[1], "weight")),
        lowering.ordered(source, NHWC).tensor,
        lowering.constant(zeros if bias is None else as_array(bias), f"{_path(node.args[1])}.bias"),
    ]
    fields = {"padding": Padding.SAME if same else Padding.VALID, "strideH": stride[0], "strideW": stride[1]}
    made = lowering.emit(node, "TRANSPOSE_CONV", inputs, (*shape[:2], *size), NHWC, ("TransposeConv", fields))
    if tuple(size) == shape[2:]:
        return made
    return _cut(lowering, node, made, (0, 0, *pads), shape)


def _one_group(weight: torch.Tensor, groups: int) -> NDArray[Any]:
    """(inputs, outputs, height, width) of a transposed convolution's weights, zeros between the groups."""
    if groups == 1:
        return as_array(weight)
    ins, outs = weight.shape[0] // groups, weight.shape[1]
    if weight.numel() * groups > MOST_DENSE_WEIGHTS:
        raise UnsupportedError(f"a transposed convolution of {groups} groups with {weight.numel():,} weights")
    dense = weight.new_zeros((weight.shape[0], outs * groups, *weight.shape[2:]))
    for g in range(groups):
        rows = slice(g * ins, (g + 1) * ins)
        dense[rows, g * outs : (g + 1) * outs] = weight[rows]
    return as_array(dense)


def _spread_taps(values: NDArray[Any], dilation: Sequence[int]) -> NDArray[Any]:
    """Weights with zeros between them, which is what dilation is."""
    height, width = (d * (k - 1) + 1 for d, k in zip(dilation, values.shape[2:], strict=True))
    spread = np.zeros((*values.shape[:2], height, width), values.dtype)
    spread[:, :, :: dilation[0], :: dilation[1]] = values
    return spread


@lowers(aten.linear.default)
def linear(lowering: Lowering, node: Node) -> Value:
    weight, bias = get_state(lowering.gm, node.args[1]), bias_of(lowering, node)
    rank = len(shape_of(node))
    if weight is None or rank < 2:
        raise UnsupportedError("a linear layer whose weights are computed, or without a batch")
    data = lowering.ordered(node.args[0], layout.identity(rank))
    zeros = np.zeros(weight.shape[0], np.float32)
    offset = lowering.constant(zeros if bias is None else as_array(bias), f"{_path(node.args[1])}.bias")
    inputs = [data.tensor, lowering.constant(as_array(weight), _path(node.args[1], "weight")), offset]
    options = ("FullyConnected", {"keepNumDims": rank > 2})
    return lowering.emit(node, "FULLY_CONNECTED", inputs, shape_of(node), data.order, options)


@lowers(aten.batch_norm.default)
def batch_norm(lowering: Lowering, node: Node) -> Value:
    """One that could not be folded: y = x * scale + offset."""
    gamma, beta, mean, var = (get_state(lowering.gm, node.args[i]) for i in range(1, 5))
    if mean is None or var is None or node.args[5]:
        raise UnsupportedError("a batch normalisation without statistics")
    if any(a is not None and s is None for a, s in zip(node.args[1:3], (gamma, beta), strict=True)):
        raise UnsupportedError("a batch normalisation whose parameters are computed")
    scale = (var.double() + float(node.args[7])).rsqrt()  # type: ignore[arg-type]
    scale = scale if gamma is None else scale * gamma.double()
    offset = -mean.double() * scale
    offset = offset if beta is None else offset + beta.double()
    value, shape = lowering.value(node.args[0]), shape_of(node)
    along = [1] * len(shape)
    along[1] = shape[1]
    for kind, table, factor in (("MUL", "Mul", scale), ("ADD", "Add", offset)):
        array = factor.float().numpy().reshape(along).transpose(value.order)
        inputs = [value.tensor, lowering.constant(array, _path(node.args[3], kind.lower()))]
        value = lowering.emit(node, kind, inputs, shape, value.order, (table, {}))
    return value


# Element-wise

FUSED: dict[Any, Any] = {
    aten.relu.default: Activation.RELU,
    aten.relu6.default: Activation.RELU6,
    aten.hardtanh.default: Activation.RELU6,
}
# Options of the operators into which LiteRT runs an activation fused.
FUSING = (
    "Conv2DOptionsT",
    "DepthwiseConv2DOptionsT",
    "FullyConnectedOptionsT",
    "AddOptionsT",
    "SubOptionsT",
    "MulOptionsT",
)
ACTIVATION_KINDS = {Activation.RELU: "RELU", Activation.RELU6: "RELU6"}


@lowers(*FUSED)
def rectifier(lowering: Lowering, node: Node) -> Value:
    """Part of the operator before it where nobody else reads what that makes, else an operator of its own."""
    activation = FUSED[node.target]
    if "hardtanh" in str(node.target) and (argument(node, 1, -1.0), argument(node, 2, 1.0)) != (0.0, 6.0):
        raise UnsupportedError("hardtanh with limits other than 0 and 6")
    source = node.args[0]
    assert isinstance(source, Node)
    value = lowering.value(source)
    # Only into what was written for this very node: through a permute or a view others may read the same memory.
    maker: Any = lowering.makers.get(source)
    options: Any = maker.builtinOptions if maker is not None else None
    fusable = type(options).__name__ in FUSING and options.fusedActivationFunction == Activation.NONE
    if fusable and maker.outputs[0] == value.tensor and len(source.users) == 1:
        options.fusedActivationFunction = activation
        return value
    return lowering.emit(node, ACTIVATION_KINDS[activation], [value.tensor], shape_of(node), value.order)


UNARY: dict[Any, tuple[str, tuple[str, dict[str, Any]] | None]] = {
    aten.sigmoid.default: ("LOGISTIC", None),
    aten.tanh.default: ("TANH", None),
    aten.hardswish.default: ("HARD_SWISH", ("HardSwish", {})),
    aten.exp.default: ("EXP", ("Exp", {})),
    aten.sqrt.default: ("SQRT", None),
    aten.rsqrt.default: ("RSQRT", None),
    aten.neg.default: ("NEG", ("Neg", {})),
    aten.abs.default: ("ABS", ("Abs", {})),
}


@lowers(*UNARY)
def unary(lowering: Lowering, node: Node) -> Value:
    value = lowering.value(node.args[0])
    kind, options = UNARY[node.target]
    return lowering.emit(node, kind, [value.tensor], shape_of(node), value.order, options)


@lowers(aten.silu.default)
def silu(lowering: Lowering, node: Node) -> Value:
    value = lowering.value(node.args[0])
    gate = lowering.emit(node, "LOGISTIC", [value.tensor], shape_of(node), value.order)
    return lowering.emit(node, "MUL", [value.tensor, gate.tensor], shape_of(node), value.order, ("Mul", {}))


@lowers(aten.hardsigmoid.default)
def hardsigmoid(lowering: Lowering, node: Node) -> Value:
    """relu6(x + 3) / 6."""
    value, shape = lowering.value(node.args[0]), shape_of(node)
    three, sixth = (lowering.constant(np.array(c, np.float32)) for c in (3.0, 1 / 6))
    relu6 = ("Add", {"fusedActivationFunction": Activation.RELU6})
    shifted = lowering.emit(node, "ADD", [value.tensor, three], shape, value.order, relu6)
    return lowering.emit(node, "MUL", [shifted.tensor, sixth], shape, value.order, ("Mul", {}))


@lowers(aten.gelu.default)
def gelu(lowering: Lowering, node: Node) -> Value:
    value = lowering.value(node.args[0])
    options = ("Gelu", {"approximate": node.kwargs.get("approximate") == "tanh"})
    return lowering.emit(node, "GELU", [value.tensor], shape_of(node), value.order, options)


@lowers(aten.leaky_relu.default)
def leaky_relu(lowering: Lowering, node: Node) -> Value:
    value = lowering.value(node.args[0])
    options = ("LeakyRelu", {"alpha": float(argument(node, 1, 0.01))})
    return lowering.emit(node, "LEAKY_RELU", [value.tensor], shape_of(node), value.order, options)


@lowers(aten.softmax.int)
def softmax(lowering: Lowering, node: Node) -> Value:
    """Over the last axis in memory, to which the one asked for is moved."""
    rank = len(shape_of(node))
    axis = int(node.args[1]) % rank  # type: ignore[arg-type]
    value = lowering.value(node.args[0])
    wanted = (*(a for a in value.order if a != axis), axis)
    value = lowering.ordered(node.args[0], wanted)
    return lowering.emit(node, "SOFTMAX", [value.tensor], shape_of(node), wanted, ("Softmax", {"beta": 1.0}))


BINARY: dict[Any, tuple[str, str]] = {
    aten.add.Tensor: ("ADD", "Add"),
    aten.sub.Tensor: ("SUB", "Sub"),
    aten.mul.Tensor: ("MUL", "Mul"),
    aten.div.Tensor: ("DIV", "Div"),
    aten.maximum.default: ("MAXIMUM", "MaximumMinimum"),
    aten.minimum.default: ("MINIMUM", "MaximumMinimum"),
}


@lowers(*BINARY)
def binary(lowering: Lowering, node: Node) -> Value:
    types = {dtype_of(a) for a in (node, *node.all_input_nodes) if "val" in a.meta}
    if node.kwargs.get("alpha", 1) != 1 or types != {"float32"}:
        raise UnsupportedError(f"{node.target} of that kind")
    kind, table = BINARY[node.target]
    rank = len(shape_of(node))
    full = [a for a in node.args if isinstance(a, Node) and a.op != "get_attr" and len(shape_of(a)) == rank]
    largest = max(full, key=lambda a: prod(shape_of(a)), default=None)  # the smaller one is turned, if need be
    order = layout.identity(rank) if largest is None else lowering.value(largest).order
    first, second = node.args[:2]
    if kind == "DIV" and isinstance(second, (int, float)) and second:
        kind, table, second = "MUL", "Mul", 1 / second  # which runs in int8 too
    inputs = [_operand(lowering, a, order) for a in (first, second)]
    return lowering.emit(node, kind, inputs, shape_of(node), order, (table, {}))


def _operand(lowering: Lowering, operand: Any, order: Order) -> int:
    """A tensor in this order; a scalar or one of lower rank gets leading axes of size 1, as broadcasting does."""
    if not isinstance(operand, Node):
        return lowering.constant(np.array(operand, np.float32))
    shape = shape_of(operand) if operand.op != "get_attr" else tuple(get_state(lowering.gm, operand).shape)  # type: ignore[union-attr]
    if len(shape) == len(order):
        return lowering.ordered(operand, order).tensor
    full = (*([1] * (len(order) - len(shape))), *shape)
    if operand.op == "get_attr":
        state = get_state(lowering.gm, operand)
        assert state is not None
        return lowering.constant(as_array(state).reshape(full).transpose(order), str(operand.target))
    if sum(size != 1 for size in full) > 1:
        raise UnsupportedError("an element-wise operator on tensors of different rank")
    value = lowering.value(operand)
    sizes = layout.in_memory(full, order)
    return lowering.emit(operand, "RESHAPE", [value.tensor, lowering.sizes(sizes)], full, order).tensor


# Pooling and means


@lowers(aten.max_pool2d.default)
def max_pool(lowering: Lowering, node: Node) -> Value:
    need_image(node)
    kernel = pair(node.args[1])
    stride = pair(argument(node, 2) or kernel)
    if pair(argument(node, 4, [1])) != (1, 1):
        raise UnsupportedError("max pooling with dilation")
    source = node.args[0]
    assert isinstance(source, Node)
    pads = _reached(shape_of(source), shape_of(node), _pads(argument(node, 3, [0]), kernel), kernel, stride)
    # Minus infinity, PyTorch's padding, would ruin an int8 scale. Zeros do as well where nothing is negative, and are
    # fast. So does the mirror image of what lies at the edge, if each window that reaches it holds the original too.
    mirror = not _never_negative(source) and own_padding(shape_of(source), pads, kernel, stride) is None
    if mirror and any(2 * max(two) > reach for reach, two in zip(kernel, pads, strict=True)):
        raise UnsupportedError("max pooling with windows of which most lies outside (ceil_mode)")
    data, padding = padded(lowering, node, pads, kernel, stride, mirror)
    return lowering.emit(node, "MAX_POOL_2D", [data.tensor], shape_of(node), NHWC, _pool(kernel, stride, padding))


@lowers(aten.avg_pool2d.default)
def average_pool(lowering: Lowering, node: Node) -> Value:
    need_image(node)
    kernel = pair(node.args[1])
    stride = pair(argument(node, 2) or kernel)
    source = node.args[0]
    assert isinstance(source, Node)
    given = _pads(argument(node, 3, [0]), kernel)
    pads = _reached(shape_of(source), shape_of(node), given, kernel, stride)
    counts_pads = argument(node, 5, True) and given != [(0, 0), (0, 0)]
    if argument(node, 6) is not None or (counts_pads and pads != given):
        raise UnsupportedError("average pooling with a divisor, or with ceil_mode and counted padding")
    if counts_pads:
        data = pad_with(lowering, node, lowering.ordered(source, NHWC), [(0, 0), (0, 0), *pads], shape_of(source))
        padding = Padding.VALID
    else:  # nor does SAME count it
        own = own_padding(shape_of(source), pads, kernel, stride)
        if own is None:
            raise UnsupportedError("average pooling with uncounted padding that is not TFLite's SAME")
        data, padding = lowering.ordered(source, NHWC), own
    return lowering.emit(node, "AVERAGE_POOL_2D", [data.tensor], shape_of(node), NHWC, _pool(kernel, stride, padding))


def _reached(
    image: Sequence[int],
    pooled: Sequence[int],
    pads: Sequence[tuple[int, int]],
    kernel: Sequence[int],
    stride: Sequence[int],
) -> list[tuple[int, int]]:
    """The padding with what windows reach beyond it in ceil_mode. image, pooled: PyTorch's shapes."""
    axes = zip(image[2:], pooled[2:], pads, kernel, stride, strict=True)
    return [(p, max((made - 1) * step + reach - n - p, q)) for n, made, (p, q), reach, step in axes]


def _pool(kernel: Sequence[int], stride: Sequence[int], padding: int) -> tuple[str, dict[str, Any]]:
    fields = {"filterHeight": kernel[0], "filterWidth": kernel[1], "strideH": stride[0], "strideW": stride[1]}
    return "Pool2D", {**fields, "padding": padding}


def _never_negative(node: Any) -> bool:
    return isinstance(node, Node) and (node.target in FUSED or node.target == aten.sigmoid.default)


@lowers(aten.mean.default, aten.mean.dim)
def mean(lowering: Lowering, node: Node) -> Value:
    if node.target == aten.mean.default:
        return _mean(lowering, node, None, keep=False)
    return _mean(lowering, node, argument(node, 1), bool(argument(node, 2, False)))


@lowers(aten.adaptive_avg_pool2d.default)
def adaptive_average_pool(lowering: Lowering, node: Node) -> Value:
    need_image(node)
    source, size = node.args[0], pair(node.args[1])
    assert isinstance(source, Node)
    shape = shape_of(source)
    if size == (1, 1):
        return _mean(lowering, node, (2, 3), keep=True)
    if shape[2] % size[0] or shape[3] % size[1]:
        return _resampled(lowering, node)
    kernel = (shape[2] // size[0], shape[3] // size[1])
    data = lowering.ordered(source, NHWC)
    options = _pool(kernel, kernel, Padding.VALID)
    return lowering.emit(node, "AVERAGE_POOL_2D", [data.tensor], shape_of(node), NHWC, options)


def _mean(lowering: Lowering, node: Node, dims: Any, keep: bool) -> Value:
    source = node.args[0]
    assert isinstance(source, Node)
    value, rank = lowering.value(source), len(shape_of(source))
    axes = [d % rank for d in (dims if dims else range(rank))]
    where = lowering.constant(np.array(sorted(value.order.index(a) for a in axes), np.int32), "axes")
    order = value.order if keep else layout.dropped(value.order, axes)
    return lowering.emit(node, "MEAN", [value.tensor, where], shape_of(node), order, ("Reducer", {"keepDims": keep}))


# Resizing

NEAREST: dict[Any, bool] = {aten.upsample_nearest2d.vec: False, aten._upsample_nearest_exact2d.vec: True}


@lowers(*NEAREST)
def nearest(lowering: Lowering, node: Node) -> Value:
    """TFLite's operator where it takes the same pixels, else rows and columns by their numbers."""
    source, shape = node.args[0], shape_of(node)
    assert isinstance(source, Node)
    value, centres = lowering.ordered(source, NHWC), NEAREST[node.target]
    taken = [_taken(node, axis, n) for axis, n in ((2, shape_of(source)[2]), (3, shape_of(source)[3]))]
    pairs = zip(shape_of(source)[2:], taken, strict=True)
    if all(np.array_equal(which, _taken_by_tflite(n, len(which), centres)) for n, which in pairs):
        options = ("ResizeNearestNeighbor", {"halfPixelCenters": centres})
        inputs = [value.tensor, lowering.sizes(shape[2:])]
        return lowering.emit(node, "RESIZE_NEAREST_NEIGHBOR", inputs, shape, NHWC, options)
    sizes = list(shape_of(source))
    for axis, which in zip((2, 3), taken, strict=True):
        sizes[axis] = len(which)
        inputs = [value.tensor, lowering.constant(which.astype(np.int32), "pixels")]
        value = lowering.emit(node, "GATHER", inputs, sizes, NHWC, ("Gather", {"axis": NHWC.index(axis)}))
    return value


def _taken(node: Node, axis: int, size: int) -> NDArray[Any]:
    """Which rows (axis 2) or columns (3) PyTorch takes."""
    shape = [size if a == axis else 1 for a in range(4)]
    numbers = torch.arange(size, dtype=torch.float32).reshape(shape)
    return np.asarray(_along(node, axis, numbers).flatten().numpy(), np.int64)


def _along(node: Node, axis: int, image: torch.Tensor) -> torch.Tensor:
    """What the node makes of an image of one row (axis 3) or column (2): asked of PyTorch itself."""
    at = axis - 2
    args = list(node.args)
    for i in (1, 2, 3):  # sizes and factors; of the other axis nothing is asked
        if len(args) > i and isinstance(args[i], (list, tuple)):
            kept = pair(args[i]) if all(isinstance(n, int) for n in args[i]) else tuple(args[i])  # type: ignore[union-attr, arg-type]
            args[i] = [kept[0], type(kept[1])(1)] if at == 0 else [type(kept[0])(1), kept[1]]
    return node.target(image, *args[1:], **node.kwargs)  # type: ignore[operator, no-any-return]


def _taken_by_tflite(size: int, resized: int, centres: bool) -> NDArray[Any]:
    """As GetNearestNeighbor of tensorflow/lite/kernels/internal/reference/resize_nearest_neighbor.h computes it."""
    offset = np.float32(0.5 if centres else 0.0)
    places = (np.arange(resized, dtype=np.float32) + offset) * np.float32(size / resized)
    return np.asarray(np.minimum(np.floor(places), size - 1), np.int64)


@lowers(aten.upsample_bilinear2d.vec)
def bilinear(lowering: Lowering, node: Node) -> Value:
    source, shape, corners = node.args[0], shape_of(node), bool(argument(node, 2))
    assert isinstance(source, Node)
    pairs = zip(shape_of(source)[2:], shape[2:], argument(node, 3) or (), strict=False)
    if not corners and any(n * factor != resized for n, resized, factor in pairs):
        return _resampled(lowering, node)  # PyTorch keeps to the factor, TFLite to the sizes
    value = lowering.ordered(source, NHWC)
    options = ("ResizeBilinear", {"alignCorners": corners, "halfPixelCenters": not corners})
    return lowering.emit(node, "RESIZE_BILINEAR", [value.tensor, lowering.sizes(shape[2:])], shape, NHWC, options)


@lowers(aten.upsample_bicubic2d.vec)
def bicubic(lowering: Lowering, node: Node) -> Value:
    return _resampled(lowering, node)


def _resampled(lowering: Lowering, node: Node) -> Value:
    """Columns, then rows, as sums of those of the image: a product by a constant matrix each."""
    source = node.args[0]
    assert isinstance(source, Node)
    need_image(node)
    sizes = list(shape_of(source))
    value = lowering.value(source)
    for axis in (3, 2):
        order = (0, 1, 5 - axis, axis)
        value = value if value.order == order else lowering.moved(node, value, order, sizes)
        ones = torch.eye(sizes[axis]).reshape([sizes[axis], 1, *(sizes[axis] if a == axis else 1 for a in (2, 3))])
        matrix = _along(node, axis, ones).reshape(sizes[axis], -1).T.contiguous()
        sizes[axis] = matrix.shape[0]
        offset = lowering.constant(np.zeros(sizes[axis], np.float32), "offset")
        inputs = [value.tensor, lowering.constant(as_array(matrix), "parts"), offset]
        value = lowering.emit(node, "FULLY_CONNECTED", inputs, sizes, order, ("FullyConnected", {"keepNumDims": True}))
    return value


# Movement


@lowers(aten.embedding.default)
def embedding(lowering: Lowering, node: Node) -> Value:
    """Rows of a table by their numbers."""
    table = get_state(lowering.gm, node.args[0])
    if table is None:
        raise UnsupportedError("an embedding whose table is computed")
    numbers = node.args[1]
    assert isinstance(numbers, Node)
    order = layout.identity(len(shape_of(numbers)))
    rows = lowering.constant(as_array(table), _path(node.args[0], "weight"))
    inputs, shape = [rows, lowering.ordered(numbers, order).tensor], shape_of(node)
    return lowering.emit(node, "GATHER", inputs, shape, layout.identity(len(shape)), ("Gather", {"axis": 0}))


@lowers(aten.expand.default)
def expand(lowering: Lowering, node: Node) -> Value:
    """Only where nothing is repeated: axes of size 1 before the others."""
    source = node.args[0]
    assert isinstance(source, Node)
    shape, given = shape_of(node), shape_of(source)
    if prod(shape) != prod(given):
        raise UnsupportedError(f"{node.target} that repeats")
    return _as_shape(lowering, node, source)


@lowers(aten.cat.default)
def concat(lowering: Lowering, node: Node) -> Value:
    parts = node.args[0]
    assert isinstance(parts, (list, tuple))
    order = lowering.value(parts[0]).order
    axis = order.index(int(argument(node, 1, 0)) % len(order))
    inputs = [lowering.ordered(p, order).tensor for p in parts]
    return lowering.emit(node, "CONCATENATION", inputs, shape_of(node), order, ("Concatenation", {"axis": axis}))


@lowers(aten.chunk.default, aten.split.Tensor, aten.split_with_sizes.default)
def split(lowering: Lowering, node: Node) -> list[Value]:
    """One slice a part: a part that nobody reads costs nothing."""
    source = node.args[0]
    assert isinstance(source, Node)
    axis = int(argument(node, 2, 0)) % len(shape_of(source))
    parts, start = [], 0
    read = {user.args[1] for user in node.users if user.target.__name__ == "getitem"}  # type: ignore[union-attr]
    for i, part in enumerate(node.meta["val"]):
        shape = tuple(part.shape)
        value = lowering.value(source)
        parts.append(_slice(lowering, node, source, axis, start, shape) if i in read else value)
        start += shape[axis]
    return parts


@lowers(aten.select.int)
def select(lowering: Lowering, node: Node) -> Value:
    """A slice of one, and the axis left out."""
    source = node.args[0]
    assert isinstance(source, Node)
    rank = len(shape_of(source))
    axis, index = int(argument(node, 1)) % rank, int(argument(node, 2))
    one = tuple(1 if d == axis else n for d, n in enumerate(shape_of(source)))
    value = _slice(lowering, node, source, axis, index % shape_of(source)[axis], one)
    order = layout.dropped(value.order, [axis])
    sizes = lowering.sizes(layout.in_memory(shape_of(node), order))
    return lowering.emit(node, "RESHAPE", [value.tensor, sizes], shape_of(node), order)


@lowers(aten.slice.Tensor)
def slice_(lowering: Lowering, node: Node) -> Value:
    source = node.args[0]
    assert isinstance(source, Node)
    axis, step = int(argument(node, 1, 0)) % len(shape_of(source)), int(argument(node, 4, 1))
    size = shape_of(source)[axis]
    start = argument(node, 2) or 0
    start = max(start + size, 0) if start < 0 else min(start, size)
    if step == 1:
        return _slice(lowering, node, source, axis, start, shape_of(node))
    value, shape = lowering.value(source), shape_of(node)
    first = [start if a == axis else 0 for a in value.order]
    end = [min(start + step * shape[axis], size) if a == axis else shape[a] for a in value.order]
    steps = [step if a == axis else 1 for a in value.order]
    inputs = [value.tensor, *(lowering.sizes(each) for each in (first, end, steps))]
    return lowering.emit(node, "STRIDED_SLICE", inputs, shape, value.order, ("StridedSlice", {}))


def _slice(lowering: Lowering, node: Node, source: Node, axis: int, start: int, shape: Sequence[int]) -> Value:
    first = [start if a == axis else 0 for a in range(len(shape))]
    return _cut(lowering, node, lowering.value(source), first, shape)


def _cut(lowering: Lowering, node: Node, value: Value, first: Sequence[int], shape: Sequence[int]) -> Value:
    """A slice of this shape that begins at these places; both in PyTorch's order."""
    begin, sizes = (lowering.sizes(layout.in_memory(each, value.order)) for each in (first, shape))
    return lowering.emit(node, "SLICE", [value.tensor, begin, sizes], shape, value.order, ("Slice", {}))


@lowers(operator.getitem)
def getitem(lowering: Lowering, node: Node) -> Value:
    parts = lowering.values[node.args[0]]  # type: ignore[index]
    assert isinstance(parts, list)
    return parts[int(node.args[1])]  # type: ignore[arg-type]


@lowers(
    *(aten.view.default, aten.reshape.default, aten._unsafe_view.default, aten.flatten.using_ints),
    *(aten.squeeze.dim, aten.squeeze.dims, aten.squeeze.default, aten.unsqueeze.default, aten.unflatten.int),
)
def reshape(lowering: Lowering, node: Node) -> Value:
    source = node.args[0]
    assert isinstance(source, Node)
    return _as_shape(lowering, node, source)


def _as_shape(lowering: Lowering, node: Node, source: Node) -> Value:
    before, after = shape_of(source), shape_of(node)
    needed, order = layout.reshaped(before, after, lowering.value(source).order)
    value = lowering.ordered(source, needed)
    sizes = layout.in_memory(after, order)
    if sizes == lowering.builder.shape(value.tensor):
        return Value(value.tensor, order)
    return lowering.emit(node, "RESHAPE", [value.tensor, lowering.sizes(sizes)], after, order)


@lowers(aten.permute.default, aten.transpose.int, aten.t.default)
def permute(lowering: Lowering, node: Node) -> Value:
    """Free: only the order changes."""
    value, rank = lowering.value(node.args[0]), len(shape_of(node))
    axes: list[Any] = list(node.args[1:])
    if node.target == aten.permute.default:
        dims = [int(d) % rank for d in axes[0]]
    else:
        first, second = (int(axis) % rank for axis in axes or (0, rank - 1))
        dims = list(range(rank))
        dims[first], dims[second] = second, first
    return Value(value.tensor, layout.permuted(value.order, dims))


@lowers(
    *(aten.clone.default, aten.contiguous.default, aten.detach.default, aten.alias.default),
    *(aten.dropout.default, aten.feature_dropout.default),
)
def unchanged(lowering: Lowering, node: Node) -> Value:
    if "dropout" in str(node.target) and node.args[2]:
        raise UnsupportedError("a dropout in training mode")
    return lowering.value(node.args[0])


@lowers(aten.pad.default, aten.constant_pad_nd.default)
def pad(lowering: Lowering, node: Node) -> Value:
    source, amounts = node.args[0], node.args[1]
    assert isinstance(source, Node)
    assert isinstance(amounts, (list, tuple))
    mode = argument(node, 2, "constant") if node.target == aten.pad.default else "constant"
    fill = argument(node, 3 if node.target == aten.pad.default else 2, 0.0) or 0.0
    shape = shape_of(source)
    pads = [(0, 0)] * len(shape)
    for i in range(len(amounts) // 2):  # PyTorch lists the last axis first
        pads[len(shape) - 1 - i] = (int(amounts[2 * i]), int(amounts[2 * i + 1]))  # type: ignore[arg-type]
    value = lowering.value(source)
    if mode != "constant":
        return _pad_from_inside(lowering, node, value, pads, str(mode))
    if any(p < 0 for before_after in pads for p in before_after):  # cuts off
        if any(p > 0 for before_after in pads for p in before_after):
            raise UnsupportedError("padding at one side and cutting at another")
        begin = lowering.sizes([-pads[axis][0] for axis in value.order])
        sizes = lowering.sizes(layout.in_memory(shape_of(node), value.order))
        return lowering.emit(node, "SLICE", [value.tensor, begin, sizes], shape_of(node), value.order, ("Slice", {}))
    return pad_with(lowering, node, value, pads, shape, float(fill))


def _pad_from_inside(lowering: Lowering, node: Node, value: Value, pads: Sequence[tuple[int, int]], mode: str) -> Value:
    """Padding with what the tensor holds: mirrored, the edge repeated, or from the other end."""
    source = node.args[0]
    assert isinstance(source, Node)
    sizes = list(shape_of(source))
    if any(p < 0 for two in pads for p in two):
        raise UnsupportedError(f"padding of mode {mode!r} that cuts")
    if mode == "replicate" and max(map(max, pads)) <= 1:  # the edge alone, mirrored with itself
        return pad_with(lowering, node, value, pads, sizes, mirror=True)
    for axis, two in enumerate(pads):
        if any(two):
            numbers = torch.arange(sizes[axis], dtype=torch.float32)[None, None]
            taken = torch.nn.functional.pad(numbers, two, mode).flatten().numpy().astype(np.int32)
            sizes[axis] = len(taken)
            options = ("Gather", {"axis": value.order.index(axis)})
            inputs = [value.tensor, lowering.constant(taken, "places")]
            value = lowering.emit(node, "GATHER", inputs, sizes, value.order, options)
    return value


# Rules of other modules, which know the names above.
from edgeport.export import lowering_movement, lowering_normalisations  # noqa: E402, F401
