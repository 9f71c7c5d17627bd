"""The samples that int8 ranges are taken from and artifacts are verified on: photos, or arrays of one's own."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgeport import records
from edgeport.errors import UsageError
from edgeport.export import decode
from edgeport.records import Preprocessing, TensorInfo

PHOTOS = Path(__file__).parent.parent / "data" / "photos"
SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")
MOST_SAMPLES = 256
RANDOM_SAMPLES = 16

Array = NDArray[Any]


class Samples(msgspec.Struct, frozen=True):
    """arrays: one an input, its first axis the samples, the rest one sample's full shape (N, C, H, W for images)."""

    arrays: tuple[Array, ...]
    source: str
    warning: str | None = None

    @property
    def count(self) -> int:
        return len(self.arrays[0])

    def record(self) -> records.Calibration:
        digest = hashlib.sha256()
        for array in self.arrays:
            digest.update(str(array.shape).encode() + np.ascontiguousarray(array).tobytes())
        return records.Calibration(self.source, self.count, digest.hexdigest())


def load(data: Path | None, inputs: Sequence[TensorInfo], preprocessing: Preprocessing | None) -> Samples:
    """A folder of images, an .npz with an array an input, or (data=None) the photos that edgeport ships.

    Where the network takes no image, the default is random numbers, with a warning. Raises UsageError for what does
    not fit the inputs.
    """
    if data is None:
        return _default(inputs, preprocessing)
    if data.is_dir():
        return _folder(data, inputs, preprocessing)
    if data.suffix == ".npz" and data.is_file():
        return _npz(data, inputs)
    raise UsageError(f"--calibration-data {data}: give a folder of images or an .npz file")


def preprocess(image: Image.Image, preprocessing: Preprocessing, size: tuple[int, int]) -> Array:
    """(C, H, W) float32: the shorter side resized, the centre cropped to size (H, W), colours scaled."""
    height, width = size
    image = image.convert("RGB")
    shorter = round(preprocessing.resize * min(height, width) / preprocessing.crop)
    scale = shorter / min(image.size)
    resized = image.resize(
        (max(width, round(image.width * scale)), max(height, round(image.height * scale))), Image.Resampling.BILINEAR
    )
    left, top = (resized.width - width) // 2, (resized.height - height) // 2
    pixels = np.asarray(resized.crop((left, top, left + width, top + height)), np.float32)
    if preprocessing.colors == "BGR":
        pixels = pixels[:, :, ::-1]
    mean, std = (np.array(v, np.float32) for v in (preprocessing.mean, preprocessing.std))
    scaled = (pixels * np.float32(preprocessing.scale) - mean) / std
    return np.ascontiguousarray(scaled.transpose(2, 0, 1), dtype=np.float32)


def _default(inputs: Sequence[TensorInfo], preprocessing: Preprocessing | None) -> Samples:
    if not _takes_image(inputs):
        generator = np.random.default_rng(0)
        arrays = tuple(_random(generator, info) for info in inputs)
        return Samples(
            arrays, "random numbers", "int8 ranges come from random numbers; give --calibration-data FILE.npz"
        )
    images = [Image.open(path) for path in sorted(PHOTOS.glob("*.jpg"))]
    array = _image_arrays([view for image in images for view in _views(image)], inputs[0], preprocessing)
    warning = (
        "int8 ranges come from a few photos that edgeport ships; --calibration-data with your own images is better"
    )
    if preprocessing is None:
        warning += ", and the preprocessing is assumed to be ImageNet's: set PREPROCESSING beside the factory"
    return Samples((array,), f"{len(images)} photos of edgeport, {len(array)} views", warning)


def _views(image: Image.Image) -> list[Image.Image]:
    """The whole photo, its mirror image, and two halves: more of the values that real images take."""
    w, h = image.size
    side = min(w, h) * 2 // 3
    mirrored = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return [image, mirrored, image.crop((0, 0, side, side)), image.crop((w - side, h - side, w, h))]


