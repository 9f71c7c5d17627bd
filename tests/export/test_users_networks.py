"""Networks that users bring: converted and verified, or refused by operator and module, what does convert kept."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import Edgeport, Ended, edgeport, network
from torch import Tensor

from edgeport import catalog

from .test_export import decibels, run_onnx, run_tflite


def made(name: str) -> Callable[..., Any]:
    """The network that edgeport exports: random weights of its fixed seed."""
    torch.manual_seed(0)
    factory: Callable[..., Any] = catalog.find_factory(network(name)).call
    return factory().eval()  # type: ignore[no-any-return]


def manifest_of(folder: Path) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    return manifest


def files_in(folder: Path) -> set[str]:
    return {p.name for p in folder.iterdir()} - {"export.log", "manifest.json"}


def run_both(folder: Path, name: str, *images: Tensor) -> tuple[list[Any], list[Any]]:
    """What the two fp32 files answer, by the runtimes alone, in the network's layout."""
    first = [image.numpy() for image in images]
    last = [np.ascontiguousarray(a.transpose(0, 2, 3, 1)) if a.ndim == 4 else a for a in first]
    found = run_tflite(folder / f"{name}.fp32.tflite", *last)
    turned = [a.transpose(0, 3, 1, 2) if a.ndim == 4 else a for a in found]
    return run_onnx(folder / f"{name}.fp32.onnx", *first), turned


def test_two_inputs_and_a_dict_of_outputs(tmp_path: Path, here: Edgeport) -> None:
    shapes = ("--input-shape=1,3,12,16", "--input-shape=1,3,12,16")
    done = here("export", network("two_inputs"), *shapes, "-o", tmp_path)
    assert "random numbers" in done.err  # two images are no image: ranges come from no photos
    entries = manifest_of(tmp_path)["artifacts"]
    assert [a["file"].partition(".")[2] for a in entries] == ["fp32.onnx", "int8.onnx", "fp32.tflite", "int8.tflite"]
    for entry in entries:
        assert [i["name"] for i in entry["inputs"]] == ["left", "right"]
        assert sorted(o["name"] for o in entry["outputs"]) == ["features", "score"]
    left, right = torch.randn(1, 3, 12, 16), torch.randn(1, 3, 12, 16)
    with torch.no_grad():
        expected = made("two_inputs")(left, right)
    names = [o["name"] for o in entries[0]["outputs"]]
    for outputs in run_both(tmp_path, "two_inputs", left, right):
        for name, found in zip(names, outputs, strict=True):
            assert decibels(expected[name].numpy(), found) > 80


def test_integers_in_and_a_calibration_file(tmp_path: Path, here: Edgeport) -> None:
    """Arrays by the inputs' names, without their batch of 1."""
    generator = np.random.default_rng(0)
    images = generator.standard_normal((5, 3, 12, 16)).astype(np.float32)
    np.savez(tmp_path / "samples.npz", left=images, right=images[::-1])
    shapes = ("--input-shape=1,3,12,16", "--input-shape=1,3,12,16")
    options = ("--calibration-data", tmp_path / "samples.npz", "--formats=tflite", "-o", tmp_path / "out")
    done = here("export", network("two_inputs"), *shapes, *options)
    assert "random numbers" not in done.err
    assert manifest_of(tmp_path / "out")["calibration"]["samples"] == 5


def test_operators_in_place(tmp_path: Path, here: Edgeport) -> None:
    here("export", network("in_place"), "-o", tmp_path, "--precisions=fp32")
    image = torch.randn(1, 3, 16, 16)
    with torch.no_grad():
        expected = made("in_place")(image).numpy()
    for outputs in run_both(tmp_path, "in_place", image):
        assert decibels(expected, outputs[0]) > 80


def test_batch_norm_that_follows_no_convolution(tmp_path: Path, here: Edgeport) -> None:
    here("export", network("before_norm"), "-o", tmp_path, "--formats=tflite", "--precisions=fp32")
    image = torch.randn(1, 3, 16, 16)
    with torch.no_grad():
        expected = made("before_norm")(image).numpy()
    last = np.ascontiguousarray(image.numpy().transpose(0, 2, 3, 1))
    assert decibels(expected, run_tflite(tmp_path / "before_norm.fp32.tflite", last)[0]) > 80


def test_padded_pooling_of_negative_numbers_survives_int8(tmp_path: Path, here: Edgeport) -> None:
    here("export", network("padded_pooling"), "-o", tmp_path, "--formats=tflite")
    int8 = manifest_of(tmp_path)["artifacts"][1]
    assert int8["verification"]["sqnr_db"] > 25


