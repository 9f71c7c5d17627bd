"""Calibration data: what fits becomes samples, pixel by pixel as the preprocessing says; what does not fit says why."""

import io
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from edgeport.errors import UsageError
from edgeport.export import calibrate, decode
from edgeport.export.calibrate import Samples
from edgeport.export.draws import Normal, Whole
from edgeport.records import Preprocessing, TensorInfo

IMAGE = TensorInfo("x", (1, 3, 4, 4), "float32")
PLAIN = Preprocessing(resize=4, crop=4, scale=1.0, mean=(0, 0, 0), std=(1, 1, 1))


def npz(tmp_path: Path, **arrays: NDArray[Any]) -> Path:
    path = tmp_path / "samples.npz"
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return path


def folder(tmp_path: Path, *images: Image.Image) -> Path:
    for n, image in enumerate(images):
        image.save(tmp_path / f"{n}.png")
    return tmp_path


def load(data: Path | None, *inputs: TensorInfo, preprocessing: Preprocessing | None = PLAIN) -> Samples:
    return calibrate.load(data, inputs or (IMAGE,), preprocessing)


# Arrays


def test_arrays_are_taken_by_their_inputs_names(tmp_path: Path) -> None:
    first, second = np.random.default_rng(0).random((5, 1, 3, 4, 4)), np.arange(10).reshape(5, 1, 2)
    found = load(
        npz(tmp_path, b=second, a=first), TensorInfo("a", (1, 3, 4, 4), "float32"), TensorInfo("b", (1, 2), "int64")
    )
    assert found.count == 5
    np.testing.assert_array_equal(found.arrays[0], first.astype(np.float32))
    np.testing.assert_array_equal(found.arrays[1], second)
    assert [a.dtype for a in found.arrays] == [np.float32, np.int64]


def test_a_single_array_may_have_any_name(tmp_path: Path) -> None:
    assert load(npz(tmp_path, images=np.zeros((2, 1, 3, 4, 4)))).count == 2


def test_the_batch_of_one_may_be_left_out(tmp_path: Path) -> None:
    data = np.arange(7 * 48.0).reshape(7, 3, 4, 4)
    found = load(npz(tmp_path, x=data))
    np.testing.assert_array_equal(found.arrays[0], data[:, None])


def test_a_batch_of_several_may_not(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"\(6, 3, 4, 4\).*\(samples, 2, 3, 4, 4\)"):
        load(npz(tmp_path, x=np.zeros((6, 3, 4, 4))), TensorInfo("x", (2, 3, 4, 4), "float32"))


@pytest.mark.parametrize(
    "shape",
    [
        (2, 1, 4, 4, 3),
        (0, 1, 3, 4, 4),
        (4,),
        (2, 1, 3, 4),
        (2, 3, 5, 4),
    ],
)
def test_an_array_of_a_wrong_shape_is_told_both_shapes(tmp_path: Path, shape: tuple[int, ...]) -> None:
    path = npz(tmp_path, x=np.zeros(shape))
    with pytest.raises(UsageError) as error:
        load(path)
    assert str(path) in str(error.value)
    assert "(samples, 1, 3, 4, 4)" in str(error.value)
    assert str(shape)[:-1] in str(error.value)


def test_an_array_that_is_missing_is_named_with_those_that_are_there(tmp_path: Path) -> None:
    inputs = TensorInfo("left", (1, 2), "float32"), TensorInfo("right", (1, 2), "float32")
    with pytest.raises(UsageError, match=r"no array 'right'; it has left, rihgt"):
        load(npz(tmp_path, left=np.zeros((3, 1, 2)), rihgt=np.zeros((3, 1, 2))), *inputs)


def test_inputs_need_equally_many_samples(tmp_path: Path) -> None:
    inputs = TensorInfo("a", (1, 2), "float32"), TensorInfo("b", (1, 2), "float32")
    with pytest.raises(UsageError, match=r"\[3, 4\] samples"):
        load(npz(tmp_path, a=np.zeros((3, 1, 2)), b=np.zeros((4, 1, 2))), *inputs)


def npy() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros((2, 3, 4, 4)))
    return buffer.getvalue()


