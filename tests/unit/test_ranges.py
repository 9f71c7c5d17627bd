"""Ranges of int8 tensors, from the values that they take."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from edgeport.export import ranges


def spread(*samples: NDArray[Any], counted: bool = True) -> ranges.Spread:
    return ranges.spreads(lambda: ({"t": values} for values in samples), counted)["t"]


def test_extremes_are_exact_and_of_all_samples() -> None:
    generator = np.random.default_rng(0)
    values = [generator.standard_normal((5, 70000)).astype(np.float32) for _ in range(3)]
    values[1][3, 12345], values[2][4, 69999] = -9.25, 8.5
    for counted in (True, False):
        assert ranges.min_max(spread(*values, counted=counted)) == (-9.25, 8.5)


@pytest.mark.parametrize("low", [-100.0, -3.0])
def test_percentile_cuts_outliers_at_both_ends(low: float) -> None:
    values = np.clip(np.random.default_rng(0).standard_normal(30000), -3, 3)
    values[0], values[1] = low, 100
    found = ranges.percentile(spread(values))
    width = (100 - low) / ranges.BINS
    assert -3 - width <= found[0] <= -2.9
    assert 2.9 <= found[1] <= 3 + 2 * width


def test_percentile_of_what_a_relu_makes_begins_at_zero() -> None:
    values = np.maximum(np.random.default_rng(0).standard_normal(30000), 0)
    low, high = ranges.percentile(spread(values))
    assert low == 0
    assert 3 < high <= values.max()


@given(arrays.arrays(np.float32, (3, 40), elements=st.floats(-50, 50, width=32)))
def test_percentile_loses_no_more_than_its_share(values: NDArray[Any]) -> None:
    low, high = ranges.percentile(spread(values))
    known = spread(values)
    assert known.low <= low <= high <= known.high
    few = (values < low - 1e-3).sum() + (values > high + 1e-3).sum()
    assert few <= 2 * ranges.TAIL * values.size + 2 * np.finfo(np.float32).eps


@pytest.mark.parametrize("kind", ["normal", "relu", "heavy tails", "negative"])
def test_mse_loses_least_of_its_candidates(kind: str) -> None:
    """Against rounding and clipping the numbers themselves."""
    generator = np.random.default_rng(0)
    values = {
        "normal": generator.standard_normal(30000),
        "relu": np.maximum(generator.standard_normal(30000), 0),
        "heavy tails": generator.standard_t(2.5, 30000),
        "negative": -generator.exponential(1, 30000) - 0.5,
    }[kind]

    def lost(low: float, high: float) -> float:
        step = (high - low) / 255
        return float(np.square(values - (np.clip(np.round((values - low) / step), 0, 255) * step + low)).mean())

    known = spread(values)
    found = ranges.mse(known)
    least = min(lost(*candidate) for candidate in known.candidates())
    assert lost(*found) <= 1.05 * least
    assert found[0] <= 0 <= found[1]
    assert lost(*found) <= 1.05 * lost(min(known.low, 0), max(known.high, 0))


def test_mse_cuts_heavy_tails() -> None:
    values = np.random.default_rng(0).standard_normal((20, 30000))
    values[0, 0] = 12
    assert ranges.mse(spread(*values))[1] < 10


@pytest.mark.parametrize("method", ranges.METHODS)
@pytest.mark.parametrize("value", [0.0, 3.0, -0.25])
def test_a_constant_tensor_keeps_its_value(method: str, value: float) -> None:
    low, high = ranges.METHODS[method](spread(np.full((2, 7), value, np.float32)))
    assert min(low, 0) == pytest.approx(min(value, 0), rel=0.05)
    assert max(high, 0) == pytest.approx(max(value, 0), rel=0.05)


@pytest.mark.parametrize("method", ranges.METHODS)
def test_numbers_that_are_none_do_not_count(method: str) -> None:
    values = np.random.default_rng(0).standard_normal(3000).astype(np.float32)
    spoilt = np.concatenate([values, np.array([np.nan, np.inf, -np.inf], np.float32)])
    assert ranges.METHODS[method](spread(spoilt)) == pytest.approx(ranges.METHODS[method](spread(values)))
    for nothing in (np.full(5, np.nan, np.float32), np.zeros((0, 3), np.float32), np.full(2, np.inf, np.float32)):
        assert ranges.METHODS[method](spread(nothing)) == (0, 0)
        assert ranges.METHODS[method](spread(nothing, values)) == pytest.approx(ranges.METHODS[method](spread(values)))


@pytest.mark.parametrize("shape", [(1, 112, 128, 16), (1, 16, 128, 112), (1, 56, 56, 144), (4, 1 << 15)])
def test_values_that_are_counted_come_from_all_channels(shape: tuple[int, ...]) -> None:
    """Whichever axis they are on: each channel's share of the counts is its share of the values."""
    for axis in range(len(shape)):
        if 1 < shape[axis] <= 200:
            along = [shape[axis] if a == axis else 1 for a in range(len(shape))]
            values = np.broadcast_to(np.arange(shape[axis], dtype=np.float32).reshape(along), shape)
            counts = np.array(spread(values).counts)
            shares = counts[counts > 0] / counts.sum()
            assert len(shares) == shape[axis]
            assert shares == pytest.approx(1 / shape[axis], rel=0.1), axis
