"""The tables that several formats show, as plain text cells."""

from collections.abc import Mapping, Sequence
from statistics import median

import msgspec

from edgeport import breakdown, stats
from edgeport.breakdown import Line
from edgeport.errors import UsageError
from edgeport.records import OpProfile, Result
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
        found += [modules(r, results, view) for r in profiled]
    if view.by in ("op", "class"):
        found += [operators(r, results, view) for r in profiled]
    return found


def label(result: Result, results: Sequence[Result]) -> str:
    """device: where there are several."""
    device = f" on {_place(result)}" if _several(results) else ""
    return f"{result.model} {result.precision} {result.runtime}{device}"


def headline(results: Sequence[Result]) -> str:
    """What was measured where, and what makes its numbers mean less than they seem to."""
    models = ", ".join(dict.fromkeys(r.model for r in results))
    places = {r.device: r for r in results}
    told = []
    for device, result in places.items():
        chip = result.facts.get("cpu_model") or result.facts.get("machine")
        threads = f"{result.num_threads} thread{'s' * (result.num_threads > 1)}"
        emulated = ", EMULATED: these times say nothing of a real device" if result.is_emulated else ""
        runner = ", by benchmark_model: one median a launch, no samples" if "runner" in result.facts else ""
        slowed = _slowed([r for r in results if r.device == device])
        told.append(f"{device} ({chip}), {threads}{runner}{emulated}{slowed}")
    return f"{models} on {'; '.join(told)}{_circumstances(results)}"


def _circumstances(results: Sequence[Result]) -> str:
    """What the files were run with, where it is not theirs alone: sizes that were assumed, values that were given."""
    told = dict.fromkeys(_listed(r.assumed_shapes) for r in results if r.assumed_shapes)
    given = dict.fromkeys(r.input_data.file for r in results if r.input_data)
    assumed = f"; input sizes ASSUMED, since the file leaves them open: {', '.join(told)}" if told else ""
    values = f"; inputs of {', '.join(given)}" if given else ""
    untaken = "" if all(r.takes_outputs for r in results) else "; without taking outputs, whose sizes only a run tells"
    return f"{assumed}{values}{untaken}"


def _listed(shapes: Mapping[str, Sequence[int]]) -> str:
    return ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in shapes.items())


def _slowed(results: Sequence[Result]) -> str:
    """Of one device: that it was slowed down meanwhile, and by what if it told."""
    if all(stats.verdict(result) != "throttled" for result in results):
        return ""
    launches = [launch for result in results for launch in result.launches]
    causes = dict.fromkeys(name for launch in launches for name in stats.limits(launch.before, launch.after))
    why = f" ({', '.join(causes)})" if causes else ""
    return f", THROTTLED{why}: it was slowed down while it was measured"


def _several(results: Sequence[Result]) -> bool:
    return len({r.device for r in results}) > 1


def _models(results: Sequence[Result]) -> list[str]:
    """Of each result, where there are several."""
    names = [r.model for r in results]
    return names if len(set(names)) > 1 else []


def _place(result: Result) -> str:
    return f"{result.device} (EMULATED)" if result.is_emulated else result.device


def series(result: Result) -> str:
    """The name of what can be followed over time: the same for the same model under the same circumstances."""
    threads = f"{result.num_threads} thread{'s' * (result.num_threads > 1)}"
    emulated = ", emulated" if result.is_emulated else ""
    return f"{label(result, [result])} on {result.device}, {threads}{emulated}"


def distinct(results: Sequence[Result]) -> Sequence[Result]:
    """The results, for formats that know them by series() alone. Raises UsageError where two have the same."""
    names = [series(result) for result in results]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise UsageError(f"there are several results of {twice}; this format holds one of each")
    return results


def peak_bytes(result: Result) -> int | None:
    """The most memory that any launch held at once."""
    return max((launch.peak_bytes or 0 for launch in result.launches), default=0) or None


