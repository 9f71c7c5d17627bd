"""Ends commands at random moments by SIGKILL, SIGTERM, SIGHUP and SIGINT, and looks at what they leave.

    python scripts/check_kills.py [--kills 200] [--seed N] [--only export,profile,check,baseline] [--a-round 4]

Every command works on a network of a few kilobytes, in folders of its own below a temporary one. It runs to its end
once, which says how long it takes; then it is ended --a-round times, and runs to its end again, and so on. Half of the
moments are drawn from all of the command's time, half from its last second. Half of the signals reach the command
alone, as from kill(1), half its whole process group, as from a terminal.

After each end, within PATIENCE_S, none of its processes may be alive; what it writes must be whole, as it was before or
as it is to be (each file with the hash that its manifest or index tells, every JSON file readable, SQLite's
integrity_check without a finding); its exit code must be that of the signal (143, 129, 130) unless it had done its work
already, and nothing that it said may be a traceback. After the command that then runs to its end, no temporary file
or folder may be left of any before it.

Exit code 0 if all of that holds, 1 otherwise; what does not hold is printed with what repeats it.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from edgeport import baseline
from edgeport.errors import EdgeportError
from edgeport.export import folder as folders
from edgeport.export.manifest import MANIFEST, read_manifest, whole_artifact

PATIENCE_S = 60.0  # a busy machine is no failure
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
VERDICTS = (0, 1, 4)  # exit codes of a check that has been at its end, whatever it found
NETWORK = """
from torch import nn
INPUT_SHAPE = (3, 16, 16)
def build(channels: int = 8) -> nn.Module:
    layers = nn.Conv2d(3, channels, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 4)
    return nn.Sequential(*layers)
