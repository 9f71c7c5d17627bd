"""Operating characteristics of edgeport compare on this machine: how often it cries wolf, and how much it finds.

    python scripts/validate_gate.py run [--only GLOB] [--sessions N] [--folder DIR]   # hours; goes on where it stopped
    python scripts/validate_gate.py cases                                             # what there is, and what is done
    python scripts/validate_gate.py report [--folder DIR] [--replays 5000] [-o docs/gate.md]

run holds a ShuffleNetV2 0.5x (TFLite int8, some 2 ms) against itself, as it is (A/A: any alarm is a false one), slowed
down on purpose by 3, 5 and 10% (the agent computes for that much longer after each run), and against the same network
with one unit more; while the machine is left alone, while every core has a busy process beside (steady), has one that
comes and goes at random (bursty), or has one in the second half only (one-arm: whatever is measured second, one after
the other, is measured under load). Cases take turns, so that an hour that is noisier than another is so for all.

Each session is kept in sessions.jsonl of the folder as it ends (default: gate in edgeport's cache). 25 sessions of each
A/A case and 20 of each other one take some three hours on two cores at 2.5 GHz. Cases under load may run two at a time,
each with its load on a core of its own, `taskset -c 0 python scripts/validate_gate.py run --only 'aa-bursty'` beside
`taskset -c 1 ...`. --note says in the report what the reader should know.

report also replays sessions on the A/A blocks that were kept, by the thousand: stretches of neighbouring blocks from a
random place on, with a slowdown added. It judges them by the very rules that judge real ones.
"""

import argparse
import contextlib
import itertools
import math
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from fnmatch import fnmatch
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

import msgspec

from edgeport import compare, display, files, measure, session
from edgeport.compare import CANDIDATE, INCONCLUSIVE, PASS, REGRESSED, Values
from edgeport.errors import EdgeportError
from edgeport.records import Comparison, Criteria, ExportOptions, Session
from edgeport.reports import View, as_markdown
from edgeport.reports.rows import Table
from edgeport.runner import local_runner
from edgeport.stats import Estimate

REGIMES = ("idle", "steady", "bursty", "one-arm")
POWER_REGIMES = ("idle", "steady")
SLOWDOWNS = (3, 5, 10)
AA_SESSIONS, POWER_SESSIONS = 25, 20
CRITERIA = compare.criteria(tolerance=0.01, effect=None, alpha=0.005)
MAX_MINUTES = 3.0
HALF_SECONDS = 9.0  # of the one-arm load: about half of the shortest session
SESSIONS = "sessions.jsonl"
LEAST_BANK = 40  # blocks of a regime: fewer would be replayed over and over
ENDS = """
import os, sys, threading
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()  # with us, however we end
"""
BUSY = {
    "steady": "while True: pass",
    "bursty": """
import random, sys, time
source = random.Random(int(sys.argv[1]))
while True:
    end = time.monotonic() + source.uniform(0.05, 1)
    while time.monotonic() < end: pass
    time.sleep(source.uniform(0.05, 1))
""",
    "one-arm": f"""
import time
while True:
    time.sleep({HALF_SECONDS})
    end = time.monotonic() + {HALF_SECONDS}
    while time.monotonic() < end: pass
""",
}
METHOD = """\
Each session is one call of `edgeport compare` in all but name: it stops by itself, at 10, 20, 40 or 80 blocks, and a
slowdown counts once a second, independent session has found it. "Seconds" are of both together. Tolerance
{tolerance:.0%}, effect {effect:.1%}, alpha {alpha:g}, at most {minutes:g} minutes.

**One after the other** is what the same blocks would have said had all of the baseline been measured before all of the
candidate: the candidate's median in the second half of the first session's blocks over the baseline's in the first
half. "Off" is how often that is more than the tolerance above 1 where nothing is slower: a gate that measures like that
would have failed the build."""


class Case(msgspec.Struct, frozen=True):
    """layers: the candidate has a unit more, instead of being slowed down."""

    regime: str
    spin_percent: int = 0
    layers: bool = False

    @property
    def name(self) -> str:
        what = "layers" if self.layers else f"spin{self.spin_percent}" if self.spin_percent else "aa"
        return f"{what}-{self.regime}"

    @property
    def wanted(self) -> int:
        return POWER_SESSIONS if self.layers or self.spin_percent else AA_SESSIONS


