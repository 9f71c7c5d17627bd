"""Makes the convolution before a max pool compute a row and a column more, so that the pool needs no padded copy.

TFLite pads a pool by itself only as its SAME rule says, and for an image of even size, a kernel of 3 and a stride of 2
that is (0, 1), where PyTorch has (1, 1); otherwise a copy with a border is written first. For one row more, SAME is
(1, 1). The convolution's own padding costs nothing, and what the pool makes of the additional row is cut off again.
"""

from collections.abc import Sequence

import torch
from torch.fx import GraphModule, Node

from edgeport.graph._nodes import argument, create, infer, pair, shape_of
from edgeport.graph._state import get_state

FORMATS = ("tflite",)
ORDER = 20

aten = torch.ops.aten
IMAGE = 4
ACTIVATIONS = (aten.relu.default, aten.relu6.default, aten.hardtanh.default)


def run(gm: GraphModule) -> int:
    """Returns how many pools it freed of their copies."""
    pools = [n for n in gm.graph.nodes if n.target == aten.max_pool2d.default and len(shape_of(n)) == IMAGE]
    return sum(_widen(gm, pool) for pool in pools)


def _widen(gm: GraphModule, pool: Node) -> int:
    kernel, stride, padding = pair(pool.args[1]), pair(argument(pool, 2) or pool.args[1]), pair(argument(pool, 3, 0))
    plain = pair(argument(pool, 4, 1)) == (1, 1) and not argument(pool, 5, False)
    chain = _convolution_before(gm, pool)
    if not plain or chain is None or padding == (0, 0):
        return 0
    size, wanted = shape_of(chain[-1])[2:], shape_of(pool)[2:]
    extra = [_extra(*dims) for dims in zip(size, wanted, kernel, stride, padding, strict=True)]
    if None in extra or not any(extra):
        return 0
    conv = chain[0]
    before, after = _conv_pads(gm, conv, [e or 0 for e in extra])
    if any(a < 0 for a in after):
        return 0
    with gm.graph.inserting_before(conv):
        sides = [before[1], after[1], before[0], after[0]]
        padded = create(gm, conv, aten.constant_pad_nd.default, conv.args[0], sides)
    rest = [argument(conv, i, d) for i, d in ((1, None), (2, None), (3, [1, 1]))]
    conv.args, conv.kwargs = (padded, *rest, [0, 0], argument(conv, 5, [1, 1]), argument(conv, 6, 1)), {}
    for node in (*chain, pool):
        node.meta["val"] = infer(gm, node)
    if shape_of(pool)[2:] != wanted:
        surplus = [w - n for w, n in zip(wanted, shape_of(pool)[2:], strict=True)]
        with gm.graph.inserting_after(pool):
            cut = create(gm, pool, aten.constant_pad_nd.default, pool, [0, surplus[1], 0, surplus[0]])
        pool.replace_all_uses_with(cut, delete_user_cb=lambda user: user is not cut)
    return 1


def _convolution_before(gm: GraphModule, pool: Node) -> list[Node] | None:
    """[convolution, activation if any], where nobody else reads them."""
    node, chain = pool.args[0], list[Node]()
    while isinstance(node, Node) and len(node.users) == 1:
        chain.insert(0, node)
        if node.target == aten.conv2d.default:
            return chain if get_state(gm, node.args[1]) is not None and len(shape_of(node)) == IMAGE else None
        if node.target not in ACTIVATIONS or len(chain) > 1:
            return None
        node = node.args[0]
    return None


def _extra(size: int, wanted: int, kernel: int, stride: int, padding: int) -> int | None:
    """Rows to add so that SAME pads as PyTorch does, None if no window may see them or nothing helps."""
    for extra in range(stride + 1):
        outputs = -(-(size + extra) // stride)
        total = max((outputs - 1) * stride + kernel - size - extra, 0)
        if total // 2 == total - total // 2 == padding and outputs >= wanted:
            sees_added = (wanted - 1) * stride - padding + kernel > size
            return None if extra and sees_added else extra
    return None


def _conv_pads(gm: GraphModule, conv: Node, extra: Sequence[int]) -> tuple[list[int], list[int]]:
    """Padding of the convolution's input, before and after, with which it makes so many rows and columns more."""
    weight, source = get_state(gm, conv.args[1]), conv.args[0]
    assert weight is not None
    assert isinstance(source, Node)
    stride, before, dilation = (pair(argument(conv, i, d)) for i, d in ((3, 1), (4, 0), (5, 1)))
    after = []
    for i in range(2):
        reach = dilation[i] * (weight.shape[2 + i] - 1) + 1
        outputs = shape_of(conv)[2 + i] + extra[i]
        after.append((outputs - 1) * stride[i] + reach - shape_of(source)[2 + i] - before[i])
    return list(before), after
