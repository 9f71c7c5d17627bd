"""Gives pieces of tensors that are cut and joined channels of zeros, where matrix products would else read or make a
number of channels that is no multiple of 4.

ShuffleNetV2's second stage moves 58 channels about in pieces of 29, 15, 14 and so on. ONNX Runtime's matrix products in
int8 take twice as long for 58 channels as for 64.
"""

from collections.abc import Iterator

from torch.fx import GraphModule, Node

from edgeport.graph._atoms import Atoms, Family
from edgeport.graph._roles import Role, input_of, role_of

FORMATS = ("onnx", "tflite")
ORDER = 45

WORD = 4
MOST = 1 / 8  # of a tensor's channels, to be added at most


def run(gm: GraphModule) -> int:
    """Returns how many tensors have more channels."""
    atoms = Atoms(gm)
    families = list(atoms.families())
    multiplied = _multiplied(gm)
    grown: set[Node] = set()
    for part in _parts(families):
        more = {atom: -family.size % WORD for family in part for atom in family.atoms}
        products = {tensor for tensor, _ in more} & multiplied
        old = {tensor: sum(atoms.sizes(tensor).values()) for tensor in products}
        new = {t: old[t] + sum(more.get((t, start), 0) for start in atoms.sizes(t)) for t in products}
        awkward = any(channels % WORD for channels in old.values())
        if awkward and all(new[t] % WORD == 0 and new[t] <= old[t] * (1 + MOST) for t in products):
            atoms.grow(more)
            grown |= {tensor for tensor, _ in more}
    return len(grown)


def _multiplied(gm: GraphModule) -> set[Node]:
    """Tensors that a matrix product makes or reads."""
    products = [node for node in gm.graph.nodes if role_of(gm, node) is Role.MIXES]
    return {*products, *map(input_of, products)}


def _parts(families: list[Family]) -> Iterator[list[Family]]:
    """Those that share a tensor with one another."""
    of_tensor: dict[Node, list[Family]] = {}
    for family in families:
        for tensor in family.tensors():
            of_tensor.setdefault(tensor, []).append(family)
    seen: set[int] = set()
    for first in families:
        part, waiting = [], [first]
        while waiting:
            family = waiting.pop()
            if id(family) not in seen:
                seen.add(id(family))
                part.append(family)
                waiting += [other for tensor in family.tensors() for other in of_tensor[tensor]]
        if part:
            yield part
