"""Gives a graph channels-last inputs and outputs: four-dimensional ones become N, H, W, C, as TFLite keeps images."""

import torch
from torch.fx import GraphModule, Node

from edgeport.graph._nodes import create, shape_of

FORMATS = ("litert-torch",)
ORDER = 10

IMAGE = 4  # dimensions
TO_FIRST, TO_LAST = (0, 3, 1, 2), (0, 2, 3, 1)


def run(gm: GraphModule) -> int:
    """Returns how many inputs and outputs it turned."""
    inputs = [n for n in gm.graph.nodes if n.op == "placeholder" and len(shape_of(n)) == IMAGE]
    for node in inputs:
        with gm.graph.inserting_after(node):
            turned = _permute(gm, node, TO_FIRST, next(iter(node.users), node))
        node.replace_all_uses_with(turned, delete_user_cb=lambda user, t=turned: user is not t)
    output = gm.graph.output_node()
    results = list(output.args[0])  # type: ignore[arg-type]
    turned_outputs = 0
    for i, node in enumerate(results):
        if isinstance(node, Node) and len(shape_of(node)) == IMAGE:
            with gm.graph.inserting_before(output):
                results[i] = _permute(gm, node, TO_LAST, node)
            turned_outputs += 1
    output.args = (tuple(results),)
    return len(inputs) + turned_outputs


def _permute(gm: GraphModule, node: Node, order: tuple[int, ...], like: Node) -> Node:
    return create(gm, like, torch.ops.aten.permute.default, node, list(order))
