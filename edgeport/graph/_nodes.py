"""What passes and converters ask of a captured graph's node, and how a pass makes a new one."""

import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch.fx import GraphModule, Node
from torch.utils import _pytree

from edgeport.graph._state import get_state


def shape_of(node: Node) -> tuple[int, ...]:
    """() for what is no tensor of fixed shape."""
    return fixed_shape(node.meta.get("val")) or ()


def fixed_shape(value: object) -> tuple[int, ...] | None:
    """None for what is no tensor of fixed shape."""
    if not isinstance(value, torch.Tensor) or not all(isinstance(d, int) for d in value.shape):
        return None
    return tuple(value.shape)


def argument(node: Node, position: int, default: Any = None) -> Any:
    """A positional argument by its place in the operator's schema, wherever it was written."""
    if len(node.args) > position:
        return node.args[position]
    name = node.target._schema.arguments[position].name  # type: ignore[union-attr]
    return node.kwargs.get(name, default)


def pair(value: Any) -> tuple[int, int]:
    """(of height, of width) of a number, or a list of one or two."""
    values = value if isinstance(value, (list, tuple)) else [value]
    return int(values[0]), int(values[-1])


def create(gm: GraphModule, like: Node, target: Any, *args: Any) -> Node:
    """A node where the graph is inserting, which belongs to the module of another one."""
    node = gm.graph.call_function(target, args)
    node.meta = {key: value for key, value in like.meta.items() if key != "val"}
    node.meta["val"] = infer(gm, node)
    return node


def infer(gm: GraphModule, node: Node) -> Any:
    """What the operator makes of its arguments as they are: tensors that have a shape and a type, and no elements."""

    def value(argument: Node) -> Any:
        state = get_state(gm, argument)
        known = argument.meta["val"] if state is None else state
        return _pytree.tree_map_only(torch.Tensor, lambda t: t.new_empty(t.shape, device="meta"), known)

    args, kwargs = _pytree.tree_map_only(Node, value, (node.args, node.kwargs))
    return node.target(*args, **kwargs)  # type: ignore[operator]


def module_path(node: Node) -> str:
    """The path of the module that a graph's node belongs to, "" for the network itself."""
    stack = node.meta.get("nn_module_stack") or {}
    path = str(list(stack.values())[-1][0]) if stack else ""
    return re.sub(r"@\d+$", "", path)  # torch.export counts calls of one module: conv@1


# Composite operators may hand back their input without saying so in their schema (dropout does); those of layers do
# not.
LAYERS = ("batch_norm", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "linear", "matmul")


def owns_its_memory(node: Node) -> bool:
    """Whether what it returns is new memory: not an input, a parameter, or a view of something that others may read."""
    target = node.target
    if node.op != "call_function" or not isinstance(target, torch._ops.OpOverload):
        return False
    composite = torch._C._dispatch_has_kernel_for_dispatch_key(target._name, "CompositeImplicitAutograd")
    if composite and target._schema.name.partition("::")[2] not in LAYERS:
        return False
    return all(result.alias_info is None for result in target._schema.returns)


def memory_of(node: Node) -> Node:
    """The node whose memory a tensor lies in, or may lie in: an operator, an input or a parameter."""
    while node.op == "call_function" and not owns_its_memory(node) and node.all_input_nodes:
        node = node.all_input_nodes[0]
    return node


def overwritten(node: Node) -> list[Node]:
    """The tensors that an operator writes to."""
    schema = getattr(node.target, "_schema", None)
    if node.op != "call_function" or schema is None:
        return []
    writes = [i for i, a in enumerate(schema.arguments) if a.alias_info is not None and a.alias_info.is_write]
    return [tensor for i in writes if isinstance(tensor := argument(node, i), Node)]


class Partition:
    """Disjoint sets of nodes."""

    def __init__(self, nodes: Iterable[Node]) -> None:
        self._above = {node: node for node in nodes}

    def of(self, node: Node) -> Node:
        while self._above[node] is not node:
            node = self._above[node]
        return node

    def join(self, nodes: Sequence[Node]) -> None:
        for first, second in pairwise(dict.fromkeys(nodes)):
            self._above[self.of(second)] = self.of(first)
