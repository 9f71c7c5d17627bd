"""A phone behind adb: what reaches it, what it tells, how it is chosen, and how it is left."""

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import until

from edgeport.errors import ConnectError, DeviceError, LostConnectionError, UsageError
from edgeport.progress import Silent
from edgeport.runner import Runner
from edgeport.sessions import Access, hold, runner_on
from edgeport.transport import Transport, open_transport

from ..conftest import Here
from .conftest import Emulated

HOSTILE = [
    "",
    " ",
    "a b",
    "$HOME",
    "`id`",
    "$(id)",
    "'",
    '"',
    "\\",
    "*",
    "-n",
    "a;id",
    "a\nb",
    "~",
    "#",
    "ü",
    "\\n",
    "%s",
]


@pytest.fixture
def adb(phone: Emulated) -> Iterator[Transport]:
    with open_transport(phone.device()) as transport:
        yield transport


def command(*words: str) -> str:
    """adb itself, as a user would run it."""
    return subprocess.run(["adb", *words], capture_output=True, text=True, check=True).stdout  # noqa: S607


def on(phone: Emulated, line: str) -> str:
    return command("-s", phone.keys["address"], "shell", line).strip()


def test_words_reach_a_command_as_they_are(adb: Transport) -> None:
    script = 'for word; do printf "%s\\0" "$word"; done'
    assert adb.run(["sh", "-c", script, "sh", *HOSTILE]).out.split("\0")[:-1] == HOSTILE


@pytest.mark.parametrize(("line", "code"), [("exit 0", 0), ("exit 3", 3), ("exit 255", 255), ("kill -9 $$", -9)])
def test_a_command_tells_how_it_ended(adb: Transport, line: str, code: int) -> None:
    done = adb.run(["sh", "-c", f"echo out; printf err >&2; {line}"])
    assert (done.exit_code, done.out) == (code, "out\n")
    assert done.err.startswith("err")  # a shell may add that something was killed


