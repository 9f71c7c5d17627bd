"""Drawn samples: of their type and within their limits, every row of an embedding among them, masks kept and padded."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeport.export import draws
from edgeport.export.draws import Draw, Mask, Normal, Whole
from edgeport.records import TensorInfo

TOKENS = TensorInfo("tokens", (1, 32), "int64")
MASK = TensorInfo("m", (2, 8), "int64")


def draw(rule: Draw, info: TensorInfo, samples: int = 16, seed: int = 0) -> NDArray[Any]:
    return draws.draw(rule, info, samples, np.random.default_rng(seed))


@pytest.mark.parametrize(
    ("rule", "info"),
    [
        (Whole(0, 999), TOKENS),
        (Whole(5, 5), TensorInfo("k", (), "int32")),
        (Whole(0, 255), TensorInfo("image", (1, 3, 4, 4), "uint8")),
        (Whole(0, 1 << 40), TOKENS),
        (Mask(), TensorInfo("keep", (1, 8), "bool")),
        (Mask(0), TensorInfo("one", (), "bool")),
        (Normal(), TensorInfo("x", (1, 7), "float32")),
    ],
    ids=str,
)
def test_samples_are_of_the_inputs_shape_and_type_and_within_limits(rule: Draw, info: TensorInfo) -> None:
    made = draw(rule, info)
    assert (made.shape, str(made.dtype)) == ((16, *info.shape), info.dtype)
    if isinstance(rule, Whole):
        assert made.min() >= rule.low
        assert made.max() <= rule.high
    np.testing.assert_array_equal(made, draw(rule, info))


def test_every_row_is_drawn_where_that_takes_few_samples() -> None:
    rule = Whole(0, 999)
    count = draws.count([rule], [TOKENS])
    assert count == 32
    assert set(draw(rule, TOKENS, count).flat) == set(range(1000))
    assert draws.count([Whole(0, 99)], [TOKENS]) == draws.LEAST_SAMPLES
    assert draws.count([Whole(0, 250_000)], [TOKENS]) == draws.MOST_SAMPLES


def test_each_element_keeps_its_own_limits() -> None:
    rule = Whole(np.array([[0, 0, 3]]), np.array([[9, 0, 4]]))
    made = draw(rule, TensorInfo("fields", (1, 3), "int64"), 200).reshape(200, 3)
    np.testing.assert_array_equal(made.min(axis=0), [0, 0, 3])
    np.testing.assert_array_equal(made.max(axis=0), [9, 0, 4])


@pytest.mark.parametrize("kept", [0, 1])
def test_masks_are_full_once_and_then_padded_behind(kept: int) -> None:
    rows = draw(Mask(kept), MASK).reshape(16, 2, 8) == kept
    assert rows[0].all()
    assert not rows.all()
    assert rows.sum(axis=-1).min() >= 4
    np.testing.assert_array_equal(rows, np.sort(rows, axis=-1)[..., ::-1])


def test_normal_numbers_have_the_mean_and_spread_that_are_told() -> None:
    made = draw(Normal(np.array([[100.0, 0.0]]), np.array([[1.0, 5.0]])), TensorInfo("x", (1, 2), "float32"), 500)
    np.testing.assert_allclose(made.mean(axis=(0, 1)), [100, 0], atol=1)
    np.testing.assert_allclose(made.std(axis=(0, 1)), [1, 5], rtol=0.2)


@pytest.mark.parametrize(
    ("info", "rule"),
    [
        (TensorInfo("attention_mask", (1, 8), "int64"), Mask()),
        (TensorInfo("x", (1, 8), "bool"), Mask()),
        (TensorInfo("x", (1, 8), "float32"), Normal()),
        (TensorInfo("x", (1, 8), "int64"), Whole(0, draws.SMALL)),
        (TensorInfo("x", (1, 8), "int8"), Whole(-128, 127)),
    ],
    ids=str,
)
def test_without_a_graph_names_and_types_decide(info: TensorInfo, rule: Draw) -> None:
    assert draws.by_type(info) == rule


def test_what_is_drawn_is_said() -> None:
    rules = (Whole(0, 999), Mask(), Mask(0), Normal(), Normal(1.0), Whole(np.array([0, 0]), np.array([3, 4])))
    assert [draws.said(rule) for rule in rules] == [
        "whole numbers 0 to 999",
        "ones, then zeros",
        "zeros, then ones",
        "standard normal numbers",
        "normal numbers as the network normalises them",
        "whole numbers 0 to 4 at most, each element by its own limits",
    ]
