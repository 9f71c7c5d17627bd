"""The layout algebra against numpy: what it says of memory is what happens there."""

from itertools import permutations
from math import prod
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgeport.export import layout
from edgeport.export.layout import Order

Shape = tuple[int, ...]


def numbers(shape: Shape) -> NDArray[Any]:
    """A tensor in which every element is another one, so that two equal arrays hold the same elements in place."""
    return np.arange(prod(shape)).reshape(shape)


@st.composite
def shapes(draw: st.DrawFn, max_rank: int = 5) -> Shape:
    return tuple(draw(st.lists(st.integers(1, 4), max_size=max_rank)))


@st.composite
def orders(draw: st.DrawFn, rank: int) -> Order:
    return tuple(draw(st.permutations(range(rank))))


@st.composite
def grouped(draw: st.DrawFn, factors: list[int]) -> Shape:
    """A shape with these factors, in their order, multiplied together at random, and ones strewn in."""
    shape = [1]
    for factor in factors:
        if draw(st.booleans()):
            shape.append(1)
        shape[-1] *= factor
    keep_ones = draw(st.booleans())
    return tuple(d for d in shape if keep_ones or d > 1)


@st.composite
def reshapes(draw: st.DrawFn) -> tuple[Shape, Shape]:
    factors = draw(st.lists(st.sampled_from([1, 2, 3, 5]), max_size=5))
    other = draw(st.permutations(factors)) if draw(st.booleans()) else factors
    return draw(grouped(factors)), draw(grouped(list(other)))


@given(st.data())
def test_a_reshape_in_the_order_it_asks_for_is_numpys_reshape(data: st.DataObject) -> None:
    before, after = data.draw(reshapes())
    order = data.draw(orders(len(before)))
    needed, result = layout.reshaped(before, after, order)
    memory = numbers(before).transpose(order)
    moved = memory.transpose([order.index(axis) for axis in needed])
    found = moved.reshape(layout.in_memory(after, result))
    np.testing.assert_array_equal(found, numbers(before).reshape(after).transpose(result))


@given(st.data())
def test_a_reshape_moves_data_only_where_there_is_no_other_way(data: st.DataObject) -> None:
    before, after = data.draw(reshapes())
    order = data.draw(orders(len(before)))
    needed, _ = layout.reshaped(before, after, order)
    if needed != order:
        memory, wanted = numbers(before).transpose(order), numbers(before).reshape(after)
        for result in permutations(range(len(after))):
            found = memory.reshape(layout.in_memory(after, result))
            assert not np.array_equal(found, wanted.transpose(result)), f"nothing had to move for {result}"


@given(reshapes())
def test_the_segments_of_a_reshape_cover_both_shapes_with_equal_products(pair: tuple[Shape, Shape]) -> None:
    before, after = pair
    pieces = layout.segments(before, after)
    assert [axis for ins, _ in pieces for axis in ins] == list(range(len(before)))
    assert [axis for _, outs in pieces for axis in outs] == list(range(len(after)))
    for ins, outs in pieces:
        assert prod(before[axis] for axis in ins) == prod(after[axis] for axis in outs)


@given(reshapes())
def test_no_segment_could_be_cut_further(pair: tuple[Shape, Shape]) -> None:
    before, after = pair
    for ins, outs in layout.segments(before, after):
        heads = {prod(before[axis] for axis in ins[:n]) for n in range(1, len(ins))}
        others = {prod(after[axis] for axis in outs[:n]) for n in range(1, len(outs))}
        assert not heads & others


@given(st.data())
def test_a_permute_only_changes_the_order(data: st.DataObject) -> None:
    shape = data.draw(shapes())
    order, dims = data.draw(orders(len(shape))), data.draw(orders(len(shape)))
    memory = numbers(shape).transpose(order)
    after = layout.permuted(order, dims)
    np.testing.assert_array_equal(memory, numbers(shape).transpose(dims).transpose(after))


@given(st.data())
def test_what_remains_of_an_order_fits_what_remains_of_the_tensor(data: st.DataObject) -> None:
    shape = data.draw(shapes())
    order = data.draw(orders(len(shape)))
    axes = [axis for axis, size in enumerate(shape) if size == 1 and data.draw(st.booleans())]
    left = layout.dropped(order, axes)
    in_memory = tuple(n for n, axis in enumerate(order) if axis in axes)
    memory = numbers(shape).transpose(order).squeeze(in_memory)
    np.testing.assert_array_equal(memory, numbers(shape).squeeze(tuple(axes)).transpose(left))


@given(st.data())
def test_the_shape_in_memory_is_that_of_the_transposed_array(data: st.DataObject) -> None:
    shape = data.draw(shapes())
    order = data.draw(orders(len(shape)))
    assert layout.in_memory(shape, order) == numbers(shape).transpose(order).shape


def test_images_are_kept_channels_last_and_anything_else_as_it_is() -> None:
    assert layout.in_memory((1, 3, 5, 7), layout.channels_last(4)) == (1, 5, 7, 3)
    assert [layout.channels_last(rank) for rank in (0, 1, 2, 3)] == [(), (0,), (0, 1), (0, 1, 2)]
    assert layout.in_memory((2, 3, 4, 5, 6), layout.channels_last(5)) == (2, 3, 4, 5, 6)


def test_flattening_channels_last_pixels_moves_data_but_a_single_pixel_does_not() -> None:
    assert layout.reshaped((2, 8, 3, 3), (2, 72), layout.NHWC)[0] != layout.NHWC
    assert layout.reshaped((2, 8, 1, 1), (2, 8), layout.NHWC)[0] == layout.NHWC