class Sitting(msgspec.Struct, frozen=True):
    """A session's blocks, one value each. Times are medians of the block's runs."""

    changes: tuple[float, ...]
    noises: tuple[float, ...]
    baseline_ms: tuple[float, ...]
    candidate_ms: tuple[float, ...]
    preempted: tuple[float, ...]

    def values(self) -> Values:
        return Values(self.changes, self.noises)


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One comparison, kept. slowdown: lowest, estimate, highest; None where it has no bound."""

    case: str
    started: str
    seconds: float
    load_1min: float
    criteria: Criteria
    outcome: str
    reason: str
    slowdown: tuple[float | None, float | None, float | None]
    sittings: tuple[Sitting, ...]
    machine: dict[str, str]
    note: str = ""

    @property
    def blocks(self) -> int:
        return sum(len(s.changes) for s in self.sittings)


CASES = (
    *(Case(regime) for regime in REGIMES),
    *(Case(regime, spin) for spin in SLOWDOWNS for regime in POWER_REGIMES),
    Case("idle", layers=True),
)
CASE_OF = {case.name: case for case in CASES}


def build() -> Any:
    """The baseline: ShuffleNetV2 0.5x."""
    from edgeport.models import shufflenet_v2  # type: ignore[import-not-found]

    return shufflenet_v2.build(width=0.5)


def build_longer() -> Any:
    """With one unit more in its third stage."""
    from edgeport.models import shufflenet_v2

    network = build()
    channels = shufflenet_v2.CHANNELS[0.5][1]
    network.stage3.append(shufflenet_v2.InvertedResidual(channels, channels, 1))
    return network.eval()


INPUT_SHAPE = (3, 224, 224)


def main() -> int:
    args = parsed()
    folder = files.writable_folder(args.folder or files.cache_folder("gate"))
    try:
        return int(args.function(args, folder))
    except EdgeportError as e:
        print(f"validate_gate: {e}", file=sys.stderr)
        return e.exit_code
    except KeyboardInterrupt:
        print(f"interrupted; {folder / SESSIONS} has what ended, and the same command goes on", file=sys.stderr)
        return 130


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for function in (run, cases, report):
        sub = commands.add_parser(function.__name__, help=(function.__doc__ or "").partition("\n")[0])
        sub.set_defaults(function=function)
        sub.add_argument("--folder", type=Path, help="where sessions are kept")
        if function is run:
            sub.add_argument("--only", default="*", metavar="GLOB", help="cases by name: 'aa-*'")
            sub.add_argument("--sessions", type=int, help="of each case, those already kept included")
            sub.add_argument("--nice", type=int, default=0, help="priority of the timed processes")
        if function in (run, report):
            sub.add_argument("--note", default="", help="what the reader should know; run keeps it with each session")
        if function is report:
            sub.add_argument("--replays", type=int, default=5000, help="sessions on banked blocks, of each case")
            sub.add_argument("--seed", type=int, default=0)
            sub.add_argument("-o", "--output", type=Path)
    return parser.parse_args()


# Real sessions


def run(args: argparse.Namespace, folder: Path) -> int:
    """Runs what is not kept yet."""
    chosen = [case for case in CASES if fnmatch(case.name, args.only)]
    with display.steps(True) as progress:
        artifacts = exported(progress)
        counts = {case.name: sum(line.case == case.name for line in kept(folder)) for case in chosen}
        wanted = {case.name: args.sessions or case.wanted for case in chosen}
        for n in range(max(wanted.values(), default=0)):
            for case in chosen:
                if counts[case.name] <= n < wanted[case.name]:
                    line = sat(case, artifacts, args, progress)
                    with (folder / SESSIONS).open("ab") as file:
                        file.write(b"\n" + msgspec.json.encode(line))  # after whatever was cut off
                        file.flush()
                        os.fsync(file.fileno())
    return 0


def exported(progress: Any) -> dict[str, measure.Artifact]:
    """{factory: its TFLite int8 file}, made once."""
    from edgeport.cli import subjects

    place = subjects.find_place("local")
    found = {}
    for name in ("build", "build_longer"):
        source = f"{Path(__file__)}:{name}"
        found[name] = subjects.find_artifacts(source, "litert", "int8", ExportOptions(), place.target, progress)[0][0]
    return found


def sat(case: Case, artifacts: dict[str, measure.Artifact], args: argparse.Namespace, progress: Any) -> Line:
    """One comparison of the case."""
    pair = session.Pair(case.name, artifacts["build"], artifacts["build_longer" if case.layers else "build"])
    seed = random.SystemRandom().getrandbits(32)
    settings = session.Settings(
        criteria=CRITERIA,
        max_minutes=MAX_MINUTES,
        nice=args.nice,
        seed=seed,
        profile=False,
        spin_percent=case.spin_percent,
    )
    started, before = datetime.now(UTC), time.monotonic()
    load = os.getloadavg()[0]
    with loaded(case.regime, seed):
        made = session.compare_pair(pair, local_runner(), settings, progress)
    verdict = compare.latency_verdict(made)
    found = verdict.slowdown or Estimate(math.nan, math.nan, math.nan)
    return Line(
        case=case.name,
        started=started.isoformat(timespec="seconds"),
        seconds=time.monotonic() - before,
        load_1min=load,
        criteria=CRITERIA,
        outcome=verdict.outcome,
        reason=verdict.reason,
        slowdown=(bounded(found.low), bounded(found.value), bounded(found.high)),
        sittings=tuple(map(sitting, made.sessions)),
        machine=machine(made),
        note=args.note,
    )


def sitting(kept: Session) -> Sitting:
    told = compare.values(kept)
    times: dict[str, list[float]] = {compare.BASELINE: [], CANDIDATE: []}
    preempted = []
    for block in kept.blocks:
        for arm, found in times.items():
            found.append(median(ns for burst in block.ns[arm] for ns in burst) / 1e6)
        counts = [count for bursts in block.preempted.values() for burst in bursts for count in burst]
        preempted.append(sum(map(bool, counts)) / len(counts))
    return Sitting(told.changes, told.noises, tuple(times[compare.BASELINE]), tuple(times[CANDIDATE]), tuple(preempted))


@contextlib.contextmanager
def loaded(regime: str, seed: int) -> Iterator[None]:
    """While the block runs, the machine is as the regime says: a process a core."""
    count = len(os.sched_getaffinity(0)) if regime in BUSY else 0
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for n in range(count):
            command = [sys.executable, "-I", "-c", ENDS + BUSY[regime], str(seed + n)]
            processes.append(subprocess.Popen(command, stdin=subprocess.PIPE))
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def machine(made: Comparison) -> dict[str, str]:
    result = made.candidates[0]
    facts = result.facts
    return {
        "processor": str(facts.get("cpu_model") or facts.get("machine")),
        "cores": str(facts.get("cpus")),
        "memory": f"{(facts.get('memory_bytes') or 0) / 2**30:.0f} GiB",
        "kernel": f"{facts.get('system')} {facts.get('kernel')}",
        "governor": ", ".join(facts.get("governors") or ()) or "not told",
        "runtime": f"{result.runtime} {result.runtime_version}",
        "pinned to": f"core {', '.join(map(str, made.cores))}, priority {made.nice}",
    }


def kept(folder: Path) -> list[Line]:
    path = folder / SESSIONS
    if not path.exists():
        return []
    lines = []
    for text in path.read_bytes().splitlines():
        if text.endswith(b"}"):  # others were cut off when the machine went down
            lines.append(msgspec.json.decode(text, type=Line))
    return lines


def bounded(value: float) -> float | None:
    return value if math.isfinite(value) else None


def cases(args: argparse.Namespace, folder: Path) -> int:
    """Lists the cases, and how many sessions of each are kept."""
    lines = kept(folder)
    for case in CASES:
        done = [line for line in lines if line.case == case.name]
        seconds = f"{mean(line.seconds for line in done):.0f} s each" if done else ""
        print(f"{case.name:<16} {len(done):>3} of {case.wanted}  {seconds}")
    return 0


# The report


def report(args: argparse.Namespace, folder: Path) -> int:
    """Makes the page of what is kept."""
    lines = kept(folder)
    if not lines:
        print(f"there is no session in {folder / SESSIONS}; run some first", file=sys.stderr)
        return 1
    bank = {r: [s for line in lines if line.case == f"aa-{r}" for s in line.sittings] for r in REGIMES}
    tables = [false_alarms(lines), power(lines), replayed(bank, lines, args.replays, args.seed)]
    text = page(lines, [table for table in tables if table.rows], args.note)
    if args.output:
        files.write_text(args.output, text)
    else:
        print(text)
    return 0


def page(lines: Sequence[Line], tables: Sequence[Table], note: str) -> str:
    first, last = min(line.started for line in lines), max(line.started for line in lines)
    described = "\n".join(f"- {name}: {value}" for name, value in lines[-1].machine.items())
    notes = "".join(f"\n- note: {text}" for text in sorted({note, *(line.note for line in lines)} - {""}))
    by = lines[-1].criteria
    method = METHOD.format(tolerance=by.tolerance, effect=by.effect, alpha=by.alpha, minutes=MAX_MINUTES)
    head = (
        f"# The gate, tried out\n\nMade by `scripts/validate_gate.py`, {first[:10]} to {last[:10]}, on this machine:\n"
    )
    return f"{head}\n{described}{notes}\n\n{method}\n\n{as_markdown.draw(tables, View())}"


def false_alarms(lines: Sequence[Line]) -> Table:
    header = (
        *("load", "sessions", "false alarms", "at most (95%)", "pass", "inconclusive", "blocks", "seconds"),
        *("a block's sd", "one after the other: sd", "off"),
    )
    rows = []
    for regime in REGIMES:
        found = [line for line in lines if line.case == f"aa-{regime}"]
        if found:
            rows.append((regime, *counted(found), *sequential_cells(found)))
    everything = [line for line in lines if line.case.startswith("aa-")]
    if everything:
        rows.append(("all", *counted(everything), *sequential_cells(everything)))
    return Table("A file against itself", header, tuple(rows), tuple(range(1, len(header))))


def counted(found: Sequence[Line]) -> tuple[str, ...]:
    alarms = sum(line.outcome == REGRESSED for line in found)
    unclear = sum(line.outcome == INCONCLUSIVE for line in found)
    return (
        str(len(found)),
        str(alarms),
        f"{upper_bound(alarms, len(found)):.1%}",
        str(len(found) - alarms - unclear),
        str(unclear),
        f"{median(line.blocks for line in found):.0f}",
        f"{median(line.seconds for line in found):.0f}",
        shown_mean([spread(s.changes) for line in found for s in line.sittings if len(s.changes) > 1]),
    )


def sequential_cells(found: Sequence[Line]) -> tuple[str, str]:
    logs = [math.log(ratio) for ratio in ratios_in_sequence(found)]
    off = sum(log > math.log1p(CRITERIA.tolerance) for log in logs)
    return shown(spread(logs)), f"{off} of {len(logs)}"


def ratios_in_sequence(found: Sequence[Line]) -> list[float]:
    return [sequential(line) for line in found if line.sittings and len(line.sittings[0].changes) > 1]


def sequential(line: Line) -> float:
    """Candidate over baseline, one after the other."""
    first = line.sittings[0]
    half = len(first.changes) // 2
    return median(first.candidate_ms[half:]) / median(first.baseline_ms[:half])


def power(lines: Sequence[Line]) -> Table:
    header = (
        *("slowdown", "load", "sessions", "found", "at least (95%)", "pass", "inconclusive", "median seconds"),
        *("longest", "estimate, mean ± sd", "one after the other: mean ± sd"),
    )
    rows = []
    for case in CASES:
        found = [line for line in lines if line.case == case.name]
        if not found or not (case.spin_percent or case.layers):
            continue
        hits = sum(line.outcome == REGRESSED for line in found)
        unclear = sum(line.outcome == INCONCLUSIVE for line in found)
        estimates = [line.slowdown[1] for line in found if line.slowdown[1] is not None]
        in_sequence = ratios_in_sequence(found)
        rows.append(
            (
                "one unit more" if case.layers else f"{case.spin_percent}%",
                case.regime,
                str(len(found)),
                f"{hits} ({hits / len(found):.0%})",
                f"{1 - upper_bound(len(found) - hits, len(found)):.0%}",
                str(len(found) - hits - unclear),
                str(unclear),
                f"{median(line.seconds for line in found):.0f}",
                f"{max(line.seconds for line in found):.0f}",
                f"{mean(estimates):+.1%} ± {shown(spread(estimates))}" if estimates else "-",
                f"{mean(in_sequence) - 1:+.1%} ± {shown(spread(in_sequence))}" if in_sequence else "-",
            )
        )
    return Table("A slowdown that there is", header, tuple(rows), tuple(range(2, len(header))))


def replayed(bank: dict[str, list[Sitting]], lines: Sequence[Line], replays: int, seed: int) -> Table:
    """Sessions on banked blocks."""
    header = ("load", "blocks in the bank", "slowdown", "sessions", "REGRESSED", "pass", "inconclusive", "mean blocks")
    rows = []
    for regime, sittings in bank.items():
        changes = list(itertools.chain.from_iterable(s.changes for s in sittings))
        noises = list(itertools.chain.from_iterable(s.noises for s in sittings))
        if len(changes) < LEAST_BANK:
            continue
        found = [line for line in lines if line.case == f"aa-{regime}"]
        most = int(MAX_MINUTES * 60 / (sum(line.seconds for line in found) / sum(line.blocks for line in found)))
        for percent in (0, *SLOWDOWNS):
            source = random.Random(f"{seed} {regime} {percent}")
            made = [replay(changes, noises, percent / 100, most, source) for _ in range(replays)]
            outcomes = [outcome for outcome, _ in made]
            shares = [sum(o == wanted for o in outcomes) / replays for wanted in (REGRESSED, PASS, INCONCLUSIVE)]
            rows.append(
                (
                    *(regime, str(len(changes)), f"{percent}%", str(replays)),
                    *(f"{share:.2%}" for share in shares),
                    f"{mean(blocks for _, blocks in made):.0f}",
                )
            )
    title = "Sessions replayed on banked blocks of the file against itself"
    return Table(title, header, tuple(rows), tuple(range(1, len(header))))


def replay(
    changes: Sequence[float], noises: Sequence[float], slowdown: float, most: int, source: random.Random
) -> tuple[str, int]:
    """(outcome, blocks) of a comparison that has the time for so many blocks."""
    shift = math.log1p(slowdown)

    def one(limit: int) -> Values:
        start = source.randrange(len(changes))
        places = [(start + n) % len(changes) for n in range(min(limit, compare.LOOKS[-1]))]
        whole = Values(tuple(changes[p] + shift for p in places), tuple(noises[p] for p in places))
        return next((v for v in map(cut(whole), compare.LOOKS) if compare.is_over(v, CRITERIA)), whole)

    # as edgeport.session has it: half of them, or more if what is left does for a second session
    sessions = [one(max(most // 2, most - session.CONFIRMING_BLOCKS, min(most, compare.LOOKS[0])))]
    if compare.needs_second(sessions[0], CRITERIA):
        sessions.append(one(most - len(sessions[0].changes)))
    verdict = compare.verdict(sessions, CRITERIA)
    return verdict.outcome, verdict.blocks


def cut(whole: Values) -> Callable[[int], Values]:
    return lambda n: Values(whole.changes[:n], whole.noises[:n])


def spread(values: Sequence[float]) -> float:
    return stdev(values) if len(values) > 1 else math.nan


def shown_mean(shares: Sequence[float]) -> str:
    return f"{mean(shares):.2%}" if shares else "-"


def shown(share: float) -> str:
    return "-" if math.isnan(share) else f"{share:.1%}"


def upper_bound(hits: int, n: int, confidence: float = 0.95) -> float:
    """Exact one-sided bound of a rate of which `hits` of n were seen (Clopper, Pearson, 1934): 0 of 300 is below 1%."""
    low, high = hits / n, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        tail = sum(math.comb(n, k) * middle**k * (1 - middle) ** (n - k) for k in range(hits + 1))
        low, high = (middle, high) if tail > 1 - confidence else (low, middle)
    return high


if __name__ == "__main__":
    sys.exit(main())
