"""Times artifacts against each other: alive at once, on the same cores, in short bursts by turns.

What slows the machine for a while slows them all, and no artifact keeps a luckier core. Derives nothing.
"""

import contextlib
import random
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from edgeport.kit import RUNTIME_OF
from edgeport.runner import Runner, Served

LEAST_ROUNDS = 4


class Settings(msgspec.Struct, frozen=True):
    """cores: what every process is pinned to. seconds: how long a block is timed, which is rounded up to whole rounds,
    and to four. The first run of each burst is not counted: it refills the caches that the others have emptied.
    """

    num_threads: int = 1
    cores: tuple[int, ...] = ()
    warmup_runs: int = 8
    counted_runs: int = 3
    seconds: float = 1.5


class Block(msgspec.Struct, frozen=True):
    """One fresh process an artifact. bursts: by the artifact's label, in the order that they ran in, each the
    nanoseconds of its counted runs. Bursts of the same position ran beside each other.
    """

    bursts: dict[str, tuple[tuple[int, ...], ...]]


def run_block(runner: Runner, artifacts: Mapping[str, Path], settings: Settings, seed: int) -> Block:
    """artifacts: files by label. A round is all of them in random order and then mirrored, B C C B, which cancels
    what drifts at an even pace. Raises DeviceError.
    """
    options = [f"--num-threads={settings.num_threads}", f"--warmup-runs={settings.warmup_runs}"]
    options += [f"--cores={','.join(map(str, settings.cores))}"] if settings.cores else []
    order = random.Random(seed)
    with contextlib.ExitStack() as stack:
        served: dict[str, Served] = {}
        for label in _shuffled(list(artifacts), order):
            path = artifacts[label]
            served[label] = stack.enter_context(runner.serve(RUNTIME_OF[path.suffix], path, options))
        bursts: dict[str, list[tuple[int, ...]]] = {label: [] for label in artifacts}
        end, rounds = time.monotonic() + settings.seconds, 0
        while rounds < LEAST_ROUNDS or time.monotonic() < end:
            labels = _shuffled(list(artifacts), order)
            for label in (*labels, *reversed(labels)):
                bursts[label].append(tuple(served[label].burst(1 + settings.counted_runs)[1:]))
            rounds += 1
    return Block({label: tuple(made) for label, made in bursts.items()})


def _shuffled(labels: Sequence[str], order: random.Random) -> list[str]:
    return order.sample(labels, len(labels))
