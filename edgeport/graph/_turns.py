"""Orders of channels in which a permutation that a network makes again and again becomes a rotation.

Dynamic Shift-Max (MicroNet) adds to each channel another one: x * a + permuted(x) * b. Element-wise operators keep
channels in their places, so the permutation cannot be routed away; but with x's channels in the right order, whatever
it was, it becomes a rotation by a few places, which two slices and a concat make.

Channels that the permutation leads from one to the next make a cycle. In that order, all that come first in their
cycles lie side by side, then all that come second, and so on: each step of the permutation then leads as many places
on as there are cycles of that length.
"""

from collections.abc import Collection, Iterator, Sequence

from torch.fx import Node

from edgeport.graph._channels import CHANNELS, Wire
from edgeport.graph._nodes import Partition, shape_of


def turning_orders(nodes: Collection[Node], reads: Sequence[tuple[Node, Sequence[Wire]]]) -> dict[Node, list[int]]:
    """Of tensors that are added, multiplied or compared with a permutation of themselves: of each channel, the place in
    an order as above. reads: element-wise operators with the wires of each of their operands.
    """
    alike = Partition(nodes)  # tensors whose channels of the same number meet
    for reader, wires in reads:
        if _permutation(wires) == [*range(len(wires))]:
            alike.join([reader, wires[0][0]])
    places: dict[Node, list[int]] = {}
    for reader, wires in reads:
        whole, channels = alike.of(reader), _permutation(wires)
        turns = channels is not None and alike.of(wires[0][0]) is whole and channels != [*range(len(wires))]
        if channels is not None and turns and whole not in places:
            places[whole] = _places(channels)
    places |= _of_pieces(alike, reads, places)
    return {node: places[alike.of(node)] for node in nodes if alike.of(node) in places}


def _of_pieces(
    alike: Partition, reads: Sequence[tuple[Node, Sequence[Wire]]], places: dict[Node, list[int]]
) -> dict[Node, list[int]]:
    """Of larger tensors that are read piece by piece, such as the coefficients of all channels: each piece's channels
    in the order of those that they meet.
    """
    found: dict[Node, list[int]] = {}
    for reader, wires in reads:
        turn = places.get(alike.of(reader))
        if turn is None or _permutation(wires) is not None:
            continue
        for place, (source, channel) in zip(turn, wires, strict=True):
            whole = alike.of(source)
            if whole not in places:
                found.setdefault(whole, [*range(shape_of(source)[CHANNELS])])[channel] = place
    return found


def _permutation(wires: Sequence[Wire]) -> list[int] | None:
    """The channels that are read, if they are all those of one tensor."""
    channels = [channel for _, channel in wires]
    alone = len({source for source, _ in wires}) == 1
    return channels if alone and sorted(channels) == [*range(shape_of(wires[0][0])[CHANNELS])] else None


def _places(permutation: Sequence[int]) -> list[int]:
    cycles = sorted(_cycles(permutation), key=len)
    order = [cycle[step] for step in range(len(cycles[-1])) for cycle in cycles if step < len(cycle)]
    return [place for _, place in sorted((channel, place) for place, channel in enumerate(order))]


def _cycles(permutation: Sequence[int]) -> Iterator[list[int]]:
    """Each from its lowest channel on."""
    seen: set[int] = set()
    for start in range(len(permutation)):
        cycle, channel = [], start
        while channel not in seen:
            seen.add(channel)
            cycle.append(channel)
            channel = permutation[channel]
        if cycle:
            yield cycle
