"""What a file is run with: the shapes of its inputs, where it leaves sizes open, and their values, where a user gives
them.

Sizes are those asked for, else those of the values given, else assumed: an image of 224 x 224 pixels, a sequence of 128
steps, one of everything else. What was assumed is told wherever the result is.
"""

import contextlib
import hashlib
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgeport import files, scratch
from edgeport.errors import UsageError
from edgeport.formats import Axis, Graph
from edgeport.records import InputData, TensorInfo

IMAGE_SIZE, STEPS, COLORS = 224, 128, 3
CHANNELS = (1, 3, 4)  # that an image may have: grey, colours, colours and how opaque they are
MOST_BYTES = 1 << 30  # that a file of values may unpack to
OUTPUTS_LEFT = (
    "LiteRT takes no buffer for outputs whose size is known only when the network has run; it is timed without them"
)
# What files call the sizes that they leave open, by the size that is assumed.
BATCH = re.compile(r"batch|^(n|b|bs)$")
SIDE = re.compile(r"height|width|^(h|w)$")
STEP = re.compile(r"seq|len|time|step|frame|token|^(t|l)$")
COLOR = re.compile(r"channel|^c$")

Shape = tuple[int, ...]
Array = NDArray[Any]


class Values(msgspec.Struct, frozen=True):
    """An array an input, by name, and the file that they came from."""

    arrays: dict[str, Array]
    file: str
    sha256: str

    def record(self) -> InputData:
        return InputData(self.file, self.sha256, tuple(sorted(self.arrays)))


class Shapes(msgspec.Struct, frozen=True):
    """set: those to ask the runtime for, by input. assumed: those of them that nobody asked for."""

    set: dict[str, Shape]
    assumed: dict[str, Shape]


def shapes(graph: Graph, asked: Mapping[str, Shape], values: Values | None = None) -> Shapes:
    """asked: by input's name, or under "" for the only one. Raises UsageError for what does not fit the file."""
    wanted = {name: array.shape for name, array in values.arrays.items()} if values else {}
    for name, shape in _named(graph, asked).items():
        if wanted.get(name, shape) != shape:
            raise UsageError(f"--input-shape {name}={_listed(shape)}: the values given are of {_listed(wanted[name])}")
        wanted[name] = shape
    assumed: dict[str, Shape] = {}
    sizes: dict[str, int] = {}  # what is called the same is of the same size
    for info in graph.inputs:
        axes = graph.open_axes.get(info.name, ())
        if info.name in wanted:
            _check(info, wanted[info.name], f"--input-shape {info.name}={_listed(wanted[info.name])}")
            sizes |= {axis.name: wanted[info.name][axis.position] for axis in axes}
    for info in graph.inputs:
        axes = graph.open_axes.get(info.name, ())
        if axes and info.name not in wanted:
            assumed[info.name] = _assumed(info, axes, graph.channel_axis, sizes)
            sizes |= {axis.name: assumed[info.name][axis.position] for axis in axes}
    return Shapes(wanted | assumed, assumed)


def load(path: Path) -> Values:
    """The arrays of an .npz file. Raises UsageError for a file that is none, or unpacks to more than MOST_BYTES."""
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
        if size > MOST_BYTES:
            raise UsageError(f"--input-data {path}: it unpacks to {size >> 20} MiB; give {MOST_BYTES >> 20} at most")
        with np.load(path, allow_pickle=False) as loaded:
            arrays = {name: loaded[name] for name in loaded.files}
    except UsageError:
        raise
    except Exception as e:  # zip, zlib and NumPy each have their own for a file that is something else, or damaged
        why = files.reason(e) if isinstance(e, OSError) else str(e)
        raise UsageError(f"--input-data {path}: it is not an .npz file of plain arrays ({why})") from e
    return Values(arrays, path.name, hashlib.sha256(path.read_bytes()).hexdigest())


def fitting(values: Values, graph: Graph) -> Values:
    """The values as the file's inputs store them. A single array is that of the only input, whatever its name. Raises
    UsageError for an array of no input, or of another shape or kind of numbers.
    """
    arrays = dict(values.arrays)
    if len(arrays) == len(graph.inputs) == 1:
        arrays = {graph.inputs[0].name: next(iter(arrays.values()))}
    known = {info.name: info for info in graph.inputs}
    wrong = sorted(set(arrays) - set(known))
    if wrong or not arrays:
        there = f"it has an array {wrong[0]!r}" if wrong else "it has no array"
        raise UsageError(f"--input-data {values.file}: {there}; the model's inputs are {', '.join(known)}")
    stored = {name: _stored(array, known[name], values.file) for name, array in arrays.items()}
    return msgspec.structs.replace(values, arrays=stored)


