"""Writes recurrent networks' cells, LSTMCell, GRUCell and RNNCell, as the linear layers and gates that they are."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.fx import GraphModule, Node

from edgeport.graph._nodes import argument, create

FORMATS = ("tflite",)
ORDER = 10

aten = torch.ops.aten
Make = Callable[..., Node]  # makes a node of an operator and its arguments


def run(gm: GraphModule) -> int:
    """Returns how many cells it wrote out."""
    cells = [node for node in gm.graph.nodes if node.target in CELLS]
    for node in cells:

        def make(target: Any, *args: Any, like: Node = node) -> Node:
            return create(gm, like, target, *args)

        with gm.graph.inserting_before(node):
            results = CELLS[node.target](make, node)
        _replace(node, results)
    return len(cells)


def _replace(node: Node, results: Sequence[Node]) -> None:
    if len(results) == 1:
        node.replace_all_uses_with(results[0])
    for user in list(node.users):  # takes one of the results
        user.replace_all_uses_with(results[user.args[1]])  # type: ignore[index]
        user.graph.erase_node(user)
    node.graph.erase_node(node)


def _products(make: Make, node: Node, state: Any) -> tuple[Node, Node]:
    """The gates' shares of the input and of the state."""
    weights, biases = (argument(node, 2), argument(node, 3)), (argument(node, 4), argument(node, 5))
    given = zip((node.args[0], state), weights, biases, strict=True)
    first, second = (make(aten.linear.default, x, weight, bias) for x, weight, bias in given)
    return first, second


def _parts(make: Make, gates: Node, count: int) -> list[Node]:
    """The gates, which lie side by side on the last axis."""
    rank, size = gates.meta["val"].dim(), gates.meta["val"].shape[-1] // count
    return [make(aten.slice.Tensor, gates, rank - 1, i * size, (i + 1) * size) for i in range(count)]


def _lstm(make: Make, node: Node) -> list[Node]:
    """Input, forget, cell and output gate, in this order (torch.nn.LSTMCell)."""
    hidden, cell = node.args[1]  # type: ignore[misc, str-unpack]
    gates = make(aten.add.Tensor, *_products(make, node, hidden))
    write, keep, new, show = _parts(make, gates, 4)
    kept = make(aten.mul.Tensor, make(aten.sigmoid.default, keep), cell)
    written = make(aten.mul.Tensor, make(aten.sigmoid.default, write), make(aten.tanh.default, new))
    cell = make(aten.add.Tensor, kept, written)
    return [make(aten.mul.Tensor, make(aten.sigmoid.default, show), make(aten.tanh.default, cell)), cell]


def _gru(make: Make, node: Node) -> list[Node]:
    """Reset, update and new gate, in this order (torch.nn.GRUCell)."""
    of_input, of_state = (_parts(make, gates, 3) for gates in _products(make, node, node.args[1]))
    sums = [make(aten.add.Tensor, a, b) for a, b in zip(of_input[:2], of_state[:2], strict=True)]
    reset, update = (make(aten.sigmoid.default, total) for total in sums)
    new = make(aten.tanh.default, make(aten.add.Tensor, of_input[2], make(aten.mul.Tensor, reset, of_state[2])))
    change = make(aten.mul.Tensor, update, make(aten.sub.Tensor, node.args[1], new))
    return [make(aten.add.Tensor, new, change)]


def _simple(activation: Any) -> Callable[[Make, Node], list[Node]]:
    return lambda make, node: [make(activation, make(aten.add.Tensor, *_products(make, node, node.args[1])))]


CELLS: dict[Any, Callable[[Make, Node], list[Node]]] = {
    aten.lstm_cell.default: _lstm,
    aten.gru_cell.default: _gru,
    aten.rnn_tanh_cell.default: _simple(aten.tanh.default),
    aten.rnn_relu_cell.default: _simple(aten.relu.default),
}
