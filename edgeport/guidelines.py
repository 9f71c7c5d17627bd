"""What the four guidelines of ShuffleNetV2 (arXiv 1807.11164, section 2) say of a network. Pure.

G1 equal channel widths minimise memory access cost; G2 excessive group convolution increases it; G3 network
fragmentation reduces parallelism; G4 element-wise operations are not negligible.

G1 and G2 share out how far a pointwise convolution's memory access lies above the bound for its MAdds: that of equal
channel widths with as many groups lies between the two. What it takes above that is G1's, what that takes above the
bound is G2's.
"""

from collections.abc import Callable, Iterable, Iterator

import msgspec

from edgeport.cost import memory_access_bound
from edgeport.layers import Analysis, Layer

# G1: memory access at 1:3 channels, between the paper's 1:2 (1.06; 4% slower on ARM) and 1:6 (1.43; 9%) of Table 1.
# G2: below that of 2 groups (up to 1.41; 12% slower on ARM) in Table 2, where maps make most of it.
# G3: what the paper's own unit of stride 2 has. Series are not judged: 4 convolutions in series lose 4% on ARM in
# Table 3, 4 in parallel 13%. G4: a choice. Table 4's additions, half of its blocks' memory access, take 8% on ARM.
G1_LIMIT, G2_LIMIT, G3_LIMIT, G4_LIMIT = 1.15, 1.25, 2, 0.05
SMALLEST_FINDING = 0.1  # of G4's limit


class Finding(msgspec.Struct, frozen=True):
    """cost_bytes: memory traffic that following the guideline would save, or that the operators in question make."""

    guideline: str
    module: str
    cost_bytes: int
    reason: str


class Verdict(msgspec.Struct, frozen=True):
    """Whether the network as a whole keeps a guideline: whether its figure is at most the limit. None where that is not
    known of a file.
    """

    guideline: str
    kept: bool | None
    figure: float | None
    limit: float
    reason: str


class Score(msgspec.Struct, frozen=True):
    """The network as a whole. mac_over_bound: memory access cost of its pointwise convolutions over the bound for their
    MAdds, the product of by_channels (G1) and by_groups (G2). parallel, serial: the most in any block (G3).
    elementwise_share, activation_share: of all memory access, by element-wise operators that no runtime fuses into a
    convolution (G4), and by activations that it does. verdicts: in the guidelines' order.
    """

    mac_over_bound: float
    by_channels: float
    by_groups: float
    parallel: int
    serial: int
    elementwise_share: float
    activation_share: float
    verdicts: tuple[Verdict, ...]

    @property
    def follows(self) -> tuple[str, ...]:
        return tuple(v.guideline for v in self.verdicts if v.kept)


def findings(analysis: Analysis) -> list[Finding]:
    """Costliest first."""
    pointwise = [layer for layer in analysis.layers if layer.is_pointwise]
    found = [*_g1(pointwise), *_g2(pointwise), *_g3(analysis), *_g4(analysis)]
    return sorted(found, key=lambda f: -f.cost_bytes)


def score(analysis: Analysis) -> Score:
    pointwise = [layer for layer in analysis.layers if layer.is_pointwise]
    mac, equal, bound = (sum(map(cost, pointwise)) for cost in (_mac, _equal_widths, _bound))
    by_channels, by_groups = (mac / equal, equal / bound) if pointwise else (1.0, 1.0)
    parallel = max((block.parallel for block in analysis.blocks), default=0)
    serial = max((block.serial for block in analysis.blocks), default=0)
    elementwise, activations = _share(analysis, _is_elementwise), _share(analysis, _is_activation)
    judged = (
        _verdict("G1", by_channels, G1_LIMIT, _widths_reason(by_channels, pointwise)),
        _verdict("G2", by_groups, G2_LIMIT, _groups_reason(by_groups, pointwise)),
        _verdict("G3", parallel, G3_LIMIT, _fragments_reason(analysis)),
        _verdict("G4", elementwise, G4_LIMIT, _elementwise_reason(elementwise, activations)),
    )
    obstacles = _obstacles(analysis, bool(pointwise))
    verdicts = tuple(
        Verdict(v.guideline, None, None, v.limit, obstacles[v.guideline]) if v.guideline in obstacles else v
        for v in judged
    )
    return Score(by_channels * by_groups, by_channels, by_groups, parallel, serial, elementwise, activations, verdicts)


