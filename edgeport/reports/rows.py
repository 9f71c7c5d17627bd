"""The tables that several formats show, as plain text cells."""

from collections.abc import Sequence
from statistics import median

import msgspec

from edgeport import breakdown, stats
from edgeport.breakdown import Line
from edgeport.records import Result
from edgeport.reports import View


class Table(msgspec.Struct, frozen=True):
    """numeric: columns that are numbers, to be aligned right; optional: those that a narrow terminal does without,
    the first one first.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: tuple[int, ...]
    optional: tuple[int, ...] = ()


def tables(results: Sequence[Result], view: View) -> list[Table]:
    """The latencies, then the breakdown that the view asks for."""
    profiled = [r for r in results if r.profile is not None]
    found = [latencies(results)]
    if profiled and view.by == "class":
        found.append(classes(profiled))
    if view.by == "module":
        found += [modules(r, view) for r in profiled]
    if view.by in ("op", "class"):
        found += [operators(r, view) for r in profiled]
    return found


def label(result: Result) -> str:
    return f"{result.model} {result.precision} {result.runtime}"


def latencies(results: Sequence[Result]) -> Table:
    header = (
        "runtime",
        "precision",
        "median ms",
        "p10",
        "p90",
        "min",
        "± launches",
        "first ms",
        "init ms",
        "peak MiB",
        "verdict",
    )
    rows = tuple(_latency_row(r) for r in results)
    first = results[0]
    chip = first.facts.get("cpu_model") or first.facts.get("machine")
    threads = f"{first.num_threads} thread{'s' * (first.num_threads > 1)}"
    emulated = ", EMULATED: these times say nothing of a real device" if first.facts.get("emulated") else ""
    models = ", ".join(dict.fromkeys(r.model for r in results))
    runner = ", by benchmark_model: one median a launch, no samples" if first.facts.get("runner") else ""
    return Table(
        f"{models} on {first.device} ({chip}), {threads}{runner}{emulated}",
        header,
        rows,
        tuple(range(2, 10)),
        (9, 8, 7, 6),
    )


def _latency_row(result: Result) -> tuple[str, ...]:
    latency = stats.latency(result.launches)
    peak = [launch.peak_bytes for launch in result.launches if launch.peak_bytes]
    figures = (latency.median, latency.p10, latency.p90, latency.min)
    return (
        result.runtime,
        result.precision,
        *(f"{v:.2f}" for v in figures),
        "-" if latency.launch_std is None else f"{latency.launch_std:.2f}",
        f"{median(launch.first_ns for launch in result.launches) / 1e6:.1f}",
        f"{median(launch.init_ns for launch in result.launches) / 1e6:.0f}",
        f"{max(peak) / 2**20:.0f}" if peak else "-",
        stats.verdict(result),
    )


def classes(results: Sequence[Result]) -> Table:
    """Share and time of each class, results side by side."""
    lines = [{line.key: line for line in breakdown.by_class(r.profile)} for r in results if r.profile]
    header = ("class", *(f"{r.precision} {r.runtime}" for r in results))
    rows = [(key, *(_share(column[key]) for column in lines)) for key in lines[0]]
    overheads = tuple(f"{stats.overhead(r.profile):+.0%}" for r in results if r.profile)
    title = "share of the profiled run by class (ShuffleNetV2, Fig. 2)"
    return Table(title, header, (*rows, ("profiler's cost", *overheads)), tuple(range(1, len(header))))


def _share(line: Line) -> str:
    return f"{line.share:6.1%} {line.us / 1e3:8.3f} ms"


def modules(result: Result, view: View) -> Table:
    assert result.profile is not None
    header = ("module", "ms", "share", "MMAdds", "GMAC/s", "MB moved")
    lines = breakdown.by_module(result.profile, view.depth)
    rows = tuple((line.key, *_figures(line)) for line in lines)
    return Table(f"{label(result)}, by module to depth {view.depth}", header, rows, (1, 2, 3, 4, 5), (5, 4, 3))


def operators(result: Result, view: View) -> Table:
    """All in the order in which they ran (by op), or the slowest."""
    assert result.profile is not None
    pairs = breakdown.by_op(result.profile)
    title = f"{label(result)}, operators in the order in which they run"
    if view.by != "op" and view.top and len(pairs) > view.top:
        pairs = sorted(pairs, key=lambda pair: -pair[0].us)[: view.top]
        title = f"{label(result)}, the {view.top} slowest operators (--by op lists all {len(result.profile.ops)})"
    header = ("op", "class", "module", "shape", "ms", "share", "MMAdds", "GMAC/s", "MB moved")
    rows = tuple(
        (op.op, op.class_, _module(op.module), "x".join(map(str, op.shape)), *_figures(line)) for op, line in pairs
    )
    return Table(title, header, rows, (4, 5, 6, 7, 8), (8, 7, 3, 6))


def _module(module: str | None) -> str:
    return breakdown.UNATTRIBUTED if module is None else module or breakdown.ROOT


def _figures(line: Line) -> tuple[str, str, str, str, str]:
    costs = (f"{line.madds / 1e6:.2f}", f"{line.gmacs:.1f}") if line.madds else ("", "")
    return (f"{line.us / 1e3:.3f}", f"{line.share:.1%}", *costs, f"{line.bytes / 1e6:.2f}" if line.bytes else "")
