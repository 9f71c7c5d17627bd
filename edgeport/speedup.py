"""Whether int8 is faster than fp32 where edgeport runs, and which modules are the reason where it is not."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from edgeport import breakdown, interleave, measure, stats
from edgeport.breakdown import Change
from edgeport.kit import RUNTIME_OF
from edgeport.measure import Measurement
from edgeport.progress import Progress, Silent
from edgeport.records import Manifest, OpProfile
from edgeport.runner import Runner
from edgeport.stats import Estimate

BLOCKS = 8
BLOCK = interleave.Settings(seconds=0.4)
PROFILES = 3
PROFILE = measure.Settings(launches=1, num_runs=4, profile=True)
WHOLE_PATH = 99  # deeper than any module


class Reason(msgspec.Struct, frozen=True):
    """A module that takes longer in int8. operators: what the runtime runs of it in int8, by their kinds."""

    change: Change
    operators: str


class Speedup(msgspec.Struct, frozen=True):
    """ratio: int8's time to fp32's, with its interval. reasons: where it is not below 1, the largest first."""

    runtime: str
    ratio: Estimate
    reasons: tuple[Reason, ...] = ()

    @property
    def is_faster(self) -> bool:
        return self.ratio.value < 1


def find(manifest: Manifest, folder: Path, runner: Runner, progress: Progress) -> list[Speedup]:
    """Of each runtime that has both precisions, with one thread. Raises DeviceError."""
    return list(_found(manifest, folder, runner, progress))


def _found(manifest: Manifest, folder: Path, runner: Runner, progress: Progress) -> Iterator[Speedup]:
    for format in dict.fromkeys(a.format for a in manifest.artifacts):
        files = {a.precision: folder / a.file for a in manifest.artifacts if a.format == format}
        if files.keys() != {"fp32", "int8"}:
            continue
        runtime = RUNTIME_OF[files["int8"].suffix]
        step = f"{runtime} int8 by fp32"
        progress.started(step)
        logs = []
        for n in range(BLOCKS):
            progress.advanced(step, f"block {n + 1} of {BLOCKS}")
            logs.append(interleave.run_block(runner, files, BLOCK, seed=n).log_ratio("int8", "fp32"))
        speedup = Speedup(runtime, stats.ratio(logs))
        if not speedup.is_faster:
            progress.advanced(step, "profiles")
            reasons = _reasons(*(_profiles(files[p], runner, runtime, p) for p in ("fp32", "int8")))
            speedup = msgspec.structs.replace(speedup, reasons=reasons)
        progress.finished(step, f"{speedup.ratio.value:.2f} of its time")
        yield speedup


def _profiles(path: Path, runner: Runner, runtime: str, precision: str) -> list[OpProfile]:
    artifacts = [measure.Artifact(path, path.stem, runtime, precision)] * PROFILES
    measurement = Measurement(artifacts, runner, PROFILE, Silent())
    measurement.run()
    return [result.profile for result in measurement.results() if result.profile is not None]


def _reasons(fp32: Sequence[OpProfile], int8: Sequence[OpProfile]) -> tuple[Reason, ...]:
    kinds: dict[str, dict[str, int]] = {}
    for op in int8[0].ops:
        module = breakdown.UNATTRIBUTED if op.module is None else breakdown.module_label(op.module, WHOLE_PATH)
        counts = kinds.setdefault(module, {})
        counts[op.op] = counts.get(op.op, 0) + 1
    slower = [change for change in breakdown.changes(fp32, int8, WHOLE_PATH) if change.us > 0]
    return tuple(Reason(change, _listed(kinds.get(change.module, {}))) for change in slower)


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(kind if n == 1 else f"{n} {kind}" for kind, n in counts.items())