def latencies(results: Sequence[Result]) -> Table:
    header: tuple[str, ...] = (
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
    told = {"device": [_place(r) for r in results] if _several(results) else [], "model": _models(results)}
    added = {name: cells for name, cells in told.items() if cells}
    for name, cells in added.items():
        header, rows = (name, *header), tuple((cell, *row) for cell, row in zip(cells, rows, strict=True))
    shift = len(added)
    numeric, optional = (tuple(i + shift for i in columns) for columns in (range(2, 10), (9, 8, 7, 6)))
    return Table(headline(results), header, rows, numeric, optional)


def _latency_row(result: Result) -> tuple[str, ...]:
    latency = stats.latency(result.launches)
    peak = peak_bytes(result)
    figures = (latency.median, latency.p10, latency.p90, latency.min)
    return (
        result.runtime,
        result.precision,
        *(f"{v:.2f}" for v in figures),
        "-" if latency.launch_std is None else f"{latency.launch_std:.2f}",
        f"{median(launch.first_ns for launch in result.launches) / 1e6:.1f}",
        f"{median(launch.init_ns for launch in result.launches) / 1e6:.0f}",
        f"{peak / 2**20:.0f}" if peak else "-",
        stats.verdict(result),
    )


def classes(results: Sequence[Result]) -> Table:
    """Share and time of each class, results side by side."""
    lines = [{line.key: line for line in breakdown.by_class(r.profile)} for r in results if r.profile]
    devices = [f" {_place(r)}" if _several(results) else "" for r in results]
    models = [f"{name} " for name in _models(results)] or [""] * len(results)
    columns = zip(results, models, devices, strict=True)
    header = ("class", *(f"{model}{r.precision} {r.runtime}{device}" for r, model, device in columns))
    rows = [(key, *(_share(column[key]) for column in lines)) for key in lines[0]]
    overheads = tuple(f"{stats.overhead(r.profile):+.0%}" for r in results if r.profile)
    aside = tuple(_set_aside(r.profile) for r in results if r.profile)
    title = "share of the profiled run by class (ShuffleNetV2, Fig. 2)"
    short = [label(r, results) for r in results if r.profile and breakdown.is_too_short(r.profile)]
    title += f"; TOO SHORT TO BREAK DOWN: {', '.join(short)}: {breakdown.TOO_SHORT}" if short else ""
    disturbed = [label(r, results) for r in results if r.profile and r.profile.disturbed]
    title += f"; DISTURBED: {', '.join(disturbed)}: {breakdown.DISTURBED}" if disturbed else ""
    rows += [("profiler's cost", *overheads), ("runs set aside", *aside)]
    return Table(title, header, tuple(rows), tuple(range(1, len(header))))


def _set_aside(profile: OpProfile) -> str:
    if profile.disturbed:
        return f"by operator, of {len(profile.invoke_us)}"
    return f"{stats.runs_set_aside(profile)} of {len(profile.invoke_us)}"


def _runs(profile: OpProfile) -> str:
    """What a breakdown is made of, for its title."""
    short = "; TOO SHORT TO BREAK DOWN" if breakdown.is_too_short(profile) else ""
    if profile.disturbed:
        return f"all {len(profile.invoke_us)} runs DISTURBED: means of each operator's quicker half{short}"
    return f"{_set_aside(profile)} runs set aside{short}"


def _share(line: Line) -> str:
    return f"{line.share:6.1%} {line.us / 1e3:8.3f} ms"


def modules(result: Result, results: Sequence[Result], view: View) -> Table:
    assert result.profile is not None
    header = ("module", "ms", "share", "MMAdds", "GMAC/s", "MB moved")
    lines = breakdown.by_module(result.profile, view.depth)
    rows = tuple((line.key, *_figures(line)) for line in lines)
    title = f"{label(result, results)}, by module to depth {view.depth}; {_runs(result.profile)}"
    return Table(title, header, rows, (1, 2, 3, 4, 5), (5, 4, 3))


def operators(result: Result, results: Sequence[Result], view: View) -> Table:
    """All in the order in which they ran (by op), or the slowest."""
    assert result.profile is not None
    pairs = breakdown.by_op(result.profile)
    what = label(result, results)
    title = f"{what}, operators in the order in which they run"
    if view.by != "op" and view.top and len(pairs) > view.top:
        pairs = sorted(pairs, key=lambda pair: -pair[0].us)[: view.top]
        title = f"{what}, the {view.top} slowest operators (--by op lists all {len(result.profile.ops)})"
    title += f"; {_runs(result.profile)}"
    header = ("op", "class", "module", "shape", "ms", "share", "MMAdds", "GMAC/s", "MB moved")
    rows = tuple((op.op, op.class_, _module(op.module), _shape(op.shape), *_figures(line)) for op, line in pairs)
    return Table(title, header, rows, (4, 5, 6, 7, 8), (8, 7, 3, 6))


def _module(module: str | None) -> str:
    return breakdown.UNATTRIBUTED if module is None else module or breakdown.ROOT


def _shape(shape: Sequence[int]) -> str:
    """With a question mark for a size that is not known."""
    return "x".join("?" if size < 0 else str(size) for size in shape)


def _figures(line: Line) -> tuple[str, str, str, str, str]:
    costs = (_amount(line.madds, line.unknown_madds), "" if line.unknown_madds else f"{line.gmacs:.1f}")
    rate = costs if line.madds or line.unknown_madds else ("", "")
    return (f"{line.us / 1e3:.3f}", f"{line.share:.1%}", *rate, _amount(line.bytes, line.unknown_bytes))


def _amount(known: int, unknown: int) -> str:
    """In millions: nothing for none, a question mark for what is not known, "at least" for what is known in part."""
    if unknown:
        return f"≥{known / 1e6:.2f}" if known else "?"
    return f"{known / 1e6:.2f}" if known else ""
