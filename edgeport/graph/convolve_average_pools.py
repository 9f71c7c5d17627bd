"""Turns average pools into depthwise convolutions with equal weights, for which runtimes have the faster kernels.

LiteRT writes a padded copy for a padded pool and has no fast int8 average pool, nor has ONNX Runtime; convolutions pad
for nothing. Pools of a whole image stay: they are means.
"""

from math import prod
from typing import Any

import torch
from torch.fx import GraphModule, Node

from edgeport.graph._channels import CHANNELS
from edgeport.graph._nodes import create, pair, shape_of
from edgeport.graph._state import add_state

FORMATS = ("onnx", "tflite")
ORDER = 24

aten = torch.ops.aten
IMAGE = 4
LARGEST = 25  # taps


def run(gm: GraphModule) -> int:
    """Returns how many pools it replaced."""
    pools = [n for n in gm.graph.nodes if n.target == aten.avg_pool2d.default and len(shape_of(n)) == IMAGE]
    return sum(_replace(gm, pool) for pool in pools)


def _replace(gm: GraphModule, pool: Node) -> int:
    given: list[Any] = [*pool.args, *[None] * (7 - len(pool.args))]
    source, kernel, stride, padding, ceil, counts_padding, divisor = given
    kernel, padding = pair(kernel), pair(padding or 0)
    if ceil or (counts_padding is False and padding != (0, 0)) or divisor or prod(kernel) > LARGEST:
        return 0
    if prod(shape_of(pool)[2:]) == 1 or pool.kwargs:
        return 0
    channels = shape_of(pool)[CHANNELS]
    value = torch.full((channels, 1, *kernel), 1 / prod(kernel), dtype=pool.meta["val"].dtype)
    weight = add_state(gm, f"{pool.name}_weight", value, pool)
    with gm.graph.inserting_before(pool):
        args = (source, weight, None, list(pair(stride or kernel)), list(padding), [1, 1], channels)
        conv = create(gm, pool, aten.conv2d.default, *args)
    pool.replace_all_uses_with(conv)
    gm.graph.erase_node(pool)
    return 1
