"""What a device says is taken as the protocol has it, or ends in one error that names the device and what it sent."""

import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_models import small_onnx

from edgeport import interleave, preflight, protocol, stats
from edgeport.agent import PROTOCOL, messages, telemetry
from edgeport.catalog import find_device
from edgeport.errors import DeviceError
from edgeport.measure import Artifact, Measurement, Settings
from edgeport.progress import Silent
from edgeport.protocol import Door
from edgeport.runner import Runner
from edgeport.transport import Local, Process

pytestmark = pytest.mark.usefixtures("cache")

ROWS = [
    {"name": "run", "source": "invoke", "index": -1, "us": [30, 31]},
    {"name": "between", "source": "between", "index": -1, "us": [1, 0]},
    {"name": "conv", "source": "runtime", "index": 0, "op": "Conv", "us": [20, 21], "outputs": [{"float": [1, 8]}]},
]
STATE: dict[str, Any] = {"unix_time": 1e9, "celsius": [40.5], "khz": [1], "governors": ["performance"], "new": 1}
GOOD: list[dict[str, Any]] = [
    {"type": "hello", "protocol": PROTOCOL, "pid": 1, "facts": {"machine": "x", "cpus": 4, "emulated": False}},
    {"type": "ready", "init_ns": 5, "version": "", "inputs": [{"name": "x", "dtype": "float32", "shape": [1, 3]}]},
    {"type": "first", "ns": 7},
    {"type": "progress", "phase": "run", "done": 1, "of": 9},
    {"type": "samples", "ns": [5, 6], "before": STATE, "after": STATE},
    {"type": "ops", "rows": ROWS, "plain_ns": [9], "preempted": [0, 1], "optimized_model": None},
    {"type": "inferred", "outputs": [{"name": "y", "dtype": "int8", "shape": []}]},
    {"type": "state", "snapshot": STATE, "busy": [{"name": "make", "pid": 3, "cores": 0.9}]},
    {"type": "serving", "telemetry": STATE},
    {"type": "telemetry", "telemetry": {**STATE, "thermal_status": 0, "battery": {"percent": 3, "powered": True}}},
    {"type": "burst", "ns": [5, 6], "preempted": [0, 0], "waited_ns": [0, 0]},
    {"type": "busy", "owner": "a", "seconds": 0.5},
    {"type": "waiting", "owner": "a", "seconds": 1},
    {"type": "held", "removed": [], "refused": ["x"]},
    {"type": "error", "kind": "usage", "text": "no"},
    {"type": "bye", "peak_bytes": 7, "telemetry": STATE},
]
WRONG: list[str] = [
    '{"type": "first", "ns": NaN}',
    '{"type": "first", "ns": -5}',
    '{"type": "first", "ns": 0}',
    '{"type": "first", "ns": 1e999}',
    '{"type": "first", "ns": "5"}',
    '{"type": "first", "ns": true}',
    '{"type": "first"}',
    '{"type": "first", "ns": 99999999999999999999999999}',
    '{"type": "samples", "ns": []}',
    '{"type": "samples", "ns": 5}',
    '{"type": "samples", "ns": [5], "before": []}',
    '{"type": "samples", "ns": [5], "before": {"celsius": ["hot"]}}',
    '{"type": "samples", "ns": [5], "before": {"unix_time": Infinity}}',
    '{"type": "ready", "init_ns": 5}',
    '{"type": "ready", "init_ns": 5, "version": "", "inputs": [{"name": "x"}]}',
    '{"type": "ready", "init_ns": 5, "version": "", "cores": [-1]}',
    '{"type": "hello", "protocol": 2, "facts": {"cpus": "four"}}',
    '{"type": "hello", "protocol": 2, "facts": {"device_model": "' + "x" * 5000 + '"}}',
    '{"type": "burst", "ns": [5, 6], "preempted": [0]}',
    '{"type": "burst", "ns": [], "preempted": []}',
    '{"type": "ops", "rows": [], "plain_ns": [5]}',
    '{"type": "what", "ns": 5}',
    '{"type": 5}',
    '{"type": "first", "ns": 5',
    '{"type": "first", "ns": ' + "[" * 5000 + "}",
]


def sent(line: str) -> protocol.Message | None:
    return Door("pi").message(line)


