"""What the agent says to the host, as edgeport.agent.messages prints it: one JSON object a line, its kind under "type".

This is the one door through which a device's words come in. A device is not trusted: each message has its fields, of
their types and within these limits, or the measurement ends with what the device sent. Times are in nanoseconds where a
field is called ns, in microseconds where it is called us, sizes in bytes, temperatures in degrees Celsius.
"""

from collections.abc import Iterable
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import UNSET, Meta, UnsetType

from edgeport import cleaning
from edgeport.errors import DeviceError

PREFIX = '{"type":'  # of what the agent prints; a runtime may write other things to the same stream
MOST_SHOWN = 200  # characters of a message that is refused
MOST_NOISE = 16 << 20  # characters of lines that are no messages
MOST_UNASKED = 20_000  # messages of one command: it tells once a second that it is alive

Text = Annotated[str, Meta(max_length=4096)]
Name = Annotated[str, Meta(max_length=65_536)]
Count = Annotated[int, Meta(ge=0, le=2**62)]
Ns = Annotated[int, Meta(ge=1, le=10**16)]  # of something that ran: up to four months
WaitedNs = Annotated[int, Meta(ge=0, le=10**16)]
# Of one operator in one run. ONNX Runtime's clock may give a node with a subgraph a bit less than its parts.
Us = Annotated[int, Meta(ge=-(10**9), le=10**13)] | Annotated[float, Meta(ge=-1e9, le=1e13)]
WholeUs = Annotated[int, Meta(ge=0, le=10**13)]
Khz = Annotated[int, Meta(ge=0, le=10**9)]
Celsius = Annotated[float, Meta(ge=-300, le=10_000)]
Core = Annotated[int, Meta(ge=0, le=65_535)]
Shape = Annotated[tuple[Annotated[int, Meta(ge=-1, le=2**62)], ...], Meta(max_length=64)]
Few = Meta(max_length=65_536)  # cores, sensors, governors


def whole_number(text: str) -> int | None:
    """The number that a device's other words spell, None where they are no number of at most 18 digits."""
    text = text.strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else None


class Message(msgspec.Struct, frozen=True, tag_field="type", tag=str.lower):
    """Any of those below."""


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What the device is, as far as it tells. runner, samples: of one that is not measured by the agent."""

    machine: Text | None = None
    system: Text | None = None
    kernel: Text | None = None
    python: Text | None = None
    device_model: Text | None = None
    cpu_model: Text | None = None
    cpus: Core | None = None
    page_size: Count | None = None
    memory_bytes: Count | None = None
    governors: Annotated[tuple[Text, ...], Few] = ()
    cores: Annotated[tuple[Core, ...], Few] = ()
    core_max_khz: Annotated[dict[Annotated[str, Meta(max_length=16)], Khz], Few] = {}
    max_khz: Annotated[tuple[Khz, ...], Few] = ()
    boot_id: Text | None = None
    emulated: bool = False
    runner: Text | UnsetType = UNSET
    samples: Text | UnsetType = UNSET


class Battery(msgspec.Struct, frozen=True):
    """Of a phone. powered: whether it is on its cable."""

    percent: Annotated[int, Meta(ge=0, le=1000)] | None = None
    celsius: Celsius | None = None
    powered: bool | None = None


class Telemetry(msgspec.Struct, frozen=True, kw_only=True):
    """The state that it is in, as far as it tells. throttled_bits: as vcgencmd. throttle_count: of all cores since the
    start. steal_ticks, total_ticks: of the processors since the start. The last two are told by phones alone.
    """

    unix_time: Annotated[float, Meta(ge=-1e11, le=1e12)] | None = None
    khz: Annotated[tuple[Khz, ...], Few] = ()
    celsius: Annotated[tuple[Celsius, ...], Few] = ()
    throttled_bits: Count | None = None
    throttle_count: Count | None = None
    governors: Annotated[tuple[Text, ...], Few] = ()
    load_1min: Annotated[float, Meta(ge=0, le=1e9)] | None = None
    steal_ticks: Count | None = None
    total_ticks: Count | None = None
    thermal_status: Annotated[int, Meta(ge=-1, le=1000)] | UnsetType | None = UNSET
    battery: Battery | UnsetType = UNSET


class Program(msgspec.Struct, frozen=True):
    """Another one that computes on the device. cores: how many of them it keeps busy."""

    name: Text
    pid: Count
    cores: Annotated[float, Meta(ge=0, le=1e6)]


class Tensor(msgspec.Struct, frozen=True):
    """An input or output of the model, of the shape that it was loaded with."""

    name: Name
    dtype: Text
    shape: Shape


class Row(msgspec.Struct, frozen=True):
    """The times of one operator, one a run, or one mean. source: "invoke" is the whole run, "between" what passes
    between operators; "runtime" and "delegate" say who ran it. index: the operator's own, -1 where none is told.

    inputs, outputs: {element type: shape} each, where the profiler tells them.
    """

    name: Name
    source: Literal["invoke", "between", "runtime", "delegate", ""]
    index: Annotated[int, Meta(ge=-1, le=2**62)]
    us: Annotated[tuple[Us, ...], Meta(min_length=1)]
    op: Name = ""
    inputs: tuple[dict[str, Shape], ...] = ()
    outputs: tuple[dict[str, Shape], ...] = ()


class Hello(Message, frozen=True):
    """The first message of any command."""

    protocol: int
    facts: Facts
    pid: Count = 0


class Ready(Message, frozen=True):
    """The model is loaded. init_ns: how long that took. cores: those that the agent may run on."""

    init_ns: Ns
    version: Text
    inputs: tuple[Tensor, ...] = ()
    outputs: tuple[Tensor, ...] = ()
    cores: Annotated[tuple[Core, ...], Few] = ()
    nice: int = 0


class First(Message, frozen=True):
    """The first run."""

    ns: Ns


class Progress(Message, frozen=True):
    """How many runs of a phase are done."""

    phase: Text
    done: Count
    of: Count


class Samples(Message, frozen=True):
    """Plain runs, and the device's state before and after them."""

    ns: Annotated[tuple[Ns, ...], Meta(min_length=1)]
    before: Telemetry = Telemetry()
    after: Telemetry = Telemetry()


