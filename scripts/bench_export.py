"""Holds edgeport's exports against those of the stock tools: latency, export time, memory, size, loss by int8.

    python scripts/bench_export.py [NETWORK ...] [--threads 1 --threads 2] [--blocks 12] [-o docs/benchmarks.md]

A NETWORK is a name of the catalogue with its arguments: shufflenet_v1:groups=3 or mobilenet_v2:width=0.5;
weights=FILE among them loads a state dict, otherwise the weights are the random ones of seed 0, on both sides.

The stock tools are run by scripts/stock_export.py, edgeport by its command line, each in processes of their own. Stock
exports are slow, so they are kept in --folder and made again only with other versions or --fresh; edgeport's are made
every time.

What is timed against each other runs as live processes on the same cores, by turns, in bursts of three runs (after one
that is not counted), in random order and then mirrored (edgeport/interleave.py). Such a block of fresh processes gives
one number: the median over bursts of the logarithm of edgeport's time over the other's. Printed is the Hodges-Lehmann
estimate over the blocks, as a ratio, with its exact 95% interval by signed ranks: below 1, edgeport's file is faster.
Milliseconds are there for orientation: on a shared machine they say more of its other users than of the file.

If it is interrupted, what is complete is written all the same.
"""

import argparse
import datetime
import functools
import importlib.metadata
import os
import shlex
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median

import msgspec
import numpy as np

from edgeport import files, interleave, stats
from edgeport.export.verify import compare, run_artifact
from edgeport.interleave import Block
from edgeport.runner import local_runner
from edgeport.stats import Estimate

NETWORKS = ("shufflenet_v2", "shufflenet_v1:groups=3", "micronet:variant=M1", "mobilenet_v1", "mobilenet_v2")
OWN, STOCK, U8S8 = "edgeport", "stock", "stock U8S8"
STOCK_SCRIPT = Path(__file__).with_name("stock_export.py")
STOCK_TOOLS = {"tflite": "litert-torch", "onnx": "torch.onnx", "onnx U8S8": "quantize-u8s8"}
TOOLS = (
    *("edgeport", "torch", "litert-torch", "litert-converter", "ai-edge-litert", "ai-edge-quantizer"),
    *("onnx", "onnxscript", "onnxruntime"),
)
SAMPLING_SECONDS = 0.1


class Network(msgspec.Struct, frozen=True):
    """options: those of edgeport export, which scripts/stock_export.py takes too."""

    text: str
    model: str
    options: tuple[str, ...]

    @property
    def key(self) -> str:
        """A folder's name."""
        return "".join(c if c.isalnum() or c in "_.=-" else "-" for c in self.text)


class Cost(msgspec.Struct, frozen=True):
    """Of one export. cpu_seconds: of all its processes. peak_bytes: resident memory of the largest of them;
    together_bytes: of all at once, pages that they share counted in each, sampled every 0.1 s.
    """

    seconds: float
    cpu_seconds: float
    peak_bytes: int
    together_bytes: int


class Export(msgspec.Struct, frozen=True):
    """what: tflite or onnx (fp32 and int8 of it), or all: both."""

    network: str
    maker: str
    what: str
    cost: Cost


class File(msgspec.Struct, frozen=True):
    """An exported file and how far it is from PyTorch's fp32 network on the photos that nothing was calibrated with."""

    network: str
    maker: str
    format: str
    precision: str
    path: Path
    size_bytes: int
    top1_agreement: float
    sqnr_db: float | None


class Cell(msgspec.Struct, frozen=True):
    """Files timed against each other; each ratio is of the first one's time over another's."""

    network: str
    what: str
    num_threads: int
    cores: tuple[int, ...]
    labels: tuple[str, ...]
    blocks: tuple[Block, ...]

    def ratio(self, other: str) -> Estimate:
        first = self.labels[0]
        return stats.ratio([stats.log_ratio(b.bursts[first], b.bursts[other]) for b in self.blocks])

    def milliseconds(self, label: str) -> float:
        return median(ns for b in self.blocks for burst in b.bursts[label] for ns in burst) / 1e6


