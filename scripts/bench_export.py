"""Holds edgeport's exports against those of the stock tools: latency, export time, memory, size, loss by int8.

    python scripts/bench_export.py [NETWORK ...] [--threads 1 --threads 2] [--blocks 12] [-o docs/benchmarks.md]

A NETWORK is a name of the catalogue with its arguments: shufflenet_v1:groups=3 or mobilenet_v2:width=0.5;
weights=FILE among them loads a state dict, otherwise the weights are the random ones of seed 0, on both sides.

The stock tools are run by scripts/stock_export.py, edgeport by its command line, each in processes of their own. Stock
exports are slow, so they are kept in --folder and made again only with other versions or --fresh; edgeport's are made
every time. What was measured is kept there as well, cell by cell, in report-TIME.json, which --from shows again in any
format; of several reports, the last one of each network. If the run is interrupted, what is complete is shown all the
same.

On a machine with other users, --nice -19 (as root) lets the timed processes go before other programs; those must wait
meanwhile.
"""

import argparse
import contextlib
import datetime
import functools
import importlib.metadata
import importlib.util
import os
import shlex
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import geometric_mean, median, stdev

import msgspec
import numpy as np

from edgeport import catalog, files, interleave, stats
from edgeport.errors import EdgeportError
from edgeport.export import calibrate
from edgeport.export.verify import compare, run_artifact
from edgeport.interleave import Block
from edgeport.runner import local_runner
from edgeport.stats import Estimate

NETWORKS = ("shufflenet_v2", "shufflenet_v1:groups=3", "micronet:variant=M1", "mobilenet_v1", "mobilenet_v2")
OWN, OWN_INT8_IO, AGAIN, STOCK, U8S8 = "edgeport", "edgeport --int8-io", "the same again", "stock", "stock U8S8"
STOCK_SCRIPT = Path(__file__).with_name("stock_export.py")
# What each makes: the tool's name in that script, and its files.
STOCK_TOOLS = {
    "tflite": ("litert-torch", ("fp32.tflite", "int8.tflite")),
    "onnx": ("torch.onnx", ("fp32.onnx", "fp32.onnx.data", "int8.onnx")),
    "onnx U8S8": ("quantize-u8s8", ("u8s8.onnx",)),
}
DISTRIBUTIONS = (
    *("edgeport", "torch", "litert-torch", "litert-converter", "ai-edge-litert", "ai-edge-quantizer"),
    *("onnx", "onnxscript", "onnxruntime"),
)
SAMPLING_SECONDS = 0.1
BOTH = "tflite, onnx"
SHOWN_CHARACTERS = 2000
METHOD = """\
Both sides export the same networks, with the same weights and, for int8, the same calibration samples: edgeport by
`edgeport export`, the stock tools as their documentation shows (`scripts/stock_export.py`): litert-torch with channels
last inputs and ai-edge-quantizer's `static_wi8_ai8`; `torch.onnx.export(dynamo=True)` and ONNX Runtime's
`quantize_static` with its defaults after `quant_pre_process`; and, as "stock U8S8", with the uint8 activations that its
documentation advises for x86.

**Latency.** The files of a row are loaded by processes that live at the same time, pinned to the same core or cores,
and are timed by turns in bursts of three runs, after one that is not counted, in random order and then mirrored
(B C C B). Such a block of fresh processes gives one number, the median over bursts of the logarithm of the ratio. The
ratio shown is the Hodges-Lehmann estimate over the blocks with its exact 95% interval by signed ranks: below 1, the
first one is faster. "Spread" is the standard deviation of the blocks, "preempted" the share of runs in which the system
gave a core to some other program. Milliseconds are for orientation: on a shared machine they say more of its other
users than of the files. With several threads, each has a core of its own, and ONNX Runtime's do not spin between runs
(`session.force_spinning_stop`), since they would take the cores from the other process.

**int8.** The stock TFLite int8 file takes and gives int8, edgeport's floats unless asked for `--int8-io`: the row of
that is the one of like with like.

**Export.** Seconds by the clock and of processor time, from start to end of the command; edgeport's include running and
verifying every file, which the stock tools do not do. "tflite, onnx" is all four files: edgeport's by one command, the
stock tools one after the other. Where there were several runs, by turns, the median is shown, and the extremes. Memory
is resident: of the largest process, and of all together. Unless it was run with `--fresh`, the stock tools' figures may
be those of an earlier run, when the machine was more or less busy: `--fresh --export-runs 3` is for this table.

**Files.** Run on 20 photos that no tool was calibrated with, against the PyTorch network in fp32: how often the largest
output is the same one, and the signal-to-noise ratio. Random weights say little of accuracy; the ratio compares the
tools."""


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
    """what: tflite or onnx (fp32 and int8 of it), or both."""

    network: str
    maker: str
    what: str
    cost: Cost


