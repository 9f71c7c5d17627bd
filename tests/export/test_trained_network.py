"""What int8 costs a network that was trained: on labelled images, and the check that says so."""

import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

SCRIPTS = Path(__file__).parents[2] / "scripts"
FORMATS = ("onnx", "tflite")
Scores = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def scores() -> Scores:
    """{file: numbers of test images}, if the check's own verdict is good."""
    command = [sys.executable, str(SCRIPTS / "check_int8.py"), "--format=json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "FetchError" in done.stderr:
        pytest.skip(f"no package registry: {done.stderr.strip()[-300:]}")
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    return {score["file"]: score for score in json.loads(done.stdout)["files"]}


def script(name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A script as a module; scripts find each other by their folder."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return importlib.import_module(name)


@pytest.mark.parametrize("file_format", FORMATS)
def test_the_network_is_trained(scores: Scores, file_format: str) -> None:
    fp32 = scores[f"shufflenet_v2.fp32.{file_format}"]
    assert fp32["images"] == 10_000
    assert fp32["right"] >= 9_150


@pytest.mark.parametrize("file_format", FORMATS)
def test_int8_names_as_many_images_rightly_as_fp32_and_gives_the_same_classes(scores: Scores, file_format: str) -> None:
    fp32, int8 = (scores[f"shufflenet_v2.{precision}.{file_format}"] for precision in ("fp32", "int8"))
    assert int8["right"] >= fp32["right"] - 50
    assert int8["same_class"] >= 9_900


@pytest.mark.parametrize(
    ("wrong", "other", "good"),
    [(0, 0, True), (5, 5, True), (6, 0, False), (0, 11, False)],
    ids=["equal", "at the limit", "less accurate", "other mistakes"],
)
def test_the_check_fails_where_int8_is_less_accurate_or_makes_other_mistakes(
    wrong: int, other: int, good: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = script("check_int8", monkeypatch)
    labels = np.zeros(1000, np.uint8)
    fp32 = np.where(np.arange(1000) < 100, 1, 0)  # 100 images named wrongly
    int8 = fp32.copy()
    int8[-wrong or 1000 :] = 1
    int8[:other] = 2
    classes = {"n.fp32.onnx": fp32, "n.int8.onnx": int8}
    assert check.passes(check.score("n.fp32.onnx", classes, labels))
    assert check.passes(check.score("n.int8.onnx", classes, labels)) == good


@pytest.fixture
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
def test_training_again_gives_the_same_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    training = script("train_fashion_mnist", monkeypatch)
    monkeypatch.setattr(training, "BATCH", 16)
    generator = np.random.default_rng(0)
    images = generator.integers(256, size=(2 * training.BATCH, 28, 28), dtype=np.uint8)
    data = training.Labelled(images, generator.integers(training.CLASSES, size=len(images), dtype=np.uint8))
    first, second = (training.train(data, epochs=1, seed=0).state_dict() for _ in range(2))
    assert all(torch.equal(value, second[key]) for key, value in first.items())
