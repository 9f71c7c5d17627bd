"""Gives depthwise convolutions a few channels of zeros more, up to a multiple of 16, where fast kernels begin.

ONNX Runtime's fast depthwise kernels take multiples of 4 channels in float and of 16 in int8; 58 channels, as in
ShuffleNetV2, take 5 and 2 times as long as 64. Only inner channels are added: those that one convolution makes and
others read, with weights of zero at both ends.
"""

from torch.fx import GraphModule

from edgeport.graph._atoms import Atoms, Family
from edgeport.graph._channels import CHANNELS
from edgeport.graph._nodes import shape_of
from edgeport.graph._roles import Role, is_depthwise, role_of

FORMATS = ("onnx", "tflite")
ORDER = 40

VECTOR = 16
MOST = 1 / 3  # of the channels, to be added at most: more costs the convolutions around more than it saves


def run(gm: GraphModule) -> int:
    """Returns how many depthwise convolutions it padded."""
    return pad(gm, MOST)


def pad(gm: GraphModule, most: float) -> int:
    """The same, with at most so many of the channels added."""
    atoms, more = Atoms(gm), {}
    for family in atoms.families():
        extra = -family.size % VECTOR
        if 0 < extra <= family.size * most and _is_inner(gm, family):
            more.update(dict.fromkeys(family.atoms, extra))
    atoms.grow(more)
    return sum(is_depthwise(tensor) for tensor, _ in more)


def _is_inner(gm: GraphModule, family: Family) -> bool:
    """Whether it has a depthwise convolution, and none of its tensors is cut or joined with others."""
    tensors = family.tensors()
    if not all(role_of(gm, t) is not Role.FIXED and shape_of(t)[CHANNELS] == family.size for t in tensors):
        return False
    return any(is_depthwise(t) for t in tensors)
