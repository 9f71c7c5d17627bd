"""What readers follow of a file, and take for true: no more than its size gives reason to expect."""

from collections.abc import Sequence
from math import prod

from edgeport.errors import ModelFileError

MOST_RANK = 64
MOST_ELEMENTS = 2**62  # of a tensor, beyond which its sizes are taken for none
MOST_CHARACTERS = 20_000  # of a name: the longest ones, of fused operators, list the paths of all their parts
MOST_INDICES = 1 << 16  # of a constant that is told number by number: channels, axes
FREE_BYTES, TIMES = 1_000_000, 8  # files share some parts, as names and shapes


class Budget:
    """Bytes of a file that may still be followed. A part that many others refer to counts each time."""

    def __init__(self, size: int) -> None:
        self._size, self._left = size, FREE_BYTES + TIMES * size

    def spend(self, count: int) -> None:
        """Raises ModelFileError where there are not so many left."""
        self._left -= count
        if self._left < 0:
            raise ModelFileError(
                f"its parts refer to the same {self._size} bytes again and again, more than {TIMES} times in all"
            )

    def name(self, name: str | bytes | None) -> str:
        """A name as text. Raises ModelFileError for one that is far longer than any, or takes too much in all."""
        self.spend(len(name or ""))
        if len(name or "") > MOST_CHARACTERS:
            raise ModelFileError(f"it has a name of {len(name or '')} characters; {MOST_CHARACTERS} are read at most")
        return text(name or "")


def sizes(shape: Sequence[int]) -> tuple[int, ...] | None:
    """The shape, -1 for what is open; None where there is no tensor of so many axes or elements."""
    if len(shape) > MOST_RANK:
        return None
    told = tuple(int(size) if size >= 0 else -1 for size in shape)
    return told if prod(max(1, size) for size in told) < MOST_ELEMENTS else None


def count(madds: int | None) -> int | None:
    """The multiply-adds; None for more than any operator makes."""
    return madds if madds is not None and madds < MOST_ELEMENTS else None


def text(name: str | bytes) -> str:
    """protobuf gives text that is not UTF-8 as it is."""
    return name.decode(errors="replace") if isinstance(name, bytes) else name
