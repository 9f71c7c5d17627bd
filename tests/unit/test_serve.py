"""Served models, in processes of their own, and what is timed with them by turns."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from small_models import RUNTIMES, SUFFIX, one_node_onnx, small_model, small_tflite

from edgeport import interleave, kit, protocol
from edgeport.errors import DeviceError
from edgeport.interleave import Block, Settings, run_block
from edgeport.protocol import Burst
from edgeport.runner import Runner, Served
from edgeport.transport import Local

pytestmark = pytest.mark.usefixtures("cache")

CORES = sorted(os.sched_getaffinity(0))
two_cores = pytest.mark.skipif(len(CORES) < 2, reason="needs two cores")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return small_tflite(tmp_path / "small.tflite")


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_burst_is_as_many_runs_as_were_asked_for(runner: Runner, tmp_path: Path, runtime: str) -> None:
    with runner.serve(runtime, small_model(tmp_path, runtime)) as served:
        bursts = [served.burst(n) for n in (1, 5, 2)]
        pid = pid_of(served)
    assert [len(b.ns) for b in bursts] == [len(b.preempted) for b in bursts] == [1, 5, 2]
    assert min(ns for b in bursts for ns in b.ns) > 0
    assert min(count for b in bursts for count in b.preempted) >= 0
    assert all(0 <= waited < ns for b in bursts for waited, ns in zip(b.waited_ns, b.ns, strict=True))
    assert (served.messages[protocol.Bye].peak_bytes or 0) > 0
    assert not alive(pid)


def test_the_devices_state_is_told_between_bursts(runner: Runner, model: Path) -> None:
    with runner.serve("litert", model) as served:
        served.burst(2)
        first, second = served.telemetry(), served.telemetry()
        assert len(served.burst(1).ns) == 1
    assert first.keys() == protocol.plain(served.messages[protocol.Bye].telemetry).keys()
    assert second["unix_time"] >= first["unix_time"]


def test_a_copy_of_its_own_is_what_is_served(runner: Runner, model: Path) -> None:
    with runner.transport.copied(model) as there, runner.serve("litert", model, there=there) as served:
        assert there != str(model)
        command = Path(f"/proc/{pid_of(served)}/cmdline").read_bytes().split(b"\0")
        assert f"--model={there}".encode() in command
    assert not Path(there).exists()


def test_cores_and_priority_are_told_as_the_system_has_them(runner: Runner, model: Path) -> None:
    with runner.serve("litert", model, [f"--cores={CORES[-1]}", "--nice=7"]) as served:
        assert served.messages[protocol.Ready].cores == (CORES[-1],)
        assert served.messages[protocol.Ready].nice == 7
        assert os.getpriority(os.PRIO_PROCESS, pid_of(served)) == 7


def test_a_priority_that_the_system_refuses_is_an_error(
    runner: Runner, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root may take any, so where the tests run as root the agent is to have lost that right."""
    start, command = Local.start, ["setpriv", "--bounding-set=-sys_nice"]
    if os.getuid() == 0:
        if not shutil.which("setpriv") or subprocess.run([*command, "true"], check=False).returncode:
            pytest.skip("cannot run a program with fewer rights here")
        monkeypatch.setattr(Local, "start", lambda self, argv, listens=False: start(self, [*command, *argv], listens))
    with pytest.raises(DeviceError, match="the system does not allow --nice -19: Permission denied"):
        in_block(runner, model, lambda served: None, "--nice=-19")


@two_cores
def test_threads_that_compute_have_a_core_each(runner: Runner, tmp_path: Path) -> None:
    conv = one_node_onnx(tmp_path / "conv.onnx", "Conv", (1, 64, 56, 56), (64, 64, 3, 3))
    with runner.serve("onnxruntime", conv, ["--num-threads=2", f"--cores={CORES[0]},{CORES[1]}"]) as served:
        pid = pid_of(served)
        pinned = [os.sched_getaffinity(int(t)) for t in os.listdir(f"/proc/{pid}/task")]
        assert os.sched_getaffinity(pid) == {CORES[0]}
    assert {CORES[1]} in pinned


