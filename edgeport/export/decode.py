"""Decodes arrays and images of users' files: what a small file can become in memory is bounded by its size."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[Any]
FREE_BYTES, BYTES_A_BYTE = 256_000_000, 50  # decoded: so much in any case, and so much for each byte of the file
FREE_PIXELS, PIXELS_A_BYTE = 40_000_000, 200
MOST_ELONGATED = 50  # longer side by the shorter one, which is resized


class TooLargeError(ValueError):
    """A file that would take far more memory than its size gives reason to expect."""


def arrays(path: Path) -> dict[str, Array]:
    """Those of an .npz, by name. Raises TooLargeError, and whatever zip, zlib and NumPy raise for what is none."""
    with zipfile.ZipFile(path) as archive:
        decoded, allowed = sum(i.file_size for i in archive.infolist()), path.stat().st_size * BYTES_A_BYTE
    if decoded > FREE_BYTES + allowed:
        raise TooLargeError(f"its {path.stat().st_size / 1e6:.1f} MB would take {decoded / 1e6:.0f} MB of memory")
    with np.load(path, allow_pickle=False) as loaded:
        return {name: loaded[name] for name in loaded.files}


def image(path: Path) -> Image.Image:
    """Opened, not decoded yet. Raises TooLargeError, and whatever Pillow's decoders raise."""
    opened = Image.open(path)
    width, height = opened.size
    if width * height > FREE_PIXELS + path.stat().st_size * PIXELS_A_BYTE:
        raise TooLargeError(f"its {path.stat().st_size} bytes would become {width} x {height} pixels")
    if max(width, height) > MOST_ELONGATED * min(width, height):
        raise TooLargeError(f"it has {width} x {height} pixels, one side more than {MOST_ELONGATED} times the other")
    return opened
