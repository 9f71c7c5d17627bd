"""Times artifacts against each other: alive at once, on the same cores, in short bursts by turns.

What slows the machine for a while slows them all, and no artifact keeps a luckier core.
"""

import contextlib
import random
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from edgeport import protocol, stats
from edgeport.kit import RUNTIME_OF
from edgeport.protocol import Burst
from edgeport.runner import Runner, Served

LEAST_ROUNDS = 4


class Settings(msgspec.Struct, frozen=True):
    """cores: what every process is pinned to. seconds: how long a block is timed, rounded up to whole rounds, and to
    least_rounds. The first run of each burst is not counted: it refills the caches that the others have emptied.
    nice: the processes' priority, below 0 before other programs, for a machine with other users.
    """

    num_threads: int = 1
    cores: tuple[int, ...] = ()
    warmup_runs: int = 8
    counted_runs: int = 3
    seconds: float = 1.5
    least_rounds: int = LEAST_ROUNDS
    nice: int = 0


class Block(msgspec.Struct, frozen=True):
    """One fresh process an artifact. bursts: by the artifact's label, in the order that they ran in, the counted runs
    alone. Bursts of the same position ran beside each other. before, after: what the agent read of the device
    before the first one and after the last.
    """

    bursts: dict[str, tuple[Burst, ...]]
    before: dict[str, Any] = {}
    after: dict[str, Any] = {}

    def log_ratio(self, label: str, other: str) -> float:
        """Of one artifact's time to the other's: what a block tells. Runs that were preempted count like the others:
        the median leaves few of them a say, and without them blocks were found to agree no better.
        """
        numerators, denominators = ([burst.ns for burst in self.bursts[name]] for name in (label, other))
        return stats.log_ratio(numerators, denominators)

    def samples_ns(self, label: str) -> list[int]:
        return [ns for burst in self.bursts[label] for ns in burst.ns]

    def preempted(self) -> float:
        """The share of runs in which the system gave a core to another program: what else the machine was doing."""
        counts = [count for bursts in self.bursts.values() for burst in bursts for count in burst.preempted]
        return sum(map(bool, counts)) / len(counts)


def run_block(
    runner: Runner,
    artifacts: Mapping[str, Path],
    settings: Settings,
    seed: int,
    options: Mapping[str, Sequence[str]] | None = None,
    copies: Mapping[str, str] | None = None,
) -> Block:
    """artifacts: files by label; options: those of the agent that one of them has alone; copies: where the files are on
    the device, if each is to be read from one of its own. A round is all of them in
    random order and then mirrored, B C C B, which cancels what drifts at an even pace. Raises DeviceError.
    """
    order = random.Random(seed)
    served: dict[str, Served] = {}
    with contextlib.ExitStack() as stack:
        for label in _shuffled(artifacts, order):
            path, own, there = artifacts[label], (options or {}).get(label, ()), (copies or {}).get(label, "")
            process = runner.serve(RUNTIME_OF[path.suffix.lower()], path, [*_options(settings), *own], there)
            served[label] = stack.enter_context(process)
        bursts: dict[str, list[Burst]] = {label: [] for label in artifacts}
        end, rounds = time.monotonic() + settings.seconds, 0
        while rounds < settings.least_rounds or time.monotonic() < end:
            labels = _shuffled(artifacts, order)
            for label in (*labels, *reversed(labels)):
                burst = served[label].burst(1 + settings.counted_runs)
                bursts[label].append(Burst(burst.ns[1:], burst.preempted[1:], burst.waited_ns[1:]))
            rounds += 1
        *_, last = served.values()
        before = protocol.plain(last.messages[protocol.Serving].telemetry)
        after = last.telemetry()  # by one that ran last: a core at rest would lower its clock
    return Block({label: tuple(made) for label, made in bursts.items()}, before, after)


def _options(settings: Settings) -> list[str]:
    cores = [f"--cores={','.join(map(str, settings.cores))}"] if settings.cores else []
    numbers = [f"--num-threads={settings.num_threads}", f"--warmup-runs={settings.warmup_runs}"]
    return [*numbers, f"--nice={settings.nice}", *cores]


def _shuffled(labels: Mapping[str, Path], order: random.Random) -> list[str]:
    return order.sample(list(labels), len(labels))