@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="the kernel does not tell threads' times")
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_between_bursts_it_takes_no_time_from_others(runner: Runner, tmp_path: Path, runtime: str) -> None:
    """ONNX Runtime's threads would spin for some 40 ms."""
    model = tmp_path / f"conv{SUFFIX[runtime]}"
    if runtime == "onnxruntime":
        one_node_onnx(model, "Conv", (1, 64, 56, 56), (64, 64, 3, 3))
    else:
        small_tflite(model)
    with runner.serve(runtime, model, ["--num-threads=2"]) as served:
        pid = pid_of(served)
        served.burst(5)
        time.sleep(0.01)  # for it to go back to reading
        before = cpu_ms(pid)
        time.sleep(0.2)
        assert cpu_ms(pid) - before < 2


@pytest.mark.parametrize("content", [None, b"no model at all"])
def test_a_model_that_cannot_be_loaded_is_an_error_before_the_block(
    runner: Runner, tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "wrong.tflite"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DeviceError, match=r"serving wrong\.tflite with litert on bench: .*LiteRT"):
        in_block(runner, path, lambda served: pytest.fail("nothing is served"))


def test_a_killed_process_is_told_at_the_next_burst(runner: Runner, model: Path) -> None:
    def go_on(served: Served) -> None:
        os.kill(pid_of(served), signal.SIGKILL)
        served.burst(1)

    with pytest.raises(DeviceError, match=r"serving small\.tflite with litert on bench: .*killed by SIGKILL"):
        in_block(runner, model, go_on)


def test_a_burst_that_takes_too_long_ends_the_process(model: Path) -> None:
    impatient = Runner("bench", Local(sys.executable), timeout=2)
    pids: list[int] = []

    def go_on(served: Served) -> None:
        pids.append(pid_of(served))
        served.burst(10**9)

    with pytest.raises(DeviceError, match="longer than its limit of 2 s, and was ended"):
        in_block(impatient, model, go_on)
    assert not alive(pids[0])


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_nothing_is_left_behind_when_the_block_fails(runner: Runner, model: Path, error: type[BaseException]) -> None:
    pids: list[int] = []

    def fail(served: Served) -> None:
        pids.append(pid_of(served))
        raise error

    with pytest.raises(error):
        in_block(runner, model, fail)
    assert not alive(pids[0])