class Report(msgspec.Struct):
    """All of a run, raw. It fills while the run goes on."""

    command: str
    date: str
    machine: dict[str, str]
    versions: dict[str, str]
    exports: list[Export] = []
    files: list[File] = []
    cells: list[Cell] = []


def main() -> int:
    args = parsed()
    folder = args.folder or files.cache_folder("bench")
    report = Report(shlex.join(["scripts/bench_export.py", *sys.argv[1:]]), today(), machine(), versions())
    try:
        for network in args.networks:
            bench(network, folder / network.key, args, report)
    except KeyboardInterrupt:
        say("interrupted; what is complete follows")
        return 130
    finally:
        text = FORMATS[args.format](report)
        if args.output:
            files.write_text(args.output, text)
        else:
            print(text)
    return 0


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help=f"default: {' '.join(NETWORKS)}")
    parser.add_argument("--threads", type=int, action="append", help="of the runtimes; repeatable; default: 1 and 2")
    parser.add_argument("--blocks", type=int, default=12, help="fresh sets of processes; 6 are the fewest for 95%%")
    parser.add_argument("--seconds", type=float, default=1.5, help="of timing a block")
    parser.add_argument("--format", choices=sorted(FORMATS), default=None)
    parser.add_argument("--folder", type=Path, help="keep the exports here; default: in edgeport's cache")
    parser.add_argument("--fresh", action="store_true", help="make the stock exports again, too")
    parser.add_argument("-o", "--output", type=Path)
    args = parser.parse_args()
    args.networks = [parsed_network(text) for text in args.networks or NETWORKS]
    args.threads = args.threads or [1, 2]
    args.format = args.format or ("markdown" if args.output and args.output.suffix == ".md" else "table")
    return args


def parsed_network(text: str) -> Network:
    model, _, arguments = text.partition(":")
    options = []
    for assignment in filter(None, arguments.split(",")):
        name, _, value = assignment.partition("=")
        options.append(f"--weights={value}" if name == "weights" else f"--set={assignment}")
    return Network(text, model, tuple(options))


def bench(network: Network, folder: Path, args: argparse.Namespace, report: Report) -> None:
    """Exports with everything, judges every file, times every cell; each goes into the report as it is complete."""
    folder.mkdir(parents=True, exist_ok=True)
    for export in (*stock_exports(network, folder, args.fresh), *own_exports(network, folder)):
        report.exports.append(export)
    made = {(f.maker, f.format, f.precision): f for f in judged(network, folder)}
    report.files.extend(made.values())
    for threads in args.threads:
        for what, paths in cells({key: file.path for key, file in made.items()}).items():
            say(f"{network.text}: timing {what}, {threads} thread{'s' * (threads > 1)}")
            report.cells.append(timed(network, what, paths, threads, args))


# Exports


def stock_exports(network: Network, folder: Path, fresh: bool) -> Iterator[Export]:
    """Each tool's, in a process of its own; taken from the folder if it was made by the same script and versions."""
    for what, tool in STOCK_TOOLS.items():
        note = folder / "stock" / f"{tool}.json"
        identity = {**versions(), "script": files.sha256(STOCK_SCRIPT)}
        identity.pop("edgeport")
        cost = None if fresh else noted(note, identity)
        if cost is None:
            say(f"{network.text}: {tool}")
            cost = watched([sys.executable, STOCK_SCRIPT, tool, network.model, note.parent, *network.options])
            note.write_bytes(msgspec.json.encode({"identity": identity, "cost": cost}))
        yield Export(network.text, STOCK, what, cost)


def noted(note: Path, identity: Mapping[str, str]) -> Cost | None:
    if not note.is_file():
        return None
    found = msgspec.json.decode(note.read_bytes())
    return msgspec.convert(found["cost"], Cost) if found["identity"] == identity else None


