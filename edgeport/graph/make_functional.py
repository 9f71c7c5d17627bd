"""Turns in-place operators into their functional forms where nobody can tell: relu_ into relu.

An in-place operator overwrites memory, so the forms agree only when that memory is neither an input's nor a
parameter's, and nothing reads it afterwards under another name: what was overwritten, or a view of the same memory.
"""

import torch
from torch.fx import GraphModule, Node

from edgeport.graph._nodes import infer, owns_its_memory

FORMATS = ("onnx", "tflite")
ORDER = 20


def run(gm: GraphModule) -> int:
    """Returns how many operators it replaced."""
    place = {node: i for i, node in enumerate(gm.graph.nodes)}
    return sum(_replace(gm, node, place) for node in place if node.op == "call_function")


def _replace(gm: GraphModule, node: Node, place: dict[Node, int]) -> int:
    functional = _functional_form(node.target)
    overwritten = node.args[0] if node.args else None
    if functional is None or not isinstance(overwritten, Node):
        return 0
    memory = _owner(overwritten)
    if memory is None or any(place[user] > place[node] for user in _readers(memory, node)):
        return 0
    target, node.target = node.target, functional
    made, wanted = infer(gm, node), node.meta["val"]
    if isinstance(made, torch.Tensor) and (made.dtype, made.shape) == (wanted.dtype, wanted.shape):
        return 1
    node.target = target  # in place the result keeps the type of what it overwrites, whatever the operator would make
    return 0


def _owner(node: Node) -> Node | None:
    """Whose memory a tensor may lie in, if that is an operator's own."""
    while not owns_its_memory(node):
        inputs = node.all_input_nodes if node.op == "call_function" else []
        if len(inputs) != 1:
            return None
        node = inputs[0]
    return node


def _readers(memory: Node, overwriting: Node) -> set[Node]:
    """All that read it, by whatever view, but for what reads the result of what overwrites it."""
    found: set[Node] = set()
    waiting = [memory]
    while waiting:
        fresh = set(waiting.pop().users) - found
        found |= fresh
        waiting += [user for user in fresh if user is not overwriting and not owns_its_memory(user)]
    return found


def _functional_form(target: object) -> torch._ops.OpOverload | None:
    """aten.relu.default for aten.relu_.default, None for what is not in-place."""
    if not isinstance(target, torch._ops.OpOverload) or target.namespace != "aten":
        return None
    name = target._schema.name.partition("::")[2]
    if not name.endswith("_") or name.endswith("__"):
        return None
    packet = getattr(torch.ops.aten, name[:-1], None)
    return getattr(packet, target._overloadname, None) if packet else None
