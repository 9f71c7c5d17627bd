"""The host's side of the agent: starts it through a transport, reads its messages, turns its failures into errors."""

import json
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from edgeport import kit
from edgeport.agent import PROTOCOL
from edgeport.errors import DeviceError
from edgeport.transport import Local, Process

Message = dict[str, Any]


class Runner(msgspec.Struct, frozen=True):
    """Runs the agent on one device, one process a call."""

    device: str
    transport: Local
    timeout: float = 600.0

    def run(
        self,
        command: str,
        runtime: str,
        model: Path,
        options: Sequence[str] = (),
        on_message: Callable[[Message], None] = lambda message: None,
    ) -> dict[str, Message]:
        """The agent's messages by kind. Raises DeviceError with the agent's own text, or with how it died."""
        argv = [
            *self._agent(),
            command,
            f"--runtime={runtime}",
            f"--library={self.transport.put(kit.library(runtime).path)}",
            f"--model={self.transport.put(model)}",
            *options,
        ]
        return self._messages(argv, f"{command} of {model.name} with {runtime}", on_message)

    def facts(self) -> Message:
        """What the device is."""
        facts = self._messages([*self._agent(), "facts"], "facts", lambda m: None)["hello"]["facts"]
        return dict(facts)

    def _agent(self) -> list[str]:
        # -I and -S: nothing of the user's environment or of installed packages, which the agent does not need
        return [self.transport.python, "-I", "-S", self.transport.put(kit.agent_archive())]

    def _messages(self, argv: Sequence[str], what: str, on_message: Callable[[Message], None]) -> dict[str, Message]:
        process = self.transport.start(argv)
        messages: dict[str, Message] = {}
        for line in process.lines(self.timeout):
            message = _parsed(line)
            if message is None:
                continue  # a runtime that writes to standard output
            messages[message["type"]] = message
            on_message(message)
            if message["type"] == "hello" and message["protocol"] != PROTOCOL:
                raise DeviceError(f"the agent on {self.device} speaks protocol {message['protocol']}, not {PROTOCOL}")
        if "error" in messages:
            raise DeviceError(f"{what} on {self.device}: {messages['error']['text']}{_runtime_errors(process)}")
        if "bye" not in messages:
            raise DeviceError(f"{what} on {self.device}: {_death(process, messages)}")
        return messages


def local_runner(device: str = "local") -> Runner:
    """On this machine, with the Python that runs edgeport."""
    return Runner(device, Local(sys.executable))


def _parsed(line: str) -> Message | None:
    try:
        message = json.loads(line)
    except ValueError:
        return None
    return message if isinstance(message, dict) and "type" in message else None


def _runtime_errors(process: Process) -> str:
    """What the runtime itself wrote of the error."""
    lines = [line for line in process.last_errors().splitlines() if line.startswith("ERROR")]
    return "".join(f"\n  {line}" for line in lines)


def _death(process: Process, messages: dict[str, Message]) -> str:
    code = process.exit_code
    if code < 0:
        name = signal.Signals(-code).name
        hint = "; was it out of memory?" if name == "SIGKILL" else ""
        how = f"the agent was killed by {name}{hint}"
    else:
        how = f"the agent ended early with exit code {code}"
    last = next(reversed(messages)) if messages else "none"
    text = process.last_errors()
    return f"{how}; its last message was {last!r}" + (f"; it wrote:\n{text}" if text else "")