def _obstacles(analysis: Analysis, has_pointwise: bool) -> dict[str, str]:
    """Why there is no verdict on a guideline, where there is none."""
    reasons: dict[str, str] = {}
    if not has_pointwise and any(layer.kind == "conv" and not layer.known for layer in analysis.layers):
        reasons |= dict.fromkeys(("G1", "G2"), "the file leaves the sizes of its convolutions open")
    if not analysis.tells_modules:
        reasons["G3"] = "the file does not tell which module an operator belongs to"
    if not analysis.mac_bytes and not all(layer.is_counted for layer in analysis.layers):
        reasons["G4"] = "what the operators of the file move is not known"
    return reasons


def _verdict(guideline: str, figure: float, limit: float, reason: str) -> Verdict:
    return Verdict(guideline, figure <= limit, figure, limit, reason)


def _widths_reason(factor: float, pointwise: list[Layer]) -> str:
    if not pointwise:
        return "no pointwise convolutions"
    return f"pointwise convolutions access {factor:.2f} times the memory that equal channel widths would"


def _groups_reason(factor: float, pointwise: list[Layer]) -> str:
    most = max((layer.groups for layer in pointwise), default=1)
    if most == 1:
        return "no pointwise convolution is grouped"
    return f"up to {most} groups; pointwise convolutions access {factor:.2f} times the memory that one group would"


def _fragments_reason(analysis: Analysis) -> str:
    if not analysis.blocks:
        return "no branches join"
    widest = max(analysis.blocks, key=lambda block: (block.parallel, block.serial))
    alone = sum(block.parallel == 1 for block in analysis.blocks)
    return (
        f"at most {widest.parallel} of a block's operators side by side ({widest.module or 'the network'}: "
        f"{widest.operators}, {widest.serial} in series); {alone} of {len(analysis.blocks)} blocks work in one branch"
    )


def _elementwise_reason(elementwise: float, activations: float) -> str:
    return (
        f"element-wise operators make {elementwise:.1%} of memory access; activations, which runtimes fuse, would "
        f"make {activations:.1%}"
    )


def _g1(pointwise: Iterable[Layer]) -> Iterator[Finding]:
    for layer in pointwise:
        equal = _equal_widths(layer)
        if layer.mac > G1_LIMIT * equal and layer.channels:
            c1, c2 = layer.channels
            reason = f"{c1} -> {c2} channels: memory access {layer.mac / equal - 1:+.0%} above that of equal widths"
            yield Finding("G1", layer.module, _bytes(layer, layer.mac - equal), reason)


def _g2(pointwise: Iterable[Layer]) -> Iterator[Finding]:
    for layer in pointwise:
        equal, bound = _equal_widths(layer), _bound(layer)
        if equal > G2_LIMIT * bound:
            reason = f"{layer.groups} groups: memory access {equal / bound - 1:+.0%} over one group with as many MAdds"
            yield Finding("G2", layer.module, _bytes(layer, equal - bound), reason)


def _g3(analysis: Analysis) -> Iterator[Finding]:
    for block in analysis.blocks:
        if block.parallel > G3_LIMIT:
            reason = (
                f"{block.operators} convolutions and pools, {block.parallel} of them side by side, "
                f"{block.serial} in series"
            )
            yield Finding("G3", block.module, block.join_bytes, reason)


def _g4(analysis: Analysis) -> Iterator[Finding]:
    for layer in filter(_is_elementwise, analysis.layers):
        share = layer.mac_bytes / (analysis.mac_bytes or 1)
        if share > G4_LIMIT * SMALLEST_FINDING:
            work = f"{layer.madds / analysis.madds:.1%} of the MAdds" if layer.madds else "no MAdds"
            yield Finding("G4", layer.module, layer.mac_bytes, f"{layer.type}: {share:.1%} of memory access, {work}")


def _bytes(layer: Layer, elements: float) -> int:
    """In the bytes that an element takes on average."""
    return int(elements * (layer.mac_bytes / layer.mac))


def _mac(layer: Layer) -> float:
    return layer.mac


def _equal_widths(layer: Layer) -> float:
    """Memory access of equal input and output widths, with the same MAdds and groups."""
    return memory_access_bound(layer.area, layer.madds, layer.groups)


def _bound(layer: Layer) -> float:
    return memory_access_bound(layer.area, layer.madds)


def _is_elementwise(layer: Layer) -> bool:
    return layer.kind == "elementwise" and not _is_activation(layer)


def _is_activation(layer: Layer) -> bool:
    """Those that runtimes fuse into the convolution before."""
    return layer.kind == "elementwise" and layer.type.lower().startswith(("relu", "hardtanh", "clip"))


def _share(analysis: Analysis, chosen: Callable[[Layer], bool]) -> float:
    return sum(layer.mac_bytes for layer in analysis.layers if chosen(layer)) / (analysis.mac_bytes or 1)