class Note(msgspec.Struct, frozen=True):
    """Kept beside a stock tool's files."""

    made_of: dict[str, str]
    cost: Cost


class File(msgspec.Struct, frozen=True):
    """An exported file and how far it is from PyTorch's fp32 network on the photos that nothing was calibrated with."""

    network: str
    maker: str
    format: str
    precision: str
    path: str
    size_bytes: int
    top1_agreement: float | None
    sqnr_db: float | None


class Cell(msgspec.Struct, frozen=True):
    """Files timed against each other. comparisons: of whose time over whose."""

    network: str
    what: str
    num_threads: int
    cores: tuple[int, ...]
    nice: int
    comparisons: tuple[tuple[str, str], ...]
    blocks: tuple[Block, ...]

    def log_ratios(self, label: str, other: str) -> list[float]:
        return [block.log_ratio(label, other) for block in self.blocks]

    def milliseconds(self, label: str) -> float:
        return median(ns for block in self.blocks for ns in block.samples_ns(label)) / 1e6


class Report(msgspec.Struct):
    """All of a run, raw. It fills while the run goes on. failures: what a tool could not do."""

    command: str
    date: str
    machine: dict[str, str]
    versions: dict[str, str]
    exports: list[Export] = []
    files: list[File] = []
    cells: list[Cell] = []
    failures: list[str] = []


class ToolError(Exception):
    """A tool could not do its work; the text has its last words."""


def main() -> int:
    args = parsed()
    if args.from_:
        deliver(together([msgspec.json.decode(path.read_bytes(), type=Report) for path in args.from_]), args)
        return 0
    folder = files.writable_folder(args.folder or files.cache_folder("bench"))
    started = datetime.datetime.now(datetime.UTC)
    kept_report = folder / f"report-{started:%Y%m%dT%H%M%S}.json"
    command = shlex.join(["scripts/bench_export.py", *sys.argv[1:]])
    report = Report(command, started.date().isoformat(), machine(), versions())
    try:
        for network in args.networks:
            for _ in bench(network, folder / network.key, args, report):
                files.write_text(kept_report, as_json(report))
    except KeyboardInterrupt:
        say("interrupted; what is complete follows")
        return 130
    finally:
        deliver(report, args)
    return 1 if report.failures else 0


def together(reports: Sequence[Report]) -> Report:
    """The last report of each network; what they were run by and on, of all of them."""
    *earlier, last = reports
    if not earlier:
        return last
    before = together(earlier)
    measured: tuple[Export | File | Cell, ...] = (*last.exports, *last.files, *last.cells)
    again = {part.network for part in measured}
    kept = {
        name: [*(part for part in getattr(before, name) if part.network not in again), *getattr(last, name)]
        for name in ("exports", "files", "cells")
    }
    command = before.command if last.command == before.command else f"{before.command}, then {last.command}"
    failures = [f for f in before.failures if f.partition(": ")[0] not in again] + last.failures
    return Report(command, last.date, last.machine, last.versions, failures=failures, **kept)


