"""What a converter's process is asked to do."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgeport.records import Quantized

Array = NDArray[Any]
SAMPLES, PIECES = "samples.npz", "pieces.npz"


class Job(msgspec.Struct, frozen=True):
    """directory holds graph.pt2, SAMPLES and PIECES, and receives the converter's files.

    groups: of each sample the number of the photo that it is a view of; views of one photo are never held against each
    other. Empty where every sample is its own.
    """

    directory: str
    precisions: tuple[str, ...]
    target: str
    int8_io: bool
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    optimize: bool = True
    method: str = "min-max"
    max_layers_float: int = 0
    groups: tuple[int, ...] = ()

    @property
    def folder(self) -> Path:
        return Path(self.directory)

    @property
    def graph(self) -> Path:
        return self.folder / "graph.pt2"

    def store(self, samples: Sequence[Array], pieces: Sequence[Array]) -> None:
        """Writes what samples() and pieces() give. Raises OSError."""
        np.savez(self.folder / SAMPLES, *samples)
        np.savez(self.folder / PIECES, *pieces)

    def samples(self) -> list[Array]:
        """One array an input, (samples, *shape)."""
        return _arrays(self.folder / SAMPLES)

    def pieces(self) -> dict[str, Array]:
        """Of each output, by name, the number of the piece that each element belongs to, in PyTorch's shape."""
        return dict(zip(self.output_names, _arrays(self.folder / PIECES), strict=True))


def channels_last(samples: Array) -> Array:
    """(samples, *shape) of one input as .tflite files take it."""
    return np.ascontiguousarray(samples.transpose(0, 1, 3, 4, 2) if samples.ndim == 5 else samples)


def _arrays(path: Path) -> list[Array]:
    with np.load(path) as archive:
        return [archive[name] for name in archive.files]


class Converted(msgspec.Struct, frozen=True):
    """A file that a converter has written."""

    precision: str
    path: Path
    quantized: Quantized | None = None
