"""Runs artifacts on a device: fresh processes that time plain runs, and one more that profiles. Derives nothing."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from edgeport import attribution, breakdown, files, formats, inputs, preflight, protocol, scratch, stats
from edgeport.attribution import Row
from edgeport.cost import tensor_bytes
from edgeport.errors import DeviceError
from edgeport.formats import Graph, tflite_shapes
from edgeport.inputs import Values
from edgeport.progress import Progress
from edgeport.protocol import Message, Messages
from edgeport.records import Launch, OpProfile, Origin, Result, TensorInfo
from edgeport.runner import Runner

# XNNPACK cuts each operator's time to whole microseconds (xnn_get_elapsed_time), which loses half of one on average.
DELEGATE_CUT_US = 0.5
LAUNCH_SECONDS = 5.0  # of timed runs, where their number was left to us
PLANNED_SECONDS = 120.0  # of a measurement, where the number of launches was left to us
LEAST_LAUNCHES = 2
LEAST_RUNS = 4  # as the agent has it
PROFILE_LAUNCHES = 2  # that the profile takes as long as: it runs plain too
TOLD_SECONDS = 20.0
MOST_TIMES = 500_000  # of operators in a profile: ONNX Runtime's profiler stops writing at twice as many
TRACE_TYPES = {"float": "float32", "double": "float64"}  # as ONNX Runtime's profiler calls what has another name
UNTAKEN = "Failed to set custom allocation for output"  # what LiteRT writes of an output whose size only a run tells


class Artifact(msgspec.Struct, frozen=True):
    """A file to measure. model: the name under which its results are kept."""

    path: Path
    model: str
    runtime: str
    precision: str


class Settings(msgspec.Struct, frozen=True):
    """How to measure. input_shapes: sizes by input name, for those that the file leaves open. values: of some inputs.
    plans: which of "num_runs" and "launches" may be fewer where the first runs are slow.
    cool_down: degrees Celsius below which the device is to be before each launch; cool_down_minutes: how long that may
    take each time.
    """

    num_threads: int = 1
    num_runs: int = 16
    warmup_runs: int = 4
    launches: int = 4
    cores: tuple[int, ...] = ()
    input_shapes: dict[str, tuple[int, ...]] = {}
    values: Values | None = None
    profile: bool = True
    plans: frozenset[str] = frozenset()
    cool_down: float | None = None
    cool_down_minutes: float = 5.0


class Measurement:
    """Measures some artifacts. Launches take turns, so that what slows the device for a while slows them all."""

    def __init__(
        self,
        artifacts: Sequence[Artifact],
        runner: Runner,
        settings: Settings,
        progress: Progress,
        origin: Origin | None = None,
    ) -> None:
        """origin: when and on which commit, to be told in the results."""
        self._sessions = [_Session(a, runner, settings, progress) for a in artifacts]
        self._settings, self._origin = settings, origin

    def run(self) -> None:
        """Raises DeviceError. Whatever was measured before that is in results()."""
        launches = self._settings.launches
        for session in self._sessions:
            session.launch(0, launches)
        if self._sessions:
            launches = self._planned()
        for n in range(1, launches):
            for session in self._sessions:
                session.launch(n, launches)
        for session in self._sessions:
            if self._settings.profile:
                session.run_profile()
            session.finish()

    def _planned(self) -> int:
        """How many launches there are to be of each file, by what the first ones took; says so where that is long."""
        round_seconds = max(1e-9, sum(session.seconds() for session in self._sessions))
        profiles = PROFILE_LAUNCHES if self._settings.profile else 0
        launches = self._settings.launches
        if "launches" in self._settings.plans:
            launches = min(launches, max(LEAST_LAUNCHES, int(PLANNED_SECONDS / round_seconds) - profiles))
        left = round_seconds * (launches - 1 + profiles)
        if left >= TOLD_SECONDS:
            self._sessions[0].tell_plan(launches, len(self._sessions), left)
        return launches

    def results(self) -> list[Result]:
        """Of every artifact of which at least one launch has ended."""
        return [session.result(self._origin) for session in self._sessions if session.launches]


class _Session:
    """The launches of one artifact."""

    def __init__(self, artifact: Artifact, runner: Runner, settings: Settings, progress: Progress) -> None:
        self.artifact, self.runner, self.settings, self.progress = artifact, runner, settings, progress
        place = "" if runner.device == "local" else f"{runner.device}: "
        self.step = f"{place}{artifact.path.name} {artifact.runtime}"
        self.graph = formats.read(artifact.path)
        self.values = inputs.fitting(settings.values, self.graph) if settings.values else None
        self.shapes = inputs.shapes(self.graph, settings.input_shapes, self.values)
        self.takes_outputs = True
        self.runs = settings.num_runs
        self.launches: list[Launch] = []
        self.profile: OpProfile | None = None
        self.facts: dict[str, Any] = {}
        self.version = ""
        self.cores: tuple[int, ...] = ()
        self.inputs: tuple[TensorInfo, ...] = ()

    def launch(self, n: int, launches: int) -> None:
        """One fresh process of plain runs. launches: how many there are to be."""
        if n == 0:
            self.progress.started(self.step)
            self._warn_of_assumptions()
        self.progress.advanced(self.step, f"launch {n + 1} of {launches}")
        is_planned = n == 0 and "num_runs" in self.settings.plans
        messages = self._run("latency", [f"--max-seconds={LAUNCH_SECONDS}"] if is_planned else [])
        samples, ready = messages[protocol.Samples], messages[protocol.Ready]
        self._check_count(len(samples.ns), LEAST_RUNS if is_planned else self.runs)
        if is_planned and len(samples.ns) > 1:  # benchmark_model tells one of all its runs
            self.runs = len(samples.ns)
        self.facts, self.cores = protocol.plain(messages[protocol.Hello].facts), ready.cores
        self.version = ready.version or self.runner.library(self.artifact.runtime).version
        self.inputs = tuple(TensorInfo(i.name, i.shape, i.dtype) for i in ready.inputs)
        self.launches.append(
            Launch(
                init_ns=ready.init_ns,
                first_ns=messages[protocol.First].ns,
                samples_ns=samples.ns,
                peak_bytes=messages[protocol.Bye].peak_bytes,
                before=protocol.plain(samples.before),
                after=protocol.plain(samples.after),
            )
        )

    def seconds(self) -> float:
        """What its last launch took, about."""
        last = self.launches[-1]
        run = sum(last.samples_ns) / len(last.samples_ns)
        return (last.init_ns + last.first_ns + run * (len(last.samples_ns) + self.settings.warmup_runs)) / 1e9

    def tell_plan(self, launches: int, files: int, seconds: float) -> None:
        """How long the whole measurement takes from now on, and what makes it shorter."""
        step = f"plan for {self.runner.device}"
        told = f"{launches} launches of {self.runs} runs" + (f" for each of {files} files" if files > 1 else "")
        self.progress.started(step)
        self.progress.finished(step, f"{told}; some {_duration(seconds)} more (--launches, --num-runs, --no-ops)")

    def run_profile(self) -> None:
        """One fresh process with the runtime's profiler on."""
        self.progress.advanced(self.step, "profile")
        with self.runner.transport.folder() as folder:
            message = self._run("ops", [f"--scratch={folder}"])[protocol.Ops]
            optimized = self._optimized(message.optimized_model)
        whole, between, preempted = message.whole_us("invoke"), message.whole_us("between"), message.preempted
        told = [row for row in message.rows if row.source not in ("invoke", "between")]
        disturbed = stats.is_disturbed(whole, between, preempted, [row.us for row in told])
        typical = stats.typical_runs(whole, preempted)
        rows = [_row(row, () if disturbed else typical) for row in told]
        self.profile = OpProfile(
            plain_ns=message.plain_ns,
            invoke_us=whole,
            between_us=between,
            ops=attribution.op_times(rows, self._resolved_graph(rows, optimized), optimized),
            before=protocol.plain(message.before),
            after=protocol.plain(message.after),
            preempted=preempted,
            disturbed=disturbed,
        )
        if disturbed:
            self.progress.warned(f"{self.step}: {breakdown.DISTURBED}")
        if breakdown.is_too_short(self.profile):
            self.progress.warned(f"{self.step}: {breakdown.TOO_SHORT}")

    def _resolved_graph(self, rows: Sequence[Row], optimized: Graph | None) -> Graph:
        """The file's graph with the shapes that its tensors had when it ran."""
        path, known = self.artifact.path, {i.name: i.shape for i in self.inputs}
        if self.graph.format == "onnx":
            return formats.read(path, attribution.shapes_that_ran(rows, optimized) | known)
        is_open = any(min(tensor.shape or (), default=1) < 0 for tensor in self.graph.tensors.values())
        if is_open or not self.takes_outputs:
            return formats.read(path, tflite_shapes.resolved(path, self.graph, known))
        return self.graph

    def _optimized(self, source: str | None) -> Graph | None:
        """The graph that the runtime made of the file, where it leaves it on the device."""
        if source is None:
            return None
        with scratch.folder() as folder:
            path = folder / "optimized.onnx"
            self.runner.transport.get(source, path)
            return formats.read(path)

    def finish(self) -> None:
        median = stats.latency(self.launches).median
        self.progress.finished(self.step, f"{median:.3g} ms")

    def result(self, origin: Origin | None) -> Result:
        path = self.artifact.path
        return Result(
            model=self.artifact.model,
            file=path.name,
            sha256=files.sha256(path),
            size_bytes=path.stat().st_size,
            device=self.runner.device,
            runtime=self.artifact.runtime,
            runtime_version=self.version,
            precision=self.artifact.precision,
            num_threads=self.settings.num_threads,
            cores=self.cores,
            warmup_runs=self.settings.warmup_runs,
            inputs=self.inputs,
            facts=self.facts,
            launches=tuple(self.launches),
            profile=self.profile,
            origin=origin,
            assumed_shapes=self.shapes.assumed,
            input_data=self.values.record() if self.values else None,
            takes_outputs=self.takes_outputs,
        )

    def _run(self, command: str, options: Sequence[str]) -> Messages:
        settings = self.settings
        common = [f"--num-threads={settings.num_threads}", f"--warmup-runs={settings.warmup_runs}"]
        common += [f"--num-runs={self._runs(command)}"]
        common += [f"--cores={','.join(map(str, settings.cores))}"] if settings.cores else []
        common += [f"--input-shape={n}={','.join(map(str, s))}" for n, s in self.shapes.set.items()]
        if settings.cool_down is not None:
            preflight.cool_down(self.runner, settings.cool_down, settings.cool_down_minutes, self.progress)
        with inputs.stored(self.values) as paths:
            put = self.runner.transport.put
            common += [f"--input-data={name}={put(path)}" for name, path in paths.items()]
            return self._asked(command, [*common, *options])

    def _asked(self, command: str, options: Sequence[str]) -> Messages:
        """Raises DeviceError, with what about the file may be why it does not run."""
        artifact = self.artifact
        try:
            leaving = [] if self.takes_outputs else ["--leave-outputs"]
            return self.runner.run(command, artifact.runtime, artifact.path, [*options, *leaving], self._heard)
        except DeviceError as e:
            if self.takes_outputs and UNTAKEN in str(e):
                self.takes_outputs = False
                self.progress.warned(f"{self.artifact.path.name}: {inputs.OUTPUTS_LEFT}")
                return self._asked(command, options)
            raise type(e)(f"{e}{self._hints()}") from e

    def _runs(self, command: str) -> int:
        """As many as were asked for; fewer with the profiler on, where a network has very many operators."""
        most = max(1, MOST_TIMES // max(1, len(self.graph.nodes)))
        return min(self.runs, most) if command == "ops" else self.runs

    def _warn_of_assumptions(self) -> None:
        if self.shapes.assumed:
            self.progress.warned(
                f"{self.artifact.path.name}: the model leaves sizes open, which nobody gave: it runs with "
                f"{inputs.listed(self.shapes.assumed)}, which is assumed; give --input-shape or --input-data"
            )

    def _hints(self) -> str:
        """What about the file may be why it does not run."""
        hints = []
        custom = sorted({n.kind for n in self.graph.nodes if n.custom})
        if custom:
            hints.append(
                f"the model has custom operators, which {self.artifact.runtime} may not know: {', '.join(custom)}"
            )
        if self.shapes.assumed:
            shapes = inputs.listed(self.shapes.assumed)
            hints.append(f"the model leaves sizes open, which were assumed: {shapes}; give --input-shape")
        given = self.values.arrays if self.values else {}
        filled = [i.name for i in self.graph.inputs if i.dtype in ("int32", "int64") and i.name not in given]
        if filled:
            hints.append(f"integers were filled in for {', '.join(filled)}; give real ones with --input-data FILE.npz")
        return "".join(f"\n  {hint}" for hint in hints)

    def _heard(self, message: Message) -> None:
        if isinstance(message, protocol.Progress):
            self.progress.advanced(self.step, f"{message.phase} {message.done} of {message.of}")

    def _check_count(self, told: int, least: int) -> None:
        """Of runs. benchmark_model tells one figure of all of them. least: so many at least, where fewer may do."""
        if told != 1 and not min(least, self.runs) <= told <= self.runs:
            raise DeviceError(f"{self.runner.device} was asked for {self.runs} runs and told the times of {told}")


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} minutes"