def deliver(report: Report, args: argparse.Namespace) -> None:
    text = FORMATS[args.format](report)
    if args.output:
        files.write_text(args.output, text)
    else:
        print(text)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help=f"default: {' '.join(NETWORKS)}")
    parser.add_argument("--threads", type=int, action="append", help="of the runtimes; repeatable; default: 1 and 2")
    parser.add_argument("--blocks", type=int, default=12, help="fresh sets of processes; 95%% takes at least 6")
    parser.add_argument("--seconds", type=float, default=1.5, help="of timing a block")
    parser.add_argument("--nice", type=int, default=0, help="priority of the timed processes: -20 is the highest")
    parser.add_argument("--noise", action="store_true", help="time edgeport's files against themselves, too")
    parser.add_argument("--format", choices=sorted(FORMATS), help="default: table, or markdown for a .md file")
    parser.add_argument("--folder", type=Path, help="keep the exports here; default: in edgeport's cache")
    parser.add_argument("--fresh", action="store_true", help="make the stock exports again, too")
    parser.add_argument("--export-runs", type=int, default=1, help="exports with each tool, by turns")
    parser.add_argument(
        "--from", type=Path, action="append", dest="from_", metavar="REPORT", help="show what was kept; repeatable"
    )
    parser.add_argument("-o", "--output", type=Path)
    args = parser.parse_args()
    try:
        args.networks = [parsed_network(text) for text in args.networks or NETWORKS]
    except EdgeportError as e:
        parser.error(str(e))
    args.threads = args.threads or [1, 2]
    args.format = args.format or ("markdown" if args.output and args.output.suffix == ".md" else "table")
    return args


def parsed_network(text: str) -> Network:
    """Raises UsageError for a model that there is not."""
    model, _, arguments = text.partition(":")
    options = []
    for assignment in filter(None, arguments.split(",")):
        name, _, value = assignment.partition("=")
        options.append(f"--weights={value}" if name == "weights" else f"--set={assignment}")
    catalog.find_factory(model)
    return Network(text, model, tuple(options))


def bench(network: Network, folder: Path, args: argparse.Namespace, report: Report) -> Iterator[None]:
    """Exports with everything, judges every file, times every cell. Yields after each that the report now has."""
    for make in all_exports(network, folder, args):
        try:
            report.exports.append(make())
        except ToolError as e:
            report.failures.append(f"{network.text}: {e}")
        yield
    made = {}
    try:
        for file in judged(network, folder, report.failures):
            made[file.maker, file.format, file.precision] = file
            report.files.append(file)
            yield
    except ToolError as e:
        report.failures.append(f"{network.text}: {e}")
    for threads in args.threads:
        for what, paths in cells(made, args.noise).items():
            say(f"{network.text}: timing {what}, {threads} thread{'s' * (threads > 1)}")
            report.cells.append(timed(network, what, paths, threads, args))
            yield


# Exports


def all_exports(network: Network, folder: Path, args: argparse.Namespace) -> Iterator[Callable[[], Export]]:
    """Everybody's by turns, as often as was asked for."""
    for n in range(args.export_runs):
        yield from stock_exports(network, folder / "stock", args.fresh or n > 0)
        yield from own_exports(network, folder)


def stock_exports(network: Network, folder: Path, fresh: bool) -> Iterator[Callable[[], Export]]:
    """Each tool's, in a process of its own."""
    for what in STOCK_TOOLS:
        yield functools.partial(stock_export, network, folder, what, fresh)


def stock_export(network: Network, folder: Path, what: str, fresh: bool) -> Export:
    return Export(network.text, STOCK, what, kept(network, folder, *STOCK_TOOLS[what], fresh=fresh))


def kept(network: Network, folder: Path, tool: str, names: Sequence[str], fresh: bool) -> Cost:
    """What it cost a tool to make its files; made now unless the folder has them, made of the same by the same."""
    note, made_of = folder / f"{tool}.json", identity(network)
    cost = None if fresh else noted(note, made_of)
    if cost is None:
        for name in (note.name, *names):
            (folder / name).unlink(missing_ok=True)
        command: list[str | Path] = [sys.executable, STOCK_SCRIPT, tool, network.model, folder, *network.options]
        cost = watched(tool, command, network)
        note.write_bytes(msgspec.json.encode(Note(made_of, cost)))
    return cost


def noted(note: Path, made_of: Mapping[str, str]) -> Cost | None:
    try:
        found = msgspec.json.decode(note.read_bytes(), type=Note)
    except (OSError, msgspec.MsgspecError):
        return None  # none yet, or another version's
    return found.cost if found.made_of == made_of else None