class Ops(Message, frozen=True):
    """Runs with the profiler on, and plain ones in the same process. preempted: how often in each run the system gave a
    core to another program, empty where that is not told. optimized_model: a file on the device.
    """

    rows: tuple[Row, ...]
    plain_ns: Annotated[tuple[Ns, ...], Meta(min_length=1)]
    preempted: tuple[Count, ...] = ()
    optimized_model: Name | None = None
    before: Telemetry = Telemetry()
    after: Telemetry = Telemetry()

    def __post_init__(self) -> None:
        for source in ("invoke", "between"):
            if sum(row.source == source for row in self.rows) != 1:
                raise ValueError(f"there must be one row of source {source!r}")
        runs = len(self.row("invoke").us)
        if any(len(row.us) != runs for row in self.rows) or len(self.preempted) not in (0, runs):
            raise ValueError("all rows must have the times of the same runs")
        if any(us < 0 for source in ("invoke", "between") for us in self.row(source).us):
            raise ValueError("a whole run takes no negative time")

    def row(self, source: str) -> Row:
        return next(row for row in self.rows if row.source == source)

    def whole_us(self, source: str) -> tuple[int, ...]:
        """Of what is no operator, "invoke" or "between", in each run."""
        return tuple(round(us) for us in self.row(source).us)


class Inferred(Message, frozen=True):
    """All samples have been computed; the outputs as they were for the last one."""

    outputs: tuple[Tensor, ...]


class State(Message, frozen=True):
    """How the device is before anything is measured."""

    snapshot: Telemetry
    busy: Annotated[tuple[Program, ...], Meta(max_length=100)] = ()


class Serving(Message, frozen=True):
    """The model is loaded, and bursts of runs may be asked for."""

    telemetry: Telemetry = Telemetry()


class Burst(Message, frozen=True):
    """Runs one right after the other. ns: of each; preempted: how often in each one the system gave a core to another
    program, which then is part of its time; waited_ns: the part of its time that the thread which called the runtime
    waited for a core that others had, as far as the system tells.
    """

    ns: Annotated[tuple[Ns, ...], Meta(min_length=1)]
    preempted: tuple[Count, ...]
    waited_ns: tuple[WaitedNs, ...] = ()

    def __post_init__(self) -> None:
        if len(self.preempted) != len(self.ns) or len(self.waited_ns) not in (0, len(self.ns)):
            raise ValueError("all its fields must be of the same runs")


