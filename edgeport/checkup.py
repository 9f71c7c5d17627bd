"""Proves step by step that a device can be measured on, and says what to do where it cannot."""

import array
import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import msgspec

from edgeport import kit, preflight, scratch
from edgeport.catalog import Device
from edgeport.errors import ConnectError, DeviceError
from edgeport.probe import System, abi_refusal, probe, python_refusal
from edgeport.progress import Silent
from edgeport.protocol import whole_number
from edgeport.runner import Runner
from edgeport.sessions import Access, fitting_library, hold
from edgeport.transport import Transport, open_transport

PASS, WARN, FAIL = "PASS", "WARN", "FAIL"
CONNECTING = ("reachable", "host key", "login")
LEAST_FREE_BYTES = 60_000_000  # the kit's 31 MB, and models
MODELS = Path(__file__).parent / "data" / "check"  # convolutions whose weights are all 1
Result = TypeVar("Result")
SIDE, CHANNELS_IN, CHANNELS_OUT = 8, 3, 8


class Step(msgspec.Struct, frozen=True):
    """status: PASS, WARN or FAIL. text: what was found, or what is wrong and what to do."""

    name: str
    status: str
    text: str


class _FailedError(Exception):
    """The step that ends a check: those after it need it."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(text)
        self.step = Step(name, FAIL, text)


def check(device: Device, access: Access) -> Iterator[Step]:
    """One step after the other, as each ends; after a FAIL only those that do not need it. Raises UsageError."""
    with contextlib.ExitStack() as stack:
        try:
            transport = stack.enter_context(open_transport(device))
        except DeviceError as e:
            yield from _not_connected(device, e)
            return
        yield from _connected(device)
        try:
            yield from _checked(device, transport, access, stack)
        except _FailedError as e:
            yield e.step


def _not_connected(device: Device, error: DeviceError) -> Iterator[Step]:
    failed = error.step if isinstance(error, ConnectError) else CONNECTING[0]
    for name in CONNECTING[: CONNECTING.index(failed)]:
        yield Step(name, PASS, "")
    yield Step(failed, FAIL, _told(device, error))


def _connected(device: Device) -> Iterator[Step]:
    if device.transport != "ssh":
        yield Step("reachable", PASS, device.address or device.transport)
        return
    port = f" port {device.port}" if device.port else ""
    for name, text in zip(CONNECTING, (f"{device.address}{port}", "known", "without a password"), strict=True):
        yield Step(name, PASS, text)


def _checked(device: Device, transport: Transport, access: Access, stack: contextlib.ExitStack) -> Iterator[Step]:
    yield from _probed(device, transport)
    system = _needed(device, "system", lambda: probe(transport))
    yield _system(device, system)
    refusal = python_refusal(system, device.python)
    if refusal:
        raise _FailedError("Python", refusal)
    yield Step("Python", PASS, ".".join(map(str, system.python)))
    yield _needed(device, "space", lambda: _space(transport))
    if transport.workdir:
        agent = _needed(device, "push", lambda: transport.put(kit.agent_archive(), keep=True))
        yield Step("push", PASS, f"{agent}, hash verified there")
    runner = Runner(
        device.name,
        transport,
        library=lambda runtime: fitting_library(runtime, device=device.name, system=system, wheels=access.wheels),
        sensors=device.sensors,
    )
    held = _needed(device, "lock", lambda: stack.enter_context(hold(runner, access.wait, Silent())))
    yield Step("lock", PASS, "nobody else is measuring")
    state = _needed(device, "run", held.state)
    facts = state.facts
    yield _model(device, facts.get("device_model"), facts)
    for runtime in kit.RUNTIMES:
        try:
            yield Step(runtime, PASS, _right_answer(held, runtime))
        except DeviceError as e:
            yield Step(runtime, FAIL, _told(device, e))
    yield _telemetry(device, state.snapshot)
    yield _governor(device, facts, state.snapshot)
    if state.busy:
        busy = ", ".join(f"{program.name} ({program.cores:.0%} of a core)" for program in state.busy)
        yield Step("idle", WARN, f"other programs compute, which will disturb: {busy}")
    else:
        yield Step("idle", PASS, "no other program computes")


def _probed(device: Device, transport: Transport) -> Iterator[Step]:
    probes = transport.probes()
    while (found := _needed(device, "reachable", lambda: next(probes, None))) is not None:
        if not found.holds:
            raise _FailedError(found.name, found.text)
        yield Step(found.name, PASS, found.text)


def _needed(device: Device, name: str, do: Callable[[], Result]) -> Result:
    """What a step finds that those after it need."""
    try:
        return do()
    except DeviceError as e:
        raise _FailedError(name, _told(device, e)) from e


def _told(device: Device, error: DeviceError) -> str:
    """Without the device's name, which stands above."""
    return str(error).removeprefix(f"{device.name}: ")


