"""Ranges of int8 tensors, found from the values that they take. joins.py decides which tensors have one range."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import count
from math import gcd
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

Range = tuple[float, float]
Tensors = Mapping[str, NDArray[Any]]

BINS = 2048
LEVELS = 256
MOST_VALUES = 1 << 15  # of a tensor and sample that are counted; the extremes are those of all
TAIL = 0.5e-4  # the share of values that "percentile" cuts off at each end
FRACTIONS = np.linspace(0.3, 1.0, 36)  # of the whole range, that "mse" chooses from


class Spread(msgspec.Struct, frozen=True):
    """How often a tensor's values fall into each of equal bins between its smallest and largest one."""

    low: float
    high: float
    counts: NDArray[Any]

    def centres(self) -> NDArray[Any]:
        return np.asarray(self.low + (np.arange(BINS) + 0.5) * (self.high - self.low) / BINS)

    def candidates(self) -> Iterator[Range]:
        """The whole range, cut at both ends alike; zero stays in it."""
        for fraction in FRACTIONS:
            yield min(self.low, 0.0) * fraction, max(self.high, 0.0) * fraction


def spreads(samples: Callable[[], Iterable[Tensors]], counted: bool = True) -> dict[str, Spread]:
    """samples: gives the tensors of each sample by name; called twice if values between the extremes are counted."""
    known: dict[str, Range] = {}
    names: dict[str, None] = {}
    for tensors in samples():
        for name, values in tensors.items():
            names[name] = None
            finite = _finite(values)
            if finite.size:
                low, high = known.get(name, (np.inf, -np.inf))
                known[name] = min(low, float(finite.min())), max(high, float(finite.max()))
    extremes = {name: known.get(name, (0.0, 0.0)) for name in names}
    counts = {name: np.zeros(BINS, np.int64) for name in names}
    for tensors in samples() if counted else ():
        for name, values in tensors.items():
            low, high = extremes[name]
            flat = _finite(_some(values)).astype(np.float64)
            bins = (flat - low) * (BINS / (high - low)) if high > low else np.zeros_like(flat)
            counts[name] += np.bincount(np.minimum(bins.astype(np.int64), BINS - 1), minlength=BINS)
    return {name: Spread(*extremes[name], counts[name]) for name in names}


def _finite(values: NDArray[Any]) -> NDArray[Any]:
    return values if np.isfinite(values.sum()) else values[np.isfinite(values)]


def _some(values: NDArray[Any]) -> NDArray[Any]:
    """At most MOST_VALUES, at a distance that shares no factor with any axis: else they might be of one channel."""
    least = 1 + values.size // MOST_VALUES
    return values.ravel()[:: next(step for step in count(least) if gcd(step, values.size) == 1 or step > values.size)]


def min_max(spread: Spread) -> Range:
    """All values that the samples have."""
    return spread.low, spread.high


def percentile(spread: Spread) -> Range:
    """All but the outermost 0.005% at each end."""
    shares = np.cumsum(spread.counts) / max(spread.counts.sum(), 1)
    edges = np.linspace(spread.low, spread.high, BINS + 1)
    first, last = np.searchsorted(shares, (TAIL, 1 - TAIL))
    return float(edges[first]), float(edges[min(last + 1, BINS)])


def mse(spread: Spread) -> Range:
    """The least mean square of what rounding (a uniform error, step^2 / 12) and clipping lose."""
    centres = spread.centres()

    def loss(candidate: Range) -> float:
        low, high = candidate
        clipped = np.square(centres - np.clip(centres, low, high)) @ spread.counts
        return float(clipped + spread.counts.sum() * ((high - low) / (LEVELS - 1)) ** 2 / 12)

    return min(spread.candidates(), key=loss)


# Needs nothing but the extremes, which are quicker to find.
EXTREMES = "min-max"
METHODS: dict[str, Callable[[Spread], Range]] = {
    EXTREMES: min_max,
    "percentile": percentile,
    "mse": mse,
}