def _folder(folder: Path, inputs: Sequence[TensorInfo], preprocessing: Preprocessing | None) -> Samples:
    if not _takes_image(inputs):
        shapes = ", ".join(str(i.shape) for i in inputs)
        raise UsageError(f"--calibration-data {folder}: the network takes {shapes}, not one image; give an .npz")
    found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    if not found:
        raise UsageError(f"--calibration-data {folder}: it holds no images ({', '.join(SUFFIXES)})")
    paths = found[:MOST_SAMPLES]
    arrays = []
    for path in paths:  # one at a time: decoded photos are large
        try:
            arrays.append(_image_arrays([decode.image(path)], inputs[0], preprocessing))
        except decode.TooLargeError as e:
            raise UsageError(f"--calibration-data: {path} is refused: {e}; remove it") from e
        except Exception as e:  # Pillow's decoders raise SyntaxError, ValueError and more for damaged files
            raise UsageError(f"--calibration-data: {path} cannot be read as an image; remove it") from e
    warning = None if preprocessing else "the preprocessing is assumed to be ImageNet's: set PREPROCESSING"
    first = f"the first {len(paths)} of " if len(paths) < len(found) else ""
    return Samples((np.concatenate(arrays),), f"{first}{len(found)} images of {folder.name}", warning)


def _image_arrays(images: list[Image.Image], info: TensorInfo, preprocessing: Preprocessing | None) -> Array:
    batch, _, height, width = info.shape
    arrays = [preprocess(image, preprocessing or Preprocessing(), (height, width)) for image in images]
    return np.stack([np.repeat(a[None], batch, axis=0) for a in arrays])


def _npz(path: Path, inputs: Sequence[TensorInfo]) -> Samples:
    try:
        found = decode.arrays(path)
    except decode.TooLargeError as e:
        raise UsageError(f"--calibration-data {path} is refused: {e}; save it without compression") from e
    except Exception as e:  # zip, zlib and NumPy each have their own for a file that is something else, or damaged
        raise UsageError(f"--calibration-data {path} is not an .npz of plain arrays ({e})") from e
    if len(inputs) == 1 and len(found) == 1:
        found = {inputs[0].name: next(iter(found.values()))}
    arrays = []
    for info in inputs:
        if info.name not in found:
            raise UsageError(f"--calibration-data {path} has no array {info.name!r}; it has {', '.join(found)}")
        arrays.append(_as_samples(found[info.name], info, path))
    if len({len(a) for a in arrays}) > 1:
        counts = [len(a) for a in arrays]
        raise UsageError(f"--calibration-data {path}: its arrays hold {counts} samples; give as many each")
    return Samples(tuple(arrays), f"{len(arrays[0])} samples of {path.name}")


def _as_samples(array: Array, info: TensorInfo, path: Path) -> Array:
    """(samples, *shape) from that, or from (samples, *shape without its batch of 1)."""
    if array.dtype.kind not in "biuf":
        raise UsageError(f"--calibration-data {path}: {info.name!r} holds {array.dtype}, not numbers")
    batched = array[:, None] if array.ndim == len(info.shape) and info.shape[:1] == (1,) else array
    if batched.shape[1:] != info.shape or not len(batched):
        wanted = f"(samples, {', '.join(map(str, info.shape))})"
        raise UsageError(f"--calibration-data {path}: {info.name!r} is {array.shape}; it must be {wanted}")
    return np.ascontiguousarray(batched[:MOST_SAMPLES].astype(info.dtype))


def _takes_image(inputs: Sequence[TensorInfo]) -> bool:
    return len(inputs) == 1 and len(inputs[0].shape) == 4 and inputs[0].shape[1] == 3 and inputs[0].dtype == "float32"


def _random(generator: np.random.Generator, info: TensorInfo) -> Array:
    shape = (RANDOM_SAMPLES, *info.shape)
    if info.dtype.startswith("float"):
        return generator.standard_normal(shape).astype(info.dtype)
    return np.zeros(shape, info.dtype)
