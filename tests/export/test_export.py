"""`edgeport export` end to end: what is in the folder, and that it is right."""

import hashlib
import json
import shutil
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from ai_edge_litert.interpreter import Interpreter
from command_line import Edgeport, edgeport, network
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper
from PIL import Image

from edgeport import catalog, formats
from edgeport.graph import REQUIRED

from .conftest import SHUFFLENET

Array = NDArray[Any]
FILES = ("fp32.onnx", "int8.onnx", "fp32.tflite", "int8.tflite")
LEFTOVERS_ALLOWED = {"manifest.json", "export.log"}


def manifest_of(folder: Path) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    return manifest


def artifacts_of(folder: Path) -> dict[str, dict[str, Any]]:
    """{"fp32.onnx": its entry in the manifest, ...}."""
    return {a["file"].partition(".")[2]: a for a in manifest_of(folder)["artifacts"]}


def run_onnx(path: Path, *inputs: Array) -> list[Array]:
    """By ONNX Runtime's own Python interface: nothing of edgeport."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return list(session.run(None, dict(zip((i.name for i in session.get_inputs()), inputs, strict=True))))


def run_tflite(path: Path, *inputs: Array) -> list[Array]:
    """By the interpreter's own Python interface: nothing of edgeport."""
    interpreter = Interpreter(model_path=str(path))
    interpreter.allocate_tensors()
    for details, array in zip(interpreter.get_input_details(), inputs, strict=True):
        interpreter.set_tensor(details["index"], array)
    interpreter.invoke()
    return [interpreter.get_tensor(details["index"]) for details in interpreter.get_output_details()]


def decibels(expected: Array, found: Array) -> float:
    """Signal-to-noise ratio."""
    return float(10 * np.log10(np.square(expected).sum() / max(float(np.square(expected - found).sum()), 1e-30)))


# The folder


def test_the_folder_holds_the_files_the_manifest_and_the_log_only(shufflenet: Path) -> None:
    names = {p.name for p in shufflenet.iterdir()}
    assert names == {f"shufflenet_v2.{f}" for f in FILES} | LEFTOVERS_ALLOWED


def test_the_manifest_tells_what_was_exported(shufflenet: Path) -> None:
    manifest = manifest_of(shufflenet)
    model = manifest["model"]
    assert (model["name"], model["source"], model["arguments"]) == ("shufflenet_v2", "shufflenet_v2", {"width": 0.5})
    assert model["parameters"] == 1_366_792
    assert model["weights"] is None
    assert len(model["weights_sha256"]) == 64
    assert "1807.11164" in model["paper"]
    assert manifest["target"] == "x86"
    assert manifest["calibration"]["samples"] > 0
    assert manifest["preprocessing"]["mean"] == [0.485, 0.456, 0.406]


@pytest.mark.parametrize(
    "distribution", ["edgeport", "torch", "onnx", "onnxruntime", "litert-torch", "ai-edge-litert", "ai-edge-quantizer"]
)
def test_the_manifest_tells_the_versions(shufflenet: Path, distribution: str) -> None:
    assert manifest_of(shufflenet)["versions"][distribution] == version(distribution)


