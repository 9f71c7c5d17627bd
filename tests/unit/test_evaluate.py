"""Labelled samples: what is read, what is refused, and how many of them a file names rightly."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper
from PIL import Image
from small_models import onnx_model, onnx_value, small_onnx, small_tflite

from edgeport.errors import UsageError
from edgeport.export import evaluate
from edgeport.export.verify import run_artifact
from edgeport.records import Preprocessing
from edgeport.runner import local_runner

PLAIN = Preprocessing(resize=8, crop=8, scale=1.0, mean=(0, 0, 0), std=(1, 1, 1))


@pytest.fixture(autouse=True, scope="module")
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEPORT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def identity(tmp_path: Path) -> Path:
    """Scores of four classes in, the same out."""
    path = tmp_path / "identity.onnx"
    node = helper.make_node("Relu", ["x"], ["y"], name="/relu")
    onnx.save(onnx_model([node], [onnx_value("x", (1, 4))], [onnx_value("y", (1, 4))], {}), path)
    return path


def saved(tmp_path: Path, **arrays: Any) -> Path:
    path = tmp_path / "data.npz"
    np.savez(path, **arrays)
    return path


def photos(folder: Path, **shades: int) -> Path:
    """A folder a class, two images of one shade in each."""
    for name, shade in shades.items():
        (folder / name.lstrip("_")).mkdir(parents=True)
        for n in range(2):
            Image.new("RGB", (12, 9), (shade,) * 3).save(folder / name.lstrip("_") / f"{n}.png")
    return folder


@pytest.mark.parametrize("batched", [False, True])
def test_right_are_those_whose_largest_score_is_the_label(identity: Path, tmp_path: Path, batched: bool) -> None:
    labels = np.arange(300) % 4  # more than one run takes
    scores = np.eye(4, dtype=np.float32)[labels]
    scores[:30] = 0
    scores[:30, 0] = 1  # as if all of the first thirty were of class 0
    data = evaluate.load(saved(tmp_path, x=scores[:, None] if batched else scores, labels=labels))
    assert evaluate.count_right(local_runner(), identity, data, None) == 270 + int((labels[:30] == 0).sum())


def test_classes_are_the_folders_in_order_or_the_numbers_that_they_are_called(tmp_path: Path) -> None:
    named = evaluate.load(photos(tmp_path / "named", cat=0, ant=9))
    assert [p.parent.name for p in named.images] == ["ant", "ant", "cat", "cat"]
    assert named.labels == (0, 0, 1, 1)
    numbered = evaluate.load(photos(tmp_path / "numbered", _10=0, _9=9))
    assert sorted(zip(numbered.labels, (p.parent.name for p in numbered.images), strict=True)) == [
        *[(9, "9")] * 2,
        *[(10, "10")] * 2,
    ]


@pytest.mark.parametrize("make", [small_onnx, small_tflite], ids=["channels first", "channels last"])
def test_images_are_laid_out_as_the_file_takes_them(tmp_path: Path, make: Any) -> None:
    """Each output is taken for a class of its own; the right one is that of the pixels as PyTorch takes them."""
    model = make(tmp_path / ("net.onnx" if make is small_onnx else "net.tflite"))
    pixels = np.random.default_rng(0).integers(0, 255, (8, 8, 3), np.uint8)
    array = pixels.astype(np.float32).transpose(2, 0, 1)
    best = int(run_artifact(local_runner(), model, [array[None, None]])[0].argmax())
    for label, right in ((best, 1), (best + 1, 0)):
        folder = tmp_path / f"photos{label}" / str(label)
        folder.mkdir(parents=True)
        Image.fromarray(pixels).save(folder / "a.png")
        assert evaluate.count_right(local_runner(), model, evaluate.load(folder.parent), PLAIN) == right


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"x": np.zeros((3, 4))}, "'labels'"),
        ({"labels": np.zeros(3, int)}, "needs an array an input"),
        ({"x": np.zeros((3, 4)), "labels": np.zeros(2, int)}, "not as many samples"),
        ({"x": np.zeros((3, 4)), "labels": np.zeros(3)}, "one class a sample"),
        ({"x": np.zeros((3, 4)), "labels": np.array([0, -1, 2])}, "one class a sample"),
        ({"x": np.zeros((0, 4)), "labels": np.zeros(0, int)}, "one class a sample"),
    ],
)
def test_arrays_that_cannot_be_judged_by_are_refused(tmp_path: Path, arrays: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        evaluate.load(saved(tmp_path, **arrays))


@pytest.mark.parametrize("kind", ["missing", "text", "empty folder", "torn archive"])
def test_what_holds_no_samples_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / ("data.npz" if kind == "torn archive" else "data")
    if kind in ("text", "torn archive"):
        path.write_bytes(b"PK\x03\x04 not really")
    if kind == "empty folder":
        (path / "cat").mkdir(parents=True)
    with pytest.raises(UsageError, match="--eval-data"):
        evaluate.load(path)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"x": np.zeros((3, 5)), "labels": np.zeros(3, int)}, r"must be \(samples, 1, 4\)"),
        ({"x": np.zeros((3, 4)), "labels": np.full(3, 4)}, "class 4, identity.onnx tells 4 apart"),
        ({"a": np.zeros((3, 4)), "b": np.zeros((3, 4)), "labels": np.zeros(3, int)}, "no array 'x'; it has a, b"),
    ],
)
def test_samples_that_do_not_fit_the_file_are_refused(
    identity: Path, tmp_path: Path, arrays: dict[str, Any], words: str
) -> None:
    data = evaluate.load(saved(tmp_path, **arrays))
    with pytest.raises(UsageError, match=words):
        evaluate.count_right(local_runner(), identity, data, None)


def test_a_damaged_image_is_named(tmp_path: Path) -> None:
    folder = photos(tmp_path / "photos", cat=1)
    (folder / "cat" / "2.png").write_bytes(b"no image")
    with pytest.raises(UsageError, match=r"2\.png cannot be read"):
        evaluate.count_right(local_runner(), small_onnx(tmp_path / "net.onnx"), evaluate.load(folder), PLAIN)


def test_images_for_a_network_that_takes_none_are_refused(identity: Path, tmp_path: Path) -> None:
    data = evaluate.load(photos(tmp_path / "photos", cat=1))
    with pytest.raises(UsageError, match="not one image"):
        evaluate.count_right(local_runner(), identity, data, PLAIN)