def damaged_npz() -> bytes:
    """Compressed, with some of the compressed bytes overwritten."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, x=np.random.default_rng(0).random((2, 3, 4, 4)))
    data = buffer.getvalue()
    return data[:100] + bytes(range(50)) + data[150:]


@pytest.mark.parametrize(
    "content",
    [
        b"not a zip file",
        b"PK\x03\x04 cut off",
        b"",
        pytest.param(npy(), id="npy"),
        pytest.param(damaged_npz(), id="damaged"),
    ],
)
def test_a_file_that_is_no_npz_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "data.npz"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"data\.npz is not an \.npz of plain arrays"):
        load(path)


def test_words_are_no_samples(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'x' holds"):
        load(npz(tmp_path, x=np.full((2, 1, 3, 4, 4), "a")))


def test_pickled_objects_are_not_loaded(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="plain arrays"):
        load(npz(tmp_path, x=np.array([{"a": 1}], dtype=object)))


@pytest.mark.parametrize("name", ["absent", "absent.npz", "data.txt"])
def test_what_is_neither_a_folder_nor_an_npz_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "data.txt").touch()
    with pytest.raises(UsageError, match=rf"{name}: give a folder of images or an \.npz"):
        load(tmp_path / name)


# Images


def test_a_folder_of_images_becomes_samples_in_the_order_of_their_names(tmp_path: Path) -> None:
    colors = [(10, 20, 30), (40, 50, 60), (70, 80, 90)]
    data = folder(tmp_path, *(Image.new("RGB", (6, 8), color) for color in colors))
    (data / "notes.txt").write_text("no image")
    found = load(data)
    assert found.arrays[0].shape == (3, 1, 3, 4, 4)
    np.testing.assert_array_equal(found.arrays[0][:, 0, :, 0, 0], colors)
    assert found.warning is None


def test_folders_below_are_searched_too(tmp_path: Path) -> None:
    (tmp_path / "cats").mkdir()
    folder(tmp_path / "cats", Image.new("RGB", (4, 4)))
    assert load(tmp_path).count == 1


def test_a_batch_holds_the_same_image_repeatedly(tmp_path: Path) -> None:
    found = load(folder(tmp_path, Image.new("RGB", (4, 4), (1, 2, 3))), TensorInfo("x", (2, 3, 4, 4), "float32"))
    assert found.arrays[0].shape == (1, 2, 3, 4, 4)
    np.testing.assert_array_equal(found.arrays[0][0, 0], found.arrays[0][0, 1])


def bomb() -> bytes:
    """A bitmap whose header promises 60000 by 60000 pixels."""
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, "BMP")
    data = buffer.getvalue()
    return data[:18] + struct.pack("<ii", 60_000, 60_000) + data[26:]


def short_chunk(position: int) -> bytes:
    """A PNG in which the length of the chunk at this position says 0."""
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, "PNG")
    data = buffer.getvalue()
    return data[:position] + bytes(4) + data[position + 4 :]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no image at all",
        None,
        pytest.param(short_chunk(8), id="header"),
        pytest.param(short_chunk(33), id="pixels"),
        pytest.param(bomb(), id="bomb"),
    ],
)
def test_a_corrupt_image_is_named(tmp_path: Path, content: bytes | None) -> None:
    """None: a real one, cut off in the middle of its pixels."""
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(tmp_path / "bad.png")
    whole = (tmp_path / "bad.png").read_bytes()
    (tmp_path / "bad.png").write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(UsageError, match=r"bad\.png cannot be read as an image"):
        load(folder(tmp_path, Image.new("RGB", (4, 4))))


def test_a_folder_without_images_is_told_which_endings_count(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"it holds no images \(.*\.jpg"):
        load(tmp_path)


def test_a_folder_of_images_does_not_fit_a_network_of_two_inputs(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"\(1, 3, 4, 4\), \(1, 7\), not one image; give an \.npz"):
        load(folder(tmp_path, Image.new("RGB", (4, 4))), IMAGE, TensorInfo("n", (1, 7), "float32"))


def test_preprocessing_that_is_assumed_is_said(tmp_path: Path) -> None:
    found = load(folder(tmp_path, Image.new("RGB", (4, 4))), preprocessing=None)
    assert "PREPROCESSING" in (found.warning or "")


# Pixels


def pixel(preprocessing: Preprocessing, color: tuple[int, int, int]) -> list[float]:
    made = calibrate.preprocess(Image.new("RGB", (10, 7), color), preprocessing, (4, 4))
    assert made.shape == (3, 4, 4)
    assert made.dtype == np.float32
    return [float(v) for v in made[:, 2, 1]]


def test_a_pixel_is_scaled_then_shifted_by_the_mean_then_divided() -> None:
    expected = [(255 / 255 - 0.485) / 0.229, (128 / 255 - 0.456) / 0.224, (0 - 0.406) / 0.225]
    assert pixel(Preprocessing(), (255, 128, 0)) == pytest.approx(expected, abs=1e-6)


def test_another_scale_mean_and_deviation_count() -> None:
    half = Preprocessing(scale=1 / 127.5, mean=(1, 1, 1), std=(1, 1, 2))
    assert pixel(half, (255, 0, 51)) == pytest.approx([1, -1, -0.3], abs=1e-6)


def test_bgr_turns_the_colours_around_before_mean_and_deviation() -> None:
    caffe = Preprocessing(colors="BGR", scale=1.0, mean=(104, 117, 123), std=(1, 1, 1))
    assert pixel(caffe, (200, 150, 100)) == pytest.approx([100 - 104, 150 - 117, 200 - 123])


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "1"])
def test_images_of_any_mode_become_three_colours(mode: str) -> None:
    image = Image.new("RGB", (8, 8), (255, 255, 255)).convert(mode)
    np.testing.assert_array_equal(calibrate.preprocess(image, PLAIN, (4, 4)), np.full((3, 4, 4), 255))


def test_the_centre_is_cropped() -> None:
    """A picture as wide as two crops, whose middle half is white: nothing is resized, the black sides fall off."""
    pixels = np.zeros((4, 8, 3), np.uint8)
    pixels[:, 2:6] = 255
    np.testing.assert_array_equal(calibrate.preprocess(Image.fromarray(pixels), PLAIN, (4, 4)), np.full((3, 4, 4), 255))


def test_rows_and_columns_stay_what_they_are() -> None:
    pixels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    made = calibrate.preprocess(Image.fromarray(pixels), PLAIN, (4, 4))
    np.testing.assert_array_equal(made, pixels.transpose(2, 0, 1))


@pytest.mark.parametrize("size", [(5, 3), (300, 2), (2, 300), (1000, 700), (4, 4)])
@pytest.mark.parametrize("wanted", [(4, 4), (4, 12), (12, 4), (7, 5)])
def test_an_image_of_any_size_fills_any_input(size: tuple[int, int], wanted: tuple[int, int]) -> None:
    made = calibrate.preprocess(Image.new("RGB", size, (9, 9, 9)), PLAIN, wanted)
    np.testing.assert_array_equal(made, np.full((3, *wanted), 9))


def test_the_shorter_side_is_resized_as_far_beyond_the_crop_as_asked_for() -> None:
    """resize 8, crop 4: the middle 8 of 16 columns are seen; they are white, and so is all of the crop."""
    pixels = np.zeros((16, 16, 3), np.uint8)
    pixels[3:13, 3:13] = 255
    zoomed = Preprocessing(resize=8, crop=4, scale=1.0, mean=(0, 0, 0), std=(1, 1, 1))
    np.testing.assert_array_equal(
        calibrate.preprocess(Image.fromarray(pixels), zoomed, (4, 4)), np.full((3, 4, 4), 255)
    )


# Defaults


def test_the_photos_that_edgeport_ships_are_the_default_with_a_warning() -> None:
    found = load(None, TensorInfo("x", (1, 3, 8, 8), "float32"))
    assert found.count >= 16
    assert found.arrays[0].shape[1:] == (1, 3, 8, 8)
    assert "--calibration-data" in (found.warning or "")
    assert len({sample.tobytes() for sample in found.arrays[0]}) == found.count


def test_ranges_come_from_six_photos_and_verdicts_from_others() -> None:
    """The six in the order of their names: int8 files keep their bytes."""
    found = load(None, TensorInfo("x", (1, 3, 8, 8), "float32"))
    names = [path.name for path in sorted(calibrate.PHOTOS.glob("*.jpg"))]
    of = {kind: [names[found.groups[i]] for i in numbers] for kind, numbers in vars_of(found).items()}
    assert list(dict.fromkeys(of["verdict"])) == list(calibrate.VERDICT_PHOTOS)
    six = ["astronaut.jpg", "chelsea.jpg", "coffee.jpg", "hubble_deep_field.jpg", "retina.jpg", "rocket.jpg"]
    assert of["fit"] == [name for name in six for _ in range(4)]
    assert len(found.fit_arrays()[0]) == len(found.fit_groups) == 24
    assert (found.record().samples, found.record().held_back) == (32, 8)


def vars_of(samples: Samples) -> dict[str, list[int]]:
    return {"fit": samples.fit, "verdict": samples.verdict}


@pytest.mark.parametrize(("count", "held"), [(7, []), (8, [3, 7]), (12, [3, 7, 11])])
def test_every_fourth_sample_is_held_back_where_there_are_enough(tmp_path: Path, count: int, held: list[int]) -> None:
    data = np.arange(count * 48.0).reshape(count, 1, 3, 4, 4)
    found = load(npz(tmp_path, x=data))
    assert list(found.held) == held
    assert found.record().held_back == len(held)
    assert found.verdict == (held or list(range(count)))
    np.testing.assert_array_equal(found.fit_arrays()[0], data[[i for i in range(count) if i not in held]])


def test_all_views_of_a_photo_go_together() -> None:
    groups = [photo for photo in range(9) for _ in range(3)]
    held = calibrate.held_back(groups)
    assert {groups[i] for i in held} == {3, 7}
    assert len(held) == 6


def test_images_of_a_folder_are_held_back_by_file(tmp_path: Path) -> None:
    images = [Image.new("RGB", (8, 8), (n, n, n)) for n in range(9)]
    found = load(folder(tmp_path, *images))
    assert (found.held, found.groups) == ((3, 7), tuple(range(9)))


def test_a_network_that_takes_no_image_gets_random_numbers_with_a_warning() -> None:
    found = load(None, TensorInfo("x", (1, 7), "float32"), TensorInfo("i", (1, 2), "int64"))
    assert [a.dtype for a in found.arrays] == [np.float32, np.int64]
    assert "random numbers (x standard normal numbers; i whole numbers 0 to 9)" in (found.warning or "")
    assert "i whole numbers 0 to 9" in found.source
    assert found.is_drawn
    assert (len(found.fit), len(found.held)) == (16, 16)
    assert not set(map(bytes, found.arrays[0][:16])) & set(map(bytes, found.arrays[0][16:]))


def test_an_image_among_other_inputs_is_a_photo() -> None:
    inputs = TensorInfo("tokens", (1, 5), "int64"), TensorInfo("image", (1, 3, 8, 8), "float32")
    found = calibrate.load(None, inputs, PLAIN, lambda: [Whole(0, 99), Normal()])
    alone = load(None, inputs[1])
    np.testing.assert_array_equal(found.arrays[1], alone.arrays[0])
    assert (found.held, found.groups) == (alone.held, alone.groups)
    assert found.arrays[0].shape == (32, 1, 5)
    assert found.arrays[0].max() > 9
    assert "tokens whole numbers 0 to 99" in found.source
    assert found.source.startswith(alone.source)


def test_the_same_samples_have_the_same_hash_and_others_another_one(tmp_path: Path) -> None:
    data = np.arange(96.0).reshape(2, 1, 3, 4, 4)
    first = load(npz(tmp_path, x=data)).record()
    assert load(npz(tmp_path, x=data)).record() == first
    assert (first.samples, first.source) == (2, "2 samples of samples.npz")
    assert load(npz(tmp_path, x=data + 1)).record().sha256 != first.sha256


# What is small and would become large


def test_an_archive_that_would_take_far_more_memory_than_its_size_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decode, "FREE_BYTES", 100_000)
    np.savez_compressed(tmp_path / "bomb.npz", x=np.zeros((3000, 1, 3, 4, 4)))
    with pytest.raises(UsageError, match=r"bomb\.npz is refused: its 0\.0 MB would take 1 MB of memory"):
        load(tmp_path / "bomb.npz")
    np.savez(tmp_path / "plain.npz", x=np.zeros((3000, 1, 3, 4, 4)))
    assert load(tmp_path / "plain.npz").count == calibrate.MOST_SAMPLES


@pytest.mark.parametrize("size", [(1, 2000), (2000, 1)])
def test_an_image_that_is_all_side_is_refused(tmp_path: Path, size: tuple[int, int]) -> None:
    with pytest.raises(UsageError, match=r"0\.png is refused: it has .* one side more than 50 times the other"):
        load(folder(tmp_path, Image.new("RGB", size)))


def test_an_image_of_far_more_pixels_than_its_size_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "FREE_PIXELS", 0)
    with pytest.raises(UsageError, match=r"0\.png is refused: its \d+ bytes would become 3000 x 3000 pixels"):
        load(folder(tmp_path, Image.new("RGB", (3000, 3000))))


def test_what_is_called_a_photo_and_is_a_pipe_keeps_nobody_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    assert load(folder(tmp_path, Image.new("RGB", (4, 4)))).count == 1
