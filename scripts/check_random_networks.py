"""Holds what edgeport makes of random networks against PyTorch, its own plain export and the stock tools.

    python scripts/check_random_networks.py run RESULTS.jsonl [--seeds 0:2000] [--compared] [--workers 1] [--minutes 60]
    python scripts/check_random_networks.py report RESULTS.jsonl [-o docs/random_networks.md]
    python scripts/check_random_networks.py show SEED
    python scripts/check_random_networks.py shrink SEED [--file int8.onnx] [--compared]

run adds a line of JSON for each network and leaves out those that RESULTS has: it can be ended and called again.
A network is right where fp32 is within 1e-4 of each piece's largest value, and int8, on samples that it was not
calibrated with, is above 40 dB in each piece or at most 1 dB below others: the plain export (--no-optimize), which is
made where int8 is below 20 dB, and with --compared, always, and with it the stock tools' files of the same precision.
Networks are run in processes of their own, which start anew after a crash; the crash is a fault of the network.

shrink prints the smallest network that it comes to by leaving out steps while the same fault stays.

Exit code of run and report: 0 if no network has a fault, 1 otherwise.
"""

import argparse
import functools
import logging
import os
import subprocess
import sys
import threading
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import torch
from differential import FORMATS, Fault, Record
from random_blocks import KINDS, make
from random_networks import Network

BEGIN, END = "<!-- results -->\n", "<!-- /results -->"
PAGE = Path(__file__).parents[1] / "docs" / "random_networks.md"
LONGEST_SECONDS = 600  # of one network
NETWORKS_A_PROCESS = 60  # the libraries keep some memory of each
CRASHED, ENDLESS, REFUSED = "crashed", "endless", "refused"


class Request(msgspec.Struct, frozen=True):
    """One network: of a seed, and by the numbers of the steps by which it was made smaller."""

    seed: int
    compared: bool = False
    formats: tuple[str, ...] = FORMATS
    smaller: tuple[int, ...] = ()

    def network(self) -> Network:
        network = make(self.seed)
        for number in self.smaller:
            network = list(network.smaller())[number].eval()
        return network


class Worker:
    """A process that checks one network after another, and is replaced when it ends."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._done = 0

    def check(self, request: Request) -> Record:
        if self._process is None or self._done >= NETWORKS_A_PROCESS:
            self.stop()
            self._process, self._done = _started(), 0
        process, self._done = self._process, self._done + 1
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(msgspec.json.encode(request).decode() + "\n")
        process.stdin.flush()
        timer = threading.Timer(LONGEST_SECONDS, process.kill)
        timer.start()
        answer = process.stdout.readline()
        late = not timer.is_alive()
        timer.cancel()
        if answer:
            return msgspec.json.decode(answer, type=Record)
        self._process = None
        return _lost(request, process.wait(), late)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def _started() -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, __file__, "work"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def _lost(request: Request, code: int, late: bool) -> Record:
    """Of a network that took its process with it."""
    network = request.network()
    record = Record(request.seed, network.kind, len(network.steps), request.compared)
    text = f"it took more than {LONGEST_SECONDS} s" if late else f"the process ended with exit code {code}"
    record.faults.append(Fault(", ".join(request.formats), ENDLESS if late else CRASHED, text))
    return record


def checked(worker: Worker, request: Request) -> Record:
    """A network that ends the process is checked by each format alone, which says whose fault it is."""
    record = worker.check(request)
    if record.faults and record.faults[-1].kind == CRASHED and len(request.formats) > 1:
        parts = [worker.check(msgspec.structs.replace(request, formats=(format,))) for format in request.formats]
        for part in parts:
            for maker, files in part.figures.items():
                record.figures.setdefault(maker, {}).update(files)
        record.faults = [fault for part in parts for fault in part.faults]
        record.seconds = sum(part.seconds for part in parts)
    return record


def work() -> int:
    """Answers each line of standard input, a request, with a record; what libraries print goes nowhere."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    torch.set_num_threads(1)
    from differential import check
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    # torch.onnx reads its own translations anew for each network, which is half of the time of a small one.
    ONNXRegistry.from_torchlib = staticmethod(functools.cache(ONNXRegistry.from_torchlib))  # type: ignore
    for asked in sys.stdin:
        request = msgspec.json.decode(asked, type=Request)
        answers.write(line(check(request.network(), request.compared, request.formats)))
        answers.flush()
    return 0


def run(results: Path, requests: Sequence[Request], workers: int, minutes: float) -> int:
    """Checks the networks that the file does not have yet, for so long at most."""
    known = {(r.seed, r.compared) for r in read(results)}
    waiting = iter([r for r in requests if (r.seed, r.compared) not in known])
    end, lock = time.monotonic() + 60 * minutes, threading.Lock()

    def each_in_turn() -> None:
        worker = Worker()
        try:
            while time.monotonic() < end:
                with lock:
                    request = next(waiting, None)
                if request is None:
                    return
                record = checked(worker, request)
                with lock, results.open("a", encoding="utf-8") as file:
                    file.write(line(record))
                    print(_told(record), flush=True)
        finally:
            worker.stop()

    results.parent.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(workers) as pool:
        for future in [pool.submit(each_in_turn) for _ in range(workers)]:
            future.result()
    return int(any(r.faults for r in read(results)))


def line(record: Record) -> str:
    return msgspec.json.encode(record).decode() + "\n"


def read(results: Path) -> list[Record]:
    if not results.is_file():
        return []
    return [msgspec.json.decode(text, type=Record) for text in results.read_text(encoding="utf-8").splitlines()]


