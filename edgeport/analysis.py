"""What a network costs before it runs anywhere: parameters, multiply-adds, memory, layer by layer.

Counted on the network as it was written, except that batch normalisation is folded into the layer before it (PASSES),
as in what will run, and costs nothing. What other passes save shows when the network is profiled. Parameters are the
network's own, those of batch normalisation included.
"""

from collections import Counter
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from edgeport.cost import (
    convolution_madds,
    elementwise_products,
    matmul_madds,
    memory_access,
    transposed_convolution_madds,
)
from edgeport.export.capture import Captured
from edgeport.graph._nodes import argument, fixed_shape, module_path
from edgeport.graph._roles import GROUPS
from edgeport.graph._state import get_state
from edgeport.layers import Analysis, Layer, Shape, Shapes, find_blocks

# Not those that route shuffles and splits away: blocks are judged as they were drawn.
PASSES = ("fold_batch_norm", "make_functional", "remove_unused_state")

aten = torch.ops.aten

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


def analyse(captured: Captured, model: str, *, count_products: bool = False) -> Analysis:
    """captured: with PASSES alone. model: the name to show. count_products: element-wise products are multiply-adds
    too, as in MicroNet's paper.
    """
    counter = _Counter(captured, count_products)
    layers = {node: counter.layer(node) for node in captured.graph.graph.nodes if node.op == "call_function"}
    unknown = Counter(str(node.target) for node, layer in layers.items() if layer.kind == "unknown")
    inputs = {node: tuple(node.all_input_nodes) for node in layers}
    joining = {n for n in layers if len(counter.computed.intersection(inputs[n])) > 1}
    blocks = tuple(find_blocks(layers, inputs, joining))
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
