"""The host's side of the agent: starts it through a transport, reads its messages, turns its failures into errors."""

import contextlib
import json
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from edgeport import kit
from edgeport.agent import PROTOCOL
from edgeport.catalog import Sensors
from edgeport.errors import DeviceError, LostConnectionError
from edgeport.transport import Local, Process, Transport

Message = dict[str, Any]
ENDING_SECONDS = 10.0  # for a served process to say goodbye in


class Burst(msgspec.Struct, frozen=True):
    """Runs one right after the other. ns: of each; preempted: how often in each one the system gave a core to another
    program, which then is part of its time; waited_ns: the part of its time that the thread which called the runtime
    waited for a core that others had, as far as the system tells.
    """

    ns: tuple[int, ...]
    preempted: tuple[int, ...]
    waited_ns: tuple[int, ...] = ()


class Runner(msgspec.Struct, frozen=True):
    """Runs the agent on one device, one process a call. library: finds a runtime for that device. still_ours: raises
    DeviceError once the device is not kept for us any more.
    """

    device: str
    transport: Transport
    timeout: float = 600.0
    library: Callable[[str], kit.Library] = kit.library
    still_ours: Callable[[], None] = lambda: None
    sensors: Sensors = Sensors()

    def run(
        self,
        command: str,
        runtime: str,
        model: Path,
        options: Sequence[str] = (),
        on_message: Callable[[Message], None] = lambda message: None,
    ) -> dict[str, Message]:
        """The agent's messages by kind. Raises DeviceError with the agent's own text, or with how it died."""
        self.still_ours()
        argv = self._command(command, runtime, model, options)
        return self._messages(argv, f"{command} of {model.name} with {runtime}", on_message)

    @contextlib.contextmanager
    def serve(self, runtime: str, model: Path, options: Sequence[str] = (), there: str = "") -> Iterator["Served"]:
        """A process that holds the model loaded and warmed up until the block ends, however that ends. there: a copy of
        the model that is on the device already.
        """
        self.still_ours()
        process = self.transport.start(self._command("serve", runtime, model, options, there), listens=True)
        served = Served(process, f"serving {model.name} with {runtime} on {self.device}", self.timeout)
        try:
            served.wait_for("serving")
            self._check_protocol(served.messages["hello"])
            yield served
            process.close_input()
            served.wait_for("bye", ENDING_SECONDS)
        finally:
            process.kill()
            process.close_input()

    def facts(self) -> Message:
        """What the device is."""
        facts = self._messages([*self.agent(), "facts"], "facts", lambda m: None)["hello"]["facts"]
        return dict(facts)

    def state(self) -> Message:
        """What it is and how: {"facts", "snapshot": as around launches, "busy": [{name, pid, cores}]}."""
        messages = self._messages([*self.agent(), "state", *self._sensors()], "state", lambda m: None)
        return {"facts": messages["hello"]["facts"], **messages["state"]}

    def agent(self) -> list[str]:
        """The words that start the agent, its command to follow."""
        return [*self.transport.python, self.transport.put(kit.agent_archive(), keep=True)]

    def _command(self, command: str, runtime: str, model: Path, options: Sequence[str], there: str = "") -> list[str]:
        return [
            *self.agent(),
            command,
            f"--runtime={runtime}",
            f"--library={self.transport.put(self.library(runtime).path, keep=True)}",
            f"--model={there or self.transport.put(model)}",
            "--attached",
            *self._sensors(),
            *([f"--temporary={self.transport.session}"] if self.transport.session else []),
            *options,
        ]

    def _sensors(self) -> list[str]:
        return [] if self.sensors == Sensors() else [f"--sensors={msgspec.json.encode(self.sensors).decode()}"]

    def _messages(self, argv: Sequence[str], what: str, on_message: Callable[[Message], None]) -> dict[str, Message]:
        process = self.transport.start(argv, listens=True)
        messages: dict[str, Message] = {}
        for line in process.lines(self.timeout):
            message = _parsed(line)
            if message is None:
                continue  # a runtime that writes to standard output
            messages[message["type"]] = message
            on_message(message)
            if message["type"] == "hello":
                self._check_protocol(message)
        process.close_input()
        if "bye" not in messages:
            raise _failure(f"{what} on {self.device}", process, messages, self.timeout)
        return messages

    def _check_protocol(self, hello: Message) -> None:
        if hello["protocol"] != PROTOCOL:
            raise DeviceError(f"the agent on {self.device} speaks protocol {hello['protocol']}, not {PROTOCOL}")


class Served:
    """A model that a process on the device holds loaded. messages: the last one of each kind that it has sent."""

    def __init__(self, process: Process, what: str, timeout: float) -> None:
        self.messages: dict[str, Message] = {}
        self._process, self._what, self._timeout = process, what, timeout

    def burst(self, runs: int) -> Burst:
        """So many runs. Raises DeviceError."""
        self._process.write_line(f"burst {runs}")
        answer = self.wait_for("burst")
        return Burst(tuple(answer["ns"]), tuple(answer["preempted"]), tuple(answer["waited_ns"]))

    def telemetry(self) -> Message:
        """What the device tells of its state now. Raises DeviceError."""
        self._process.write_line("telemetry")
        return dict(self.wait_for("telemetry")["telemetry"])

    def wait_for(
        self,
        kind: str,
        timeout: float | None = None,
        on_message: Callable[[Message], None] = lambda message: None,
    ) -> Message:
        """The next message of that kind. Raises DeviceError if none comes within the time (default: the runner's)."""
        limit = timeout or self._timeout
        deadline = time.monotonic() + limit
        while (line := self._process.line(deadline - time.monotonic())) is not None:
            message = _parsed(line)
            if message is None:
                continue
            self.messages[message["type"]] = message
            on_message(message)
            if message["type"] == kind:
                return message
        self._process.kill()  # so that how it ended is known
        raise _failure(self._what, self._process, self.messages, limit)


def local_runner(device: str = "local") -> Runner:
    """On this machine, with the Python that runs edgeport."""
    return Runner(device, Local(sys.executable))


def _parsed(line: str) -> Message | None:
    try:
        message = json.loads(line)
    except ValueError:
        return None
    return message if isinstance(message, dict) and "type" in message else None


def _failure(what: str, process: Process, messages: dict[str, Message], limit: float) -> DeviceError:
    """Why an ended agent did not do what it was asked: in its own words, or by how it died. limit: seconds."""
    if "error" in messages:
        return DeviceError(f"{what}: {messages['error']['text']}{_runtime_errors(process)}")
    if process.lost:
        return LostConnectionError(f"{what}: the connection was lost\n{process.last_errors()}".rstrip())
    how = f"it took longer than its limit of {limit:g} s, and was ended" if process.is_overdue else _death(process)
    text = process.last_errors()
    wrote = f"; it wrote:\n{text}" if text else ""
    return DeviceError(f"{what}: {how}; its last message was {next(reversed(messages), 'none')!r}{wrote}")


def _runtime_errors(process: Process) -> str:
    """What the runtime itself wrote of the error."""
    lines = [line for line in process.last_errors().splitlines() if line.startswith("ERROR")]
    return "".join(f"\n  {line}" for line in lines)


def _death(process: Process) -> str:
    code = process.exit_code
    if code < 0:
        name = signal.Signals(-code).name
        hint = "; was it out of memory?" if name == "SIGKILL" else ""
        return f"the agent was killed by {name}{hint}"
    return f"the agent ended early with exit code {code}"
