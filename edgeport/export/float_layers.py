"""Keeps layers of an int8 ONNX file in float where they are meant to be.

ONNX Runtime (1.31, WeightBiasQuantization) quantises float weights by itself, one step for all channels, wherever a
layer reads what was dequantised by one step and is quantised again. It leaves a layer alone that reads what was
dequantised channel by channel, though all channels have the same step. So each float layer dequantises its input anew,
with the same step written down once a channel.
"""

import numpy as np
import onnx
from onnx import helper, numpy_helper

LAYERS = ("Conv", "ConvTranspose", "Gemm")
CHANNELS = 1  # axis of what a layer reads
SUFFIX = "/by_channel"


def keep(graph: onnx.GraphProto) -> None:
    """Gives each layer of float weights whose input is dequantised a DequantizeLinear of its own, by channel."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    makers = {node.output[0]: node for node in graph.node if node.op_type == "DequantizeLinear"}
    for place, node in reversed(list(enumerate(graph.node))):
        maker = makers.get(node.input[0]) if node.op_type in LAYERS else None
        if maker is None or node.input[1] not in constants or maker.input[1] not in constants:
            continue
        if constants[maker.input[1]].dims:
            continue  # by channel already
        names = [_by_channel(graph, name, constants, _channels(node, constants)) for name in maker.input[1:]]
        own = helper.make_node(
            "DequantizeLinear",
            [maker.input[0], *names],
            [f"{node.name}{SUFFIX}"],
            f"{node.name}{SUFFIX}",
            axis=CHANNELS,
        )
        node.input[0] = own.output[0]
        graph.node.insert(place, own)


def follow(constants: dict[str, onnx.TensorProto]) -> None:
    """Sets the steps and zero points of keep() to those that they were made from, which may have changed."""
    for name, tensor in constants.items():
        source, suffix, _ = name.rpartition(SUFFIX)
        if suffix:
            value = numpy_helper.to_array(constants[source])
            tensor.CopyFrom(numpy_helper.from_array(np.full(tensor.dims, value), name))


def _channels(layer: onnx.NodeProto, constants: dict[str, onnx.TensorProto]) -> int:
    """That a layer reads."""
    dims = constants[layer.input[1]].dims
    attributes = {a.name: helper.get_attribute_value(a) for a in layer.attribute}
    if layer.op_type == "Conv":
        return int(dims[1]) * int(attributes.get("group", 1))
    return int(dims[1] if attributes.get("transB") else dims[0])


def _by_channel(graph: onnx.GraphProto, name: str, constants: dict[str, onnx.TensorProto], channels: int) -> str:
    """The name of a constant that repeats another one, which is made if need be."""
    repeated = f"{name}{SUFFIX}{channels}"
    if repeated not in constants:
        value = numpy_helper.to_array(constants[name])
        graph.initializer.append(numpy_helper.from_array(np.full(channels, value), repeated))
        constants[repeated] = graph.initializer[-1]
    return repeated
