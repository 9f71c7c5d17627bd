"""Kills programs while they write to a history, lets many write at once, and counts what is lost or torn.

    python scripts/check_history.py [--tries 1000] [--writers 8] [--results 50] [--database URL] [--seed N]

A try starts a process that opens the history, which every 5 tries is a new one, and adds three results at a time, in
one transaction, until it is killed (SIGKILL) at a random moment. Then whatever add() had returned must be there, of
every three all or none, every row as it was made, and SQLite's integrity_check must find nothing. At the end several
processes open a new history at once and add results one by one; all must be there.

Without --database it is SQLite in a temporary folder; with it, in which nothing else may be, results are left behind.

Exit code 0 if nothing was lost or torn, 1 otherwise.
"""

import argparse
import contextlib
import os
import random
import signal
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from edgeport.history import Filter, History, entry_of
from edgeport.records import Launch, OpProfile, OpTime, Origin, Result

TOGETHER = 3  # results of a transaction
TRIES_A_FILE = 5
LONGEST_S = 0.15  # from the start of a process until it is killed; most tries are shorter
BEFORE, OPENING, WRITING, BETWEEN = "before opening", "while opening", "during a write", "between writes"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tries", type=int, default=1000)
    parser.add_argument("--writers", type=int, default=8)
    parser.add_argument("--results", type=int, default=50, help="of each writer")
    parser.add_argument("--database", help="an empty PostgreSQL database; default: SQLite")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="edgeport-") as folder:
        counts = kill(args.tries, places(folder, args.database), random.Random(args.seed), report)
        lost = together(args.writers, args.results, args.database or str(Path(folder, "together.db")))
    moments = ", ".join(f"{counts[moment]} {moment}" for moment in (BEFORE, OPENING, WRITING, BETWEEN))
    print(f"{args.tries} processes killed: {moments}")
    print(f"results acknowledged {counts['acknowledged']}, of them lost {counts['lost']}")
    print(f"transactions not acknowledged: {counts['none']} absent, {counts['all']} whole, {counts['torn']} in part")
    print(f"rows read back {counts['rows']}, not as they were made {counts['changed']}")
    print(f"databases found damaged {counts['damaged']}")
    print(f"{args.writers} writers at once, {args.results} results each: lost {lost}")
    return 1 if lost or any(counts[bad] for bad in ("lost", "torn", "changed", "damaged")) else 0


def report(tries: int) -> None:
    if tries % 100 == 0:
        sys.stderr.write(f"{tries} tries\n")


def places(folder: str, database: str | None) -> Callable[[int], str]:
    """The history of the n-th try."""
    return lambda n: database or str(Path(folder, f"{n // TRIES_A_FILE}.db"))


def kill(
    tries: int, place: Callable[[int], str], rng: random.Random, tell: Callable[[int], None] = lambda n: None
) -> Counter[str]:
    """What became of it, counted under the names that main() prints."""
    counts: Counter[str] = Counter()
    for n in range(tries):
        database = place(n)
        lines = killed(lambda say, n=n, at=database: write_on(at, n, say), LONGEST_S * rng.random() ** 2)  # type: ignore[misc]
        counts[moment(lines)] += 1
        check(database, lines, n, counts)
        tell(n + 1)
    return counts


def killed(work: Callable[[Callable[[str], None]], None], seconds: float) -> list[str]:
    """Runs the work in a process, kills it after so long, and returns the lines that it said."""
    end, said = os.pipe()
    child = os.fork()
    if child == 0:
        with leaving():
            work(lambda line: _say(said, line))
    os.close(said)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with os.fdopen(end) as pipe:
        return pipe.read().splitlines()


def write_on(database: str, n: int, say: Callable[[str], None]) -> None:
    say("open")
    history = History(database, create=True)
    for turn in range(10**6):
        results = three(n, turn)
        say(f"add {turn}")
        history.add(results)
        say(f"added {turn}")


