"""By what an exported file is judged: each piece of its outputs, on samples that it has not seen or numbers drawn."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import Edgeport, network
from PIL import Image

from edgeport.export import verify
from edgeport.export.calibrate import Array
from edgeport.runner import Runner, local_runner

from .judged_networks import Text

NETWORKS = Path(__file__).with_name("judged_networks.py")
TOKENS = ("--input-shape=1,12:int64", "--input-shape=1,12:int64")
IMAGE = ("--input-shape=1,3,16,16",)


def manifest_of(folder: Path) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    return manifest


def photos(folder: Path, count: int) -> Path:
    folder.mkdir()
    generator = np.random.default_rng(0)
    for i in range(count):
        Image.fromarray(generator.integers(0, 255, (20, 24, 3), np.uint8)).save(folder / f"{i}.png")
    return folder


def test_pieces_and_outputs_are_recorded_each_with_both_figures(tmp_path: Path, here: Edgeport) -> None:
    options = ("--formats=onnx", "--min-sqnr-db=-200", "--explain", "-o", tmp_path)
    done = here("export", f"{NETWORKS}:Detector", *IMAGE, *options)
    names = [("found", "[:, 0:4]"), ("found", "[:, 4:9]"), ("best", "")]
    fp32, int8 = manifest_of(tmp_path)["artifacts"]
    for verification in (fp32["verification"], int8["verification"], int8["calibrated"]):
        assert [(p["output"], p["piece"]) for p in verification["pieces"]] == names
        boxes, scores, best = verification["pieces"]
        assert boxes["agreement"] is scores["agreement"] is best["sqnr_db"] is None
        assert 0 <= best["agreement"] <= 1
        assert verification["top1_agreement"] is None
    assert (int8["verification"]["samples"], int8["calibrated"]["samples"]) == (8, 24)
    assert int8["verification"]["held_back"]
    assert "8 held back" in done.err
    table = done.out[done.out.index("how far the files are from PyTorch") :]
    rows = [line for line in table.splitlines() if "Detector.int8.onnx" in line][:3]
    assert [name in row for name, row in zip(("found[:, 0:4]", "found[:, 4:9]", "best"), rows, strict=True)] == [
        True
    ] * 3
    assert f"{int8['calibrated']['pieces'][0]['sqnr_db']:.1f}" in rows[0]


def test_int8_is_refused_by_its_worst_piece_with_advice_that_can_help(tmp_path: Path, here: Edgeport) -> None:
    data = photos(tmp_path / "photos", 3)
    options = ("--formats=onnx", "--min-sqnr-db=200", "--calibration-data", data, "-o", tmp_path / "out")
    done = here("export", f"{NETWORKS}:Detector", *IMAGE, *options, code=3)
    assert "of output 'found', below 200 dB" in done.err
    assert "--calibration-method auto" in done.err
    assert "--weights" in done.err.partition("give ")[2]


def test_few_samples_are_not_held_back_and_that_is_said(tmp_path: Path, here: Edgeport) -> None:
    data = photos(tmp_path / "photos", 7)
    options = ("--formats=onnx", "--calibration-data", data, "--min-sqnr-db=-200", "--explain", "-o", tmp_path / "out")
    done = here("export", f"{NETWORKS}:Detector", *IMAGE, *options)
    (int8,) = [a for a in manifest_of(tmp_path / "out")["artifacts"] if a["precision"] == "int8"]
    assert (int8["verification"]["held_back"], int8["verification"]["samples"]) == (False, 7)
    assert int8["calibrated"] is None
    assert "7 not held back" in done.err
    assert "7, not held back" in done.out


def test_tokens_are_drawn_from_all_rows_and_masks_keep_something(tmp_path: Path, here: Edgeport) -> None:
    """The figures are those of any tokens."""
    done = here("export", f"{NETWORKS}:Text", *TOKENS, "--formats=onnx", "-o", tmp_path)
    drawn = "tokens whole numbers 0 to 299; attention_mask ones, then zeros"
    assert f"random numbers ({drawn})" in done.err
    manifest = manifest_of(tmp_path)
    assert manifest["calibration"]["source"] == f"random numbers, drawn: {drawn}"
    said = manifest["artifacts"][1]["verification"]
    assert said["held_back"]
    generator = np.random.default_rng(9)
    tokens = generator.integers(0, 300, (64, 1, 12))
    mask = (np.arange(12) < generator.integers(6, 13, (64, 1, 1))).astype(np.int64)
    torch.manual_seed(0)
    made = Text().eval()
    with torch.no_grad():
        expected = np.stack([made(*map(torch.from_numpy, pair)).numpy() for pair in zip(tokens, mask, strict=True)])
    found = verify.run_artifact(local_runner(), tmp_path / "Text.int8.onnx", [tokens, mask])[0]
    measured = 10 * math.log10(float((expected**2).sum() / ((found - expected) ** 2).sum()))
    assert said["sqnr_db"] == pytest.approx(measured, abs=3)


def test_numbers_that_a_network_does_not_take_are_an_error(tmp_path: Path, here: Edgeport) -> None:
    done = here("export", f"{NETWORKS}:Rows", "--input-shape=1,12:int64", "-o", tmp_path, code=3)
    assert "does not take the samples (random numbers, drawn: x whole numbers 0 to 9): IndexError" in done.err
    assert "--calibration-data" in done.err


def test_a_network_that_answers_nothing_is_an_error(tmp_path: Path, here: Edgeport) -> None:
    done = here("export", f"{NETWORKS}:Nothing", "--input-shape=1,7", "-o", tmp_path, code=3)
    assert "PyTorch's own output 'output' has no finite number for any sample" in done.err
    assert not (tmp_path / "manifest.json").exists()


@pytest.mark.parametrize(("value", "what"), [("nan", "1 NaN, 0 infinite"), ("inf", "0 NaN, 1 infinite")])
def test_weights_that_are_no_numbers_are_named(value: str, what: str, tmp_path: Path, here: Edgeport) -> None:
    """A buffer may hold infinity: a mask does."""
    done = here("export", f"{NETWORKS}:Holder", "--set", f"value={value}", *IMAGE, "-o", tmp_path, code=3)
    assert f"inner.0.weight in module inner.0 ({what} of 12)" in done.err
    assert "mask" not in done.err


@pytest.fixture
def wrong_fp32(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """fp32 TFLite files that answer wrongly; the names of all files that were run."""
    ran: list[str] = []
    run = verify.run_artifact

    def wrong(runner: Runner, artifact: Path, arrays: Sequence[Array], exact: bool) -> verify.Outputs:
        ran.append(artifact.name)
        outputs = run(runner, artifact, arrays, exact)
        return [output * 1.01 for output in outputs] if artifact.name == "fp32.tflite" else outputs

    monkeypatch.setattr(verify, "run_artifact", wrong)
    return ran


@pytest.mark.parametrize("precisions", ["fp32,int8", "int8"])
def test_no_int8_is_made_of_an_fp32_file_that_is_wrong(
    precisions: str, wrong_fp32: list[str], tmp_path: Path, here: Edgeport
) -> None:
    done = here("export", network("small"), f"--precisions={precisions}", "-o", tmp_path, code=3)
    assert "tflite fp32: its outputs differ from PyTorch's by 1.0e-02 of their largest" in done.err
    assert "tflite int8: not made, because the tflite fp32 file that it comes from failed" in done.err
    assert sorted(wrong_fp32) == ["fp32.onnx", "fp32.tflite", "int8.onnx"]  # each once
    names = [a["file"] for a in manifest_of(tmp_path)["artifacts"]]
    assert names == [f"small.{precision}.onnx" for precision in precisions.split(",")]
    assert not list(tmp_path.glob("*.tflite"))
