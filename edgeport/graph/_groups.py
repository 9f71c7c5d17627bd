"""A convolution of several groups as one of a single group."""

from torch.fx import GraphModule, Node

from edgeport.graph._roles import GROUPS, groups_of
from edgeport.graph._state import add_state, get_state


def merge(gm: GraphModule, node: Node) -> None:
    """Zeros between the groups' weights: exact, at `groups` times the multiplications."""
    weight, groups = get_state(gm, node.args[1]), groups_of(node)
    assert weight is not None
    old = node.args[1]
    assert isinstance(old, Node)
    rows, columns = len(weight) // groups, weight.shape[1]
    whole = weight.new_zeros((len(weight), columns * groups, *weight.shape[2:]))
    for g in range(groups):
        mine = slice(g * rows, (g + 1) * rows)
        whole[mine, g * columns : (g + 1) * columns] = weight[mine]
    node.args = (node.args[0], add_state(gm, str(old.target), whole, node), *node.args[2:GROUPS], 1)
