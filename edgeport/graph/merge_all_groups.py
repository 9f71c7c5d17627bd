"""Makes one group of all groups of a convolution, for ONNX Runtime's int8 kernels on x86.

They gather each group's channels into a matrix of its own and multiply it by a few columns, and are slower than float
ones; what one product with zeros between the groups multiplies for nothing, VNNI and AMX do faster than that. And one
whole convolution takes its channels in any order, so that ShuffleNet's shuffle is routed away.
"""

from torch.fx import GraphModule

from edgeport.graph._groups import merge
from edgeport.graph._roles import Role, groups_of, role_of

FORMATS = ("onnx-int8-x86",)
ORDER = 26

MOST_GROUPS = 8  # as many times the multiplications; measured on ShuffleNetV1, which has 2 to 8


def run(gm: GraphModule) -> int:
    """Returns how many convolutions it merged."""
    found = [n for n in gm.graph.nodes if role_of(gm, n) is Role.MIXES_GROUPS and groups_of(n) <= MOST_GROUPS]
    for node in found:
        merge(gm, node)
    return len(found)
