"""What a converter's process is asked to do."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from edgeport.records import Quantized


class Job(msgspec.Struct, frozen=True):
    """directory holds graph.pt2 and samples.npz, and receives the converter's files."""

    directory: str
    precisions: tuple[str, ...]
    target: str
    int8_io: bool
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    optimize: bool = True
    method: str = "min-max"
    max_layers_float: int = 0

    @property
    def folder(self) -> Path:
        return Path(self.directory)

    @property
    def graph(self) -> Path:
        return self.folder / "graph.pt2"

    def samples(self) -> list[np.ndarray[Any, Any]]:
        """One array an input, (samples, *shape)."""
        with np.load(self.folder / "samples.npz") as archive:
            return [archive[name] for name in self.input_names]


class Converted(msgspec.Struct, frozen=True):
    """A file that a converter has written."""

    precision: str
    path: Path
    quantized: Quantized | None = None
