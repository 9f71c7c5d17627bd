"""The whole way: a network's four files, measured and broken down on an emulated board and an emulated phone."""

import json
from pathlib import Path
from typing import Any

import pytest

from ..conftest import Here
from .conftest import Emulated

FEW = ("--launches", 1, "--num-runs", 4, "--warmup-runs", 1)
FOUR = {(runtime, precision) for runtime in ("litert", "onnxruntime") for precision in ("fp32", "int8")}
ATTRIBUTED = 0.95


def assert_broken_down(results: list[dict[str, Any]]) -> None:
    """Both precisions with both runtimes, each operator by operator, and each known to be emulated."""
    assert {(r["runtime"], r["precision"]) for r in results} == FOUR
    for result in results:
        assert result["emulated"]
        assert result["facts"]["machine"] == "aarch64"
        assert len(result["ops"]) > 80  # its 56 convolutions, and what moves channels between them
        assert {"conv1.0", "conv5.0", "fc"} <= {op["module"] for op in result["ops"]}
        assert result["classes"]["conv"]["share"] > 0.3
        assert result["unattributed_share"] <= 1 - ATTRIBUTED, (result["runtime"], result["precision"])


def test_a_pi_is_set_up_by_one_command_and_breaks_a_network_down(pi: Emulated, shufflenet: Path, here: Here) -> None:
    assert "emulated is ready" in here("devices", "setup", "emulated").out
    told = here("profile", shufflenet, "--device", "emulated", *FEW, "--format", "json", "-o", "result.json")
    assert "MB pushed" not in told.err  # but for the models
    assert_broken_down(json.loads(Path("result.json").read_text()))


def test_a_phone_breaks_a_network_down(phone: Emulated, shufflenet: Path, here: Here) -> None:
    here("profile", shufflenet, "--device", "emulated", *FEW, "--format", "json", "-o", "result.json")
    assert_broken_down(json.loads(Path("result.json").read_text()))


def test_both_at_once_stand_in_one_table_that_says_emulated(
    one_pi: Emulated, phone: Emulated, shufflenet: Path, here: Here
) -> None:
    one_pi.write()
    Path("devices/emulated.toml").rename("devices/pi.toml")
    phone.write()
    model = shufflenet / "shufflenet_v2.int8.tflite"
    out = here("profile", model, "--device", "pi", "--device", "emulated", *FEW, "--no-ops").out
    assert out.count("EMULATED: these times say nothing of a real device") == 2
    assert "pi (EMULATED)" in out
    assert "emulated (EMULATED)" in out


@pytest.mark.parametrize("kind", ["one_pi", "one_phone"])
def test_devices_check_proves_every_step(kind: str, request: pytest.FixtureRequest, here: Here) -> None:
    request.getfixturevalue(kind.removeprefix("one_"))
    steps = json.loads(here("devices", "check", "emulated", "--format", "json").out)["steps"]
    status = {step["name"]: step["status"] for step in steps}
    assert set(status.values()) <= {"PASS", "WARN"}
    assert status["litert"] == status["onnxruntime"] == status["telemetry"] == "PASS"
    assert "EMULATED" in next(step["text"] for step in steps if step["name"] == "run")
    if kind == "one_phone":
        assert {"ABI", "pages", "loader"} <= set(status)