@pytest.mark.parametrize("file", FILES)
def test_the_manifest_tells_each_file(shufflenet: Path, file: str) -> None:
    entry, path = artifacts_of(shufflenet)[file], shufflenet / f"shufflenet_v2.{file}"
    precision, _, format = file.partition(".")
    assert (entry["format"], entry["precision"]) == (format, precision)
    assert entry["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert entry["size_bytes"] == path.stat().st_size
    layout = {"onnx": ("NCHW", [1, 3, 64, 64]), "tflite": ("NHWC", [1, 64, 64, 3])}[format]
    (image,), (scores,) = entry["inputs"], entry["outputs"]
    assert (image["layout"], image["shape"]) == layout
    assert (image["name"], image["dtype"], image["quantization"]) == ("x", "float32", None)
    assert (scores["name"], scores["shape"], scores["dtype"]) == ("output", [1, 1000], "float32")
    assert (entry["opset"] is not None) == (format == "onnx")


@pytest.mark.parametrize("file", FILES)
def test_the_manifest_tells_the_verification(shufflenet: Path, file: str) -> None:
    verification = artifacts_of(shufflenet)[file]["verification"]
    calibration, calibrated = manifest_of(shufflenet)["calibration"], artifacts_of(shufflenet)[file]["calibrated"]
    assert (calibration["samples"], calibration["held_back"]) == (32, 8)
    assert verification["held_back"]
    assert [(piece["output"], piece["piece"]) for piece in verification["pieces"]] == [("output", "")]
    assert verification["samples"] == (32 if file.startswith("fp32") else 8)
    if file.startswith("fp32"):
        assert calibrated is None
        assert verification["max_relative_error"] < 1e-4
        assert verification["sqnr_db"] > 80
        assert verification["top1_agreement"] == 1
    else:
        assert (calibrated["samples"], calibrated["held_back"]) == (24, False)
        assert 10 < verification["sqnr_db"] < 60
        assert 0 < verification["top1_agreement"] <= 1


def test_int8_files_are_a_quarter_of_the_size(shufflenet: Path) -> None:
    sizes = {file: entry["size_bytes"] for file, entry in artifacts_of(shufflenet).items()}
    assert sizes["int8.onnx"] < 0.35 * sizes["fp32.onnx"]
    assert sizes["int8.tflite"] < 0.35 * sizes["fp32.tflite"]


def test_a_second_export_gives_the_same_bytes(shufflenet: Path, tmp_path: Path) -> None:
    edgeport("export", *SHUFFLENET, "--target", "x86", "-o", tmp_path, "--quiet")
    for path in shufflenet.iterdir():
        if path.name != "export.log":
            assert (tmp_path / path.name).read_bytes() == path.read_bytes(), path.name


# The files


@pytest.fixture(scope="module")
def shufflenet_and_inputs() -> tuple[torch.nn.Module, Array, Array]:
    """The network that was exported (its random weights are those of a fixed seed), inputs and its answers."""
    torch.manual_seed(0)
    network = catalog.find_factory("shufflenet_v2").call(width=0.5).eval()
    images = torch.randn(4, 3, 64, 64)
    with torch.no_grad():
        return network, images.numpy(), network(images).numpy()


@pytest.mark.parametrize(("file", "at_least_db"), [("fp32.onnx", 80), ("int8.onnx", 8)])
def test_onnx_files_compute_what_the_network_computes(
    shufflenet: Path, shufflenet_and_inputs: tuple[torch.nn.Module, Array, Array], file: str, at_least_db: float
) -> None:
    _, images, expected = shufflenet_and_inputs
    found = np.concatenate([run_onnx(shufflenet / f"shufflenet_v2.{file}", image[None])[0] for image in images])
    assert decibels(expected, found) > at_least_db


@pytest.mark.parametrize(("file", "at_least_db"), [("fp32.tflite", 80), ("int8.tflite", 8)])
def test_tflite_files_compute_what_the_network_computes(
    shufflenet: Path, shufflenet_and_inputs: tuple[torch.nn.Module, Array, Array], file: str, at_least_db: float
) -> None:
    _, images, expected = shufflenet_and_inputs
    last = images.transpose(0, 2, 3, 1)
    found = np.concatenate([run_tflite(shufflenet / f"shufflenet_v2.{file}", image[None])[0] for image in last])
    assert decibels(expected, found) > at_least_db


@pytest.mark.parametrize("file", FILES)
def test_batch_norm_is_folded_and_relu_fused(shufflenet: Path, file: str) -> None:
    kinds = [n.kind.upper() for n in formats.read(shufflenet / f"shufflenet_v2.{file}").nodes]
    assert not {"BATCHNORMALIZATION", "MUL", "ADD", "SUB"} & set(kinds)
    if file.endswith("tflite"):
        assert not {"RELU", "RELU6"} & set(kinds)


@pytest.mark.parametrize("file", FILES)
def test_convolutions_carry_their_modules(
    shufflenet: Path, shufflenet_and_inputs: tuple[torch.nn.Module, Array, Array], file: str
) -> None:
    nodes = formats.read(shufflenet / f"shufflenet_v2.{file}").nodes
    found = [n.module for n in nodes if n.kind.lower() in ("conv", "conv_2d", "depthwise_conv_2d")]
    modules = shufflenet_and_inputs[0].named_modules()
    assert sorted(map(str, found)) == sorted(name for name, m in modules if isinstance(m, torch.nn.Conv2d))


@pytest.mark.parametrize("file", ["fp32.onnx", "int8.onnx"])
def test_onnx_files_are_valid_and_hold_no_paths_of_this_machine(shufflenet: Path, file: str) -> None:
    path = shufflenet / f"shufflenet_v2.{file}"
    onnx.checker.check_model(path, full_check=True)
    data = path.read_bytes()
    assert b".py" not in data
    assert str(Path(torch.__file__).parent).encode() not in data


# int8 for a target, and integer inputs and outputs


def zero_point_types(path: Path) -> set[int]:
    """Element types that QuantizeLinear makes."""
    model = onnx.load(path)
    types = {t.name: t.data_type for t in model.graph.initializer}
    return {types[n.input[2]] for n in model.graph.node if n.op_type == "QuantizeLinear"}


def weights_per_channel(path: Path) -> bool:
    model = onnx.load(path)
    constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    scales = [constants[n.input[1]] for n in model.graph.node if n.op_type == "DequantizeLinear"]
    return any(s.ndim == 1 and s.size == 8 for s in scales)


def test_x86_gets_unsigned_activations_and_arm_signed_ones(shufflenet: Path, small: Path) -> None:
    assert zero_point_types(shufflenet / "shufflenet_v2.int8.onnx") == {TensorProto.UINT8}
    assert zero_point_types(small / "small.int8.onnx") == {TensorProto.INT8}
    assert weights_per_channel(small / "small.int8.onnx")
    assert manifest_of(small)["target"] == "arm"


def check_integer_edges(path: Path, entry: dict[str, Any], dtype: str) -> None:
    """What the manifest says of an integer file is enough to use it, by the runtime alone."""
    (image,), (scores,) = entry["inputs"], entry["outputs"]
    assert (image["dtype"], scores["dtype"]) == (dtype, dtype)
    assert image["quantization"]["scale"] > 0
    assert scores["quantization"]["scale"] > 0
    torch.manual_seed(0)
    made = catalog.find_factory(network("small")).call().eval()
    images = torch.randn(8, 3, 16, 16).clip(-2, 2)
    with torch.no_grad():
        expected = made(images).numpy()
    laid_out = images.numpy() if entry["format"] == "onnx" else images.numpy().transpose(0, 2, 3, 1)
    limits = np.iinfo(dtype)
    stored = np.round(laid_out / image["quantization"]["scale"]) + image["quantization"]["zero_point"]
    quantized = stored.clip(limits.min, limits.max).astype(dtype)
    run = run_onnx if entry["format"] == "onnx" else run_tflite
    found = np.concatenate([run(path, q[None])[0] for q in quantized])
    assert found.dtype == dtype
    real = (found.astype(np.float64) - scores["quantization"]["zero_point"]) * scores["quantization"]["scale"]
    assert decibels(expected, real) > 15
    assert entry["verification"]["sqnr_db"] > 15


@pytest.mark.parametrize("format", ["onnx", "tflite"])
def test_integer_inputs_and_outputs(small: Path, format: str) -> None:
    check_integer_edges(small / f"small.int8.{format}", artifacts_of(small)[f"int8.{format}"], "int8")
    floats = artifacts_of(small)[f"fp32.{format}"]
    assert {i["dtype"] for i in (*floats["inputs"], *floats["outputs"])} == {"float32"}


def test_integer_inputs_and_outputs_for_x86_and_of_a_chosen_precision(tmp_path: Path, here: Edgeport) -> None:
    choice = ("--formats", "onnx", "--precisions", "int8")
    here("export", network("small"), *choice, "--target", "x86", "--int8-io", "-o", tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {"small.int8.onnx", *LEFTOVERS_ALLOWED}
    check_integer_edges(tmp_path / "small.int8.onnx", artifacts_of(tmp_path)["int8.onnx"], "uint8")


# Options


def entries(folder: Path) -> Sequence[str]:
    return list(artifacts_of(folder))


def test_a_folder_is_filled_in_several_exports(small: Path, tmp_path: Path, here: Edgeport) -> None:
    folder = tmp_path / "small"
    shutil.copytree(small, folder)
    kept = {file: (folder / f"small.{file}").read_bytes() for file in FILES}
    same = ("export", network("small"), "--target", "arm", "--int8-io", "-o", folder, "--formats=tflite")
    done = here(*same, "--precisions=fp32")
    assert done.out.splitlines()[0].startswith(str(folder / "small.fp32.tflite"))
    assert sorted(entries(folder)) == sorted(FILES)
    assert {file: (folder / f"small.{file}").read_bytes() for file in FILES} == kept
    # Of another network, an earlier one's files are no longer what the manifest describes.
    here(*same, "--precisions=fp32", "--set", "channels=4")
    assert entries(folder) == ["fp32.tflite"]
    assert manifest_of(folder)["model"]["arguments"] == {"channels": 4}


def test_files_that_were_changed_since_do_not_stay_in_the_manifest(small: Path, tmp_path: Path, here: Edgeport) -> None:
    folder = tmp_path / "small"
    shutil.copytree(small, folder)
    with (folder / "small.int8.onnx").open("ab") as f:
        f.write(b"changed")
    (folder / "small.int8.tflite").unlink()
    here("export", network("small"), "--target=arm", "--formats=tflite", "--precisions=fp32", "-o", folder)
    assert sorted(entries(folder)) == ["fp32.onnx", "fp32.tflite"]


def test_the_files_are_named_as_asked(tmp_path: Path, here: Edgeport) -> None:
    here("export", network("small"), "--name=mine", "--formats=tflite", "--precisions=fp32", "-o", tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {"mine.fp32.tflite", *LEFTOVERS_ALLOWED}
    assert manifest_of(tmp_path)["model"]["name"] == "mine"


def test_random_weights_are_warned_of_even_when_quiet(tmp_path: Path, here: Edgeport) -> None:
    done = here("export", network("small"), "--formats=tflite", "--precisions=fp32", "-q", "-o", tmp_path)
    assert "the weights are random" in done.err
    assert "✓" not in done.err


def test_weights_and_images_of_the_users_own(tmp_path: Path, here: Edgeport) -> None:
    torch.manual_seed(1)
    trained = catalog.find_factory(network("small")).call().eval()
    torch.save({"state_dict": {f"module.{k}": v for k, v in trained.state_dict().items()}}, tmp_path / "w.pth")
    photos = tmp_path / "photos"
    photos.mkdir()
    generator = np.random.default_rng(0)
    for i in range(3):
        Image.fromarray(generator.integers(0, 255, (20, 24, 3), np.uint8)).save(photos / f"{i}.png")
    out = tmp_path / "out"
    options = ("--weights", tmp_path / "w.pth", "--calibration-data", photos, "--formats=tflite", "-o", out)
    done = here("export", network("small"), *options)
    assert "the weights are random" not in done.err
    assert "photos that edgeport ships" not in done.err
    manifest = manifest_of(out)
    assert manifest["model"]["weights"] == "w.pth"
    assert manifest["calibration"]["samples"] == 3
    image = torch.randn(1, 3, 16, 16)
    with torch.no_grad():
        expected = trained(image).numpy()
    found = run_tflite(out / "small.fp32.tflite", np.ascontiguousarray(image.numpy().transpose(0, 2, 3, 1)))[0]
    assert decibels(expected, found) > 80


def test_int8_that_loses_too_much_is_refused_and_the_rest_is_written(tmp_path: Path, here: Edgeport) -> None:
    done = here("export", network("small"), "--formats=tflite", "--min-sqnr-db=90", "-o", tmp_path, code=3)
    assert "tflite int8" in done.err
    assert "int8 loses too much, from 0 on: " in done.err
    assert "90 dB" in done.err
    assert "--weights" in done.err
    assert "--calibration-data" in done.err
    assert {p.name for p in tmp_path.iterdir()} == {"small.fp32.tflite", *LEFTOVERS_ALLOWED}
    assert entries(tmp_path) == ["fp32.tflite"]


# Passes that make the network faster


@pytest.mark.parametrize("file", ["fp32.onnx", "fp32.tflite"])
def test_passes_change_no_answer(file: str, shufflenet: Path, unrouted: Path) -> None:
    image = np.random.default_rng(0).standard_normal((1, 3, 64, 64)).astype(np.float32)
    run, given = (run_onnx, image) if file.endswith("onnx") else (run_tflite, np.moveaxis(image, 1, 3).copy())
    fast, plain = (run(folder / f"shufflenet_v2.{file}", given)[0] for folder in (shufflenet, unrouted))
    assert decibels(plain, fast) > 100


def test_passes_are_told_in_the_manifest(shufflenet: Path, unrouted: Path) -> None:
    told = {p["name"]: p for p in manifest_of(shufflenet)["passes"]}
    assert told["fold_batch_norm"]["changes"] == 56
    assert told["route_channels"]["changes"] > 0
    assert all(p["what"] for p in told.values())
    assert told["fold_batch_norm"]["formats"] == ["onnx", "tflite"]
    assert told["widen_pooling"]["formats"] == ["tflite"]
    assert told["widen_pooling"]["changes"] == 1
    assert [p["name"] for p in manifest_of(unrouted)["passes"]] == list(REQUIRED)


def test_passes_of_files_that_an_earlier_export_made_stay_in_the_manifest(tmp_path: Path, here: Edgeport) -> None:
    told = []
    for format in ("tflite", "onnx", "tflite"):
        here("export", network("small"), f"--formats={format}", "--precisions=fp32", "-o", tmp_path)
        told.append([(p["name"], p["formats"]) for p in manifest_of(tmp_path)["passes"]])
    assert ("widen_pooling", ["tflite"]) in told[0]
    assert sorted(told[1]) == sorted(told[2]) == sorted([*told[0], ("pool_means", ["onnx"])])
    assert len(manifest_of(tmp_path)["artifacts"]) == 2
    (tmp_path / "small.fp32.tflite").unlink()
    here("export", network("small"), "--formats=onnx", "--precisions=fp32", "-o", tmp_path)
    kept = [formats for _, formats in told[0] if formats != ["tflite"]]
    assert [p["formats"] for p in manifest_of(tmp_path)["passes"]] == [*kept, ["onnx"]]


def test_explain_says_what_the_passes_did(tmp_path: Path, here: Edgeport) -> None:
    options = ("--formats=tflite", "--precisions=fp32", "--explain", "-o", tmp_path)
    said = here("export", network("small"), *options).out
    assert "what the graph passes did" in said
    assert "fold_batch_norm" in said
    assert "Multiplies a batch normalisation" in said


def test_between_quantised_operators_nothing_is_dequantised(shufflenet: Path, tmp_path: Path) -> None:
    """In the graph that ONNX Runtime makes of the file: floats are only blocks of pixels, and the answers."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    onnxruntime.InferenceSession(shufflenet / "shufflenet_v2.int8.onnx", options, providers=["CPUExecutionProvider"])
    graph = onnx.load(tmp_path / "optimized.onnx").graph
    makers = {name: n.op_type for n in graph.node for name in n.output}
    assert [makers[n.input[0]] for n in graph.node if n.op_type == "QuantizeLinear"] == ["SpaceToDepth"]
    assert "DequantizeLinear" not in makers.values()  # the last layer's answers are floats as it adds them up