def precision_of(graph: Graph) -> str:
    """int8 where a convolution or product reads or makes eight-bit numbers, fp32 otherwise."""
    heavy = [n for n in graph.nodes if attribution.class_of(n.kind) == "conv"]
    names = (name for node in heavy for name in (*node.inputs, *node.outputs))
    types = {graph.tensors[name].dtype for name in names if name in graph.tensors}
    quantized = any(n.kind == "QuantizeLinear" for n in graph.nodes)
    return "int8" if types & {"int8", "uint8"} or quantized else "fp32"


def _row(row: protocol.Row, typical: Sequence[int]) -> Row:
    """typical: the runs to take the mean of; none for that of its own quicker half, where all runs were disturbed."""
    us = sum(row.us[i] for i in typical) / len(typical) if typical else stats.quicker_half(row.us)
    if row.source == "delegate" and us >= 1:
        us += DELEGATE_CUT_US
    return Row(
        name=row.name,
        source=row.source,
        index=row.index,
        us=us,
        op=row.op,
        outputs=tuple(shape for output in row.outputs for shape in output.values()),
        runs_us=row.us if all(isinstance(us, int) for us in row.us) else (),  # type: ignore  # some tell means alone
        moved_bytes=_moved_bytes(row),
    )


def _moved_bytes(row: protocol.Row) -> int | None:
    """Of what an operator read and wrote, where the profiler tells it: [{type: shape}, ...] of both."""
    told = [pair for tensor in (*row.inputs, *row.outputs) for pair in tensor.items()]
    sizes = [tensor_bytes(shape, TRACE_TYPES.get(dtype, dtype)) for dtype, shape in told]
    known = [size for size in sizes if size is not None]
    return sum(known) if told and len(known) == len(sizes) else None
