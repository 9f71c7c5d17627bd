"""What a runtime's profiler reports, and what is known of it."""

import msgspec

from edgeport.formats.graph import Node


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One operator as a runtime's profiler reported it: us is the mean of its typical runs, runs_us what it told of
    each, index the runtime's own number. moved_bytes: that it read and wrote, None where the profiler tells no shapes.
    """

    name: str
    source: str
    index: int
    us: float
    op: str = ""
    outputs: tuple[tuple[int, ...], ...] = ()
    runs_us: tuple[int, ...] = ()
    moved_bytes: int | None = None


class Attributed(msgspec.Struct, frozen=True):
    """A row, the node of the file that it ran (None where it cannot be told), and whether it is part of a shuffle.

    module: of the network, None where it cannot be told.
    """

    row: Row
    node: Node | None
    shuffle: bool = False
    module: str | None = None