def own_exports(network: Network, folder: Path) -> Iterator[Export]:
    """All files at once, which are those that are measured, and each format by itself, for what that costs."""
    command = [sys.executable, "-m", "edgeport.cli", "export", network.model, *network.options, "--quiet"]
    with tempfile.TemporaryDirectory() as other:
        places = {"all": folder / "edgeport", "tflite": Path(other), "onnx": Path(other)}
        for what, place in places.items():
            say(f"{network.text}: edgeport, {what}")
            formats = [] if what == "all" else [f"--formats={what}"]
            yield Export(network.text, OWN, what, watched([*command, "-o", place, *formats]))


def watched(command: Sequence[str | Path]) -> Cost:
    """Runs the command. Raises SystemExit with what it wrote if it fails."""
    with tempfile.TemporaryFile("w+") as log:
        start = time.perf_counter()
        process = subprocess.Popen([*map(str, command)], stdout=log, stderr=log)
        largest = [0]
        done = threading.Event()
        sampler = threading.Thread(target=sample_memory, args=(process.pid, largest, done))
        sampler.start()
        try:
            # of the process and all that it has waited for: ru_maxrss is the largest one's
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        finally:
            done.set()
            sampler.join()
            if process.returncode is None:
                process.kill()
        seconds = time.perf_counter() - start
        if process.returncode:
            log.seek(0)
            raise SystemExit(f"{shlex.join(map(str, command))} failed:\n{log.read()[-4000:]}")
    return Cost(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024, largest[0])


