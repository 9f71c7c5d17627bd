"""The samples that int8 ranges are taken from and artifacts are verified on: photos, or arrays of one's own."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgeport import records
from edgeport.errors import UsageError
from edgeport.export import decode, draws
from edgeport.export.draws import Draw
from edgeport.records import Preprocessing, TensorInfo

PHOTOS = Path(__file__).parent.parent / "data" / "photos"
SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")
MOST_SAMPLES = 256
# Of edgeport's own photos, those that no range is taken from.
VERDICT_PHOTOS = ("camera.jpg", "raccoon.jpg")
# Of other data: every fourth photo or sample, where there are at least eight.
HELD_BACK, LEAST_GROUPS = 4, 8
VERDICT_SEED = 1  # of drawn samples

Array = NDArray[Any]


class Samples(msgspec.Struct, frozen=True):
    """arrays: one an input, its first axis the samples, the rest one sample's full shape (N, C, H, W for images).

    groups: of each sample the number of the photo that it is a view of. held: which samples the verdict is held by, and
    no range or choice; empty where there are too few. is_drawn: some or all of it is no data, but random numbers.
    """

    arrays: tuple[Array, ...]
    source: str
    warning: str | None = None
    groups: tuple[int, ...] = ()
    held: tuple[int, ...] = ()
    is_drawn: bool = False

    @property
    def count(self) -> int:
        return len(self.arrays[0])

    @property
    def fit(self) -> list[int]:
        """Numbers of the samples that ranges are taken from and choices made by."""
        return sorted(set(range(self.count)) - set(self.held))

    @property
    def fit_groups(self) -> tuple[int, ...]:
        return tuple(self.groups[i] for i in self.fit) if self.groups else ()

    @property
    def verdict(self) -> list[int]:
        """Numbers of the samples that int8 is judged on: those held back, or all."""
        return list(self.held) or self.fit

    def fit_arrays(self) -> list[Array]:
        fit = self.fit
        return [array[fit] for array in self.arrays]

    def record(self) -> records.Calibration:
        digest = hashlib.sha256(repr((self.groups, self.held)).encode())
        for array in self.arrays:
            digest.update(str(array.shape).encode() + np.ascontiguousarray(array).tobytes())
        return records.Calibration(self.source, self.count, digest.hexdigest(), len(self.held))


def load(
    data: Path | None,
    inputs: Sequence[TensorInfo],
    preprocessing: Preprocessing | None,
    rules: Callable[[], Sequence[Draw]] | None = None,
) -> Samples:
    """A folder of images, an .npz with an array an input, or (data=None) the photos that edgeport ships.

    What the network takes besides one image is drawn then, by rules, or by its type alone, with a warning. Raises
    UsageError for what does not fit the inputs.
    """
    if data is None:
        return _default(inputs, preprocessing, rules or (lambda: [draws.by_type(info) for info in inputs]))
    if data.is_dir():
        return _folder(data, inputs, preprocessing)
    if data.suffix == ".npz" and data.is_file():
        return _npz(data, inputs)
    raise UsageError(f"--calibration-data {data}: give a folder of images or an .npz file")


def held_back(groups: Sequence[int]) -> tuple[int, ...]:
    """Which samples, of these groups, to hold back: every fourth group whole, if there are enough."""
    different = list(dict.fromkeys(groups))
    if len(different) < LEAST_GROUPS:
        return ()
    held = set(different[HELD_BACK - 1 :: HELD_BACK])
    return tuple(i for i, group in enumerate(groups) if group in held)


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


def _default(
    inputs: Sequence[TensorInfo], preprocessing: Preprocessing | None, rules: Callable[[], Sequence[Draw]]
) -> Samples:
    images = [number for number, info in enumerate(inputs) if _is_image(info)]
    if len(images) != 1:
        return _drawn(inputs, rules())
    samples = _photos(inputs[images[0]], preprocessing)
    return samples if len(inputs) == 1 else _beside(samples, images[0], inputs, rules())


def _photos(info: TensorInfo, preprocessing: Preprocessing | None) -> Samples:
    """Those of edgeport, each as several views."""
    paths = sorted(PHOTOS.glob("*.jpg"))
    views = [_views(Image.open(path)) for path in paths]
    groups = tuple(n for n, of_photo in enumerate(views) for _ in of_photo)
    held = tuple(i for i, group in enumerate(groups) if paths[group].name in VERDICT_PHOTOS)
    array = _image_arrays([view for of_photo in views for view in of_photo], info, preprocessing)
    warning = (
        "int8 ranges come from a few photos that edgeport ships; --calibration-data with your own images is better"
    )
    if preprocessing is None:
        warning += ", and the preprocessing is assumed to be ImageNet's: set PREPROCESSING beside the factory"
    return Samples((array,), f"{len(paths)} photos of edgeport, {len(array)} views", warning, groups, held)


def _drawn(inputs: Sequence[TensorInfo], rules: Sequence[Draw]) -> Samples:
    """As many again as ranges are taken from are drawn for the verdict."""
    count = draws.count(rules, inputs)
    held = tuple(range(count, count + draws.LEAST_SAMPLES))
    what = _what(inputs, rules)
    warning = (
        f"no data is given: samples are random numbers ({what}), which say little of what the network will see; give "
        "--calibration-data FILE.npz"
    )
    arrays = _draw_both(inputs, rules, count, len(held))
    return Samples(arrays, f"random numbers, drawn: {what}", warning, tuple(range(count + len(held))), held, True)


def _draw_both(inputs: Sequence[TensorInfo], rules: Sequence[Draw], fit: int, held: int) -> tuple[Array, ...]:
    """Samples for ranges, and behind them those for the verdict."""
    parts = []
    for count, seed in ((fit, 0), (held, VERDICT_SEED)):
        generator = np.random.default_rng(seed)
        parts.append([draws.draw(rule, info, count, generator) for rule, info in zip(rules, inputs, strict=True)])
    return tuple(np.concatenate(pair) for pair in zip(*parts, strict=True))


def _beside(samples: Samples, image: int, inputs: Sequence[TensorInfo], rules: Sequence[Draw]) -> Samples:
    """Photos for one input, and drawn numbers for the others."""
    others = [number for number in range(len(inputs)) if number != image]
    infos, chosen = [inputs[n] for n in others], [rules[n] for n in others]
    arrays = list(_draw_both(infos, chosen, samples.count, 0))
    arrays.insert(image, samples.arrays[0])
    what = _what(infos, chosen)
    return msgspec.structs.replace(
        samples,
        arrays=tuple(arrays),
        source=f"{samples.source}; random numbers, drawn: {what}",
        warning=f"{samples.warning}; the other inputs get random numbers ({what})",
        is_drawn=True,
    )


def _what(inputs: Sequence[TensorInfo], rules: Sequence[Draw]) -> str:
    return "; ".join(f"{info.name} {draws.said(rule)}" for info, rule in zip(inputs, rules, strict=True))


def _views(image: Image.Image) -> list[Image.Image]:
    """The whole photo, its mirror image, and two halves: more of the values that real images take."""
    w, h = image.size
    side = min(w, h) * 2 // 3
    mirrored = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return [image, mirrored, image.crop((0, 0, side, side)), image.crop((w - side, h - side, w, h))]


def _folder(folder: Path, inputs: Sequence[TensorInfo], preprocessing: Preprocessing | None) -> Samples:
    if len(inputs) != 1 or not _is_image(inputs[0]):
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
    groups = tuple(range(len(paths)))
    source = f"{first}{len(found)} images of {folder.name}"
    return Samples((np.concatenate(arrays),), source, warning, groups, held_back(groups))


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
    groups = tuple(range(len(arrays[0])))
    return Samples(tuple(arrays), f"{len(groups)} samples of {path.name}", None, groups, held_back(groups))


def _as_samples(array: Array, info: TensorInfo, path: Path) -> Array:
    """(samples, *shape) from that, or from (samples, *shape without its batch of 1)."""
    if array.dtype.kind not in "biuf":
        raise UsageError(f"--calibration-data {path}: {info.name!r} holds {array.dtype}, not numbers")
    batched = array[:, None] if array.ndim == len(info.shape) and info.shape[:1] == (1,) else array
    if batched.shape[1:] != info.shape or not len(batched):
        wanted = f"(samples, {', '.join(map(str, info.shape))})"
        raise UsageError(f"--calibration-data {path}: {info.name!r} is {array.shape}; it must be {wanted}")
    return np.ascontiguousarray(batched[:MOST_SAMPLES].astype(info.dtype))


def _is_image(info: TensorInfo) -> bool:
    return len(info.shape) == 4 and info.shape[1] == 3 and info.dtype == "float32"
