"""What the four guidelines of ShuffleNetV2 (arXiv 1807.11164, section 2) say of a network. Pure.

G1 equal channel widths minimise memory access cost; G2 excessive group convolution increases it; G3 network
fragmentation reduces parallelism; G4 element-wise operations are not negligible.
"""

from collections.abc import Iterator

import msgspec

from edgeport.analysis import Analysis, Layer
from edgeport.cost import memory_access, memory_access_bound

# From where a finding is worth a line. The paper's Table 1 loses speed from 1:6 on, where MAC is about 1.25 times the
# bound at its widths; its Table 2 from 4 groups on; its Table 3 from 2 fragments on.
G1_EXCESS, G2_EXCESS, G3_BRANCHES, G4_SHARE = 0.25, 0.25, 2, 0.05


class Finding(msgspec.Struct, frozen=True):
    """cost_bytes: memory traffic that following the guideline would save, or that the operators in question make."""

    guideline: str
    module: str
    cost_bytes: int
    reason: str


class Score(msgspec.Struct, frozen=True):
    """The network as a whole. mac_over_bound: memory access cost of its pointwise convolutions over G1's bound;
    group_excess: over what they would cost ungrouped at the same MAdds; branches: most branches that join in one place;
    elementwise_share: of all memory access.
    """

    mac_over_bound: float
    group_excess: float
    branches: int
    elementwise_share: float
    follows: tuple[str, ...]


def findings(analysis: Analysis) -> list[Finding]:
    """Costliest first."""
    found = [f for layer in analysis.layers for f in (*_g1(layer), *_g2(layer), *_g3(layer))]
    return sorted([*found, *_g4(analysis)], key=lambda f: -f.cost_bytes)


def score(analysis: Analysis) -> Score:
    """follows: the guidelines that the network as a whole keeps."""
    pointwise = [layer for layer in analysis.layers if _is_pointwise(layer)]
    dense = [layer for layer in pointwise if layer.groups == 1]
    bound = sum(memory_access_bound(layer.area, layer.madds) for layer in dense)
    over = sum(layer.mac for layer in dense) / bound if bound else 1.0
    ungrouped = sum(_ungrouped(layer) for layer in pointwise)
    excess = sum(layer.mac for layer in pointwise) / ungrouped if ungrouped else 1.0
    branches = max((len(layer.inputs) for layer in analysis.layers if layer.type == "cat"), default=1)
    total = sum(layer.mac for layer in analysis.layers)
    share = sum(layer.mac for layer in analysis.layers if _is_elementwise(layer)) / total if total else 0.0
    kept = {
        "G1": over - 1 <= G1_EXCESS,
        "G2": excess - 1 <= G2_EXCESS,
        "G3": branches <= G3_BRANCHES,
        "G4": share <= G4_SHARE,
    }
    return Score(over, excess, branches, share, tuple(name for name, keeps in kept.items() if keeps))


def _g1(layer: Layer) -> Iterator[Finding]:
    if not _is_pointwise(layer) or layer.groups > 1:
        return
    bound = memory_access_bound(layer.area, layer.madds)
    excess = layer.mac / bound - 1
    if excess > G1_EXCESS:
        c1, c2 = layer.channels
        reason = f"{c1} -> {c2} channels: memory access {excess:+.0%} above the bound for its MAdds"
        yield Finding("G1", layer.module, int((layer.mac - bound) * 4), reason)


def _g2(layer: Layer) -> Iterator[Finding]:
    if not _is_pointwise(layer) or layer.groups == 1:
        return
    excess = layer.mac / _ungrouped(layer) - 1
    if excess > G2_EXCESS:
        reason = f"{layer.groups} groups: memory access {excess:+.0%} over one group with as many MAdds"
        yield Finding("G2", layer.module, int((layer.mac - _ungrouped(layer)) * 4), reason)


def _g3(layer: Layer) -> Iterator[Finding]:
    if layer.type == "cat" and len(layer.inputs) > G3_BRANCHES:
        reason = f"{len(layer.inputs)} branches joined: each starts and ends on its own"
        yield Finding("G3", layer.module, layer.mac_bytes, reason)


def _g4(analysis: Analysis) -> Iterator[Finding]:
    for layer in analysis.layers:
        if _is_elementwise(layer) and layer.mac_bytes > G4_SHARE * analysis.mac_bytes / 10:
            share = layer.mac_bytes / analysis.mac_bytes
            yield Finding(
                "G4", layer.module, layer.mac_bytes, f"{layer.type}: {share:.1%} of all memory access, no MAdds"
            )


def _is_pointwise(layer: Layer) -> bool:
    return layer.kind == "conv" and layer.taps == 1 and layer.madds > 0 and not layer.type.startswith("Conv DW")


def _is_elementwise(layer: Layer) -> bool:
    """Activations are left out: runtimes fuse them into the convolution before."""
    return layer.kind == "elementwise" and not layer.type.rstrip("_").startswith(("relu", "hardtanh"))


def _ungrouped(layer: Layer) -> float:
    """MAC of one group with the same input and MAdds: the output is narrower by the number of groups."""
    c1, c2 = layer.channels
    return memory_access(layer.area, c1, max(1, c2 // layer.groups), layer.taps, 1, layer.input_area)