def _system(device: Device, system: System) -> Step:
    refusal = abi_refusal(system)
    if refusal:
        raise _FailedError("system", refusal)
    text = f"{system.machine}, {system.bits} bits, glibc {'.'.join(map(str, system.libc))}"
    if device.expect.abi and device.expect.abi != system.machine:
        return Step("system", WARN, f"{text}; expected {device.expect.abi}: is it the right device?")
    return Step("system", PASS, text)


def _model(device: Device, model: str | None, facts: dict[str, object]) -> Step:
    text = f"{model or 'a device that does not tell its model'}, {facts.get('cpus')} cores"
    if facts.get("emulated"):
        return Step("run", WARN, f"{text}; EMULATED: its times say nothing of a real device")
    if device.expect.model and device.expect.model not in (model or ""):
        return Step("run", WARN, f"{text}; expected {device.expect.model!r}: is it the right device?")
    return Step("run", PASS, text)


def _space(transport: Transport) -> Step:
    if not transport.workdir:
        return Step("space", PASS, "nothing is sent")
    free = _free_bytes(transport)
    text = f"{free / 1e6:.0f} MB free in {transport.workdir}"
    if free < LEAST_FREE_BYTES:
        wanted = f"{LEAST_FREE_BYTES / 1e6:.0f} MB"
        raise _FailedError("space", f"the disk is full: {text}, {wanted} are needed; free some, or set another workdir")
    return Step("space", PASS, text)


def _free_bytes(transport: Transport) -> int:
    done = transport.run(["df", "-Pk", "--", transport.workdir])
    fields = done.out.splitlines()[-1].split() if done.out.strip() else []
    free = whole_number(fields[3]) if len(fields) > 3 else None
    if free is None:
        raise DeviceError(f"df does not tell how much is free: {done.err.strip() or done.out.strip()}")
    return free * 1024


def _right_answer(runner: Runner, runtime: str) -> str:
    """Raises DeviceError for an answer that is not the one that the network has."""
    suffix = next(suffix for suffix, name in kit.RUNTIME_OF.items() if name == runtime)
    library = runner.library(runtime)
    with scratch.folder() as folder, runner.transport.folder() as there:
        data, out = folder / "in", folder / "out"
        data.write_bytes(array.array("f", [1.0] * (CHANNELS_IN * SIDE * SIDE)).tobytes())
        options = [f"--data={runner.transport.put(data)}", f"--result={there}/out"]
        runner.run("infer", runtime, MODELS / f"ones{suffix}", options)
        runner.transport.get(f"{there}/out", out)
        found = sorted(array.array("f", out.read_bytes()))
    if found != _expected():
        raise DeviceError(f"{runtime} {library.version} computes a wrong answer; run 'edgeport devices setup' again")
    return f"{library.version} computes the right answer"


def _expected() -> list[float]:
    """Each output is the sum of the ones below a 3x3 kernel: fewer at the edges."""
    taps = [2 if i in (0, SIDE - 1) else 3 for i in range(SIDE)]
    return sorted(float(CHANNELS_IN * a * b) for a in taps for b in taps for _ in range(CHANNELS_OUT))


def _telemetry(device: Device, snapshot: dict[str, list[float] | None]) -> Step:
    celsius, khz, throttled = snapshot["celsius"], snapshot["khz"], snapshot["throttled_bits"]
    told = [f"{max(celsius):.1f} C"] if celsius else []
    told += [f"{max(khz) / 1e6:.2f} GHz"] if khz else []
    told += [f"throttled {throttled:#x}"] if throttled is not None else []
    told += [f"thermal status {snapshot['thermal_status']}"] if snapshot.get("thermal_status") is not None else []
    if device.sensors.throttled and throttled is None:
        command = " ".join(device.sensors.throttled)
        why = f"'{command}' tells nothing: is it installed, and the user in the group video?"
        return Step("telemetry", WARN, f"{why} Found: {', '.join(told) or 'nothing'}")
    if not celsius or not khz:
        missing = " and ".join(n for n, v in (("temperature", celsius), ("frequency", khz)) if not v)
        return Step("telemetry", WARN, f"it tells no {missing}, so throttling may go unseen. {', '.join(told)}")
    return Step("telemetry", PASS, ", ".join(told))


def _governor(device: Device, facts: dict[str, object], snapshot: dict[str, object]) -> Step:
    wrong = preflight.objections(device, facts, snapshot)
    if wrong:
        return Step("governor", FAIL, "; ".join(wrong))
    governors = snapshot.get("governors")
    return Step("governor", PASS, ", ".join(governors) if isinstance(governors, list) and governors else "it has none")