class TelemetryNow(Message, frozen=True, tag="telemetry"):
    """The answer to a question for it."""

    telemetry: Telemetry


class Holder(Message, frozen=True):
    """Who has the device, and for how many seconds they have had it."""

    owner: Text
    seconds: Annotated[float, Meta(ge=0, le=1e10)]


class Busy(Holder, frozen=True):
    """Somebody else has the device; it is not waited for."""


class Waiting(Holder, frozen=True):
    """Somebody else has the device, and it is waited for."""


class Held(Message, frozen=True):
    """The device is ours. removed: what others had left there; refused: what it does not do to stay steady."""

    removed: tuple[Name, ...] = ()
    refused: Annotated[tuple[Text, ...], Meta(max_length=100)] = ()


class Error(Message, frozen=True):
    """Why a command ends without having done what it was asked."""

    kind: Text
    text: Annotated[str, Meta(max_length=1_000_000)]


class Bye(Message, frozen=True):
    """The last message of a command that did what it was asked. peak_bytes: the most memory that it held at once."""

    peak_bytes: Count | None = None
    telemetry: Telemetry = Telemetry()


AnyMessage = (
    Hello
    | Ready
    | First
    | Progress
    | Samples
    | Ops
    | Inferred
    | State
    | Serving
    | Burst
    | TelemetryNow
    | Busy
    | Waiting
    | Held
    | Error
    | Bye
)
Kind = TypeVar("Kind", bound=Message)
_DECODER = msgspec.json.Decoder(AnyMessage)


class Door:
    """Takes a device's lines one by one, of one command. Every error names the device and what it sent."""

    def __init__(self, device: str) -> None:
        self.device = device
        self._noise, self._unasked = 0, 0

    def message(self, line: str, asked: type[Message] | None = None) -> Message | None:
        """None for a line that is no message, as a runtime may write. asked: the kind that is waited for.

        Raises DeviceError for a message that is not as it must be, and for what has no end.
        """
        if not line.lstrip().startswith(PREFIX):
            self._noise += len(line) + 1
            if self._noise > MOST_NOISE:
                raise DeviceError(f"{self.device} writes without end, and no message; the last line: {_shown(line)}")
            return None
        message = self._decoded(line)
        self._unasked += type(message) is not asked
        if self._unasked > MOST_UNASKED:
            raise DeviceError(f"{self.device} sends messages without end; the last one: {_shown(line)}")
        return message

    def checked(self, message: Message) -> Message:
        """One that was made here of what a device told otherwise, held against the same limits."""
        return self._decoded(msgspec.json.encode(message).decode())

    def _decoded(self, line: str) -> Message:
        try:
            message: Message = _DECODER.decode(line)
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as e:
            raise DeviceError(
                f"{self.device} sent what is no message of the agent's ({cleaning.line(str(e))}): {_shown(line)}; "
                f"run 'edgeport devices check {self.device}'"
            ) from e
        return message


def _shown(line: str) -> str:
    return cleaning.line(line[:MOST_SHOWN]) + " ..." * (len(line) > MOST_SHOWN)


class Messages:
    """The last message of each kind that a command has sent, in the order in which the kinds came."""

    def __init__(self, device: str, messages: Iterable[Message] = ()) -> None:
        self.device = device
        self._last: dict[type[Message], Message] = {type(message): message for message in messages}

    def add(self, message: Message) -> None:
        self._last[type(message)] = message

    def get(self, kind: type[Kind]) -> Kind | None:
        return self._last.get(kind)  # type: ignore[return-value]

    def __getitem__(self, kind: type[Kind]) -> Kind:
        """Raises DeviceError where there was none."""
        message = self.get(kind)
        if message is None:
            raise DeviceError(f"{self.device}: its agent ended without its {name(kind)!r} message")
        return message

    def kinds(self) -> list[type[Message]]:
        return list(self._last)


def name(kind: type[Message]) -> str:
    """What stands under "type"."""
    return str(kind.__struct_config__.tag)


def plain(struct: Facts | Telemetry) -> dict[str, Any]:
    """As results keep it, in JSON's own types."""
    kept: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(struct))
    return kept
