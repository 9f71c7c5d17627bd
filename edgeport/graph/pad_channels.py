"""Gives depthwise convolutions a few channels of zeros more, up to a multiple of 16, where fast kernels begin.

ONNX Runtime's fast depthwise kernels take multiples of 4 channels in float and of 16 in int8; 58 channels, as in
ShuffleNetV2, take 5 and 2 times as long as 64. Only inner channels are added: those that one convolution makes and
others read, with weights of zero at both ends.
"""

import torch
from torch.fx import GraphModule, Node

from edgeport.graph._channels import CHANNELS
from edgeport.graph._nodes import shape_of
from edgeport.graph._roles import GROUPS, Role, input_of, is_depthwise, role_of
from edgeport.graph._state import add_state, get_state

FORMATS = ("onnx", "tflite")
ORDER = 40

aten = torch.ops.aten
VECTOR = 16
MOST = 1 / 3  # of the channels, to be added at most: more costs the convolutions around more than it saves
# Of zero, all of these make a finite number.
HARMLESS = (
    *(aten.relu.default, aten.relu6.default, aten.hardtanh.default, aten.sigmoid.default, aten.hardswish.default),
    *(aten.silu.default, aten.max_pool2d.default, aten.avg_pool2d.default, aten.adaptive_avg_pool2d.default),
    *(aten.add.Tensor, aten.mul.Tensor, aten.mean.dim),
)


def run(gm: GraphModule) -> int:
    """Returns how many depthwise convolutions it padded."""
    padded = 0
    for node in list(gm.graph.nodes):
        if role_of(gm, node) is Role.EACH and is_depthwise(node) and _more(node):
            tensors = _connected(gm, node)
            if tensors:
                _pad(gm, tensors, _more(node))
                padded += sum(is_depthwise(t) for t in tensors)
    return padded


def _more(node: Node) -> int:
    """Channels to add; 0 where it needs none, or too many."""
    channels = shape_of(node)[CHANNELS]
    more = -channels % VECTOR
    return more if more <= channels * MOST else 0


def _connected(gm: GraphModule, start: Node) -> set[Node]:
    """The tensors that must have as many channels as this one; none where one of them cannot have more."""
    found, waiting = {start}, [start]
    while waiting:
        node = waiting.pop()
        role = role_of(gm, node)
        if role is Role.EACH:
            if not is_depthwise(node) and (node.target not in HARMLESS or not _reads_only_images(node)):
                return set()
            linked = [input_of(node)] if is_depthwise(node) else list(node.all_input_nodes)
        elif role is Role.MIXES:
            linked = []
        else:
            return set()
        for user in node.users:
            user_role = role_of(gm, user)
            if user_role is Role.EACH:
                linked.append(user)
            elif user_role is not Role.MIXES or input_of(user) is not node:
                return set()
        new = [n for n in linked if n not in found]
        found.update(new)
        waiting += new
    return found


def _reads_only_images(node: Node) -> bool:
    """Whether all tensors that it reads have the channels of what it makes."""
    return all(n.op != "get_attr" and shape_of(n)[:2] == shape_of(node)[:2] for n in node.all_input_nodes)


def _pad(gm: GraphModule, tensors: set[Node], more: int) -> None:
    depthwise = {node for node in tensors if is_depthwise(node)}
    readers = {user for node in tensors for user in node.users if role_of(gm, user) is Role.MIXES}
    for node in tensors:
        if node.target not in HARMLESS:  # a convolution or linear layer: it makes more channels
            for i in (1, 2):
                if len(node.args) > i and node.args[i] is not None:
                    _grow(gm, node, i, 0, more)
        if node in depthwise:
            node.args = (*node.args[:GROUPS], shape_of(node)[CHANNELS] + more, *node.args[GROUPS + 1 :])
    for reader in readers:
        _grow(gm, reader, 1, 1, more)
    for node in tensors:
        value = node.meta["val"]
        node.meta["val"] = value.new_empty((value.shape[0], value.shape[CHANNELS] + more, *value.shape[CHANNELS + 1 :]))


def _grow(gm: GraphModule, node: Node, i: int, axis: int, more: int) -> None:
    """Zeros behind a weight's or bias's last entries of an axis."""
    old = node.args[i]
    state = get_state(gm, old)
    assert isinstance(old, Node)
    assert state is not None
    zeros = state.new_zeros([more if d == axis else n for d, n in enumerate(state.shape)])
    grown = add_state(gm, str(old.target), torch.cat([state, zeros], axis), node)
    node.args = (*node.args[:i], grown, *node.args[i + 1 :])