def identity(network: Network) -> dict[str, str]:
    """All that the bytes of a stock export depend on: versions, and hashes of the files that are read."""
    spec = importlib.util.find_spec(f"edgeport.models.{network.model}")
    source = spec.origin if spec and spec.origin else network.model
    weights = [o.removeprefix("--weights=") for o in network.options if o.startswith("--weights=")]
    read = [STOCK_SCRIPT, *map(Path, (calibrate.__file__, source, *weights))]
    return {**versions(), "edgeport": "", **{path.name: files.sha256(path) for path in read if path.is_file()}}


def own_exports(network: Network, folder: Path) -> Iterator[Callable[[], Export]]:
    """All files at once; and int8 with integer edges, as the stock file of TFLite has them."""
    yield functools.partial(own_export, network, BOTH, folder / "edgeport", ())
    options = ("--formats=tflite", "--precisions=int8", "--int8-io")
    yield functools.partial(own_export, network, "tflite int8 --int8-io", folder / "edgeport-int8-io", options)


def own_export(network: Network, what: str, folder: Path, options: Sequence[str]) -> Export:
    for old in folder.glob(f"{network.model}.*"):
        old.unlink()
    command = [sys.executable, "-m", "edgeport.cli", "export", network.model, *network.options, *options]
    return Export(network.text, OWN, what, watched(f"edgeport, {what}", [*command, "--quiet", "-o", folder], network))


