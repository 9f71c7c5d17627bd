"""TensorFlow Lite's own benchmark_model in place of edgeport's agent: for phones that are to run nothing else.

It is a program for one ABI that its users fetch or build (runner = "benchmark_model" and benchmark_model = "FILE" in a
device's file). It tells a summary of each launch and no samples: what stands for a launch here is its median, or its
mean where it is too old to tell one. It tells no temperature either, and no lock is held while it runs.

Its log: count=50 first=... curr=... min=... max=... avg=... std=... p5=... median=... p95=..., in microseconds, once
for the warm-up and once for the timed runs (tensorflow/lite/tools/benchmark/benchmark_model.cc). Its profile: see
operators().
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from edgeport import files, kit, protocol
from edgeport.agent import PROTOCOL
from edgeport.catalog import Device
from edgeport.errors import DeviceError, UsageError
from edgeport.progress import Progress
from edgeport.protocol import Message, Messages, Row
from edgeport.runner import Runner, State
from edgeport.transport import Done, Transport

RUNTIME = "litert"
MOST_TOLD = 200  # characters of a fact
NUMBER = r"-?[\d.]+(?:e[+-]?\d+)?"
QEMU = "qemu-"


class Summary(msgspec.Struct, frozen=True):
    """Of one launch, in microseconds. typical: the median of its runs, or their mean where it tells no other."""

    init: float
    first: float
    typical: float
    mean: float


class BenchmarkModel(Runner, frozen=True):
    """Its messages are those of the agent, as far as it knows."""

    binary: Path = Path()

    def run(
        self,
        command: str,
        runtime: str,
        model: Path,
        options: Sequence[str] = (),
        on_message: Callable[[Message], None] = lambda message: None,
    ) -> Messages:
        """Commands: latency and ops, as the agent. Raises UsageError for what is no TFLite file, and DeviceError."""
        if runtime != RUNTIME:
            raise UsageError(f"{self.device}: benchmark_model runs TFLite files alone; pass --runtime {RUNTIME}")
        given = dict(option.removeprefix("--").split("=", 1) for option in options if "=" in option)
        shapes = [o.removeprefix("--input-shape=") for o in options if o.startswith("--input-shape=")]
        words = [*self._pinned(given.get("cores", "")), self._program(), *_flags(given, shapes)]
        words.append(f"--graph={self.transport.put(model)}")
        plain = summary(self._finished(words))
        cores = tuple(int(core) for core in given.get("cores", "").split(",") if core)
        messages: list[Message] = [
            protocol.Hello(PROTOCOL, self._facts()),
            protocol.Ready(_ns(plain.init), "", cores=cores),
            protocol.First(_ns(plain.first)),
            protocol.Samples((_ns(plain.typical),)),
        ]
        if command == "ops":
            messages.append(self._profiled(words, plain))
        door = protocol.Door(self.device)
        return Messages(self.device, [door.checked(message) for message in [*messages, protocol.Bye()]])

    def facts(self) -> dict[str, Any]:
        return protocol.plain(self._facts())

    def state(self) -> State:
        """Its facts and its date: the temperature, the frequencies and what else runs stay unknown."""
        date = self.transport.run(["date", "+%s"]).out.strip()
        now = protocol.whole_number(date)
        return State(self.facts(), protocol.plain(protocol.Telemetry(unix_time=now)))

    def _facts(self) -> protocol.Facts:
        """What the phone tells without an agent."""
        told = {key: self.transport.run(words).out.strip()[:MOST_TOLD] for key, words in FACTS.items()}
        emulated = QEMU in self.transport.run(["cat", "/proc/thread-self/maps"]).out
        own = {"emulated": emulated, "runner": "benchmark_model", "samples": "one median a launch"}
        return msgspec.convert({**told, **own}, protocol.Facts)

    def _program(self) -> str:
        program = self.transport.put(self.binary, keep=True)
        self.transport.run(["chmod", "700", program])
        return program

    def _pinned(self, cores: str) -> list[str]:
        mask = sum(1 << int(core) for core in cores.split(",") if core)
        return ["taskset", f"{mask:x}"] if mask else []

    def _profiled(self, words: Sequence[str], plain: Summary) -> protocol.Ops:
        with self.transport.folder() as folder:
            out = f"{folder}/profile.csv"
            profiling = ["--enable_op_profiling=true", "--op_profiling_output_mode=csv"]
            whole = summary(self._finished([*words, *profiling, f"--op_profiling_output_file={out}"]))
            done = self.transport.run(["cat", out])
        rows = operators(done.out)
        if not rows:
            raise DeviceError(f"{self.device}: benchmark_model wrote no profile of operators: {done.err.strip()}")
        rows += [Row("whole run", "invoke", -1, (round(whole.mean),)), Row("between operators", "between", -1, (0,))]
        return protocol.Ops(tuple(rows), (_ns(plain.mean),))

    def _finished(self, words: Sequence[str]) -> str:
        """All that it wrote, which by its version goes to one or the other stream."""
        done: Done = self.transport.run(words, self.timeout)
        if done.exit_code:
            said = "\n".join(f"  {line}" for line in f"{done.out}\n{done.err}".strip().splitlines()[-5:])
            raise DeviceError(f"{self.device}: benchmark_model ended with exit code {done.exit_code}:\n{said}")
        return f"{done.out}\n{done.err}"


FACTS = {
    "machine": ["uname", "-m"],
    "kernel": ["uname", "-r"],
    "device_model": ["getprop", "ro.product.model"],
}


def runner_on(device: Device, transport: Transport, progress: Progress) -> BenchmarkModel:
    """Raises UsageError where the device's file names no program."""
    binary = Path(device.benchmark_model)
    if not device.benchmark_model or not binary.is_file():
        raise UsageError(
            f'{device.name}: runner = "benchmark_model" needs benchmark_model = "FILE" in the device\'s file: '
            f"TensorFlow Lite's program for its ABI ({device.benchmark_model or 'none'} is given)"
        )
    progress.warned(
        f"{device.name}: benchmark_model tells medians and no samples; no lock is held, throttling is unseen"
    )
    # it holds the runtime, and is known by the start of its hash
    library = kit.Library(binary, f"benchmark_model {files.sha256(binary)[:12]}")
    return BenchmarkModel(device.name, transport, library=lambda runtime: library, binary=binary)


