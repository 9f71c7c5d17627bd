"""Samples that are drawn where no data is given: for each input, numbers that the network can take."""

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgeport.records import TensorInfo

Array = NDArray[Any]

LEAST_SAMPLES, MOST_SAMPLES = 16, 64
MOST_SHUFFLED = 1 << 22
SMALL = 9  # the largest of integers of which nothing is known
MASK = "mask"  # in an input's name


class Normal(msgspec.Struct, frozen=True):
    """Normal numbers. mean, std: of each element of an input, or of all."""

    mean: Array | float = 0.0
    std: Array | float = 1.0


class Whole(msgspec.Struct, frozen=True):
    """Whole numbers from low to high, both included. Of each element of an input, or of all."""

    low: Array | int
    high: Array | int


class Mask(msgspec.Struct, frozen=True):
    """What is kept first and what is left out behind it, along the last axis. kept: the value that keeps, 1 or 0."""

    kept: int = 1


Draw = Normal | Whole | Mask


def by_type(info: TensorInfo) -> Draw:
    """Knowing no more of an input than its name and type."""
    if info.dtype == "bool" or MASK in info.name.lower():
        return Mask()
    if info.dtype.startswith("float"):
        return Normal()
    limits = np.iinfo(np.dtype(info.dtype))
    return Whole(int(limits.min), int(limits.max)) if limits.bits < 32 else Whole(0, SMALL)


def count(rules: Sequence[Draw], inputs: Sequence[TensorInfo]) -> int:
    """Of samples that show every row of an embedding once, as far as that is few enough."""
    wanted = [-(-_span(rule) // max(_size(info), 1)) for rule, info in zip(rules, inputs, strict=True)]
    return min(max([LEAST_SAMPLES, *wanted]), MOST_SAMPLES)


def draw(rule: Draw, info: TensorInfo, samples: int, generator: np.random.Generator) -> Array:
    """(samples, *shape of the input)."""
    shape = (samples, *info.shape)
    if isinstance(rule, Normal):
        normal = generator.standard_normal(shape)
        return np.asarray(normal * rule.std + rule.mean).astype(info.dtype)
    if isinstance(rule, Mask):
        return np.asarray(_kept(shape, generator) == bool(rule.kept)).astype(info.dtype)
    span = _span(rule)
    if 0 < span <= MOST_SHUFFLED:  # each number as often as any other
        total = int(np.prod(shape))
        rounds = [generator.permutation(span) for _ in range(-(-total // span))]
        shuffled = np.concatenate([np.zeros(0, np.int64), *rounds])[:total]
        return np.asarray(shuffled.reshape(shape) + rule.low).astype(info.dtype)
    return generator.integers(rule.low, np.asarray(rule.high), size=shape, endpoint=True).astype(info.dtype)


def said(rule: Draw) -> str:
    """In words, for the manifest and a warning."""
    if isinstance(rule, Mask):
        return "ones, then zeros" if rule.kept else "zeros, then ones"
    if isinstance(rule, Normal):
        plain = np.all(np.asarray(rule.mean) == 0) and np.all(np.asarray(rule.std) == 1)
        return "standard normal numbers" if plain else "normal numbers as the network normalises them"
    low, high = np.min(rule.low), np.max(rule.high)
    return f"whole numbers {low} to {high}{'' if _span(rule) else ' at most, each element by its own limits'}"


def _span(rule: Draw) -> int:
    """How many numbers there are to draw from; 0 where elements differ in that, or numbers are no whole ones."""
    if not isinstance(rule, Whole) or np.ndim(rule.low) or np.ndim(rule.high):
        return 0
    return int(rule.high) - int(rule.low) + 1


def _size(info: TensorInfo) -> int:
    return int(np.prod(info.shape))


def _kept(shape: tuple[int, ...], generator: np.random.Generator) -> Array:
    """True along the last axis for at least half of it, then False; nothing but True in the first sample."""
    length = shape[-1] if len(shape) > 1 else 1
    ends = generator.integers(
        -(-length // 2), length, size=(*shape[:-1], 1) if len(shape) > 1 else shape, endpoint=True
    )
    ends[0] = length
    return np.broadcast_to(np.arange(length) < ends if len(shape) > 1 else ends > 0, shape)
