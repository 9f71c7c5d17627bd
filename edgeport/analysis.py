"""What a network costs before it runs anywhere: parameters, multiply-adds, memory, layer by layer.

Counted on the network as it was written, except that batch normalisation is folded into the layer before it (PASSES),
as in what will run, and costs nothing. What other passes save shows when the network is profiled. Parameters are the
network's own, those of batch normalisation included.
"""

from collections import Counter
from collections.abc import Mapping
from math import prod
from typing import Any

import msgspec
import torch
from torch import Tensor
from torch.fx import Node

from edgeport.cost import (
    convolution_madds,
    elementwise_products,
    matmul_madds,
    memory_access,
    memory_access_bound,
    transposed_convolution_madds,
)
from edgeport.export.capture import Captured
from edgeport.graph._nodes import argument, fixed_shape, module_path
from edgeport.graph._roles import GROUPS
from edgeport.graph._state import get_state

Shape = tuple[int, ...]
Shapes = tuple[Shape, ...]

# Not those that route shuffles and splits away: blocks are judged as they were drawn.
PASSES = ("fold_batch_norm", "make_functional", "remove_unused_state")

aten = torch.ops.aten
FLOAT_BYTES = 4

CONVOLUTIONS = (
    *(aten.conv1d.default, aten.conv2d.default, aten.conv3d.default),
    *(aten.conv1d.padding, aten.conv2d.padding, aten.conv3d.padding),
)
TRANSPOSED = (aten.conv_transpose1d.default, aten.conv_transpose2d.input, aten.conv_transpose3d.input)
PRODUCTS = (aten.matmul.default, aten.mm.default, aten.bmm.default)
ELEMENTWISE = """
    abs add batch_norm clamp clamp_max clamp_min div elu exp gelu group_norm hardsigmoid hardswish hardtanh layer_norm
    leaky_relu log log_softmax maximum minimum mish mul neg pow prelu reciprocal relu relu6 rsqrt sigmoid silu softmax
    softplus sqrt sub tanh where
"""
MOVEMENT = """
    _unsafe_view alias cat channel_shuffle chunk clone constant_pad_nd contiguous detach dropout expand feature_dropout
    flatten flip getitem index index_select narrow pad permute pixel_shuffle repeat reshape roll select slice split
    split_with_sizes squeeze stack t to transpose unbind unflatten unsqueeze view
"""
WINDOWS = "avg_pool1d avg_pool2d avg_pool3d max_pool1d max_pool2d max_pool2d_with_indices max_pool3d"
REDUCTIONS = f"""
    {WINDOWS} adaptive_avg_pool1d adaptive_avg_pool2d adaptive_max_pool2d amax argmax max mean sum upsample_bilinear2d
    upsample_nearest2d
"""
# Of the movements, those that write what they move to another place, and those that do where no view can show it.
COPIES = "cat channel_shuffle clone constant_pad_nd flip index index_select pad pixel_shuffle repeat roll stack"
RESHAPES = ("flatten", "reshape")
_KIND_OF = {
    **dict.fromkeys(ELEMENTWISE.split(), "elementwise"),
    **dict.fromkeys(MOVEMENT.split(), "movement"),
    **dict.fromkeys(REDUCTIONS.split(), "pooling"),
}


class Layer(msgspec.Struct, frozen=True, kw_only=True):
    """One operator. kind: conv, linear, matmul, elementwise, movement, pooling or unknown.

    type: as MobileNet's Table 2 has it (Conv 1x1, Conv DW 3x3, FC), or the operator. params: weights, without biases.
    products: element-wise ones of two tensors that the network computes; among the madds if that was asked for.
    channels: of input and output. area: height times width of the output, of all samples (the rows of a linear layer).
    mac: memory access cost in elements: maps read and written, and weights. writes: whether the output is new memory,
    and no view.
    """

    module: str
    kind: str
    type: str
    inputs: Shapes
    output: Shape
    params: int = 0
    madds: int = 0
    products: int = 0
    mac: int = 0
    channels: tuple[int, int] | None = None
    area: int = 0
    taps: int = 1
    groups: int = 1
    writes: bool = True

    @property
    def mac_bytes(self) -> int:
        return self.mac * FLOAT_BYTES

    @property
    def activation_bytes(self) -> int:
        return prod(self.output) * FLOAT_BYTES if self.writes else 0

    @property
    def is_pointwise(self) -> bool:
        """A 1x1 convolution that mixes channels: what guidelines G1 and G2 are about."""
        depthwise = self.channels is not None and 1 < self.groups == self.channels[0]
        return self.kind == "conv" and self.taps == 1 and self.madds > 0 and not depthwise

    @property
    def channel_ratio(self) -> float | None:
        """The wider side over the narrower."""
        return max(self.channels) / min(self.channels) if self.channels and all(self.channels) else None

    @property
    def mac_over_bound(self) -> float | None:
        """Of pointwise convolutions: over the least memory access with which their MAdds can be made."""
        return self.mac / memory_access_bound(self.area, self.madds) if self.is_pointwise else None