def summary(log: str) -> Summary:
    """Raises DeviceError for a log without the timed runs."""
    runs = [dict(re.findall(rf"(\w+)=({NUMBER})", line)) for line in log.splitlines() if re.search(r"\bcount=\d", line)]
    timed = runs[-1] if runs else {}
    init = re.search(rf"Init: ({NUMBER}), First inference: ({NUMBER})", log)
    if "avg" not in timed and "curr" in timed:  # of one run it tells that run alone
        timed = {**timed, "avg": timed["curr"]}
    if "avg" not in timed or not init:
        raise DeviceError("benchmark_model told no times; is it TensorFlow Lite's own?")
    mean = float(timed["avg"])
    return Summary(float(init[1]), float(init[2]), float(timed.get("median", mean)), mean)


def _ns(us: float) -> int:
    return round(us * 1e3)


def operators(profile: str) -> list[Row]:
    """Rows as the agent tells them, with one mean each, from op_profiling_output_mode=csv.

    The file has a part for the initialization and one for the runs; each has tables under titles between "=" signs
    (stats_calculator.cc), of which "Run Order" lists every operator. What a delegate ran follows "Delegate internal:".
    Names and XNNPACK's types hold the separator ", " too, so a row is known by the numbers in its middle.
    """
    rows: list[Row] = []
    running, delegate, title, pattern = True, False, "", None
    for line in profile.splitlines():
        if "Benchmark Initialization" in line or "Regular Benchmark Runs" in line:
            running, delegate, title = "Initialization" not in line, False, ""
        elif line.startswith("Delegate internal"):
            delegate = True
        elif line.startswith("==="):
            title, pattern = line.strip("= "), None
        elif line.startswith("node type,"):
            pattern = _row_pattern(line)
        elif running and title == "Run Order" and pattern and (found := pattern.fullmatch(line)):
            rows.append(_row(found.groupdict(), delegate))
    inside = any(row.source == "delegate" for row in rows)
    return [row for row in rows if not (inside and row.source == "runtime" and "Delegate" in row.name)]


def _row_pattern(header: str) -> re.Pattern[str]:
    """Of a table whose columns the header names: "node type, first, avg_ms, %, ..., times called, name"."""
    names = [re.sub(r"\W", "_", name) for name in header.split(", ")][1:-1]
    numbers = "".join(rf", (?P<c_{n}_{name}>{NUMBER}|nan|-?inf)%?" for n, name in enumerate(names))
    return re.compile(rf"(?P<type>.*?){numbers}, (?P<name>.*)")


def _row(fields: dict[str, str], delegate: bool) -> Row:
    value = {key.split("_", 2)[2]: text for key, text in fields.items() if key.startswith("c_")}
    index = fields["name"].rpartition(":")[2]
    us = float(value["avg_ms"]) * 1e3 * max(1.0, float(value.get("times_called", 1)))
    number = protocol.whole_number(index)
    return Row(fields["type"].strip(), "delegate" if delegate else "runtime", -1 if number is None else number, (us,))


def _flags(given: dict[str, str], shapes: Sequence[str]) -> list[str]:
    """benchmark_model's words for the agent's options. Runs are counted, and not timed by the clock."""
    flags = [
        f"--num_threads={given['num-threads']}",
        f"--num_runs={given['num-runs']}",
        f"--warmup_runs={given['warmup-runs']}",
        "--min_secs=0.001",
        "--warmup_min_secs=0.001",
    ]
    if shapes:
        names, sizes = zip(*(shape.rpartition("=")[::2] for shape in shapes), strict=True)
        flags += [f"--input_layer={','.join(names)}", f"--input_layer_shape={':'.join(sizes)}"]
    return flags