def _told(record: Record) -> str:
    faults = "; ".join(f"{f.file} {f.kind} {f.piece}: {f.text[:120]}" for f in record.faults)
    return f"{record.seed} ({record.kind}, {record.steps} steps, {record.seconds:.1f} s): {faults or 'right'}"


# Smaller networks


def shrink(request: Request, file: str | None) -> int:
    """Prints the smallest network with a fault of the same kind in the same file."""
    worker = Worker()
    try:
        wanted = next((f for f in worker.check(request).faults if file in (None, f.file)), None)
        if wanted is None:
            print(f"seed {request.seed} has no such fault")
            return 1
        if len(wanted.file.split(",")) == 1:
            request = msgspec.structs.replace(request, formats=(wanted.file.rpartition(".")[2],))
        request = _smallest(worker, request, wanted)
        print(request.network())
        print("\n".join(f"# {f.file} {f.kind} {f.piece}: {f.text}" for f in worker.check(request).faults))
    finally:
        worker.stop()
    return 0


def _smallest(worker: Worker, request: Request, wanted: Fault) -> Request:
    while True:
        for candidate in _candidates(request):
            if any(_same(fault, wanted) for fault in worker.check(candidate).faults):
                request = candidate
                print(f"# {len(request.network().steps)} steps", file=sys.stderr)
                break
        else:
            return request


def _candidates(request: Request) -> Iterator[Request]:
    """Smaller networks that PyTorch still runs."""
    for number, network in enumerate(request.network().smaller()):
        try:
            with torch.no_grad():
                made = network.eval()(*(torch.from_numpy(a[0].copy()) for a in network.samples(1, 1)))
        except (RuntimeError, ValueError, IndexError):  # shapes that no longer go together
            continue
        if all(value.is_floating_point() for value in made) and network.inputs:
            yield msgspec.structs.replace(request, smaller=(*request.smaller, number))


def _same(fault: Fault, wanted: Fault) -> bool:
    return (fault.file, fault.kind) == (wanted.file, wanted.kind) and (
        fault.kind != REFUSED or fault.text[:40] == wanted.text[:40]
    )


# The page


def report(results: Path, page: Path) -> int:
    """Writes the figures between the page's markers, the rest of which is written by hand."""
    records = list({(r.seed, r.compared): r for r in read(results)}.values())
    text = page.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{page} lacks the lines {BEGIN.strip()} and {END}")
    page.write_text("\n".join([before + begin, *tables(records), end + after]), encoding="utf-8")
    return int(any(r.faults for r in records))


def tables(records: Sequence[Record]) -> Iterator[str]:
    compared = [r for r in records if r.compared]
    wrong = [r for r in records if r.faults]
    yield f"{len({r.seed for r in records})} networks on {processor()},"
    yield f"{len(compared)} of them compared with the plain export and the stock tools too."
    yield f"{len(wrong)} have a fault.\n"
    yield "| networks | number | lowered by edgeport itself | median seconds | with a fault |"
    yield "| - | -: | -: | -: | -: |"
    for kind in KINDS:
        of_kind = [r for r in records if r.kind == kind]
        if of_kind:
            times = sorted(r.seconds for r in of_kind)
            own = sum(r.own_lowering for r in of_kind)
            faults = sum(bool(r.faults) for r in of_kind)
            yield f"| {kind} | {len(of_kind)} | {own} | {times[len(times) // 2]:.1f} | {faults} |"
    yield ""
    if wrong:
        yield "| file | fault | networks | seeds |\n| - | - | -: | - |"
        found: dict[tuple[str, str], set[int]] = defaultdict(set)
        for record in wrong:
            for fault in record.faults:
                found[fault.file, fault.kind].add(record.seed)
        for (file, kind), seeds in sorted(found.items()):
            listed = ", ".join(map(str, sorted(seeds)[:12])) + (" ..." if len(seeds) > 12 else "")
            yield f"| {file} | {kind} | {len(seeds)} | {listed} |"
        yield ""


def processor() -> str:
    """The name that Linux gives it."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = Counter(text.partition(":")[2].strip() for text in lines if text.startswith("model name"))
    return " and ".join(f"{name} ({count} logical processors)" for name, count in names.items()) or "this machine"


def main() -> int:
    args = _parser().parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    if args.command == "work":
        return work()
    if args.command == "show":
        print(make(args.seed))
        return 0
    if args.command == "shrink":
        return shrink(Request(args.seed, args.compared), args.file)
    if args.command == "report":
        return report(args.results, args.output)
    first, _, last = args.seeds.partition(":")
    seeds = range(int(first), int(last or int(first) + 1))
    return run(args.results, [Request(seed, args.compared) for seed in seeds], args.workers, args.minutes)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("work", help="used by the other commands")
    running = commands.add_parser("run")
    running.add_argument("results", type=Path)
    running.add_argument("--seeds", default="0:2000", help="FIRST:LAST, without the last one; or one")
    running.add_argument("--compared", action="store_true")
    running.add_argument("--workers", type=int, default=1)
    running.add_argument("--minutes", type=float, default=1e6)
    reporting = commands.add_parser("report")
    reporting.add_argument("results", type=Path)
    reporting.add_argument("-o", "--output", type=Path, default=PAGE)
    for name in ("show", "shrink"):
        command = commands.add_parser(name)
        command.add_argument("seed", type=int)
        if name == "shrink":
            command.add_argument("--file")
            command.add_argument("--compared", action="store_true")
    return parser


if __name__ == "__main__":
    sys.exit(main())
