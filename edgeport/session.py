"""Compares a candidate with its baseline on a device: blocks of fresh processes, alive at once, on the same cores,
until there is a verdict or no time is left.
"""

import contextlib
import random
import time
from collections.abc import Callable, Generator, Iterator, Sequence

import msgspec

from edgeport import compare, formats, inputs, interleave, measure, stats
from edgeport.compare import BASELINE, CANDIDATE, COPY
from edgeport.errors import DeviceError
from edgeport.formats import Graph
from edgeport.inputs import Values
from edgeport.measure import Artifact, Measurement
from edgeport.progress import Progress, Silent
from edgeport.records import Comparison, Criteria, Origin, Result, Session, TimedBlock
from edgeport.runner import Runner

PROFILES = 5  # launches with the profiler on, a side
PROBE = measure.Settings(num_runs=8, warmup_runs=4, launches=1, profile=False)
FIRST_SHARE = 0.5  # of the time, that the first session may take; more if what is left does for the second one:
CONFIRMING_BLOCKS = compare.LOOKS[1]
MOST_DROPPED = 20


class Pair(msgspec.Struct, frozen=True):
    """name: in tables. stored: the baseline's result as it was when it was kept, if it was."""

    name: str
    baseline: Artifact
    candidate: Artifact
    stored: Result | None = None


class Settings(msgspec.Struct, frozen=True):
    """How to compare. max_minutes: for both sessions of a pair together. cores: pinned to; the device's last ones,
    one a thread, unless given. seconds: of timing a block. values: of some inputs. profile: for an explanation, in
    separate launches. origin: kept with what is made.
    """

    criteria: Criteria = Criteria()
    max_minutes: float = 10.0
    num_threads: int = 1
    cores: tuple[int, ...] = ()
    nice: int = 0
    seed: int = 0
    seconds: float = 1.0
    input_shapes: dict[str, tuple[int, ...]] = {}
    values: Values | None = None
    profile: bool = True
    allow_emulated: bool = False
    spin_percent: float = 0.0
    origin: Origin | None = None


def compare_all(
    runner: Runner,
    tasks: Sequence[tuple[Pair, Settings]],
    total: int,
    made: Callable[[Comparison], None],
    progress: Progress,
) -> None:
    """One pair after the other; made is told of each comparison as it ends. total: how many are made together, those on
    other devices too: the criteria take account of their number. Raises DeviceError.
    """
    for pair, settings in tasks:
        criteria = msgspec.structs.replace(settings.criteria, comparisons=total)
        made(compare_pair(pair, runner, msgspec.structs.replace(settings, criteria=criteria), progress))


def compare_pair(pair: Pair, runner: Runner, settings: Settings, progress: Progress) -> Comparison:
    """Raises DeviceError."""
    return _Comparing(pair, runner, settings, progress).run()


