"""int8 weights that leave room for two products in 16 bits, for x86-64 processors without VNNI.

AVX2's vpmaddubsw adds the products of two neighbouring unsigned activations and signed weights to 16 bits and cuts off
what does not fit. Neighbours are two weights of one output channel that follow each other as ONNX Runtime's kernels
read them, in pairs from the first on: by rows, columns, then input channels. With activations of up to 255, two weights
of the same sign may come to 128 steps. Where they come to more, the channel's steps are made larger, by a factor of 2
at the most: half of what weights of 7 bits lose (1.7 dB instead of 4.8 for ShuffleNetV2).
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

LARGEST_PAIR = 127.0  # in steps, before rounding, which may add one: 255 * 128 is below 32,768
LARGEST_WEIGHT = 127.0

Array = NDArray[Any]


def steps(weights: Array) -> Array:
    """The size of one step for each output channel. weights: (output channels, weights as the kernel reads them)."""
    even = weights if weights.shape[1] % 2 == 0 else np.pad(weights, ((0, 0), (0, 1)))
    pairs = even.astype(np.float64).reshape(len(even), -1, 2)
    positive, negative = (np.maximum(side, 0).sum(axis=2).max(axis=1, initial=0) for side in (pairs, -pairs))
    return np.asarray(np.maximum(positive, negative) / LARGEST_PAIR)


def read_by_kernel(weights: Array, kind: str, transposed: bool) -> Array:
    """A layer's weights as (output channels, weights in the order in which the kernel reads them).

    kind: Conv (O, I, rows, columns), or Gemm and MatMul (..., I, O), the former also transposed (O, I).
    """
    if kind == "Conv":
        return np.moveaxis(weights, 1, -1).reshape(len(weights), -1)
    return weights if transposed else np.swapaxes(weights, -1, -2).reshape(-1, weights.shape[-2])


def limited(weights: Array, scale: Array, axis: int, kind: str, transposed: bool) -> tuple[Array, Array]:
    """(int8 weights, size of their steps), with room for two products in 16 bits.

    weights: floats; scale: what the quantizer chose, one or one for each place on the axis. See read_by_kernel().
    """
    needed = steps(read_by_kernel(weights, kind, transposed))
    outputs = 0 if kind == "Conv" or transposed else weights.ndim - 1
    by_channel = scale.ndim > 0 and axis % weights.ndim == outputs
    # The channels of several matrices follow each other; one step serves all that it is shared by.
    least = needed.reshape(-1, scale.size).max(axis=0) if by_channel else needed.max()
    larger = np.maximum(scale, least).astype(np.float32)
    shape = [1] * weights.ndim
    if scale.ndim:
        shape[axis % weights.ndim] = -1
    stored = np.round(weights / larger.reshape(shape))
    return np.clip(stored, -LARGEST_WEIGHT, LARGEST_WEIGHT).astype(np.int8), larger