def test_the_process_ends_when_the_host_is_killed(model: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from edgeport import protocol\n"
        "from edgeport.runner import local_runner\n"
        "with local_runner().serve('litert', Path(sys.argv[1])) as served:\n"
        "    print(served.messages[protocol.Hello].pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program, model], stdout=subprocess.PIPE, text=True) as host:
        assert host.stdout is not None
        pid = int(host.stdout.readline())
        host.kill()
    deadline = time.monotonic() + 10
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(pid)


@pytest.mark.parametrize("request_", ["jump 3", "burst", "burst many", ""])
def test_a_request_that_is_none_ends_it_with_a_message(model: Path, request_: str) -> None:
    command = [sys.executable, str(kit.agent_archive()), "serve", "--runtime=litert", f"--model={model}"]
    command += [f"--library={kit.library('litert').path}"]
    done = subprocess.run(command, input=f"{request_}\n", capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"{request_!r} is no request; there are 'burst N' and 'telemetry'" in done.stdout.splitlines()[-1]


# By turns


class Order:
    """A runner whose models take no time, and which notes who was asked."""

    def __init__(self) -> None:
        self.bursts: list[str] = []
        self.started: list[str] = []
        self.options: Sequence[str] = ()

    @contextlib.contextmanager
    def serve(self, runtime: str, model: Path, options: Sequence[str], there: str) -> Iterator["Order.Model"]:
        assert runtime == {".onnx": "onnxruntime", ".tflite": "litert"}[model.suffix]
        self.started.append(model.stem)
        self.options = options
        yield Order.Model(self, model.stem)

    class Model:
        def __init__(self, order: "Order", name: str) -> None:
            self.order, self.name = order, name
            telemetry = protocol.Telemetry(unix_time=order.started.index(name))
            self.messages = protocol.Messages("bench", [protocol.Serving(telemetry)])

        def telemetry(self) -> dict[str, Any]:
            return {"bursts": len(self.order.bursts)}

        def burst(self, runs: int) -> Burst:
            self.order.bursts.append(self.name)
            return Burst(tuple(range(100, 100 + runs)), (0,) * runs, (9,) * runs)


def block_of(order: Any, names: str, seed: int = 0, **settings: Any) -> Block:
    return run_block(order, {n: Path(f"{n}.onnx") for n in names}, Settings(seconds=0, **settings), seed)


def test_a_round_is_mirrored_and_has_everyone_twice() -> None:
    order = Order()
    block_of(order, "abc")
    rounds = [order.bursts[i : i + 6] for i in range(0, len(order.bursts), 6)]
    assert len(rounds) == interleave.LEAST_ROUNDS
    assert all(r == r[::-1] and sorted(r) == sorted("aabbcc") for r in rounds)


def test_the_order_changes_from_round_to_round_and_from_block_to_block_but_not_from_run_to_run() -> None:
    first, same, other = Order(), Order(), Order()
    block_of(first, "abcde", seed=1)
    block_of(same, "abcde", seed=1)
    block_of(other, "abcde", seed=2)
    assert first.bursts == same.bursts != other.bursts
    assert first.started == same.started
    assert first.bursts[:5] != first.bursts[10:15]


def test_the_device_is_looked_at_next_to_the_runs_and_not_once_it_is_at_rest() -> None:
    order = Order()
    block = block_of(order, "abc")
    assert block.before["unix_time"] == len(order.started) - 1
    assert block.after == {"bursts": len(order.bursts)}


def test_the_first_run_of_a_burst_is_not_counted() -> None:
    block = block_of(Order(), "ab", counted_runs=2)
    assert set(block.bursts["a"]) == {Burst((101, 102), (0, 0), (9, 9))}


def test_processes_are_told_their_cores_threads_and_priority() -> None:
    order = Order()
    block_of(order, "ab", num_threads=2, cores=(1, 3), nice=-5)
    assert {"--num-threads=2", "--cores=1,3", "--nice=-5"} <= set(order.options)


def test_a_block_goes_on_for_as_long_as_it_was_told_to(runner: Runner, model: Path, tmp_path: Path) -> None:
    twin = small_tflite(tmp_path / "twin.tflite")
    start = time.monotonic()
    block = run_block(runner, {"a": model, "b": twin}, Settings(seconds=0.3), seed=0)
    assert time.monotonic() - start >= 0.3
    assert len(block.bursts["a"]) == len(block.bursts["b"]) >= 2 * interleave.LEAST_ROUNDS
    assert all(len(burst.ns) == Settings().counted_runs for burst in block.bursts["a"])


def test_a_block_tells_the_logarithm_of_the_ratio_of_neighbours() -> None:
    slow, fast = [Burst((200, 999, 200), (0, 1, 0))] * 3, [Burst((100, 100, 100), (0, 0, 0))] * 3
    block = Block({"slow": tuple(slow), "fast": tuple(fast)})
    assert block.log_ratio("slow", "fast") == -block.log_ratio("fast", "slow") == pytest.approx(0.6931, abs=1e-4)
    assert block.samples_ns("slow") == [200, 999, 200] * 3
    assert block.preempted() == pytest.approx(1 / 6)


def in_block(runner: Runner, model: Path, work: Callable[[Served], None], *options: str) -> None:
    with runner.serve("litert", model, options) as served:
        work(served)


def pid_of(served: Served) -> int:
    return int(served.messages[protocol.Hello].pid)


def cpu_ms(pid: int) -> float:
    """Processor time of all its threads so far."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e6


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
