"""What an operator does to the channels of its inputs."""

from enum import Enum
from typing import Any

import torch
from torch.fx import GraphModule, Node

from edgeport.graph._channels import CHANNELS
from edgeport.graph._nodes import argument, shape_of
from edgeport.graph._state import get_state

aten = torch.ops.aten

CONVOLUTIONS = (aten.conv1d.default, aten.conv2d.default, aten.conv1d.padding, aten.conv2d.padding)
GROUPS = 6  # position among their arguments
ELEMENTWISE = (
    *(aten.relu.default, aten.relu6.default, aten.hardtanh.default, aten.sigmoid.default, aten.tanh.default),
    *(aten.hardswish.default, aten.hardsigmoid.default, aten.silu.default, aten.gelu.default, aten.elu.default),
    *(aten.leaky_relu.default, aten.clamp.default, aten.abs.default, aten.neg.default, aten.exp.default),
    *(aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor, aten.maximum.default, aten.minimum.default),
)
POOLING = (aten.max_pool2d.default, aten.avg_pool2d.default, aten.adaptive_avg_pool2d.default)
IMAGE = 4  # dimensions


class Role(Enum):
    """What an operator does to the channels of its inputs."""

    MIXES = "mixes"  # all of them, with weights that can be sorted
    MIXES_GROUPS = "mixes groups"
    EACH = "each"  # channel c of the output comes from channel c of the inputs
    FIXED = "fixed"  # anything else


def role_of(gm: GraphModule, node: Node) -> Role:
    if node.op != "call_function" or len(shape_of(node)) <= CHANNELS:
        return Role.FIXED
    if node.target in CONVOLUTIONS and _has_sortable_weights(gm, node):
        if groups_of(node) == 1:
            return Role.MIXES
        return Role.EACH if is_depthwise(node) else Role.MIXES_GROUPS
    if node.target == aten.linear.default and _has_sortable_weights(gm, node):
        return Role.MIXES
    return Role.EACH if _is_separate(gm, node) else Role.FIXED


def is_depthwise(node: Node) -> bool:
    """Whether a convolution makes one channel of each."""
    return (
        node.target in CONVOLUTIONS
        and groups_of(node) == shape_of(node)[CHANNELS] == shape_of(input_of(node))[CHANNELS]
    )


def input_of(node: Node) -> Node:
    source = node.args[0]
    assert isinstance(source, Node)
    return source


def groups_of(node: Node) -> int:
    """Of a convolution; 1 for a linear layer."""
    if node.target not in CONVOLUTIONS:
        return 1
    groups = argument(node, GROUPS, 1)
    assert isinstance(groups, int)
    return groups


def _has_sortable_weights(gm: GraphModule, node: Node) -> bool:
    """Constant, and an input with a batch whose axis 1 is that of the weights' input channels."""
    weight, *bias = node.args[1:3]
    state = get_state(gm, weight)
    constant = all(b is None or get_state(gm, b) is not None for b in bias)
    return state is not None and constant and len(shape_of(node)) == state.dim()


def _is_separate(gm: GraphModule, node: Node) -> bool:
    if node.target == aten.batch_norm.default:
        return not node.args[5] and all(a is None or get_state(gm, a) is not None for a in node.args[1:5])
    if node.target in POOLING:
        return len(shape_of(node)) == IMAGE
    if node.target == aten.mean.dim:
        rank = len(shape_of(input_of(node)))
        axes: Any = argument(node, 1) or range(rank)  # none are all
        return not {0, CHANNELS} & {int(a) % rank for a in axes}
    return node.target in ELEMENTWISE and all(_is_operand(gm, node, a) for a in node.args)


def _is_operand(gm: GraphModule, node: Node, operand: Any) -> bool:
    """Scalars, constants, and tensors whose axes are the result's."""
    if not isinstance(operand, Node):
        return True
    if operand.op == "get_attr":
        return get_state(gm, operand) is not None
    return len(shape_of(operand)) == len(shape_of(node))