@pytest.mark.parametrize("name", ["model.tflite", "a b;id.onnx", "ü'\".tflite", "-rf.onnx"])
def test_a_file_is_there_as_it_was_whatever_its_name(adb: Transport, tmp_path: Path, name: str) -> None:
    data = os.urandom(300_000)
    (tmp_path / name).write_bytes(data)
    adb.get(adb.put(tmp_path / name), tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == data


def test_what_is_not_kept_is_gone_with_the_session(phone: Emulated, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"model")
    with open_transport(phone.device()) as transport:
        there = transport.put(tmp_path / "model.onnx")
        assert on(phone, f"cat {there}") == "model"
    assert on(phone, f"ls {there} 2>/dev/null || echo gone") == "gone"


def test_a_folder_that_cannot_be_written_to_is_told(phone: Emulated, tmp_path: Path) -> None:
    with (
        open_transport(phone.device(workdir="/system/edgeport")) as transport,
        pytest.raises(DeviceError, match=r"making /system/edgeport failed.*(Permission denied|Read-only)"),
    ):
        transport.put(tmp_path / "devices" / "emulated.toml")


def test_a_broken_connection_is_told_apart_from_a_command_that_failed(phone: Emulated, adb: Transport) -> None:
    """adb itself ends with 0 then, as after a command that did well."""
    process = adb.start(["sleep", "60"], listens=True)
    until(lambda: "sleep 60" in on(phone, "ps"), "the command runs")
    command("disconnect", phone.keys["address"])
    try:
        assert process.line(60) is None
        process.kill()
        assert process.lost
        with pytest.raises(LostConnectionError):
            adb.run(["true"])
    finally:
        command("connect", phone.keys["address"])
    assert adb.run(["true"]).exit_code == 0


def test_a_killed_command_runs_no_more_on_the_phone(phone: Emulated, adb: Transport) -> None:
    process = adb.start(["sh", "-c", "cat; sleep 61 & wait"], listens=True)
    until(lambda: "cat; sleep 61" in on(phone, "ps"), "the command runs")
    process.kill()
    until(lambda: " cat" not in on(phone, "ps").replace("cat; sleep", ""), "the command has ended")


def test_a_damaged_python_is_found_and_unpacked_anew(phone: Emulated) -> None:
    with open_transport(phone.device()) as transport:
        program = next(word for word in transport.python if word.endswith("bin/python3"))
    on(phone, f"printf x | dd of={program} bs=1 seek=1000 conv=notrunc 2>/dev/null")
    with open_transport(phone.device()) as transport:
        assert transport.run([*transport.python, "-c", "import ctypes; print('whole')"]).out == "whole\n"


def test_a_phone_without_a_kit_is_told_how_to_make_one(phone: Emulated) -> None:
    with (
        open_transport(phone.device(android_kit="none.tar")) as transport,
        pytest.raises(DeviceError, match=r"no kit for it in .*none\.tar.*\n?.*devices android-kit"),
    ):
        _ = transport.python


def test_a_kit_that_is_none_is_told(phone: Emulated, tmp_path: Path) -> None:
    (tmp_path / "kit.tar").write_bytes(os.urandom(2000))
    with (
        open_transport(phone.device(android_kit=str(tmp_path / "kit.tar"))) as transport,
        pytest.raises(DeviceError, match=r"kit\.tar cannot be unpacked there: it is damaged"),
    ):
        _ = transport.python
    assert ".part" not in on(phone, "ls /data/local/tmp/edgeport/kit")


@pytest.fixture
def runner(phone: Emulated) -> Iterator[Runner]:
    device = phone.device()
    with open_transport(device) as transport:
        yield runner_on(device, transport, Access())


def test_a_phone_tells_its_state(phone: Emulated, runner: Runner) -> None:
    facts, snapshot = runner.facts(), runner.state().snapshot
    assert facts["device_model"] == "edgeport Emulated phone"
    assert facts["emulated"]
    assert 43.5 in snapshot["celsius"]
    assert snapshot["thermal_status"] == 0
    assert snapshot["battery"] == {"percent": 87, "celsius": 27.1, "powered": True}


def test_a_phone_that_is_hot_is_not_fit(phone: Emulated, here: Here, shufflenet: Path) -> None:
    on(phone, "echo 3 > /data/emulated/thermal_status")
    try:
        model = shufflenet / "shufflenet_v2.int8.tflite"
        told = here("profile", model, "--device", "emulated", "--no-ops", code=3)
        assert "slowed down (thermal status 3 of 6)" in told.err
    finally:
        on(phone, "rm /data/emulated/thermal_status")


@pytest.mark.parametrize("before", ["null", "5"])
def test_a_phone_is_kept_awake_and_steady_and_then_left_as_it_was(phone: Emulated, runner: Runner, before: str) -> None:
    read = "/system/bin/settings get global stay_on_while_plugged_in; cat /data/emulated/fixed_performance"
    change = (
        "delete global stay_on_while_plugged_in"
        if before == "null"
        else f"put global stay_on_while_plugged_in {before}"
    )
    on(phone, f"/system/bin/settings {change}")
    with hold(runner, 0, Silent()):
        assert on(phone, read).split() == ["2", "1"]
    assert on(phone, read).split() == [before, "0"]


def test_a_phone_is_left_as_it_was_where_the_cable_is_pulled(phone: Emulated, runner: Runner) -> None:
    read = "/system/bin/settings get global stay_on_while_plugged_in"
    on(phone, "/system/bin/settings put global stay_on_while_plugged_in 5")
    with contextlib.suppress(DeviceError), hold(runner, 0, Silent()):
        assert on(phone, read) == "2"
        command("disconnect", phone.keys["address"])
        command("connect", phone.keys["address"])
        until(lambda: on(phone, read) == "5", "the phone is as it was")


@contextlib.contextmanager
def another(folder: Path, state: str) -> Iterator[str]:
    """One more that adb knows of. Yields its serial."""
    port = _free_port()
    folder.mkdir()
    options = ["--root", str(folder), "--port", str(port), "--state", state]
    process = subprocess.Popen([sys.executable, "-m", "edgeport.emulated.adbd", *options])
    serial = f"127.0.0.1:{port}"
    try:
        start = time.monotonic()
        while serial not in command("devices") and time.monotonic() < start + 30:
            subprocess.run(["adb", "connect", serial], capture_output=True, check=False)  # noqa: S607
            time.sleep(0.1)
        yield serial
    finally:
        subprocess.run(["adb", "disconnect", serial], capture_output=True, check=False)  # noqa: S607
        process.kill()
        process.wait()


def test_several_phones_are_listed_to_choose_from(
    phone: Emulated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with another(tmp_path / "second", "device") as second:
        with pytest.raises(UsageError, match="several phones are attached; choose one") as error:
            open_transport(phone.device(address="")).__enter__()
        for told in (second, phone.keys["address"], "Emulated phone", "edgeport devices add"):
            assert told in str(error.value)
        monkeypatch.setenv("ANDROID_SERIAL", phone.keys["address"])
        with open_transport(phone.device(address="")) as transport:
            assert "emulated" in transport.run(["getprop", "ro.product.device"]).out


def test_the_one_phone_that_is_there_needs_no_name(phone: Emulated) -> None:
    with open_transport(phone.device(address="")) as transport:
        assert transport.run(["true"]).exit_code == 0


@pytest.mark.parametrize(
    ("state", "step", "remedy"),
    [("unauthorized", "login", "allow USB debugging"), ("offline", "reachable", "unplug and plug it")],
)
def test_a_phone_that_adb_cannot_talk_to_is_told_with_the_remedy(
    phone: Emulated, tmp_path: Path, state: str, step: str, remedy: str
) -> None:
    with another(tmp_path / "second", state) as serial:
        with pytest.raises(ConnectError, match=f"{serial}.*{remedy}") as error:
            open_transport(phone.device(address=serial)).__enter__()
        assert error.value.step == step


def test_a_phone_that_is_not_there_is_told_with_those_that_are(phone: Emulated) -> None:
    with pytest.raises(ConnectError, match="no phone XYZ is attached") as error:
        open_transport(phone.device(address="XYZ")).__enter__()
    assert phone.keys["address"] in str(error.value)


def test_without_adb_there_is_a_word_on_where_to_get_it(phone: Emulated, monkeypatch: pytest.MonkeyPatch) -> None:
    device = phone.device()
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(DeviceError, match="no program adb here; install"):
        open_transport(device).__enter__()


STAND_IN = """#!/system/bin/sh
# Stands in for TensorFlow Lite's benchmark_model: writes what that would, computes nothing.
for word; do case "$word" in
    --graph=*) [ -s "${word#--graph=}" ] || { echo 'ERROR: Failed to mmap model'; exit 1; } ;;
    --op_profiling_output_file=*) out="${word#--op_profiling_output_file=}" ;;
esac; done
[ -z "${out:-}" ] || cat >"$out" <<'END'
Operator-wise Profiling Info for Regular Benchmark Runs:
============================== Run Order ==============================
node type, start, first, avg_ms, %, cdf%, mem KB, times called, name
CONV_2D, 0, 3.1, 3, 60%, 60%, 0, 1, [a, b]:0
MAX_POOL_2D, 3, 1.1, 1, 20%, 80%, 0, 1, [c]:1
END
echo 'INFO: count=1 curr=6000 p5=6000 median=6000 p95=6000'
echo 'INFO: count=4 first=5216 curr=4978 min=4908 max=6861 avg=5000 std=607 p5=4962 median=4900 p95=6862'
echo 'INFO: Inference timings in us: Init: 11951, First inference: 8711, Warmup (avg): 5814, Inference (avg): 5000'
"""


def test_benchmark_model_measures_in_place_of_the_agent(
    phone: Emulated, tmp_path: Path, here: Here, shufflenet: Path
) -> None:
    (tmp_path / "benchmark_model").write_text(STAND_IN)
    keys: dict[str, Any] = {"runner": "benchmark_model", "benchmark_model": str(tmp_path / "benchmark_model")}
    phone.write(**keys, android_kit="none.tar")
    model = shufflenet / "shufflenet_v2.fp32.tflite"
    told = here("profile", model, "--device", "emulated", "--launches", 2, "--num-runs", 4)
    assert "by benchmark_model: one median a launch, no samples" in told.out
    assert "EMULATED" in told.out
    assert "4.90" in told.out
    assert "CONV_2D" in told.out
    assert "no lock is held" in told.err


def test_benchmark_model_runs_no_onnx(phone: Emulated, tmp_path: Path, here: Here, shufflenet: Path) -> None:
    (tmp_path / "benchmark_model").write_text(STAND_IN)
    phone.write(runner="benchmark_model", benchmark_model=str(tmp_path / "benchmark_model"))
    told = here("profile", shufflenet / "shufflenet_v2.fp32.onnx", "--device", "emulated", code=2)
    assert "benchmark_model runs TFLite files alone" in told.err


def test_a_missing_benchmark_model_is_told(phone: Emulated, here: Here, shufflenet: Path) -> None:
    phone.write(runner="benchmark_model")
    told = here("profile", shufflenet / "shufflenet_v2.fp32.tflite", "--device", "emulated", code=2)
    assert 'needs benchmark_model = "FILE"' in told.err


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])
