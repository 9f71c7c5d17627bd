"""The host's side of the agent against the agent itself, in processes of their own: what fails becomes a message."""

import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from small_models import RUNTIMES, SUFFIX, mixed_tflite, one_node_onnx, small_model, small_onnx, small_tflite

from edgeport import protocol
from edgeport.agent.litert import between_us
from edgeport.errors import DeviceError
from edgeport.runner import Runner
from edgeport.transport import Local

pytestmark = pytest.mark.usefixtures("cache")

FEW = ("--num-runs=3", "--warmup-runs=1")
LONG = ("--num-runs=100000000", "--warmup-runs=0")


def failure(runner: Runner, runtime: str, model: Path, *options: str, command: str = "latency") -> str:
    with pytest.raises(DeviceError) as error:
        runner.run(command, runtime, model, options)
    return str(error.value)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_run_gives_the_agents_messages_by_their_kind(runner: Runner, tmp_path: Path, runtime: str) -> None:
    heard: list[type[protocol.Message]] = []
    messages = runner.run("latency", runtime, small_model(tmp_path, runtime), FEW, lambda m: heard.append(type(m)))
    kinds = [protocol.Hello, protocol.Ready, protocol.First, protocol.Samples, protocol.Bye]
    assert heard == kinds == messages.kinds()
    assert len(messages[protocol.Samples].ns) == 3
    assert min(messages[protocol.Samples].ns) > 0
    assert (messages[protocol.Bye].peak_bytes or 0) > 0


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_profile_has_every_operator_and_the_whole_run(runner: Runner, tmp_path: Path, runtime: str) -> None:
    options = (*FEW, f"--scratch={tmp_path}")
    rows = runner.run("ops", runtime, small_model(tmp_path, runtime), options)[protocol.Ops].rows
    assert {"invoke", "between"} <= {row.source for row in rows}
    assert len(rows) > 2
    assert all(len(row.us) == 3 for row in rows)


@pytest.mark.parametrize(
    ("spans", "expected"),
    [
        ([], 0),
        ([(100, 10), (113, 5), (118, 1)], 3),
        ([(0, 40), (0, 2), (1000, 10), (1004, 5), (1017, 1)], 8),  # LiteRT's own operators, behind delegated ones
        ([(1000, 10), (0, 40), (1100, 5), (1107, 5)], 2),
    ],
)
def test_what_passes_beside_a_delegate_is_not_counted_as_between(spans: list[tuple[int, int]], expected: int) -> None:
    assert between_us(spans) == expected


def test_operators_that_litert_runs_itself_leave_time_between_that_fits_into_the_run(
    runner: Runner, tmp_path: Path
) -> None:
    """XNNPACK takes the convolution and knows no CUMSUM."""
    options = (*FEW, f"--scratch={tmp_path}")
    rows = runner.run("ops", "litert", mixed_tflite(tmp_path / "mixed.tflite"), options)[protocol.Ops].rows
    assert [row.source for row in rows if row.source != "invoke"] == ["delegate", "runtime", "runtime", "between"]
    whole = next(row.us for row in rows if row.source == "invoke")
    parts = zip(*(row.us for row in rows if row.source != "invoke"), strict=True)
    assert all(sum(part) <= us for part, us in zip(parts, whole, strict=True))


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_outputs_are_what_the_network_computes(runner: Runner, tmp_path: Path, runtime: str) -> None:
    """All weights are 1: of an image of ones, each of 8 x 6 x 6 inner outputs is the sum of 27 of them."""
    data, out = tmp_path / "in", tmp_path / "out"
    data.write_bytes(np.ones((2, 3 * 64), np.float32).tobytes())
    options = [f"--data={data}", f"--result={out}", "--samples=2"]
    messages = runner.run("infer", runtime, small_model(tmp_path, runtime), options)
    assert messages[protocol.Inferred].outputs[0].shape == (1, 8, 8, 8)
    found = np.fromfile(out, np.float32).reshape(2, 512)
    assert (found == 27).sum(axis=1).tolist() == [8 * 6 * 6] * 2


def test_facts_say_what_the_device_is(runner: Runner) -> None:
    assert runner.facts()["machine"] == os.uname().machine


