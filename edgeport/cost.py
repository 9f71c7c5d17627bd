"""What an operator computes and moves: the only place where multiply-adds are counted.

MAdds are multiply-accumulates, what the papers call FLOPs or MAdds: a convolution makes one for each output element and
each tap of its kernel over its group's input channels (MobileNet, arXiv 1704.04861, section 3.1).
"""

import math
from collections.abc import Sequence
from math import prod

DTYPE_BYTES = {
    "bool": 1,
    "int4": 0.5,
    "uint4": 0.5,
    "int8": 1,
    "uint8": 1,
    "int16": 2,
    "uint16": 2,
    "float16": 2,
    "bfloat16": 2,
    "int32": 4,
    "uint32": 4,
    "float32": 4,
    "int64": 8,
    "uint64": 8,
    "float64": 8,
}


def convolution_madds(output: Sequence[int], taps: Sequence[int]) -> int:
    """output: its shape; taps: what one output element sums over (kernel sizes and input channels of its group)."""
    return prod(output) * prod(taps)


def transposed_convolution_madds(inputs: Sequence[int], taps: Sequence[int]) -> int:
    """Each input element is spread over the taps (kernel sizes and output channels of its group)."""
    return prod(inputs) * prod(taps)


def matmul_madds(output: Sequence[int], inner: int) -> int:
    """inner: the length that the product sums over."""
    return prod(output) * inner


def elementwise_products(output: Sequence[int]) -> int:
    """Of two tensors that the network computes, element by element: one multiplication an element.

    MicroNet (arXiv 2108.05894) counts those of Dynamic Shift-Max, coefficients times channels, among its MAdds; the
    other papers here have none.
    """
    return prod(output)


def memory_access(
    area: int, inputs: int, outputs: int, taps: int = 1, groups: int = 1, input_area: int | None = None
) -> int:
    """Memory access cost of a convolution, in elements: the maps that it reads and writes, and its weights.

    ShuffleNetV2 (arXiv 1807.11164), equations 1 and 2, for 1x1: MAC = hw(c1 + c2) + c1 c2 / g. taps: kernel height
    times width; input_area: of the input that is read, where a stride makes it another than the output's.
    """
    read = area if input_area is None else input_area
    return read * inputs + area * outputs + taps * inputs * outputs // groups


def memory_access_bound(area: int, madds: int, groups: int = 1) -> float:
    """The least memory access cost of a 1x1 convolution with these MAdds on maps of this area, in elements.

    The same paper's equation 1: 2 sqrt(hw B) + B / hw, reached where it has as many input as output channels. With
    groups, from its equation 2 in the same way: 2 sqrt(hw B g) + B / hw.
    """
    return 2 * math.sqrt(area * madds * groups) + madds / area


def tensor_bytes(shape: Sequence[int], dtype: str) -> int | None:
    """None where the type has no fixed size (strings), or one that is not known."""
    return int(prod(shape) * DTYPE_BYTES[dtype]) if dtype in DTYPE_BYTES else None