@pytest.mark.parametrize("options", [("--formats=tflite",), ("--formats=onnx", "--int8-io")], ids=" ".join)
def test_outputs_that_the_network_itself_reads(options: tuple[str, ...], tmp_path: Path, here: Edgeport) -> None:
    here("export", network("embedding"), "-o", tmp_path, *options)
    for entry in manifest_of(tmp_path)["artifacts"]:
        assert [o["name"] for o in entry["outputs"]] == ["scores", "embedding", "features"]
        assert entry["verification"]["sqnr_db"] > 25
        integers = "--int8-io" in options and entry["precision"] == "int8"
        assert {o["dtype"] for o in entry["outputs"]} == {"uint8" if integers else "float32"}


def test_an_image_without_a_batch(tmp_path: Path, here: Edgeport) -> None:
    options = ("--input-shape=3,16,16", "--formats=tflite", "--precisions=fp32", "-o", tmp_path)
    here("export", network("one_image"), *options)
    image = torch.randn(3, 16, 16)
    with torch.no_grad():
        expected = made("one_image")(image).numpy()
    assert decibels(expected, run_tflite(tmp_path / "one_image.fp32.tflite", image.numpy())[0]) > 80


# By litert-torch, in a process of its own, which takes ten seconds or more


@pytest.fixture(scope="module")
def rare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exports") / "rare"
    edgeport("export", network("rare"), "-o", folder, "--min-sqnr-db=5")
    return folder


def test_operators_that_the_own_lowering_does_not_know_are_converted_all_the_same(rare: Path) -> None:
    log = (rare / "export.log").read_text()
    assert "converted by litert-torch" in log
    assert ("move_channels_last", ["tflite"]) in [(p["name"], p["formats"]) for p in manifest_of(rare)["passes"]]
    assert "aten.prelu.default in stem.1" in log
    assert len(files_in(rare)) == 4
    image = torch.randn(1, 3, 16, 16)
    with torch.no_grad():
        expected = made("rare")(image).numpy()
    for outputs in run_both(rare, "rare", image):
        assert decibels(expected, outputs[0]) > 80


def test_what_litert_torch_converts_is_traced_to_modules_too(rare: Path, here: Edgeport) -> None:
    options = ("--precision=fp32", "--format=json", "--launches=1", "--num-runs=3")
    for found in json.loads(here("profile", rare, *options).out):
        products = [op["module"] for op in found["ops"] if op["class"] == "conv"]
        assert products == ["stem.0", "stem.2", "tokens.1"], found["runtime"]


@pytest.fixture(scope="module")
def half_refused(tmp_path_factory: pytest.TempPathFactory) -> tuple[Ended, Path]:
    """An export of a network of which ONNX has all operators and TFLite does not."""
    folder = tmp_path_factory.mktemp("exports") / "half"
    options = ("--set", "name=fft2", "--precisions=fp32", "-o", folder)
    return edgeport("export", network("calling"), *options, code=3), folder


def test_what_converts_to_one_format_is_kept_when_the_other_fails(half_refused: tuple[Ended, Path]) -> None:
    done, folder = half_refused
    assert "tflite fp32: " in done.err
    assert "written to" in done.err
    assert files_in(folder) == {"calling.fp32.onnx"}
    assert [a["file"] for a in manifest_of(folder)["artifacts"]] == ["calling.fp32.onnx"]


@pytest.mark.parametrize("name", ["svd", "lgamma"])  # the second is decomposed further before it is refused
def test_an_operator_that_a_format_does_not_have_is_named_with_its_module(
    name: str, tmp_path: Path, here: Edgeport
) -> None:
    options = ("--set", f"name={name}", "--formats=onnx", "--precisions=fp32", "-o", tmp_path)
    done = here("export", network("calling"), *options, code=3)
    line = next(line for line in done.err.splitlines() if "onnx fp32: " in line)
    operator = {"svd": "aten._linalg_svd.default", "lgamma": "aten.lgamma.default"}[name]
    assert f"operator {operator} in module 1.0 cannot be converted" in line
    assert str(tmp_path / "export.log") in line
    assert "nothing" in done.err.splitlines()[-1]
    assert [p.name for p in tmp_path.iterdir()] == ["export.log"]


def test_a_converters_own_error_is_one_line_and_names_the_module(half_refused: tuple[Ended, Path]) -> None:
    done, _ = half_refused
    line = next(line for line in done.err.splitlines() if "tflite fp32: " in line)
    assert "in module 1.0" in line
    assert "\\n" not in line
    assert len(line) < 400