class Block(msgspec.Struct, frozen=True):
    """A module whose branches join by a concat or an addition, and how fragmented it is, as in ShuffleNetV2's Table 3.

    operators: its convolutions and its pools over windows. serial: how many follow each other at most. parallel: how
    many stand side by side at most, at the same place of such a chain, so that none of them waits for another.
    join_bytes: what the joining operators read and write.
    """

    module: str
    operators: int
    serial: int
    parallel: int
    join_bytes: int


class Analysis(msgspec.Struct, frozen=True):
    """unknown: operators that are in no table here and were counted as nothing, with how often they stand.

    counts_products: whether element-wise products are among the multiply-adds.
    """

    model: str
    params: int
    layers: tuple[Layer, ...]
    blocks: tuple[Block, ...]
    unknown: dict[str, int]
    counts_products: bool

    @property
    def madds(self) -> int:
        return sum(layer.madds for layer in self.layers)

    @property
    def products(self) -> int:
        return sum(layer.products for layer in self.layers)

    @property
    def mac_bytes(self) -> int:
        return sum(layer.mac_bytes for layer in self.layers)

    @property
    def activation_bytes(self) -> int:
        """All maps that operators write: what a runtime without reuse would hold."""
        return sum(layer.activation_bytes for layer in self.layers)


def analyse(captured: Captured, model: str, *, count_products: bool = False) -> Analysis:
    """captured: with PASSES alone. model: the name to show. count_products: element-wise products are multiply-adds
    too, as in MicroNet's paper.
    """
    counter = _Counter(captured, count_products)
    layers = {node: counter.layer(node) for node in captured.graph.graph.nodes if node.op == "call_function"}
    unknown = Counter(str(node.target) for node, layer in layers.items() if layer.kind == "unknown")
    blocks = tuple(_blocks(layers, counter.computed))
    return Analysis(model, captured.parameters, tuple(layers.values()), blocks, dict(unknown), count_products)