@pytest.mark.parametrize("message", GOOD, ids=[m["type"] for m in GOOD])
def test_every_message_of_the_agent_is_understood(message: dict[str, Any]) -> None:
    decoded = sent(json.dumps(message))
    assert decoded is not None
    assert protocol.name(type(decoded)) == message["type"]


def test_the_agents_own_words_about_this_machine_are_understood(capsys: pytest.CaptureFixture[str]) -> None:
    facts, snapshot = telemetry.facts(), telemetry.snapshot()
    messages.emit("hello", protocol=PROTOCOL, pid=1, facts=facts)
    messages.emit("serving", telemetry=snapshot)
    hello, serving = map(sent, capsys.readouterr().out.splitlines())
    assert isinstance(hello, protocol.Hello)
    assert isinstance(serving, protocol.Serving)
    assert protocol.plain(hello.facts) == json.loads(json.dumps(facts))
    assert protocol.plain(serving.telemetry) == json.loads(json.dumps(snapshot))


@pytest.mark.parametrize("line", WRONG, ids=lambda line: line[:60])
def test_a_wrong_message_is_one_error_that_shows_it(line: str) -> None:
    with pytest.raises(DeviceError) as error:
        sent(line)
    text = str(error.value)
    assert text.startswith("pi sent what is no message of the agent's (")
    assert line[:20] in text
    assert "edgeport devices check pi" in text
    assert len(text) < 1000


@pytest.mark.parametrize("line", ["", "hello", "{}", '{"a": 1}', "[1, 2]", "\x1b[2J", '"type"'])
def test_what_a_runtime_prints_is_passed_over(line: str) -> None:
    assert sent(line) is None


def test_control_characters_reach_no_terminal() -> None:
    with pytest.raises(DeviceError) as error:
        sent('{"type": "first", "ns": "\x1b]0;owned\x07\x9b2J"}')
    assert not any(ord(character) < 32 or 127 <= ord(character) < 160 for character in str(error.value))


ops = next(m for m in GOOD if m["type"] == "ops")


@pytest.mark.parametrize(
    "rows",
    [
        ROWS[1:],
        [*ROWS, ROWS[0]],
        [*ROWS[:2], {**ROWS[2], "us": [1]}],
        [*ROWS[:2], {**ROWS[2], "us": [1, 2, 3]}],
        [{**ROWS[0], "us": [-1, 5]}, *ROWS[1:]],
        [*ROWS[:2], {**ROWS[2], "source": "elsewhere"}],
        [*ROWS[:2], {**ROWS[2], "us": []}],
    ],
)
def test_rows_of_a_profile_must_fit_together(rows: list[dict[str, Any]]) -> None:
    with pytest.raises(DeviceError, match="pi sent"):
        sent(json.dumps({**ops, "rows": rows}))


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, item in inner for place in places(item, (*path, key)))]


def replaced(value: Any, path: Sequence[Any], new: Any) -> Any:
    if not path:
        return new
    copy = value.copy()
    copy[path[0]] = replaced(value[path[0]], path[1:], new)
    return copy


@given(st.data())
def test_a_message_with_any_part_exchanged_is_understood_or_one_error(data: st.DataObject) -> None:
    message = data.draw(st.sampled_from(GOOD))
    path = data.draw(st.sampled_from(places(message)[1:]))
    line = json.dumps(replaced(message, path, data.draw(anything)))
    try:
        decoded = sent(line)
    except DeviceError as e:
        error = str(e)
    else:
        error = ""
        assert decoded == sent(msgspec.json.encode(decoded).decode().replace('"type":', '"type": ', 1))
    assert error.startswith("pi sent ") or not error


def test_messages_without_end_are_ended() -> None:
    door, line = Door("pi"), json.dumps(GOOD[3])
    for _ in range(protocol.MOST_UNASKED):
        assert door.message(line)
    with pytest.raises(DeviceError, match="pi sends messages without end"):
        door.message(line)


def test_answers_that_were_asked_for_have_no_number() -> None:
    door, line = Door("pi"), json.dumps(next(m for m in GOOD if m["type"] == "burst"))
    for _ in range(protocol.MOST_UNASKED + 5):
        assert door.message(line, asked=protocol.Burst)


def test_a_message_that_did_not_come_is_told_with_the_device() -> None:
    with pytest.raises(DeviceError, match=r"pi: its agent ended without its 'samples' message"):
        protocol.Messages("pi")[protocol.Samples]