@contextlib.contextmanager
def stored(values: Values | None) -> Iterator[dict[str, Path]]:
    """A file of each array's bytes, by input, until the block ends."""
    with scratch.folder() as folder:
        paths = {}
        for n, (name, array) in enumerate(values.arrays.items() if values else ()):
            paths[name] = folder / f"{n}"
            paths[name].write_bytes(array.tobytes())
        yield paths


def listed(shapes: Mapping[str, Shape]) -> str:
    """As --input-shape takes them."""
    return ", ".join(f"{name}={_listed(shape)}" for name, shape in shapes.items())


def _stored(array: Array, info: TensorInfo, file: str) -> Array:
    what = f"--input-data {file}: {info.name!r}"
    array = _laid_out(array, info)
    _check(info, array.shape, f"{what} is of {_listed(array.shape) or 'a single number'}")
    try:
        dtype = np.dtype(info.dtype)
    except TypeError as e:
        raise UsageError(f"{what}: NumPy has no {info.dtype}, which the model takes; leave this input out") from e
    kinds = {"f": "fiub", "i": "iub", "u": "iub", "b": "b"}.get(dtype.kind, "")
    if array.dtype.kind not in kinds:
        raise UsageError(f"{what} holds {array.dtype}, the model takes {info.dtype}")
    found = array.astype(dtype)
    if dtype.kind in "iu" and not np.array_equal(found, array):
        raise UsageError(f"{what} holds numbers that are no {info.dtype}, which the model takes")
    return np.ascontiguousarray(found)


def _laid_out(array: Array, info: TensorInfo) -> Array:
    """An image whose channels come first, as PyTorch has them, turned for a file that takes them last."""
    turned = array.transpose(0, 2, 3, 1) if array.ndim == 4 and info.layout == "NHWC" else array
    return turned if _fits(info, turned.shape) and not _fits(info, array.shape) else array


def _named(graph: Graph, asked: Mapping[str, Shape]) -> dict[str, Shape]:
    names = [info.name for info in graph.inputs]
    wrong = sorted(set(asked) - {*names, ""})
    if wrong:
        raise UsageError(f"--input-shape: the model has no input {wrong[0]!r}; it has {', '.join(sorted(names))}")
    if "" not in asked:
        return dict(asked)
    if len(names) != 1:
        example = names[0] if names else "NAME"
        raise UsageError(f"--input-shape: the model has {len(names)} inputs; write {example}=SIZES, once each")
    return {names[0]: asked[""]}


def _check(info: TensorInfo, shape: Shape, what: str) -> None:
    """Raises UsageError for a shape that the file does not leave open. One without axes may be of any rank."""
    if (not _fits(info, shape) and info.shape) or min(shape, default=1) < 1:
        sizes = ",".join("?" if size < 1 else str(size) for size in info.shape)
        raise UsageError(f"{what}: the model takes {sizes}")


def _fits(info: TensorInfo, shape: Shape) -> bool:
    return len(shape) == len(info.shape) and all(b < 1 or a == b for a, b in zip(shape, info.shape, strict=True))


def _listed(shape: Shape) -> str:
    return ",".join(map(str, shape))


def _assumed(info: TensorInfo, axes: tuple[Axis, ...], channel_axis: int, sizes: Mapping[str, int]) -> Shape:
    shape = list(info.shape)
    for axis in axes:
        known = sizes.get(axis.name, 0) if axis.name else 0
        shape[axis.position] = known or _assumed_size(info, axis, channel_axis)
    return tuple(shape)


def _assumed_size(info: TensorInfo, axis: Axis, channel_axis: int) -> int:
    """By what the file keeps beside the open size, by what it calls it, or by where it is."""
    if axis.stored > 1:
        return axis.stored
    name = axis.name.lower()
    for pattern, size in ((BATCH, 1), (SIDE, IMAGE_SIZE), (STEP, STEPS), (COLOR, COLORS)):
        if re.search(pattern, name):
            return size
    rank = len(info.shape)
    if axis.position == 0:
        return 1
    if rank == 4 and _is_image(info, channel_axis):
        return COLORS if axis.position == _channels(info, channel_axis) else IMAGE_SIZE
    return STEPS


def _is_image(info: TensorInfo, channel_axis: int) -> bool:
    return info.shape[_channels(info, channel_axis)] in (*CHANNELS, -1)


def _channels(info: TensorInfo, channel_axis: int) -> int:
    """The axis of the channels: the format's own, unless it is the other one that has as many as an image."""
    other = 4 - channel_axis  # 1 and 3
    return other if info.shape[channel_axis] not in CHANNELS and info.shape[other] in CHANNELS else channel_axis
