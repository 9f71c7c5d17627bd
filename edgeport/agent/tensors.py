"""Names, shapes and element types of a model's inputs and outputs, and the values that inputs are filled with."""

import array
import random
from typing import Dict, Iterator, List, NamedTuple, Sequence

from .messages import AgentError

# Bytes of one element, by NumPy's name of the type.
ELEMENT_BYTES = {
    "bool": 1,
    "int8": 1,
    "uint8": 1,
    "int16": 2,
    "uint16": 2,
    "float16": 2,
    "bfloat16": 2,
    "int32": 4,
    "uint32": 4,
    "float32": 4,
    "int64": 8,
    "uint64": 8,
    "float64": 8,
}
PIECE_BYTES = 1 << 18  # what an input is filled in, so that filling takes no memory to speak of
_FLOAT_CODES = {"float32": "f", "float64": "d"}


class Tensor(NamedTuple):
    """One input or output. shape: positive sizes, or -1 where the model leaves a size open."""

    name: str
    dtype: str
    shape: List[int]

    @property
    def nbytes(self) -> int:
        if self.dtype not in ELEMENT_BYTES:
            raise AgentError("unsupported", f"tensor {self.name!r} has elements of type {self.dtype}")
        n = ELEMENT_BYTES[self.dtype]
        for size in self.shape:
            n *= size
        return n

    def as_dict(self) -> Dict[str, object]:
        return {"name": self.name, "dtype": self.dtype, "shape": list(self.shape)}


def with_shapes(tensors: Sequence[Tensor], shapes: Dict[str, List[int]], tells_open: bool = True) -> List[Tensor]:
    """The inputs with the shapes that were asked for by name. tells_open: whether the runtime says which sizes a file
    leaves open; else it is left to it to refuse others. Raises AgentError where a size stays open.
    """
    unknown = set(shapes) - {t.name for t in tensors}
    if unknown:
        known = ", ".join(t.name for t in tensors)
        raise AgentError("shape", f"the model has no input {sorted(unknown)[0]!r}; it has {known}")
    resolved = [t._replace(shape=list(shapes.get(t.name, t.shape))) for t in tensors]
    for before, after in zip(tensors, resolved):
        if any(size < 1 for size in after.shape):
            raise AgentError("shape", f"input {after.name!r} has the open shape {after.shape}: give --input-shape")
        fits = len(before.shape) == len(after.shape) and all(a in (-1, b) for a, b in zip(before.shape, after.shape))
        if tells_open and not fits and before.shape:
            raise AgentError(
                "shape", f"input {after.name!r} is {before.shape} in the model, {after.shape} was asked for"
            )
    return resolved


def filler(tensor: Tensor) -> bytes:
    """All of the filling at once."""
    return b"".join(filling(tensor))


def filling(tensor: Tensor) -> Iterator[bytes]:
    """Values to time with, piece by piece: the same on every device. Floats in [0, 1): no denormals; int8 and uint8 any
    byte; wider integers 0, which is a valid index into anything, and booleans false; but 1 in what is called a mask and
    is none of padding: with nothing to attend to, a network may take another way than it ever does.
    """
    source, size, left = random.Random(0), ELEMENT_BYTES.get(tensor.dtype, 1), tensor.nbytes
    while left > 0:
        n = min(left, PIECE_BYTES)
        yield _piece(tensor, n // size, size, source)
        left -= n


def _piece(tensor: Tensor, n: int, size: int, source: random.Random) -> bytes:
    """The next n elements."""
    if tensor.dtype in _FLOAT_CODES:
        return array.array(_FLOAT_CODES[tensor.dtype], [source.random() for _ in range(n)]).tobytes()
    if tensor.dtype in ("int8", "uint8"):
        return source.getrandbits(8 * n).to_bytes(n, "little")
    if tensor.dtype in ("float16", "bfloat16"):
        return bytes(size * n)
    name = tensor.name.lower()
    return int("mask" in name and "pad" not in name).to_bytes(size, "little") * n