def watched(what: str, command: Sequence[str | Path], network: Network) -> Cost:
    """Runs the command. Raises ToolError with what it wrote if it fails."""
    say(f"{network.text}: {what}")
    with tempfile.TemporaryFile("w+") as log:
        start = time.perf_counter()
        process = subprocess.Popen([*map(str, command)], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        with sampled_memory(process.pid) as largest:
            try:
                # of the process and all that it has waited for: ru_maxrss is that of the largest, which this process
                # must stay smaller than, since a child starts as its copy
                _, status, usage = os.wait4(process.pid, 0)
                process.returncode = os.waitstatus_to_exitcode(status)
            except BaseException:
                process.kill()
                process.wait()
                raise
        seconds = time.perf_counter() - start
        if process.returncode:
            log.seek(0)
            raise ToolError(f"{what} failed: {log.read()[-SHOWN_CHARACTERS:]}")
    return Cost(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024, max(largest))


@contextlib.contextmanager
def sampled_memory(root: int) -> Iterator[list[int]]:
    """While the block runs: the resident bytes of a process and its descendants together, sample by sample."""
    samples, done = [0], threading.Event()

    def sample() -> None:
        while not done.wait(SAMPLING_SECONDS):
            samples.append(family_bytes(root))

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield samples
    finally:
        done.set()
        thread.join()


def family_bytes(root: int) -> int:
    """Resident memory of a process and its descendants (proc(5): stat)."""
    parents, resident = {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue  # it has just ended
            parents[int(entry.name)], resident[int(entry.name)] = int(fields[1]), int(fields[21])
    family = {root}
    while more := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= more
    return sum(resident.get(pid, 0) for pid in family) * os.sysconf("SC_PAGESIZE")


def judged(network: Network, folder: Path, failures: list[str]) -> Iterator[File]:
    """Every file there is, run on photos and compared with PyTorch by the code that verifies edgeport's exports."""
    kept(network, folder / "stock", "photos", ["photos.npz"], fresh=False)
    with np.load(folder / "stock" / "photos.npz") as arrays:
        inputs, outputs = arrays["inputs"], arrays["outputs"]
    for (maker, format, precision), path in possible_files(network, folder).items():
        if not path.is_file():
            continue
        try:
            result = compare([outputs], run_artifact(local_runner(), path, [inputs]))
        except EdgeportError as e:
            failures.append(f"{network.text}: {maker}, {path.name}: {e}")
            continue
        data = path.with_name(f"{path.name}.data")
        size = path.stat().st_size + (data.stat().st_size if data.is_file() else 0)
        yield File(network.text, maker, format, precision, str(path), size, result.top1_agreement, result.sqnr_db)


def possible_files(network: Network, folder: Path) -> dict[tuple[str, str, str], Path]:
    """{(maker, format, precision): path}."""
    found = {}
    for format in ("tflite", "onnx"):
        for precision in ("fp32", "int8"):
            found[OWN, format, precision] = folder / "edgeport" / f"{network.model}.{precision}.{format}"
            found[STOCK, format, precision] = folder / "stock" / f"{precision}.{format}"
    found[OWN_INT8_IO, "tflite", "int8"] = folder / "edgeport-int8-io" / f"{network.model}.int8.tflite"
    found[U8S8, "onnx", "int8"] = folder / "stock" / "u8s8.onnx"
    return found


# Timing


def cells(made: Mapping[tuple[str, str, str], File], noise: bool) -> dict[str, dict[str, Path]]:
    """What is timed against each other: {what: {label: file}}."""
    found: dict[str, dict[str, Path]] = {}
    for (maker, format, precision), file in made.items():
        arms = found.setdefault(f"{format} {precision}", {})
        arms[maker] = Path(file.path)
        if noise and maker == OWN:
            arms[AGAIN] = Path(file.path)
    for format in ("tflite", "onnx"):
        own = [made.get((OWN, format, precision)) for precision in ("int8", "fp32")]
        found[f"{format} of edgeport"] = {file.precision: Path(file.path) for file in own if file}
    return {what: arms for what, arms in found.items() if len(arms) > 1}


def comparisons(labels: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Whose time is told over whose."""
    pairs = [("int8", "fp32"), (OWN, STOCK), (OWN_INT8_IO, STOCK), (OWN, U8S8), (U8S8, STOCK), (AGAIN, OWN)]
    return tuple((a, b) for a, b in pairs if a in labels and b in labels)


def timed(network: Network, what: str, paths: Mapping[str, Path], threads: int, args: argparse.Namespace) -> Cell:
    cores = tuple(sorted(os.sched_getaffinity(0))[-threads:])
    settings = interleave.Settings(num_threads=threads, cores=cores, seconds=args.seconds, nice=args.nice)
    blocks = tuple(interleave.run_block(local_runner(), paths, settings, seed) for seed in range(args.blocks))
    cell = Cell(network.text, what, threads, cores, args.nice, comparisons(list(paths)), blocks)
    for pair in cell.comparisons:
        say(f"  {' / '.join(pair)}: {shown(stats.ratio(cell.log_ratios(*pair)))}")
    return cell


# The report

Rows = list[list[str]]


def tables(report: Report) -> Iterator[tuple[str, Rows]]:
    """(title, rows), the first row being the heads of the columns."""
    yield "All files of a network", summary_rows(report)
    yield "Latency", latency_rows(report)
    yield "Export", export_rows(report)
    yield "Files", file_rows(report)


def summary_rows(report: Report) -> Rows:
    """Of the files that both sides make by default."""
    rows = [["network", "threads", "edgeport / stock, geometric mean", "worst file", "its ratio"]]
    found: dict[tuple[str, int], dict[str, float]] = {}
    for cell in report.cells:
        if (OWN, STOCK) in cell.comparisons:
            ratio = stats.ratio(cell.log_ratios(OWN, STOCK)).value
            found.setdefault((cell.network, cell.num_threads), {})[cell.what] = ratio
    for (network, threads), ratios in found.items():
        worst = max(ratios, key=lambda what: ratios[what])
        mean = geometric_mean(ratios.values())
        rows.append([network, str(threads), f"{mean:.3f} of {len(ratios)}", worst, f"{ratios[worst]:.3f}"])
    return rows


def latency_rows(report: Report) -> Rows:
    heads = ["network", "files", "threads", "time of", "ratio [95%]", "spread", "blocks", "ms", "preempted"]
    rows = [heads]
    for cell in report.cells:
        preempted = median(block.preempted() for block in cell.blocks)
        for pair in cell.comparisons:
            logs = cell.log_ratios(*pair)
            spread = f"{stdev(logs):.1%}" if len(logs) > 1 else ""
            ms = " / ".join(f"{cell.milliseconds(label):.2f}" for label in pair)
            what = [cell.network, cell.what, str(cell.num_threads), " / ".join(pair)]
            rows.append([*what, shown(stats.ratio(logs)), spread, str(len(logs)), ms, f"{preempted:.0%}"])
    return rows


def export_rows(report: Report) -> Rows:
    rows = [["network", "tool", "what", "seconds", "CPU seconds", "peak MB, largest process", "MB, all processes"]]
    for (network, maker, what), costs in grouped(report.exports).items():
        times = [ranged([c.seconds for c in costs]), ranged([c.cpu_seconds for c in costs])]
        memory = [max(c.peak_bytes for c in costs), max(c.together_bytes for c in costs)]
        rows.append([network, maker, what, *times, *(f"{b / 1e6:.0f}" for b in memory)])
    return rows


def grouped(exports: Sequence[Export]) -> dict[tuple[str, str, str], list[Cost]]:
    """{(network, maker, what): its runs}, with what the stock tools take, one after the other, for the files that
    edgeport makes in one go.
    """
    groups: dict[tuple[str, str, str], list[Cost]] = {}
    for e in exports:
        groups.setdefault((e.network, e.maker, e.what), []).append(e.cost)
    for network in dict.fromkeys(e.network for e in exports):
        tools = [groups.get((network, STOCK, what), []) for what in BOTH.split(", ")]
        summed = [added(runs) for runs in zip(*tools, strict=False)]
        if summed:
            groups[network, STOCK, BOTH] = summed
    return groups


def added(costs: Sequence[Cost]) -> Cost:
    """Of one after the other."""
    sums = sum(c.seconds for c in costs), sum(c.cpu_seconds for c in costs)
    return Cost(*sums, max(c.peak_bytes for c in costs), max(c.together_bytes for c in costs))


def ranged(values: Sequence[float]) -> str:
    """The median, and the extremes if there are several."""
    extremes = f" ({min(values):.1f} to {max(values):.1f})" if len(values) > 1 else ""
    return f"{median(values):.1f}{extremes}"


def file_rows(report: Report) -> Rows:
    rows = [["network", "file", "tool", "MB", "top-1 as PyTorch", "SQNR dB"]]
    for f in report.files:
        sqnr = "equal" if f.sqnr_db is None else f"{f.sqnr_db:.1f}"
        figures = [f"{f.size_bytes / 1e6:.2f}", "-" if f.top1_agreement is None else f"{f.top1_agreement:.0%}", sqnr]
        rows.append([f.network, f"{f.format} {f.precision}", f.maker, *figures])
    return rows


def shown(ratio: Estimate) -> str:
    return f"{ratio.value:.3f} [{ratio.low:.3f}, {ratio.high:.3f}]"


def as_table(report: Report) -> str:
    parts = []
    for title, rows in tables(report):
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
        parts.append("\n".join([title, *lines]))
    return "\n\n".join([*parts, *report.failures])


def as_markdown(report: Report) -> str:
    parts = [f"# Exports of edgeport and of the stock tools\n\n{circumstances(report)}"]
    for title, (heads, *rows) in tables(report):
        lines = [f"| {' | '.join(cells)} |" for cells in (heads, ["-"] * len(heads), *rows)]
        parts.append("\n".join([f"## {title}", "", *lines]))
    if report.failures:
        parts.append("\n\n".join(["## What failed", *(f"```\n{text}\n```" for text in report.failures)]))
    return "\n\n".join([*parts, f"## Method\n\n{METHOD}"]) + "\n"


def circumstances(report: Report) -> str:
    lines = [f"Made on {report.date} by `{report.command}`.", "", *(f"- {k}: {v}" for k, v in report.machine.items())]
    lines.append(f"- versions: {', '.join(f'{name} {version}' for name, version in report.versions.items())}")
    return "\n".join(lines)


def as_json(report: Report) -> str:
    return msgspec.json.encode(report).decode()


FORMATS: dict[str, Callable[[Report], str]] = {"table": as_table, "markdown": as_markdown, "json": as_json}


@functools.cache
def versions() -> dict[str, str]:
    found = {name: importlib.metadata.version(name) for name in DISTRIBUTIONS}
    command = ["git", "-C", str(STOCK_SCRIPT.parent), "describe", "--always", "--dirty=, with changes"]
    commit = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    return {**found, "edgeport": f"{found['edgeport']} ({commit})" if commit else found["edgeport"]}


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
