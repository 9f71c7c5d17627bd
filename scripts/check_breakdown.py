"""Holds breakdowns made beside a busy loop on the same core against breakdowns made without it.

    python scripts/check_breakdown.py FOLDER [--runs 200] [--core 1] [--rounds 1]

FOLDER is an export (edgeport export MODEL -o FOLDER). Each file is profiled alone and then beside another process that
computes all the time on the core that the profile is pinned to. Printed, a line a file and round: how many of the runs
were preempted and how many were set aside, by how many points the class whose share differs most differs, once of the
typical runs (what edgeport shows) and once of all runs, and which of the first five operators changed places with
another one although their times, alone, differ by more than 10%.

Exit code 0 if every class is within 3 points and no such operator changed places, 1 otherwise.
"""

import argparse
import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from edgeport import breakdown, stats
from edgeport.export.manifest import read_manifest
from edgeport.kit import RUNTIME_OF
from edgeport.measure import Artifact, Measurement, Settings
from edgeport.progress import Silent
from edgeport.records import OpProfile, OpTime
from edgeport.runner import local_runner

FIRST, APART, POINTS = 5, 1.1, 3.0
SHOWN = 3  # of the pairs that changed places
LOOP = "while True: pass"


def main() -> int:
    parser = argparse.ArgumentParser(description="Holds breakdowns beside a busy loop against breakdowns without it.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--core", type=int, default=max(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=1)
    args = parser.parse_args()
    artifacts = [
        Artifact(args.folder / a.file, a.file, RUNTIME_OF[Path(a.file).suffix], a.precision)
        for a in read_manifest(args.folder).artifacts
    ]
    settings = Settings(num_runs=args.runs, launches=1, cores=(args.core,))
    sound = [_compared(artifact, settings) for _ in range(args.rounds) for artifact in artifacts]
    return 0 if all(sound) else 1


def _compared(artifact: Artifact, settings: Settings) -> bool:
    alone = _profile(artifact, settings)
    with busy_loop(settings.cores):
        beside = _profile(artifact, settings)
    points, swapped = class_points(alone, beside), changed_places(alone.ops, beside.ops)
    raw = class_points(of_all_runs(alone), of_all_runs(beside))
    preempted = " and ".join(str(sum(map(bool, p.preempted))) for p in (alone, beside))
    aside = stats.runs_set_aside(beside)
    print(
        f"{artifact.model}: {preempted} of {len(beside.preempted)} runs preempted, {aside} set aside"
        f"{', and times taken by operator' * beside.disturbed}; "
        f"classes within {points:.1f} points (of all runs: {raw:.1f}); "
        f"places changed: {len(swapped)}{''.join(f', {pair}' for pair in swapped[:SHOWN])}",
        flush=True,
    )
    return points <= POINTS and not swapped


def _profile(artifact: Artifact, settings: Settings) -> OpProfile:
    measurement = Measurement([artifact], local_runner(), settings, Silent())
    measurement.run()
    profile = measurement.results()[0].profile
    if profile is None:
        raise SystemExit(f"{artifact.model} gave no profile")
    return profile


@contextlib.contextmanager
def busy_loop(cores: Sequence[int]) -> Iterator[None]:
    """A process that computes on these cores until the block ends."""
    process = subprocess.Popen([sys.executable, "-c", LOOP])
    os.sched_setaffinity(process.pid, cores)
    try:
        yield
    finally:
        process.kill()
        process.wait()


def class_points(a: OpProfile, b: OpProfile) -> float:
    """By how many points the share of that class differs that differs most."""
    return 100 * max(abs(x.share - y.share) for x, y in zip(breakdown.by_class(a), breakdown.by_class(b), strict=True))


def changed_places(alone: Sequence[OpTime], beside: Sequence[OpTime]) -> list[str]:
    """Pairs of one of the first five operators and one that is behind it by more than 10%, but before it beside the
    loop.
    """
    order = sorted(range(len(alone)), key=lambda i: -alone[i].us)
    pairs = ((i, j) for i in order[:FIRST] for j in order if alone[i].us > APART * alone[j].us)
    return [
        f"{_name(alone[i])}, {alone[i].us:.0f} us ({beside[i].us:.0f} beside the loop), and "
        f"{_name(alone[j])}, {alone[j].us:.0f} ({beside[j].us:.0f})"
        for i, j in pairs
        if beside[i].us <= beside[j].us
    ]


def of_all_runs(profile: OpProfile) -> OpProfile:
    """The same profile as a mean of every run, as it would be without setting any aside."""
    runs = len(profile.invoke_us)
    ops = tuple(msgspec.structs.replace(op, us=sum(op.runs_us) / runs) for op in profile.ops)
    return msgspec.structs.replace(profile, ops=ops, preempted=(), disturbed=False)


def _name(op: OpTime) -> str:
    return op.module or op.name


if __name__ == "__main__":
    sys.exit(main())
