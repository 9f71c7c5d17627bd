"""How many of some labelled samples an artifact names rightly."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgeport import formats
from edgeport.errors import UsageError
from edgeport.export import decode
from edgeport.export.calibrate import SUFFIXES, preprocess
from edgeport.export.verify import run_artifact
from edgeport.records import Preprocessing, TensorInfo
from edgeport.runner import Runner

Array = NDArray[Any]
LABELS = "labels"
SAMPLES_A_RUN = 128


class Labelled(msgspec.Struct, frozen=True):
    """labels: the class of each sample. images: files, or arrays: one an input by its name (samples, ...), as PyTorch
    takes them, with or without their batch of 1; the other one is empty.
    """

    source: str
    labels: tuple[int, ...]
    images: tuple[Path, ...] = ()
    arrays: dict[str, Array] = {}


def load(data: Path) -> Labelled:
    """A folder with a folder of images for each class, or an .npz with an array an input and "labels".

    Classes are the folders' names where all of them are numbers, and else their places in order of their names. Raises
    UsageError.
    """
    if data.is_dir():
        return _folder(data)
    if data.suffix == ".npz" and data.is_file():
        return _npz(data)
    raise UsageError(f"--eval-data {data}: give a folder with a folder of images for each class, or an .npz file")


def count_right(runner: Runner, artifact: Path, data: Labelled, preprocessing: Preprocessing | None) -> int:
    """Of how many samples the largest entry of the first output is the label. Raises UsageError for data that do not
    fit, DeviceError.
    """
    inputs, right, start = formats.read(artifact).inputs, 0, 0
    for arrays in _chunks(data, inputs, preprocessing or Preprocessing()):
        scores = run_artifact(runner, artifact, arrays)[0]
        labels = np.array(data.labels[start : start + len(scores)])
        scores = scores.reshape(len(labels), -1)
        if labels.max() >= scores.shape[1]:
            raise UsageError(
                f"--eval-data {data.source}: it has class {labels.max()}, {artifact.name} tells {scores.shape[1]} apart"
            )
        right += int((scores.argmax(axis=1) == labels).sum())
        start += len(labels)
    return right


def _folder(folder: Path) -> Labelled:
    classes = sorted(p for p in folder.iterdir() if p.is_dir())
    numbered = all(p.name.isdigit() for p in classes)
    pairs = [
        (path, int(c.name) if numbered else n)
        for n, c in enumerate(classes)
        for path in sorted(c.rglob("*"))
        if path.suffix.lower() in SUFFIXES and path.is_file()
    ]
    if not pairs:
        raise UsageError(f"--eval-data {folder}: no folder in it holds images ({', '.join(SUFFIXES)})")
    return Labelled(folder.name, tuple(label for _, label in pairs), images=tuple(path for path, _ in pairs))


def _npz(path: Path) -> Labelled:
    try:
        found = decode.arrays(path)
    except decode.TooLargeError as e:
        raise UsageError(f"--eval-data {path} is refused: {e}; save it without compression") from e
    except Exception as e:  # zip, zlib and NumPy each have their own for a file that is something else, or damaged
        raise UsageError(f"--eval-data {path} is not an .npz of plain arrays ({e})") from e
    labels = found.pop(LABELS, None)
    if labels is None or not found:
        there = ", ".join(found) or "none"
        raise UsageError(f"--eval-data {path}: it needs an array an input and {LABELS!r}; it has {there}")
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or not len(labels) or labels.min() < 0:
        raise UsageError(f"--eval-data {path}: {LABELS!r} is {labels.dtype} {labels.shape}; give one class a sample")
    wrong = [name for name, array in found.items() if not array.ndim or len(array) != len(labels)]
    if wrong:
        raise UsageError(f"--eval-data {path}: {wrong[0]!r} has not as many samples as {LABELS!r}, {len(labels)}")
    return Labelled(path.name, tuple(int(n) for n in labels), arrays=found)


def _chunks(data: Labelled, inputs: tuple[TensorInfo, ...], preprocessing: Preprocessing) -> Iterator[list[Array]]:
    """A part of the samples at a time, (samples, *shape) an input."""
    for start in range(0, len(data.labels), SAMPLES_A_RUN):
        part = slice(start, start + SAMPLES_A_RUN)
        if data.images:
            yield [np.stack([_image(path, data, inputs, preprocessing) for path in data.images[part]])]
        else:
            yield [_array(data, info, len(inputs))[part] for info in inputs]


def _image(path: Path, data: Labelled, inputs: tuple[TensorInfo, ...], preprocessing: Preprocessing) -> Array:
    """(1, C, H, W), or (1, H, W, C) for a file that takes that and does not say so."""
    shape = inputs[0].shape
    if len(inputs) != 1 or len(shape) != 4 or 3 not in (shape[1], shape[3]):
        raise UsageError(f"--eval-data {data.source}: the network takes {shape}, not one image; give an .npz")
    last = shape[1] != 3
    height, width = shape[1:3] if last else shape[2:4]
    try:
        array = preprocess(decode.image(path), preprocessing, (height, width))
    except decode.TooLargeError as e:
        raise UsageError(f"--eval-data: {path} is refused: {e}; remove it") from e
    except Exception as e:  # Pillow's decoders raise SyntaxError, ValueError and more for damaged files
        raise UsageError(f"--eval-data: {path} cannot be read as an image; remove it") from e
    return array.transpose(1, 2, 0)[None] if last and inputs[0].layout != "NHWC" else array[None]


def _array(data: Labelled, info: TensorInfo, count: int) -> Array:
    found = next(iter(data.arrays.values())) if count == len(data.arrays) == 1 else data.arrays.get(info.name)
    if found is None:
        raise UsageError(f"--eval-data {data.source} has no array {info.name!r}; it has {', '.join(data.arrays)}")
    n, h, w, c = info.shape if info.layout == "NHWC" else (0, 0, 0, 0)
    shape = (n, c, h, w) if info.layout == "NHWC" else info.shape
    batched = found[:, None] if found.ndim == len(shape) and shape[:1] == (1,) else found
    if batched.shape[1:] != shape:
        wanted = ", ".join(map(str, shape))
        raise UsageError(f"--eval-data {data.source}: {info.name!r} is {found.shape}; it must be (samples, {wanted})")
    return batched
