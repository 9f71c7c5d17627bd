"""Where the axes of a PyTorch tensor lie in memory that is kept channels last, and how reshapes carry over.

An order is a tuple: axis i in memory is axis order[i] of the PyTorch tensor. (0, 2, 3, 1) is NHWC for NCHW. So a
permute costs nothing: it only changes the order. A transpose is needed where an operator wants another order, or where
a reshape merges axes that do not lie side by side.
"""

from collections.abc import Sequence

Order = tuple[int, ...]

NHWC: Order = (0, 2, 3, 1)


def identity(rank: int) -> Order:
    return tuple(range(rank))


def channels_last(rank: int) -> Order:
    """NHWC for images, PyTorch's own order for anything else."""
    return NHWC if rank == 4 else identity(rank)


def in_memory(shape: Sequence[int], order: Order) -> tuple[int, ...]:
    """A PyTorch shape as it lies in memory."""
    return tuple(shape[axis] for axis in order)


def permuted(order: Order, dims: Sequence[int]) -> Order:
    """The order after x.permute(dims), nothing having moved."""
    position = {old: new for new, old in enumerate(dims)}
    return tuple(position[axis] for axis in order)


def dropped(order: Order, axes: Sequence[int]) -> Order:
    """The order of what remains when these axes are gone."""
    left = [axis for axis in range(len(order)) if axis not in axes]
    return tuple(left.index(axis) for axis in order if axis in left)


def segments(before: Sequence[int], after: Sequence[int]) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """A reshape as independent pieces: groups of neighbouring axes with equal products, as fine as can be."""
    found, i, j = [], 0, 0
    while i < len(before) or j < len(after):
        ins: list[int] = []
        outs: list[int] = []
        left, right = 1, 1
        while True:
            if left <= right and i < len(before) and (left < right or not ins):
                left, i = left * before[i], i + 1
                ins.append(i - 1)
            elif j < len(after) and (right < left or not outs):
                right, j = right * after[j], j + 1
                outs.append(j - 1)
            else:
                break
        found.append((tuple(ins), tuple(outs)))
    return found


def reshaped(before: Sequence[int], after: Sequence[int], order: Order) -> tuple[Order, Order]:
    """(the order that the data must have first, the order that it has after the reshape in memory).

    The first equals `order` wherever no data has to move.
    """
    pieces = segments(before, after)
    # Axes of one piece must lie side by side, in PyTorch's order; pieces follow each other as they lie now.
    rank = {n: _position(ins, before, order) for n, (ins, _) in enumerate(pieces)}
    sorted_pieces = sorted(range(len(pieces)), key=lambda n: rank[n])
    needed = tuple(axis for n in sorted_pieces for axis in pieces[n][0])
    result = tuple(axis for n in sorted_pieces for axis in pieces[n][1])
    real = [axis for axis in order if before[axis] != 1]
    moved = [axis for axis in needed if before[axis] != 1]
    return (order if real == moved else needed), result


def _position(ins: Sequence[int], before: Sequence[int], order: Order) -> float:
    """Where a piece lies in memory: by the first of its axes that hold more than one element."""
    if not ins:
        return float(len(order))
    weighty = [axis for axis in ins if before[axis] != 1] or list(ins)
    return min(order.index(axis) for axis in weighty)
