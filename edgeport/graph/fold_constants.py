"""Computes once what depends on no input: position ids, masks, normalised weights, states that start from zeros."""

import operator
from collections.abc import Iterator
from typing import Any

import torch
from torch.fx import GraphModule, Node
from torch.utils import _pytree

from edgeport.graph._nodes import memory_of, overwritten
from edgeport.graph._state import add_state, get_state

FORMATS = ("onnx", "tflite")
ORDER = 5

MOST_BYTES = 1 << 20  # of a result that is larger than the tensors that it is computed from


def run(gm: GraphModule) -> int:
    """Returns how many tensors it computed."""
    values: dict[Node, Any] = {}
    changing = {memory_of(tensor) for node in gm.graph.nodes for tensor in overwritten(node)}
    with torch.no_grad():
        for node in gm.graph.nodes:
            if memory_of(node) not in changing and _is_constant(node, values):
                value = _computed(gm, node, values)
                if _is_small(value, node, values):
                    values[node] = value
    read = [node for node in values if node.op != "get_attr" and _is_tensor(values[node]) and _is_read(node, values)]
    for node in read:
        name = f"{node.name}_folded"  # torch.export numbers operators anew, and gives one of them the old name
        constant = add_state(gm, name, values[node].clone(), node)
        constant.meta["val"] = node.meta["val"]
        node.replace_all_uses_with(constant)
    gm.graph.eliminate_dead_code()
    return len(read)


def _is_constant(node: Node, values: dict[Node, Any]) -> bool:
    if node.op == "get_attr":
        return True
    if node.op != "call_function" or any(n not in values for n in node.all_input_nodes) or overwritten(node):
        return False
    target = node.target
    if not isinstance(target, torch._ops.OpOverload):
        return target is operator.getitem
    return target.namespace == "aten" and torch.Tag.nondeterministic_seeded not in target.tags


def _computed(gm: GraphModule, node: Node, values: dict[Node, Any]) -> Any:
    if node.op == "get_attr":
        return get_state(gm, node)
    args, kwargs = _pytree.tree_map_only(Node, values.__getitem__, (node.args, node.kwargs))
    return node.target(*args, **kwargs)  # type: ignore[operator]


def _is_tensor(value: Any) -> bool:
    return isinstance(value, torch.Tensor)


def _is_small(value: Any, node: Node, values: dict[Node, Any]) -> bool:
    """Whether a file may as well hold it as what it comes from. Not for what holds no tensors, such as a size."""
    if node.op == "get_attr":
        return _is_tensor(value)
    made = list(_tensors(value))
    given = sum(t.nbytes for source in node.all_input_nodes for t in _tensors(values[source]))
    return bool(made) and sum(t.nbytes for t in made) <= max(MOST_BYTES, given)


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    return (leaf for leaf in _pytree.tree_leaves(value) if isinstance(leaf, torch.Tensor))


def _is_read(node: Node, values: dict[Node, Any]) -> bool:
    """By what is computed anew each time."""
    return any(user not in values for user in node.users)