class _Counter:
    """Makes layers of nodes. computed: nodes that depend on the network's inputs, which weights do not."""

    def __init__(self, captured: Captured, count_products: bool) -> None:
        self.captured, self.count_products = captured, count_products
        self.computed: set[Node] = set()
        for node in captured.graph.graph.nodes:
            if node.op == "placeholder" or self.computed.intersection(node.all_input_nodes):
                self.computed.add(node)

    def layer(self, node: Node) -> Layer:
        output = _shape(node)
        inputs = tuple(_shape(i) for i in node.all_input_nodes if i.op != "get_attr")
        if node.target in CONVOLUTIONS or node.target in TRANSPOSED:
            return self._convolution(node, inputs, output)
        if node.target == aten.linear.default:
            return self._linear(node, inputs, output)
        if node.target in PRODUCTS:
            return self._matmul(node, inputs, output)
        return self._other(node, inputs, output)

    def _other(self, node: Node, inputs: Shapes, output: Shape) -> Layer:
        name, moved = _name(node.target), sum(map(prod, inputs)) + prod(output)
        kind = _KIND_OF.get(name, "unknown")
        writes = kind != "movement" or _copies(node, name)
        products = elementwise_products(output) if self._is_product(node, name) else 0
        return Layer(
            module=module_path(node),
            inputs=inputs,
            output=output,
            kind=kind,
            type=name,
            madds=products if self.count_products else 0,
            products=products,
            mac=moved if writes and kind != "unknown" else 0,
            writes=writes,
        )

    def _is_product(self, node: Node, name: str) -> bool:
        return name == "mul" and all(isinstance(a, Node) and a in self.computed for a in node.args[:2])

    def _matmul(self, node: Node, inputs: Shapes, output: Shape) -> Layer:
        weights = sum(prod(self._parameter(i)) for i in node.all_input_nodes if i.op == "get_attr")
        return Layer(
            module=module_path(node),
            kind="matmul",
            type="MatMul",
            inputs=inputs,
            output=output,
            params=weights,
            madds=matmul_madds(output, self._parameter(node.args[0])[-1]),
            mac=sum(map(prod, inputs)) + prod(output) + weights,
        )

    def _linear(self, node: Node, inputs: Shapes, output: Shape) -> Layer:
        outs, ins = self._parameter(node.args[1])
        rows = prod(output[:-1])
        return Layer(
            module=module_path(node),
            kind="linear",
            type="FC",
            inputs=inputs,
            output=output,
            params=outs * ins,
            madds=matmul_madds(output, ins),
            mac=memory_access(rows, ins, outs),
            channels=(ins, outs),
            area=rows,
        )

    def _convolution(self, node: Node, inputs: Shapes, output: Shape) -> Layer:
        weight = self._parameter(node.args[1])
        transposed, kernel = node.target in TRANSPOSED, weight[2:]
        source, target = (_batched(shape, len(weight)) for shape in (_shape(node.args[0]), output))
        groups, taps = int(argument(node, GROUPS, 1)), prod(kernel)
        area, input_area = (shape[0] * prod(shape[2:]) for shape in (target, source))
        read = input_area if transposed else min(input_area, area * taps)  # 1x1 with stride 2 skips three of four
        prefix = "Conv DW" if groups > 1 and groups == source[1] else "Conv group" if groups > 1 else "Conv"
        count = transposed_convolution_madds if transposed else convolution_madds
        return Layer(
            module=module_path(node),
            kind="conv",
            type=f"{'Transposed ' * transposed}{prefix} {'x'.join(map(str, kernel))}",
            inputs=inputs,
            output=output,
            params=prod(weight),
            madds=count(source if transposed else target, weight[1:]),
            mac=memory_access(area, source[1], target[1], taps, groups, read),
            channels=(source[1], target[1]),
            area=area,
            taps=taps,
            groups=groups,
        )

    def _parameter(self, node: Any) -> Shape:
        """The shape of a weight, whether it is a parameter or computed."""
        if node.op != "get_attr":
            return _shape(node)
        state = get_state(self.captured.graph, node)
        assert state is not None
        return tuple(state.shape)


def _blocks(layers: Mapping[Node, Layer], computed: set[Node]) -> list[Block]:
    """In the order in which they are joined. Modules without a convolution or pool have nothing to be judged."""
    joins: dict[str, int] = {}
    for node, layer in layers.items():
        joined = computed.intersection(node.all_input_nodes)
        if layer.type in ("add", "cat") and len(joined) > 1:
            joins[layer.module] = joins.get(layer.module, 0) + layer.mac_bytes
    blocks = (_block(layers, module, join_bytes) for module, join_bytes in joins.items())
    return [block for block in blocks if block.operators]


def _block(layers: Mapping[Node, Layer], module: str, join_bytes: int) -> Block:
    places: dict[Node, int] = {}
    operators: list[int] = []
    for node, layer in layers.items():
        before = max((places.get(i, 0) for i in node.all_input_nodes), default=0)
        inside = not module or f"{layer.module}.".startswith(f"{module}.")
        counts = inside and (layer.kind == "conv" or layer.type in WINDOWS.split())
        places[node] = before + counts
        if counts:
            operators.append(places[node])
    side_by_side = max(Counter(operators).values(), default=0)
    return Block(module, len(operators), max(operators, default=0), side_by_side, join_bytes)


def _copies(node: Node, name: str) -> bool:
    """Whether a movement writes its output to new memory."""
    source = node.all_input_nodes[0].meta.get("val") if node.all_input_nodes else None
    if name not in RESHAPES or not isinstance(source, Tensor):
        return name in COPIES.split()
    try:
        source.view(_shape(node))
    except (RuntimeError, ValueError):  # its elements do not lie in that order
        return True
    return False


def _batched(shape: Shape, dimensions: int) -> Shape:
    """With a batch of one where PyTorch was given a sample alone."""
    return (1,) * (dimensions - len(shape)) + shape


def _shape(node: Any) -> Shape:
    """Of several tensors that of the first."""
    value = node.meta.get("val")
    return fixed_shape(value[0] if isinstance(value, (tuple, list)) and value else value) or ()


def _name(target: Any) -> str:
    """relu for aten.relu.default and its in-place form, getitem for Python's own; others, whoever's, in full."""
    if isinstance(target, torch._ops.OpOverload):
        name = target._schema.name.partition("::")[2]
        return name.removesuffix("_") if target.namespace == "aten" else str(target)
    return str(getattr(target, "__name__", target))
