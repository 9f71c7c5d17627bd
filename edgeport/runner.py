"""The host's side of the agent: starts it through a transport, reads its messages, turns its failures into errors."""

import contextlib
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from edgeport import kit, protocol
from edgeport.agent import PROTOCOL
from edgeport.catalog import Sensors
from edgeport.errors import DeviceError, LostConnectionError
from edgeport.protocol import Burst, Bye, Door, Hello, Kind, Message, Messages
from edgeport.transport import EndlessError, Local, Process, Transport

ENDING_SECONDS = 10.0  # for a served process to say goodbye in


class State(msgspec.Struct, frozen=True):
    """What a device is and how, as results keep it, and who else computes there."""

    facts: dict[str, Any]
    snapshot: dict[str, Any]
    busy: tuple[protocol.Program, ...] = ()


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
    ) -> Messages:
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
        served = Served(process, self.device, f"serving {model.name} with {runtime} on {self.device}", self.timeout)
        try:
            served.wait_for(protocol.Serving)
            self._check_protocol(served.messages[Hello])
            yield served
            process.close_input()
            served.wait_for(Bye, ENDING_SECONDS)
        finally:
            process.kill()
            process.close_input()

    def facts(self) -> dict[str, Any]:
        """What the device is."""
        return protocol.plain(self._messages([*self.agent(), "facts"], "facts")[Hello].facts)

    def state(self) -> State:
        """What it is, and how before anything is measured."""
        messages = self._messages([*self.agent(), "state", *self._sensors()], "state")
        state = messages[protocol.State]
        return State(protocol.plain(messages[Hello].facts), protocol.plain(state.snapshot), state.busy)

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

    def _messages(
        self, argv: Sequence[str], what: str, on_message: Callable[[Message], None] = lambda message: None
    ) -> Messages:
        process, door, messages = self.transport.start(argv, listens=True), Door(self.device), Messages(self.device)
        for line in _told(process.lines(self.timeout), self.device):
            message = door.message(line)
            if message is None:
                continue
            messages.add(message)
            on_message(message)
            if isinstance(message, Hello):
                self._check_protocol(message)
        process.close_input()
        if messages.get(Bye) is None:
            raise _failure(f"{what} on {self.device}", process, messages, self.timeout)
        return messages

    def _check_protocol(self, hello: Hello) -> None:
        if hello.protocol != PROTOCOL:
            raise DeviceError(f"the agent on {self.device} speaks protocol {hello.protocol}, not {PROTOCOL}")


class Served:
    """A model that a process on the device holds loaded. messages: the last one of each kind that it has sent."""

    def __init__(self, process: Process, device: str, what: str, timeout: float) -> None:
        self.messages = Messages(device)
        self._process, self._door, self._what, self._timeout = process, Door(device), what, timeout

    def burst(self, runs: int) -> Burst:
        """So many runs. Raises DeviceError."""
        self._process.write_line(f"burst {runs}")
        burst = self.wait_for(Burst)
        if len(burst.ns) != runs:
            raise DeviceError(f"{self.messages.device} was asked for {runs} runs and told the times of {len(burst.ns)}")
        return burst

    def telemetry(self) -> dict[str, Any]:
        """What the device tells of its state now. Raises DeviceError."""
        self._process.write_line("telemetry")
        return protocol.plain(self.wait_for(protocol.TelemetryNow).telemetry)

    def wait_for(
        self,
        kind: type[Kind],
        timeout: float | None = None,
        on_message: Callable[[Message], None] = lambda message: None,
    ) -> Kind:
        """The next message of that kind. Raises DeviceError if none comes within the time (default: the runner's)."""
        limit = timeout or self._timeout
        deadline = time.monotonic() + limit
        while (line := self._line(deadline)) is not None:
            message = self._door.message(line, kind)
            if message is None:
                continue
            self.messages.add(message)
            on_message(message)
            if isinstance(message, kind):
                return message
        self._process.kill()  # so that how it ended is known
        raise _failure(self._what, self._process, self.messages, limit)

    def _line(self, deadline: float) -> str | None:
        try:
            return self._process.line(deadline - time.monotonic())
        except EndlessError as e:
            raise DeviceError(f"{self.messages.device}: {e}") from e


def local_runner(device: str = "local") -> Runner:
    """On this machine, with the Python that runs edgeport."""
    return Runner(device, Local(sys.executable))


def _told(lines: Iterator[str], device: str) -> Iterator[str]:
    """Names the device of what has no end."""
    try:
        yield from lines
    except EndlessError as e:
        raise DeviceError(f"{device}: {e}") from e


def _failure(what: str, process: Process, messages: Messages, limit: float) -> DeviceError:
    """Why an ended agent did not do what it was asked: in its own words, or by how it died. limit: seconds."""
    error = messages.get(protocol.Error)
    if error is not None:
        return DeviceError(f"{what}: {error.text}{_runtime_errors(process)}")
    if process.is_endless:
        return DeviceError(
            f"{what}: it wrote errors without end, and was ended; the last ones:\n{process.last_errors()}"
        )
    if process.lost:
        return LostConnectionError(f"{what}: the connection was lost\n{process.last_errors()}".rstrip())
    how = f"it took longer than its limit of {limit:g} s, and was ended" if process.is_overdue else _death(process)
    text = process.last_errors()
    wrote = f"; it wrote:\n{text}" if text else ""
    last = protocol.name(messages.kinds()[-1]) if messages.kinds() else "none"
    return DeviceError(f"{what}: {how}; its last message was {last!r}{wrote}")


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