def moment(lines: Sequence[str]) -> str:
    if not lines:
        return BEFORE
    return {"open": OPENING, "add": WRITING, "added": BETWEEN}[lines[-1].split()[0]]


def check(database: str, lines: Sequence[str], n: int, counts: Counter[str]) -> None:
    history = History(database, create=True)
    there = {entry.id: entry for entry in history.entries(Filter(model=f"model{n}"))}
    added = {line for line in lines if line.startswith("added")}
    for turn in (int(line.split()[1]) for line in lines if line.startswith("add ")):
        ids = [entry_of(result).id for result in three(n, turn)]
        found = [key for key in ids if key in there]
        if f"added {turn}" in added:
            counts["acknowledged"] += len(ids)
            counts["lost"] += len(ids) - len(found)
        else:
            counts[{0: "none", len(ids): "all"}.get(len(found), "torn")] += 1
    for key, entry in there.items():
        counts["rows"] += 1
        counts["changed"] += entry_of(history.results([key])[0]) != entry
    counts["damaged"] += "://" not in database and not sound(database)


def sound(path: str) -> bool:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def together(writers: int, results: int, database: str) -> int:
    """How many results are missing after so many processes have opened a history at once and added theirs."""
    ready, go = os.pipe()
    children = [_start(lambda w=w: add_all(database, w, results), ready, go) for w in range(writers)]  # type: ignore[misc]
    os.close(ready)
    os.close(go)  # nobody holds it any more: all who read it go on
    codes = [os.waitpid(child, 0)[1] for child in children]
    there = sum(History(database).count(Filter(model=f"writer{w}")) for w in range(writers))
    return writers * results - there + sum(code != 0 for code in codes)


def add_all(database: str, writer: int, results: int) -> None:
    history = History(database, create=True)
    for n in range(results):
        if len(history.add([made(f"writer{writer}", n)])) != 1:
            raise AssertionError("a result is said to be there already")


def _start(work: Callable[[], None], ready: int, go: int) -> int:
    child = os.fork()
    if child == 0:
        with leaving():
            os.close(go)
            os.read(ready, 1)
            work()
    return child


@contextlib.contextmanager
def leaving() -> Iterator[None]:
    """Ends the process, a copy of this one, with the block: with 0 if that ended well."""
    try:
        yield
        os._exit(0)
    except BaseException as e:
        sys.stderr.write(f"{type(e).__name__}: {e}\n")
        os._exit(1)


def _say(pipe: int, line: str) -> None:
    os.write(pipe, f"{line}\n".encode())


def three(n: int, turn: int) -> list[Result]:
    return [made(f"model{n}", turn * TOGETHER + i) for i in range(TOGETHER)]


def made(model: str, n: int) -> Result:
    """A result the size of a real one, the same for the same arguments."""
    rng = random.Random(f"{model} {n}")
    launches = [
        Launch(rng.randrange(10**8), 10**7, tuple(rng.randrange(10**6, 10**7) for _ in range(16)), 10**8, {}, {})
        for _ in range(4)
    ]
    where = [f"stage2.{i}" for i in range(100)]
    ops = [
        OpTime(name=f"node {m}", op="Conv", class_="conv", module=m, shape=(1, 58), us=rng.random(), madds=9, bytes=9)
        for m in where
    ]
    return Result(
        model=model,
        file="model.int8.onnx",
        sha256=f"{rng.getrandbits(256):064x}",
        size_bytes=10**6,
        device="made_up",
        runtime="onnxruntime",
        runtime_version="1.0",
        precision="int8",
        num_threads=1,
        cores=(),
        warmup_runs=4,
        inputs=(),
        facts={},
        launches=tuple(launches),
        profile=OpProfile((10**6,), (1000,), (10,), tuple(ops), {}, {}),
        origin=Origin(1.8e9 + n, "0"),
    )


if __name__ == "__main__":
    sys.exit(main())
