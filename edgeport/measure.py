"""Runs artifacts on a device: fresh processes that time plain runs, and one more that profiles. Derives nothing."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from edgeport import attribution, files, formats, preflight, stats
from edgeport.attribution import Row
from edgeport.errors import DeviceError, UsageError
from edgeport.formats import Graph
from edgeport.progress import Progress
from edgeport.records import Launch, OpProfile, Origin, Result, TensorInfo
from edgeport.runner import Message, Runner

# XNNPACK cuts each operator's time to whole microseconds (xnn_get_elapsed_time), which loses half of one on average.
DELEGATE_CUT_US = 0.5
OPEN_SIZE = 1  # what an input's open size is taken as, unless --input-shape says otherwise


class Artifact(msgspec.Struct, frozen=True):
    """A file to measure. model: the name under which its results are kept."""

    path: Path
    model: str
    runtime: str
    precision: str


class Settings(msgspec.Struct, frozen=True):
    """How to measure. input_shapes: sizes by input name, for those that the file leaves open. cool_down: degrees
    Celsius below which the device is to be before each launch.
    """

    num_threads: int = 1
    num_runs: int = 16
    warmup_runs: int = 4
    launches: int = 4
    cores: tuple[int, ...] = ()
    input_shapes: dict[str, tuple[int, ...]] = {}
    profile: bool = True
    cool_down: float | None = None


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
        for n in range(self._settings.launches):
            for session in self._sessions:
                session.launch(n)
        for session in self._sessions:
            if self._settings.profile:
                session.run_profile()
            session.finish()

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
        self.shapes = _shapes(self.graph, settings.input_shapes)
        self.launches: list[Launch] = []
        self.profile: OpProfile | None = None
        self.facts: dict[str, Any] = {}
        self.version, self.cores = "", ()
        self.inputs: tuple[TensorInfo, ...] = ()

    def launch(self, n: int) -> None:
        """One fresh process of plain runs."""
        if n == 0:
            self.progress.started(self.step)
        self.progress.advanced(self.step, f"launch {n + 1} of {self.settings.launches}")
        messages = self._run("latency", [])
        samples, ready = messages["samples"], messages["ready"]
        self.facts, self.cores = messages["hello"]["facts"], tuple(ready["cores"])
        self.version = ready["version"] or self.runner.library(self.artifact.runtime).version
        self.inputs = tuple(TensorInfo(i["name"], tuple(i["shape"]), i["dtype"]) for i in ready["inputs"])
        self.launches.append(
            Launch(
                init_ns=ready["init_ns"],
                first_ns=messages["first"]["ns"],
                samples_ns=tuple(samples["ns"]),
                peak_bytes=messages["bye"]["peak_bytes"],
                before=samples["before"],
                after=samples["after"],
            )
        )

    def run_profile(self) -> None:
        """One fresh process with the runtime's profiler on."""
        self.progress.advanced(self.step, "profile")
        with self.runner.transport.folder() as folder:
            message = self._run("ops", [f"--scratch={folder}"])["ops"]
            optimized = self._optimized(message["optimized_model"])
        rows = [_row(r) for r in message["rows"] if r["us"] and r["source"] not in ("invoke", "between")]
        whole = {r["source"]: tuple(r["us"]) for r in message["rows"]}
        graph = formats.read(self.artifact.path, {i.name: i.shape for i in self.inputs})
        self.profile = OpProfile(
            plain_ns=tuple(message["plain_ns"]),
            invoke_us=whole["invoke"],
            between_us=whole["between"],
            ops=attribution.op_times(rows, graph, optimized),
            before=message["before"],
            after=message["after"],
        )

    def _optimized(self, source: str | None) -> Graph | None:
        """The graph that the runtime made of the file, where it leaves it on the device."""
        if source is None:
            return None
        with tempfile.TemporaryDirectory(prefix="edgeport-") as folder:
            path = Path(folder, "optimized.onnx")
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
        )

    def _run(self, command: str, options: Sequence[str]) -> dict[str, Message]:
        settings = self.settings
        common = [f"--num-threads={settings.num_threads}", f"--warmup-runs={settings.warmup_runs}"]
        common += [f"--num-runs={settings.num_runs}"]
        common += [f"--cores={','.join(map(str, settings.cores))}"] if settings.cores else []
        common += [f"--input-shape={n}={','.join(map(str, s))}" for n, s in self.shapes.items()]
        artifact = self.artifact
        if settings.cool_down is not None:
            preflight.cool_down(self.runner, settings.cool_down, self.progress)
        try:
            return self.runner.run(command, artifact.runtime, artifact.path, [*common, *options], self._heard)
        except DeviceError as e:
            raise type(e)(f"{e}{self._hints()}") from e

    def _hints(self) -> str:
        """What about the file may be why it does not run."""
        hints = []
        custom = sorted({n.kind for n in self.graph.nodes if n.custom})
        if custom:
            hints.append(
                f"the model has custom operators, which {self.artifact.runtime} may not know: {', '.join(custom)}"
            )
        guessed = {
            n: s
            for n, s in self.shapes.items()
            if n not in self.settings.input_shapes and "" not in self.settings.input_shapes
        }
        if guessed:
            shapes = ", ".join(f"{name}={','.join(map(str, shape))}" for name, shape in guessed.items())
            hints.append(f"the model leaves sizes open, which were taken as {OPEN_SIZE}: {shapes}; give --input-shape")
        return "".join(f"\n  {hint}" for hint in hints)

    def _heard(self, message: Message) -> None:
        if message["type"] == "progress":
            self.progress.advanced(self.step, f"{message['phase']} {message['done']} of {message['of']}")


def precision_of(graph: Graph) -> str:
    """int8 where a convolution or product reads or makes eight-bit numbers, fp32 otherwise."""
    heavy = [n for n in graph.nodes if attribution.class_of(n.kind) == "conv"]
    names = (name for node in heavy for name in (*node.inputs, *node.outputs))
    types = {graph.tensors[name].dtype for name in names if name in graph.tensors}
    quantized = any(n.kind == "QuantizeLinear" for n in graph.nodes)
    return "int8" if types & {"int8", "uint8"} or quantized else "fp32"


def _shapes(graph: Graph, asked: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Shapes to set: those asked for, and open sizes filled in."""
    names = {i.name for i in graph.inputs}
    wrong = sorted(set(asked) - names - {""})
    if wrong:
        raise UsageError(f"--input-shape: the model has no input {wrong[0]!r}; it has {', '.join(sorted(names))}")
    if "" in asked and len(graph.inputs) != 1:
        raise UsageError(f"--input-shape: the model has several inputs; write {graph.inputs[0].name}=SIZES, once each")
    shapes = {}
    for info in graph.inputs:
        given = asked.get(info.name) or asked.get("")
        if given or min(info.shape, default=1) < 1:
            shapes[info.name] = given or tuple(d if d > 0 else OPEN_SIZE for d in info.shape)
    return shapes


def _row(row: dict[str, Any]) -> Row:
    shapes = [tuple(shape) for output in row.get("outputs", []) for shape in output.values()]
    us = sum(row["us"]) / len(row["us"])
    if row["source"] == "delegate" and us >= 1:
        us += DELEGATE_CUT_US
    return Row(
        name=row["name"], source=row["source"], index=row["index"], us=us, op=row.get("op", ""), outputs=tuple(shapes)
    )
