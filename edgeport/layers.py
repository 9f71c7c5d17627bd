"""What a network is made of, layer by layer, and what each costs: of PyTorch's networks and of files alike."""

from collections import Counter
from collections.abc import Collection, Hashable, Mapping, Sequence
from math import prod
from typing import TypeVar

import msgspec

from edgeport.cost import memory_access_bound

Shape = tuple[int, ...]
Shapes = tuple[Shape, ...]
Key = TypeVar("Key", bound=Hashable)

FLOAT_BYTES = 4
# Names in PyTorch, ONNX and TFLite, without case and underscores.
JOINS = ("add", "cat", "addn", "concat", "concatenation", "qlinearadd", "qlinearconcat", "sum")
WINDOWS = (
    *("avgpool1d", "avgpool2d", "avgpool3d", "maxpool1d", "maxpool2d", "maxpool2dwithindices", "maxpool3d"),
    *("averagepool", "averagepool2d", "maxpool", "qlinearaveragepool"),
)
MOST_STEPS = 10_000_000  # operators and what they read, times blocks, beyond which no blocks are looked for


class Layer(msgspec.Struct, frozen=True, kw_only=True):
    """One operator. kind: conv, linear, matmul, elementwise, movement, pooling or unknown.

    type: as MobileNet's Table 2 has it (Conv 1x1, Conv DW 3x3, FC), or the operator. params: weights, without biases.
    products: element-wise ones of two tensors that the network computes; among the madds if that was asked for.
    channels: of input and output. area: height times width of the output, of all samples (the rows of a linear layer).
    mac: memory access cost in elements: maps read and written, and weights. writes: whether the output is new memory,
    and no view. known: whether shapes tell what it costs; where they do not, it costs 0 here. moved_bytes,
    written_bytes: as a file stores what it reads and writes; None where that is float32.
    """

    module: str
    kind: str
    type: str
    inputs: Shapes
    output: Shape
    params: int = 0
    madds: int = 0
    products: int = 0
    mac: int = 0
    channels: tuple[int, int] | None = None
    area: int = 0
    taps: int = 1
    groups: int = 1
    writes: bool = True
    known: bool = True
    moved_bytes: int | None = None
    written_bytes: int | None = None

    @property
    def is_counted(self) -> bool:
        return self.known and self.kind != "unknown"

    @property
    def mac_bytes(self) -> int:
        return self.mac * FLOAT_BYTES if self.moved_bytes is None else self.moved_bytes

    @property
    def activation_bytes(self) -> int:
        if self.written_bytes is not None:
            return self.written_bytes
        return prod(self.output) * FLOAT_BYTES if self.writes and self.known else 0

    @property
    def can_join(self) -> bool:
        """Whether it is of a kind that puts several maps together."""
        return self.kind in ("elementwise", "movement") and _plain(self.type) in JOINS

    @property
    def is_fragment(self) -> bool:
        """A convolution, or a pool over windows: what guideline G3 counts."""
        return self.kind == "conv" or _plain(self.type) in WINDOWS

    @property
    def is_pointwise(self) -> bool:
        """A 1x1 convolution that mixes channels: what guidelines G1 and G2 are about."""
        depthwise = self.channels is not None and 1 < self.groups == self.channels[0]
        return self.kind == "conv" and self.taps == 1 and self.madds > 0 and not depthwise

    @property
    def channel_ratio(self) -> float | None:
        """The wider side over the narrower."""
        return max(self.channels) / min(self.channels) if self.channels and all(self.channels) else None

    @property
    def mac_over_bound(self) -> float | None:
        """Of pointwise convolutions: over the least memory access with which their MAdds can be made."""
        return self.mac / memory_access_bound(self.area, self.madds) if self.is_pointwise else None


class Block(msgspec.Struct, frozen=True):
    """A module whose branches join by a concat or an addition, and how fragmented it is, as in ShuffleNetV2's Table 3.

    operators: its convolutions and its pools over windows. serial: how many follow each other at most. parallel: how
    many stand side by side at most, at the same place of such a chain, so that none of them waits for another.
    join_bytes: what the joining operators read and write.
    """

    module: str
    operators: int
    serial: int
    parallel: int
    join_bytes: int


class Analysis(msgspec.Struct, frozen=True):
    """unknown: operators that were counted as nothing, because they are in no table here or of no known size, with how
    often they stand.

    counts_products: whether element-wise products are among the multiply-adds. format: of a file, "" for a network of
    PyTorch. open_inputs: a file's inputs of no fixed size, whose shapes have -1 for what is open. tells_modules:
    whether it is known which module an operator belongs to.
    """

    model: str
    params: int
    layers: tuple[Layer, ...]
    blocks: tuple[Block, ...]
    unknown: dict[str, int]
    counts_products: bool
    format: str = ""
    open_inputs: tuple[tuple[str, Shape], ...] = ()
    tells_modules: bool = True

    @property
    def madds(self) -> int:
        return sum(layer.madds for layer in self.layers)

    @property
    def products(self) -> int:
        return sum(layer.products for layer in self.layers)

    @property
    def mac_bytes(self) -> int:
        return sum(layer.mac_bytes for layer in self.layers)

    @property
    def activation_bytes(self) -> int:
        """All maps that operators write: what a runtime without reuse would hold."""
        return sum(layer.activation_bytes for layer in self.layers)


def find_blocks(
    layers: Mapping[Key, Layer], inputs: Mapping[Key, Sequence[Key]], joining: Collection[Key]
) -> list[Block]:
    """In the order in which they are joined. Modules without a convolution or pool have nothing to be judged.

    layers: in the order in which they run. inputs: what each one reads. joining: those that read several maps.
    """
    joins: dict[str, int] = {}
    for key, layer in layers.items():
        if layer.can_join and key in joining:
            joins[layer.module] = joins.get(layer.module, 0) + layer.mac_bytes
    if len(joins) * (len(layers) + sum(map(len, inputs.values()))) > MOST_STEPS:
        return []
    blocks = (_block(layers, inputs, module, join_bytes) for module, join_bytes in joins.items())
    return [block for block in blocks if block.operators]


def _block(layers: Mapping[Key, Layer], inputs: Mapping[Key, Sequence[Key]], module: str, join_bytes: int) -> Block:
    places: dict[Key, int] = {}
    operators: list[int] = []
    for key, layer in layers.items():
        before = max((places.get(i, 0) for i in inputs[key]), default=0)
        inside = not module or f"{layer.module}.".startswith(f"{module}.")
        counts = inside and layer.is_fragment
        places[key] = before + counts
        if counts:
            operators.append(places[key])
    side_by_side = max(Counter(operators).values(), default=0)
    return Block(module, len(operators), max(operators, default=0), side_by_side, join_bytes)


def _plain(name: str) -> str:
    return name.replace("_", "").lower()