# A hostile device: a program in the place of the agent


class Hostile(Local):
    """This machine, on which the agent is another program."""

    def __init__(self, program: str) -> None:
        super().__init__(sys.executable, "pi")
        self.program = program

    def start(self, argv: Sequence[str], listens: bool = False) -> Process:
        return Process([sys.executable, "-c", self.program], listens)


def says(*lines: str, then: str = "") -> str:
    return f"import sys, time\nfor line in {list(lines)!r}:\n print(line, flush=True)\n{then}"


HELLO, READY, FIRST, SAMPLES, BYE = (json.dumps(GOOD[i]) for i in (0, 1, 2, 4, -1))
ENDLESS = {
    "a line": "while True: sys.stdout.write('x' * 65536)",
    "lines": "while True: print('x' * 1000)",
    "messages": f"while True: print({json.dumps(GOOD[3])!r})",
    "errors": "while True: sys.stderr.write('x' * 1000 + chr(10))",
}


def measure(program: str, path: Path) -> Measurement:
    settings = Settings(num_runs=2, warmup_runs=0, launches=1, profile=False)
    artifact = Artifact(path, "small", "onnxruntime", "fp32")
    return Measurement([artifact], Runner("pi", Hostile(program), timeout=3), settings, Silent())


def test_a_device_that_says_what_it_must_is_measured(tmp_path: Path) -> None:
    """So that what the others are refused for is what they say."""
    measurement = measure(says(HELLO, READY, FIRST, SAMPLES, BYE), small_onnx(tmp_path / "m.onnx"))
    measurement.run()
    assert stats.latency(measurement.results()[0].launches).median == pytest.approx(5.5e-6)


@pytest.mark.parametrize("what", ENDLESS)
def test_output_without_end_is_ended(what: str, tmp_path: Path) -> None:
    program = says(HELLO, READY, then=ENDLESS[what])
    with pytest.raises(DeviceError, match=r"\bpi\b.*(without end|more than)"):
        measure(program, small_onnx(tmp_path / "m.onnx")).run()


@pytest.mark.parametrize(
    "lines",
    [
        [HELLO, READY, FIRST, BYE],
        [HELLO, READY, FIRST, SAMPLES],
        [READY, FIRST, SAMPLES, BYE],
        [HELLO, READY, FIRST, '{"type": "samples", "ns": [1, 2, 3, 4, 5]}', BYE],
        [HELLO, READY, FIRST, '{"type": "samples", "ns": [NaN, 1]}', BYE],
        ['{"type": "hello", "protocol": 99, "facts": {}}', BYE],
        [],
    ],
)
def test_what_is_missing_or_too_much_is_one_error_with_the_device(lines: list[str], tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=r"\bpi\b"):
        measure(says(*lines), small_onnx(tmp_path / "m.onnx")).run()


def state_of(runner: Runner) -> object:
    return preflight.check(runner, find_device("local"), False, Silent())


def block_of(runner: Runner) -> object:
    settings = interleave.Settings(seconds=0)
    return interleave.run_block(runner, {"a": Path(__file__).with_suffix(".onnx")}, settings, 0)


@pytest.mark.parametrize("ask", [state_of, Runner.facts, block_of])
@pytest.mark.parametrize("line", [GOOD[2], GOOD[5], {"type": "state", "snapshot": []}, {"type": "burst", "ns": 5}])
def test_an_answer_of_another_kind_is_one_error(ask: Callable[[Runner], object], line: object, tmp_path: Path) -> None:
    program = says(HELLO, READY, json.dumps(GOOD[8]), json.dumps(line))
    transport = Hostile(program)
    transport.put = lambda path, keep=False: os.fspath(path)  # type: ignore[method-assign]
    with pytest.raises(DeviceError, match=r"\bpi\b"):
        ask(Runner("pi", transport, timeout=5))


@pytest.mark.parametrize("command", [["cat", "/dev/zero"], ["sh", "-c", "cat /dev/zero >&2"]])
def test_a_short_command_that_writes_without_end_is_ended(command: list[str]) -> None:
    with pytest.raises(DeviceError, match=r"wrote more than 17 MB, and was ended"):
        Local(sys.executable).run(command)
