"""Makes one group of a convolution's few and small ones, with zeros between them.

Kernels work on vectors of 16 channels, so a group of 4 wastes most of one, and every group is a call of its own. One
whole convolution multiplies zeros for nothing and is quicker all the same; and it takes its channels in any order, so
that a shuffle before or behind it can be routed away.
"""

from torch.fx import GraphModule, Node

from edgeport.graph._channels import CHANNELS
from edgeport.graph._groups import merge
from edgeport.graph._nodes import shape_of
from edgeport.graph._roles import Role, input_of, role_of

FORMATS = ("onnx", "tflite")
ORDER = 25

# Channels of the input or output, up to which this pays. Measured on MicroNet M1 and ShuffleNetV1 in both runtimes and
# precisions: up to 64 and 128 alike, all of MicroNet's by a factor of 2 in int8 ONNX; beyond, float gets slower.
LARGEST = 64


def run(gm: GraphModule) -> int:
    """Returns how many convolutions it merged."""
    found = [n for n in gm.graph.nodes if role_of(gm, n) is Role.MIXES_GROUPS and _is_small(n)]
    for node in found:
        merge(gm, node)
    return len(found)


def _is_small(node: Node) -> bool:
    return max(shape_of(input_of(node))[CHANNELS], shape_of(node)[CHANNELS]) <= LARGEST