@pytest.mark.parametrize(("runtime", "command"), [("litert", "latency"), ("onnxruntime", "ops")])
def test_a_missing_model_is_named_with_the_device(runner: Runner, tmp_path: Path, runtime: str, command: str) -> None:
    scratch = (f"--scratch={tmp_path}",) if command == "ops" else ()
    text = failure(runner, runtime, tmp_path / f"absent{SUFFIX[runtime]}", *scratch, command=command)
    assert f"{command} of absent{SUFFIX[runtime]} with {runtime} on bench: " in text


@pytest.mark.parametrize("content", [b"", b"no model at all"])
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_file_that_is_no_model_is_an_error_message(
    runner: Runner, tmp_path: Path, runtime: str, content: bytes
) -> None:
    path = tmp_path / f"wrong{SUFFIX[runtime]}"
    path.write_bytes(content)
    text = failure(runner, runtime, path, *FEW)
    assert text.startswith(f"latency of wrong{SUFFIX[runtime]} with {runtime} on bench: ")
    assert {"litert": "LiteRT", "onnxruntime": "ONNX Runtime"}[runtime] in text


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_killed_agent_is_told_with_its_signal_and_its_last_message(
    runner: Runner, tmp_path: Path, runtime: str
) -> None:
    pids: list[int] = []

    def kill_when_measuring(message: protocol.Message) -> None:
        if isinstance(message, protocol.Hello):
            pids.append(message.pid)
        elif isinstance(message, protocol.First):
            os.kill(pids[0], signal.SIGKILL)

    with pytest.raises(DeviceError, match=r"on bench: .*killed by SIGKILL; was it out of memory.*'(first|progress)'"):
        runner.run("latency", runtime, small_model(tmp_path, runtime), LONG, kill_when_measuring)
    assert not alive(pids[0])


def test_an_agent_ended_by_another_signal_is_told_with_it_and_no_guess(runner: Runner, tmp_path: Path) -> None:
    def end(message: protocol.Message) -> None:
        if isinstance(message, protocol.Hello):
            os.kill(message.pid, signal.SIGTERM)

    with pytest.raises(DeviceError, match=r"killed by SIGTERM; its last message was '\w+'"):
        runner.run("latency", "litert", small_tflite(tmp_path / "m.tflite"), LONG, end)


def test_an_agent_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    impatient = Runner("bench", Local(sys.executable), timeout=0.5)
    pids: list[int] = []
    with pytest.raises(DeviceError, match=r"took longer than its limit of 0.5 s, and was ended; its last message was"):
        impatient.run(
            *("latency", "litert", small_tflite(tmp_path / "m.tflite"), LONG),
            lambda m: pids.append(m.pid) if isinstance(m, protocol.Hello) else None,
        )
    assert not any(map(alive, pids))


def test_no_agent_is_left_behind_when_the_host_gives_up(runner: Runner, tmp_path: Path) -> None:
    pids: list[int] = []

    def give_up(message: protocol.Message) -> None:
        assert isinstance(message, protocol.Hello)
        pids.append(message.pid)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        runner.run("latency", "litert", small_tflite(tmp_path / "m.tflite"), LONG, give_up)
    assert not alive(pids[0])


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ("--input-shape=y=1,3,8,8", "the model has no input 'y'; it has x"),
        ("--input-shape=x=1,3,9,9", r"[1, 3, 9, 9] was asked for"),
        ("--cores=4095", ""),
    ],
)
def test_an_option_that_does_not_fit_is_told_by_the_agent(
    runner: Runner, tmp_path: Path, option: str, told: str
) -> None:
    text = failure(runner, "onnxruntime", small_onnx(tmp_path / "m.onnx"), option, *FEW)
    assert text.startswith("latency of m.onnx with onnxruntime on bench: ")
    assert told in text


def test_an_open_size_is_filled_as_asked_for_and_refused_otherwise(runner: Runner, tmp_path: Path) -> None:
    path = one_node_onnx(tmp_path / "open.onnx", "Conv", ("n", 3, 8, 8), (8, 3, 3, 3))
    assert "open shape [-1, 3, 8, 8]: give --input-shape" in failure(runner, "onnxruntime", path, *FEW)
    messages = runner.run("latency", "onnxruntime", path, ("--input-shape=x=2,3,8,8", *FEW))
    assert messages[protocol.Ready].inputs[0].shape == (2, 3, 8, 8)


def test_a_python_that_is_not_there_is_an_error_of_the_device(tmp_path: Path) -> None:
    absent = Runner("bench", Local(str(tmp_path / "no-python")))
    assert "no-python" in failure(absent, "litert", small_tflite(tmp_path / "m.tflite"), *FEW)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
