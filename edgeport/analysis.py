"""What a network costs before it runs anywhere: parameters, multiply-adds, memory, layer by layer.

Counted on the captured graph after edgeport's passes, so on what will run: batch normalisation is folded and costs
nothing. Parameters are the network's own, those of batch normalisation included.
"""

from collections.abc import Sequence
from math import prod
from typing import Any

import msgspec
import torch
from torch.fx import Node

from edgeport.cost import convolution_madds, matmul_madds, memory_access, transposed_convolution_madds
from edgeport.export.capture import Captured, module_path

# The network is counted as its authors drew it: its shuffles are not routed away.
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
    abs add add_ batch_norm clamp clamp_min div div_ elu exp gelu hardsigmoid hardsigmoid_ hardswish hardswish_ hardtanh
    hardtanh_ layer_norm leaky_relu leaky_relu_ log maximum minimum mul mul_ neg pow prelu reciprocal relu relu_ relu6
    rsqrt sigmoid sigmoid_ silu silu_ softmax sqrt sub sub_ tanh where group_norm log_softmax mish softplus
"""
MOVEMENT = """
    alias cat channel_shuffle chunk clone constant_pad_nd contiguous detach dropout dropout_ expand flatten index
    index_select pad permute pixel_shuffle repeat reshape roll select slice split split_with_sizes squeeze stack t to
    transpose unbind unflatten unsqueeze view _unsafe_view getitem feature_dropout flip
"""
REDUCTIONS = """
    adaptive_avg_pool2d adaptive_max_pool2d amax argmax avg_pool2d max max_pool2d max_pool2d_with_indices mean sum
    upsample_nearest2d upsample_bilinear2d avg_pool1d max_pool1d adaptive_avg_pool1d
"""
_KIND_OF = {
    **dict.fromkeys(ELEMENTWISE.split(), "elementwise"),
    **dict.fromkeys(MOVEMENT.split(), "movement"),
    **dict.fromkeys(REDUCTIONS.split(), "pooling"),
}


class Layer(msgspec.Struct, frozen=True, kw_only=True):
    """One operator. kind: conv, linear, matmul, elementwise, movement, pooling or unknown.

    type: as MobileNet's Table 2 has it (Conv 1x1, Conv DW 3x3, FC), or the operator. weights: parameters without bias.
    channels: of input and output. area: height times width of the output (1 for a linear layer's row). mac: memory
    access cost in elements: maps read and written, and weights.
    """

    module: str
    kind: str
    type: str
    inputs: tuple[tuple[int, ...], ...]
    output: tuple[int, ...]
    weights: int = 0
    madds: int = 0
    mac: int = 0
    channels: tuple[int, int] = (0, 0)
    area: int = 0
    taps: int = 1
    groups: int = 1
    input_area: int = 0

    @property
    def mac_bytes(self) -> int:
        return self.mac * FLOAT_BYTES


class Analysis(msgspec.Struct, frozen=True):
    """unknown: operators that are in no table here and were counted as nothing, with how often they stand."""

    model: str
    params: int
    layers: tuple[Layer, ...]
    unknown: dict[str, int]

    @property
    def madds(self) -> int:
        return sum(layer.madds for layer in self.layers)

    @property
    def mac_bytes(self) -> int:
        return sum(layer.mac_bytes for layer in self.layers)

    @property
    def activation_bytes(self) -> int:
        """All maps that operators write, views excepted: what a runtime without reuse would hold."""
        return sum(prod(layer.output) * FLOAT_BYTES for layer in self.layers if layer.kind != "movement")


def analyse(captured: Captured, model: str) -> Analysis:
    layers: list[Layer] = []
    unknown: dict[str, int] = {}
    for node in captured.graph.graph.nodes:
        if node.op != "call_function":
            continue
        layer = _layer(captured, node)
        layers.append(layer)
        if layer.kind == "unknown":
            unknown[str(node.target)] = unknown.get(str(node.target), 0) + 1
    return Analysis(model, captured.parameters, tuple(layers), unknown)


def _layer(captured: Captured, node: Node) -> Layer:
    output = _shape(node)
    inputs = tuple(_shape(i) for i in node.all_input_nodes if i.op != "get_attr")
    module, target = module_path(node), node.target
    if target in CONVOLUTIONS or target in TRANSPOSED:
        return _convolution(captured, node, inputs, output)
    if target == aten.linear.default:
        weight = _parameter(captured, node.args[1])
        rows = prod(output[:-1])
        return Layer(
            module=module,
            kind="linear",
            type="FC",
            inputs=inputs,
            output=output,
            weights=prod(weight),
            madds=matmul_madds(output, weight[1]),
            mac=memory_access(rows, weight[1], weight[0]),
            channels=(weight[1], weight[0]),
            area=rows,
        )
    if target in PRODUCTS:
        inner = inputs[0][-1] if inputs else 0
        mac = sum(map(prod, inputs)) + prod(output)
        madds = matmul_madds(output, inner)
        return Layer(module=module, kind="matmul", type="MatMul", inputs=inputs, output=output, madds=madds, mac=mac)
    name = _name(target)
    kind = _KIND_OF.get(name, "unknown")
    moved = sum(map(prod, inputs)) + prod(output)
    mac = moved if kind in ("elementwise", "pooling") or name in ("cat", "stack") else 0
    return Layer(module=module, kind=kind, type=name, inputs=inputs, output=output, mac=mac)


def _convolution(captured: Captured, node: Node, inputs: Sequence[tuple[int, ...]], output: tuple[int, ...]) -> Layer:
    weight = _parameter(captured, node.args[1])
    transposed = node.target in TRANSPOSED
    groups = int(_argument(node, "groups", 1))
    source = inputs[0]
    kernel, taps = weight[2:], prod(weight[2:])
    area, input_area = prod(output[2:]), prod(source[2:])
    count = transposed_convolution_madds if transposed else convolution_madds
    size = "x".join(map(str, kernel))
    depthwise = groups > 1 and groups == source[1]
    prefix = "Conv DW" if depthwise else "Conv group" if groups > 1 else "Conv"
    batch = output[0]
    return Layer(
        module=module_path(node),
        kind="conv",
        type=f"{'Transposed ' if transposed else ''}{prefix} {size}",
        inputs=tuple(inputs),
        output=output,
        weights=prod(weight),
        madds=count(source if transposed else output, weight[1:]),
        mac=memory_access(batch * area, source[1], output[1], taps, groups, batch * input_area),
        channels=(source[1], output[1]),
        area=area,
        taps=taps,
        groups=groups,
        input_area=input_area,
    )


def _parameter(captured: Captured, node: Any) -> tuple[int, ...]:
    """The shape of a weight, whether it is a parameter or computed."""
    if node.op != "get_attr":
        return _shape(node)
    path, _, leaf = str(node.target).rpartition(".")
    return tuple(getattr(captured.graph.get_submodule(path), leaf).shape)


def _argument(node: Node, name: str, default: Any) -> Any:
    names = [a.name for a in node.target._schema.arguments]  # type: ignore[union-attr]
    position = names.index(name)
    return node.args[position] if len(node.args) > position else node.kwargs.get(name, default)


def _shape(node: Node) -> tuple[int, ...]:
    value = node.meta.get("val")
    value = value[0] if isinstance(value, (tuple, list)) and value else value
    return tuple(int(d) for d in value.shape) if isinstance(value, torch.Tensor) else ()


def _name(target: Any) -> str:
    """relu for aten.relu.default, getitem for Python's own."""
    if isinstance(target, torch._ops.OpOverload):
        return target._schema.name.partition("::")[2]
    return str(getattr(target, "__name__", target))
