"""Gives a graph channels-last inputs and outputs: four-dimensional ones become N, H, W, C, as TFLite keeps images."""

import torch
from torch.fx import GraphModule, Node

FORMATS = ("litert-torch",)
ORDER = 10

TO_FIRST, TO_LAST = (0, 3, 1, 2), (0, 2, 3, 1)


def run(gm: GraphModule) -> int:
    """Returns how many inputs and outputs it turned."""
    inputs = [n for n in gm.graph.nodes if n.op == "placeholder" and _dimensions(n) == 4]
    for node in inputs:
        with gm.graph.inserting_after(node):
            turned = _permute(gm, node, TO_FIRST)
        node.replace_all_uses_with(turned, delete_user_cb=lambda user, t=turned: user is not t)
        turned.meta["nn_module_stack"] = _first_user_scope(turned)
    output = gm.graph.output_node()
    results = list(output.args[0])  # type: ignore[arg-type]
    turned_outputs = 0
    for i, node in enumerate(results):
        if isinstance(node, Node) and _dimensions(node) == 4:
            with gm.graph.inserting_before(output):
                results[i] = _permute(gm, node, TO_LAST)
                results[i].meta["nn_module_stack"] = node.meta.get("nn_module_stack", {})
            turned_outputs += 1
    output.args = (tuple(results),)
    return len(inputs) + turned_outputs


def _permute(gm: GraphModule, node: Node, order: tuple[int, ...]) -> Node:
    permuted = gm.graph.call_function(torch.ops.aten.permute.default, (node, list(order)))
    permuted.meta["val"] = node.meta["val"].permute(order)
    return permuted


def _dimensions(node: Node) -> int:
    value = node.meta.get("val")
    return value.dim() if isinstance(value, torch.Tensor) else 0


def _first_user_scope(node: Node) -> object:
    return next(iter(node.users)).meta.get("nn_module_stack", {}) if node.users else {}
