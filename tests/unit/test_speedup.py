"""Whether int8 is faster than fp32, and who is the reason where it is not."""

from pathlib import Path

import pytest
from small_models import one_node_onnx
from small_results import op, profile

from edgeport import speedup
from edgeport.progress import Silent
from edgeport.records import SCHEMA, Artifact, Calibration, Manifest, Model, Verification
from edgeport.reports import View, explanation
from edgeport.runner import Runner
from edgeport.speedup import Reason, Speedup
from edgeport.stats import Estimate


def manifest(*precisions: str) -> Manifest:
    verified = Verification(1, 0.0, 0.0, None, 1.0)
    files = tuple(Artifact(f"net.{p}.onnx", "onnx", p, "", 0, (), (), verified) for p in precisions)
    model = Model("net", "net.py:net", {}, 0, None, "")
    return Manifest(SCHEMA, model, "x86", Calibration("", 0, ""), {}, files)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What is called int8 is a network of a thousand times the work: which one is slower is no question."""
    one_node_onnx(tmp_path / "net.fp32.onnx", "Conv", (1, 4, 8, 8), (4, 4, 1, 1))
    one_node_onnx(tmp_path / "net.int8.onnx", "Conv", (1, 64, 64, 64), (64, 64, 3, 3))
    return tmp_path


@pytest.fixture(autouse=True)
def _few_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speedup, "BLOCKS", 1)


def test_what_takes_longer_in_int8_is_named(folder: Path, runner: Runner) -> None:
    (found,) = speedup.find(manifest("fp32", "int8"), folder, runner, Silent())
    assert found.runtime == "onnxruntime"
    assert not found.is_faster
    assert found.reasons[0].change.module == "layer"
    assert "Conv" in found.reasons[0].operators
    assert found.reasons[0].change.us == found.reasons[0].change.us_after - found.reasons[0].change.us_before > 0


def test_no_reason_is_given_where_int8_is_faster(folder: Path, runner: Runner) -> None:
    fp32, int8 = folder / "net.fp32.onnx", folder / "net.int8.onnx"
    aside = fp32.rename(folder / "aside.onnx")
    int8.rename(fp32)
    aside.rename(int8)
    (found,) = speedup.find(manifest("fp32", "int8"), folder, runner, Silent())
    assert found.is_faster
    assert found.reasons == ()


def test_one_precision_is_not_compared(folder: Path, runner: Runner) -> None:
    assert speedup.find(manifest("int8"), folder, runner, Silent()) == []


def test_modules_are_listed_by_what_they_lose_with_what_runs_there() -> None:
    fp32 = [profile(op("conv", 100, "a.0"), op("conv", 100, "b"), op("conv", 300, "c"))]
    int8 = [profile(op("conv", 130, "a.0"), op("data", 20, "a.0"), op("data", 20, "a.0"), op("conv", 300, "b"))]
    reasons = speedup._reasons(fp32, int8)
    assert [(r.change.module, r.change.us, r.operators) for r in reasons] == [
        ("b", 200, "CONV_2D"),
        ("a.0", 70, "CONV_2D, 2 PAD"),
    ]


def test_the_report_says_why() -> None:
    fp32, int8 = [profile(op("conv", 100, "b"))], [profile(op("conv", 300, "b"), op("data", 20, "b"))]
    reasons: tuple[Reason, ...] = speedup._reasons(fp32, int8)
    slower = Speedup("onnxruntime", Estimate(1.2, 1.3, 1.4), reasons)
    text = explanation.render(manifest("fp32", "int8"), View(), [slower, Speedup("litert", Estimate(0.4, 0.5, 0.6))])
    assert "onnxruntime    1.30   1.20 to 1.40   no" in text
    assert "litert         0.50   0.40 to 0.60   yes" in text
    assert "onnxruntime: why int8 is not faster: the 1 of 1 modules" in text
    assert "b            100       320     +220   CONV_2D, PAD" in text