"""
SHORT = ("--launches=1", "--num-runs=3", "--warmup-runs=1", "-q")


class Subject(msgspec.Struct):
    """A command that is ended. words: of its n-th run; check: what is wrong with what it writes; seconds: that it took
    when it last ran to its end.
    """

    name: str
    words: Callable[[int], list[str]]
    check: Callable[[], list[str]]
    seconds: float = 0.0


class Draw(msgspec.Struct, frozen=True):
    """What ends a run, and when: after this share of the command's time, or so many seconds before its end."""

    number: int
    is_for_group: bool
    share: float
    before_end: float | None

    def after(self, seconds: float) -> float:
        return self.share * seconds if self.before_end is None else max(0.0, seconds - self.before_end)

    def __str__(self) -> str:
        when = (
            f"at {self.share:.2f} of its time" if self.before_end is None else f"{self.before_end:.2f} s before its end"
        )
        return f"{signal.Signals(self.number).name} to {'its group' if self.is_for_group else 'it alone'} {when}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200, help="of all commands together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="export,profile,check,baseline", help="commands, by commas")
    parser.add_argument("--a-round", type=int, default=4, help="kills between two runs to the end")
    args = parser.parse_args()
    names = args.only.split(",")
    counts: Counter[str] = Counter()
    wrong: list[str] = []
    with tempfile.TemporaryDirectory(prefix="edgeport-kills-") as folder, surroundings(Path(folder)):
        for subject in [s for s in subjects(Path(folder)) if s.name in names]:
            rng = random.Random(f"{args.seed} {subject.name}")
            wrong += tried(subject, args.kills // len(names), args.a_round, rng, Path(folder), counts)
    print(f"{processor()}, seed {args.seed}")
    for what in sorted(counts):
        print(f"{what:<60} {counts[what]:>5}")
    print(f"wrong: {len(wrong)}", *wrong, sep="\n  ")
    return 1 if wrong else 0


def tried(
    subject: Subject, kills: int, a_round: int, rng: random.Random, folder: Path, counts: Counter[str]
) -> list[str]:
    """What is wrong after each of so many kills, and after each run to the end."""
    wrong = completed(subject, 0, folder)
    for n in range(1, kills + 1):
        draw = Draw(rng.choice(SIGNALS), rng.random() < 0.5, rng.random(), rng.random() if n % 2 else None)
        found = killed(subject, n, draw, counts)
        wrong += [f"{subject.name} {n}, {draw}: {text}" for text in found]
        counts[f"{subject.name}: kills"] += 1
        if n % a_round == 0 or n == kills:
            counts[f"{subject.name}: kills that left something for the next run to remove"] += bool(leftovers(folder))
            wrong += completed(subject, n, folder)
        sys.stderr.write("\n".join([f"{subject.name} {n} of {kills}: {draw}, {len(wrong)} wrong", *found, ""]))
    return wrong


def completed(subject: Subject, n: int, folder: Path) -> list[str]:
    """What is wrong after a run to its end."""
    start = time.monotonic()
    with started(subject.words(n)) as process:
        _, said = process.communicate()
    subject.seconds = time.monotonic() - start
    is_done = process.returncode in (VERDICTS if subject.name == "check" else (0,))
    wrong = [] if is_done else [f"a whole run ended with {process.returncode}: {said}"]
    wrong += subject.check()
    wrong += [f"left after a whole run: {path}" for path in leftovers(folder)]
    return [f"{subject.name} after kill {n}: {text}" for text in wrong]


def killed(subject: Subject, n: int, draw: Draw, counts: Counter[str]) -> list[str]:
    """Runs the command, ends it, and says what is wrong then."""
    with started(subject.words(n)) as process:
        try:
            process.communicate(timeout=draw.after(subject.seconds))
        except subprocess.TimeoutExpired:
            (os.killpg if draw.is_for_group else os.kill)(process.pid, draw.number)
        try:
            _, said = process.communicate(timeout=PATIENCE_S)
        except subprocess.TimeoutExpired:
            return [f"alive {PATIENCE_S:g} s after the signal"]
        wrong = [f"processes alive: {alive}"] if (alive := living(process.pid)) else []
    how = ending(process.returncode, draw.number, subject.name)
    counts[f"{subject.name}: {how} {signal.Signals(draw.number).name}"] += 1
    if how == "another exit code after":
        wrong.append(f"exit code {process.returncode}: {said}")
    if "Traceback" in said and not (process.returncode < 0 and "edgeport" not in said):  # Python's own, before us
        wrong.append(f"a traceback: {said}")
    return wrong + subject.check()


def ending(code: int, number: int, name: str) -> str:
    if number != signal.SIGKILL and code == 128 + number:
        return "ended by"
    if code == -number:
        return "ended by" if number == signal.SIGKILL else "ended before edgeport's first line by"
    return "had ended before" if code in (VERDICTS if name == "check" else (0,)) else "another exit code after"


def living(session: int) -> list[str]:
    """The command lines of the session's processes that PATIENCE_S did not see the end of."""
    deadline = time.monotonic() + PATIENCE_S
    while (found := list(members(session))) and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


def members(session: int) -> Iterator[str]:
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it may end while it is looked at
            fields = (path / "stat").read_text().rpartition(")")[2].split()
            if fields[0] != "Z" and int(fields[3]) == session:
                yield (path / "cmdline").read_bytes().replace(b"\0", b" ").decode()


@contextlib.contextmanager
def started(words: list[str]) -> Iterator["subprocess.Popen[str]"]:
    """edgeport, in a session of its own, of which nothing is left afterwards."""
    process = subprocess.Popen(
        [sys.executable, "-m", "edgeport", *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=hear,  # noqa: PLW1509  it only sets signals' handlers
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def hear() -> None:
    """As in a terminal, wherever this runs: jobs in the background, and their children, are deaf to Ctrl-C."""
    for number in SIGNALS[1:]:
        signal.signal(number, signal.SIG_DFL)


@contextlib.contextmanager
def surroundings(folder: Path) -> Iterator[None]:
    """Everything that edgeport keeps lies below the folder."""
    own = {
        "EDGEPORT_CACHE": "cache",
        "XDG_CONFIG_HOME": "config",
        "XDG_DATA_HOME": "data",
        "TMPDIR": "tmp",
        "EDGEPORT_LOCK": "lock",
    }
    before = dict(os.environ)
    for name, place in own.items():
        (folder / place).mkdir()
        os.environ[name] = str(folder / place)
    os.environ.pop("EDGEPORT_DATABASE", None)
    (folder / "net.py").write_text(NETWORK)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def subjects(folder: Path) -> list[Subject]:
    network, out, report, kept = f"{folder}/net.py:build", folder / "out", folder / "report.json", folder / "baseline"
    measured, summary = folder / "model.tflite", folder / "summary.md"

    def export(n: int) -> list[str]:
        formats = ("onnx,tflite", "tflite", "onnx")[n % 3]
        return ["export", network, f"--set=channels={8 + n % 5}", f"--formats={formats}", "-q", f"-o{out}"]

    def profile(n: int) -> list[str]:
        channels = f"--set=channels={8 + n % 7}"  # exported anew now and then, and found in the cache else
        return [
            "profile",
            network,
            channels,
            "--runtime=litert",
            "--precision=fp32",
            *SHORT,
            "--format=json",
            f"-o{report}",
        ]

    def save(n: int) -> list[str]:
        path = one_of_two(folder, n)
        shutil.copyfile(path, measured)
        return ["baseline", "save", str(measured), f"-o{kept}", "-q"]

    def check(n: int) -> list[str]:
        if not kept.exists():
            run_whole(save(0))
        return ["check", f"--baseline={kept}", "--max-minutes=0.05", f"--summary={summary}", "-q"]

    return [
        Subject("export", export, lambda: bad_export(out)),
        Subject("profile", profile, lambda: bad_cache(folder) + bad_json(report) + bad_history(folder)),
        Subject("check", check, lambda: bad_baseline(kept) + bad_history(folder)),
        Subject("baseline", save, lambda: bad_baseline(kept) + bad_history(folder)),
    ]


def one_of_two(folder: Path, n: int) -> Path:
    """A model's file, another one for even than for odd n, exported when it is first asked for."""
    place = folder / f"model{n % 2}"
    if not place.exists():
        words = ["export", f"{folder}/net.py:build", f"--set=channels={8 + n % 2}", "--formats=tflite"]
        run_whole([*words, "--precisions=fp32", "-q", f"-o{place}"])
    return place / "build.fp32.tflite"


def run_whole(words: list[str]) -> None:
    with started(words) as process:
        _, said = process.communicate()
    if process.returncode:
        sys.exit(f"edgeport {' '.join(words)} ended with {process.returncode}: {said}")


# What is wrong with what is written


def bad_export(out: Path) -> list[str]:
    """Nothing is wrong with a folder that no export has been completed into yet."""
    has_begun = (out / MANIFEST).exists() or (out / folders.COMPLETE).exists()
    return bad_folder(out) if has_begun else []


def bad_folder(folder: Path) -> list[str]:
    try:
        for artifact in read_manifest(folder).artifacts:
            whole_artifact(folder, artifact)
    except EdgeportError as e:
        return [str(e)]
    return []


def bad_cache(folder: Path) -> list[str]:
    exports = (folder / "cache" / "exports").glob("[!.]*")
    return [text for export in exports for text in bad_folder(export)]


def bad_json(path: Path) -> list[str]:
    try:
        json.loads(path.read_text())
    except FileNotFoundError:
        return []
    except ValueError as e:
        return [f"{path.name}: {e}"]
    return []


def bad_baseline(folder: Path) -> list[str]:
    try:
        for entry in baseline.kept(folder):
            baseline.artifact(folder, entry)
    except EdgeportError as e:
        return [str(e)]
    return []


def bad_history(folder: Path) -> list[str]:
    wrong = []
    for path in (folder / "data").rglob("*.db"):
        with contextlib.closing(sqlite3.connect(path)) as connection:
            found = connection.execute("PRAGMA integrity_check").fetchall()
        wrong += [] if found == [("ok",)] else [f"{path.name}: {found}"]
    return wrong


def leftovers(folder: Path) -> list[str]:
    """Temporary files and folders, and baselines' files that no index names."""
    found = [str(path.relative_to(folder)) for path in folder.rglob(".edgeport-*")]
    kept = folder / "baseline"
    named = {e.result.sha256 for e in baseline.kept(kept)} if kept.exists() else set()
    objects = kept / baseline.OBJECTS
    return found + [f"baseline/{p.name}" for p in objects.glob("*") if p.name.partition(".")[0] not in named]


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), "an unnamed processor")
    return f"{model}, {os.cpu_count()} cores"


if __name__ == "__main__":
    sys.exit(main())