def sample_memory(root: int, largest: list[int], done: threading.Event) -> None:
    """Keeps the most that the process and its descendants held together."""
    page = os.sysconf("SC_PAGESIZE")
    while not done.wait(SAMPLING_SECONDS):
        parents, resident = {}, {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    fields = (entry / "stat").read_text().rpartition(")")[2].split()
                except OSError:
                    continue  # it has just ended
                parents[int(entry.name)], resident[int(entry.name)] = int(fields[1]), int(fields[21]) * page
        family = {root}
        while more := {pid for pid, parent in parents.items() if parent in family} - family:
            family |= more
        largest[0] = max(largest[0], sum(resident.get(pid, 0) for pid in family))


def judged(network: Network, folder: Path) -> Iterator[File]:
    """Every file, run on photos and compared with PyTorch by the code that verifies edgeport's exports."""
    stock, own = folder / "stock", folder / "edgeport"
    if not (stock / "photos.npz").is_file():
        watched([sys.executable, STOCK_SCRIPT, "photos", network.model, stock, *network.options])
    with np.load(stock / "photos.npz") as photos:
        inputs, outputs = photos["inputs"], photos["outputs"]
    for format in ("tflite", "onnx"):
        for precision in ("fp32", "int8"):
            found = {OWN: own / f"{network.model}.{precision}.{format}", STOCK: stock / f"{precision}.{format}"}
            if (format, precision) == ("onnx", "int8"):
                found[U8S8] = stock / "u8s8.onnx"
            for maker, path in found.items():
                result = compare([outputs], run_artifact(local_runner(), path, [inputs]))
                data = path.with_name(f"{path.name}.data")
                size = path.stat().st_size + (data.stat().st_size if data.is_file() else 0)
                figures = result.top1_agreement, result.sqnr_db
                yield File(network.text, maker, format, precision, path, size, *figures)


# Timing


def cells(paths: Mapping[tuple[str, str, str], Path]) -> dict[str, dict[str, Path]]:
    """What is timed against each other: {what: {label: file}}."""
    found: dict[str, dict[str, Path]] = {}
    for (maker, format, precision), path in paths.items():
        found.setdefault(f"{format} {precision}", {})[maker] = path
    for format in ("tflite", "onnx"):
        pair = {f"int8 of {OWN}": paths[OWN, format, "int8"], f"fp32 of {OWN}": paths[OWN, format, "fp32"]}
        found[f"{format}: int8 to fp32"] = pair
    return found


def timed(network: Network, what: str, paths: Mapping[str, Path], threads: int, args: argparse.Namespace) -> Cell:
    cores = tuple(sorted(os.sched_getaffinity(0))[-threads:])
    settings = interleave.Settings(num_threads=threads, cores=cores, seconds=args.seconds)
    blocks = tuple(interleave.run_block(local_runner(), paths, settings, seed) for seed in range(args.blocks))
    cell = Cell(network.text, what, threads, cores, tuple(paths), blocks)
    for other in cell.labels[1:]:
        say(f"  {cell.labels[0]} / {other}: {shown(cell.ratio(other))}")
    return cell


# The report

Rows = list[list[str]]


def tables(report: Report) -> Iterator[tuple[str, Rows]]:
    """(title, rows), the first row being the heads of the columns."""
    yield "Latency", latency_rows(report)
    yield "Export", export_rows(report)
    yield "Files", file_rows(report)


def latency_rows(report: Report) -> Rows:
    rows = [["network", "files", "threads", "time of", "over that of", "ratio [95% interval]", "ms", "ms of the other"]]
    for cell in report.cells:
        first = cell.labels[0]
        for other in cell.labels[1:]:
            times = [f"{cell.milliseconds(label):.2f}" for label in (first, other)]
            rows.append(
                [cell.network, cell.what, str(cell.num_threads), first, other, shown(cell.ratio(other)), *times]
            )
    return rows


def export_rows(report: Report) -> Rows:
    rows = [["network", "tool", "what", "seconds", "CPU seconds", "peak MB, largest process", "MB, all processes"]]
    for e in report.exports:
        cost = e.cost
        memory = [f"{b / 1e6:.0f}" for b in (cost.peak_bytes, cost.together_bytes)]
        rows.append([e.network, e.maker, e.what, f"{cost.seconds:.1f}", f"{cost.cpu_seconds:.1f}", *memory])
    return rows


def file_rows(report: Report) -> Rows:
    rows = [["network", "file", "tool", "MB", "top-1 as PyTorch", "SQNR dB"]]
    for f in report.files:
        sqnr = "equal" if f.sqnr_db is None else f"{f.sqnr_db:.1f}"
        figures = [f"{f.size_bytes / 1e6:.2f}", f"{f.top1_agreement:.0%}", sqnr]
        rows.append([f.network, f"{f.format} {f.precision}", f.maker, *figures])
    return rows


def shown(ratio: Estimate) -> str:
    return f"{ratio.value:.3f} [{ratio.low:.3f}, {ratio.high:.3f}]"


def as_table(report: Report) -> str:
    blocks = []
    for title, rows in tables(report):
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
        blocks.append("\n".join([title, *lines]))
    return "\n\n".join(blocks)


def as_markdown(report: Report) -> str:
    parts = [f"# Exports of edgeport and of the stock tools\n\n{circumstances(report)}"]
    for title, (heads, *rows) in tables(report):
        lines = [f"| {' | '.join(cells)} |" for cells in (heads, ["-"] * len(heads), *rows)]
        parts.append("\n".join([f"## {title}", "", *lines]))
    return "\n\n".join(parts) + "\n"


def circumstances(report: Report) -> str:
    lines = [f"Made on {report.date} by `{report.command}`.", "", *(f"- {k}: {v}" for k, v in report.machine.items())]
    lines.append(f"- versions: {', '.join(f'{name} {version}' for name, version in report.versions.items())}")
    return "\n".join(lines)


def as_json(report: Report) -> str:
    return msgspec.json.format(msgspec.json.encode(report)).decode()


FORMATS: dict[str, Callable[[Report], str]] = {"table": as_table, "markdown": as_markdown, "json": as_json}


def today() -> str:
    return datetime.datetime.now(datetime.UTC).date().isoformat()


@functools.cache
def versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in TOOLS}


def machine() -> dict[str, str]:
    facts = local_runner().facts()
    flags = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags")), "")
    vector = [f for f in flags.split() if f.startswith(("avx", "amx"))]
    return {
        "processor": f"{facts['cpu_model']}, {facts['cpus']} logical processors",
        "vector instructions": ", ".join(vector) or "not told",
        "memory": f"{facts['memory_bytes'] / 2**30:.0f} GiB",
        "system": f"{facts['system']} {facts['kernel']}, Python {facts['python']}",
    }


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
