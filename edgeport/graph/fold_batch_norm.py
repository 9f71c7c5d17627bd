"""Multiplies a batch normalisation in evaluation mode into the convolution or linear layer that it follows."""

from typing import Any

import torch
from torch.fx import GraphModule, Node

from edgeport.graph._state import add_state, get_state

FORMATS = ("onnx", "tflite")
ORDER = 10

aten = torch.ops.aten
# Which axis of the weights belongs to the output channels.
OUTPUT_AXIS: dict[Any, int] = {
    aten.conv1d.default: 0,
    aten.conv2d.default: 0,
    aten.conv3d.default: 0,
    aten.linear.default: 0,
    aten.conv1d.padding: 0,
    aten.conv2d.padding: 0,
    aten.conv_transpose2d.input: 1,
}
# Positions among conv_transpose2d's arguments.
TRANSPOSED_GROUPS = 6


def run(gm: GraphModule) -> int:
    """Folds each batch norm whose input is a layer that nobody else reads. Returns how many it folded."""
    return sum(_fold(gm, node) for node in list(gm.graph.nodes) if node.target == aten.batch_norm.default)


def _fold(gm: GraphModule, norm: Node) -> int:
    layer, gamma, beta, mean, var, training = norm.args[:6]
    eps = norm.args[7]
    assert isinstance(eps, float)
    if not _foldable(layer) or training:
        return 0
    assert isinstance(layer, Node)
    optional = (gamma, beta, layer.args[2] if len(layer.args) > 2 else None)
    if any(node is not None and get_state(gm, node) is None for node in optional):
        return 0  # computed, as by a layer that scales its own parameters
    weight, bias = get_state(gm, layer.args[1]), get_state(gm, layer.args[2] if len(layer.args) > 2 else None)
    running_mean, running_var = get_state(gm, mean), get_state(gm, var)
    if weight is None or running_mean is None or running_var is None:
        return 0
    if layer.meta["val"].dim() != weight.dim():
        return 0  # without a batch, or with tokens, the normalised axis is not that of the layer's channels
    # y = (x - mean) / sqrt(var + eps) * gamma + beta, in double so that folding adds no error of its own
    scale = (running_var.double() + eps).rsqrt()
    affine, shift = get_state(gm, gamma), get_state(gm, beta)
    scale = scale if affine is None else scale * affine.double()
    offset = -running_mean.double() * scale if bias is None else (bias.double() - running_mean.double()) * scale
    offset = offset if shift is None else offset + shift.double()
    shape = [1] * weight.dim()
    shape[OUTPUT_AXIS[layer.target]] = -1
    name = str(layer.args[1].target)  # type: ignore[union-attr]
    path = name.rpartition(".")[0]
    new_weight = (weight.double() * scale.reshape(shape)).to(weight.dtype)
    folded = (
        add_state(gm, name, new_weight, layer),
        add_state(gm, f"{path}.bias".lstrip("."), offset.to(weight.dtype), layer),
    )
    layer.args = (layer.args[0], *folded, *layer.args[3:])
    norm.replace_all_uses_with(layer)
    gm.graph.erase_node(norm)
    return 1


def _foldable(layer: object) -> bool:
    if not isinstance(layer, Node) or layer.target not in OUTPUT_AXIS or len(layer.users) != 1:
        return False
    grouped = len(layer.args) > TRANSPOSED_GROUPS and layer.args[TRANSPOSED_GROUPS] != 1
    return not (layer.target == aten.conv_transpose2d.input and grouped)