class _Comparing:
    """One pair on one device."""

    def __init__(self, pair: Pair, runner: Runner, settings: Settings, progress: Progress) -> None:
        self.pair, self.runner, self.settings, self.progress = pair, runner, settings, progress
        self.step = f"{pair.name} on {runner.device}"
        self.sessions: list[Session] = []

    def run(self) -> Comparison:
        self.progress.started(self.step)
        try:
            return self._run()
        except BaseException:
            self.progress.failed(self.step)
            raise

    def _run(self) -> Comparison:
        self.progress.advanced(self.step, "first runs")
        before, after = self._measured(PROBE, self.settings.cores)
        differences = self._differences(before, after)
        self.cores: tuple[int, ...] = self.settings.cores or after.cores[-self.settings.num_threads :]
        self.facts = after.facts
        if not differences:
            self._decide(before, after)
        explains = self.settings.profile and not differences
        profiled = self._profiles() if explains else []
        made = Comparison(
            name=self.pair.name,
            device=self.runner.device,
            criteria=self.settings.criteria,
            cores=self.cores,
            nice=self.settings.nice,
            max_minutes=self.settings.max_minutes,
            baselines=(before, *(pair[0] for pair in profiled)),
            candidates=(after, *(pair[1] for pair in profiled)),
            sessions=tuple(self.sessions),
            differences=differences,
            spin_percent=self.settings.spin_percent,
            origin=self.settings.origin,
        )
        self.progress.finished(self.step, compare.latency_verdict(made).outcome)
        return made

    def _profiles(self) -> list[tuple[Result, Result]]:
        """They only explain: what was decided stays so where they fail."""
        made: list[tuple[Result, Result]] = []
        try:
            for n in range(PROFILES):
                made.append(self._profiled(n))
        except DeviceError as e:
            self.progress.warned(f"{self.step}: no more profiles, which would explain a difference: {e}")
        return made

    def _profiled(self, n: int) -> tuple[Result, Result]:
        self.progress.advanced(self.step, f"profile {n + 1} of {PROFILES}")
        return self._measured(msgspec.structs.replace(PROBE, profile=True), self.cores)

    def _measured(self, how: measure.Settings, cores: tuple[int, ...]) -> tuple[Result, Result]:
        threads, shapes = self.settings.num_threads, self.settings.input_shapes
        values = self.settings.values
        own = msgspec.structs.replace(how, num_threads=threads, cores=cores, input_shapes=shapes, values=values)
        measurement = Measurement([self.pair.baseline, self.pair.candidate], self.runner, own, Silent())
        measurement.run()
        before, after = measurement.results()
        return before, after

    def _differences(self, before: Result, after: Result) -> tuple[str, ...]:
        found = list(compare.differences(before, after))
        if self.pair.stored is not None:
            found += compare.differences(self.pair.stored, before, ("as stored", "now"))
        if after.is_emulated and not self.settings.allow_emulated:
            found.append("the device is emulated, whose times say nothing of a real one; --allow-emulated takes them")
        return tuple(dict.fromkeys(found))

    def _decide(self, before: Result, after: Result) -> None:
        """Fills the sessions."""
        spin = [f"--spin-percent={self.settings.spin_percent}"] if self.settings.spin_percent else []
        with contextlib.ExitStack() as stack:
            old = stack.enter_context(self._options(self.pair.baseline, before))
            new = stack.enter_context(self._options(self.pair.candidate, after))
            self._judge({BASELINE: old, COPY: old, CANDIDATE: [*new, *spin]})

    @contextlib.contextmanager
    def _options(self, artifact: Artifact, result: Result) -> Iterator[list[str]]:
        """Of the agent, for this file: how it ran when it was measured by itself."""
        graph, values = formats.read(artifact.path), self.settings.values
        with inputs.stored(inputs.fitting(values, graph) if values else None) as paths:
            data = [f"--input-data={name}={self.runner.transport.put(path)}" for name, path in paths.items()]
            leaving = [] if result.takes_outputs else ["--leave-outputs"]
            yield [*_shape_options(graph, result), *data, *leaving]

    def _judge(self, options: dict[str, list[str]]) -> None:
        start, seeds = time.monotonic(), random.Random(self.settings.seed)
        seconds = self.settings.max_minutes * 60
        self._session(seeds.getrandbits(32), start + FIRST_SHARE * seconds, start + seconds, options)
        if compare.needs_second(compare.values(self.sessions[0]), self.settings.criteria):
            self._session(seeds.getrandbits(32), start + seconds, start + seconds, options)

    def _session(self, seed: int, soonest: float, latest: float, options: dict[str, list[str]]) -> None:
        """It may go on until soonest, and after that for as long as a second session has the time that it needs."""
        blocks: list[TimedBlock] = []
        dropped: list[TimedBlock] = []
        number, criteria, start = len(self.sessions) + 1, self.settings.criteria, time.monotonic()
        changes: list[float] = []
        noises: list[float] = []
        with contextlib.closing(self._blocks(seed, options)) as made:
            for block in made:
                if stats.throttled(block.before, block.after, self.facts):  # as the device says, never by its times
                    dropped.append(block)
                else:
                    blocks.append(block)
                    changes.append(compare.change(block))
                    noises.append(compare.noise(block))
                told, now = compare.Values(tuple(changes), tuple(noises)), time.monotonic()
                self.progress.advanced(self.step, _note(number, told, criteria))
                pace = (now - start) / (len(blocks) + len(dropped))
                enough = number == 1 and len(blocks) >= compare.LOOKS[0]  # with less there is nothing to confirm
                is_late = now >= (max(soonest, latest - CONFIRMING_BLOCKS * pace) if enough else latest)
                if compare.is_over(told, criteria) or is_late or len(dropped) >= MOST_DROPPED:
                    break
        self.sessions.append(Session(seed, tuple(blocks), tuple(dropped)))

    def _blocks(self, seed: int, options: dict[str, list[str]]) -> Generator[TimedBlock]:
        """Without end. The files are copied anew for each session, on the device, each to a name of the same length:
        neither where a file lies in memory nor how long a command is may tell the arms apart.
        """
        settings, seeds = self.settings, random.Random(seed)
        how = interleave.Settings(
            num_threads=settings.num_threads, cores=self.cores, seconds=settings.seconds, nice=settings.nice
        )
        sources = {BASELINE: self.pair.baseline, COPY: self.pair.baseline, CANDIDATE: self.pair.candidate}
        paths = {arm: artifact.path for arm, artifact in sources.items()}
        with contextlib.ExitStack() as stack:
            copied = self.runner.transport.copied
            copies = {arm: stack.enter_context(copied(paths[arm])) for arm in seeds.sample(list(paths), len(paths))}
            while True:
                yield _timed(interleave.run_block(self.runner, paths, how, seeds.getrandbits(32), options, copies))


def _timed(block: interleave.Block) -> TimedBlock:
    ns, waited, preempted = (
        {arm: tuple(getattr(burst, field) for burst in bursts) for arm, bursts in block.bursts.items()}
        for field in ("ns", "waited_ns", "preempted")
    )
    return TimedBlock(ns, waited, preempted, block.before, block.after)


def _shape_options(graph: Graph, result: Result) -> list[str]:
    """For the inputs whose size the file leaves open, or that were asked for in another one."""
    own = {info.name: info.shape for info in graph.inputs}
    other = [i for i in result.inputs if own.get(i.name) != i.shape]
    return [f"--input-shape={i.name}={','.join(map(str, i.shape))}" for i in other]


def _note(number: int, told: compare.Values, by: Criteria) -> str:
    n = len(told.changes)
    if n < compare.LOOKS[0]:
        return f"session {number}, block {n}"
    change = compare.reading(told, by).change
    low, value, high = (f"{stats.share(x):+.1%}" for x in (change.low, change.value, change.high))
    return f"session {number}, block {n}: {value} [{low}, {high}]"
