"""Latency over commits or time, one panel a model and device, one line a runtime and precision, with intervals."""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from functools import partial
from itertools import groupby
from statistics import median
from typing import Any

from edgeport import cleaning
from edgeport.errors import UsageError
from edgeport.history import Entry
from edgeport.reports import figures
from edgeport.reports.entries import commit

FORMATS = ("svg", "png")
OVER = ("commit", "time")
MOST_PANELS, MOST_LABELS, MOST_VERSIONS = 30, 24, 3
COLORS = {
    ("litert", "fp32"): "#3b6fb6",
    ("litert", "int8"): "#86b0e0",
    ("onnxruntime", "fp32"): "#c8553d",
    ("onnxruntime", "int8"): "#e0a33e",
}
OTHER = "#6a9a5b"
STYLES = ("-", "--", ":", "-.")  # by number of threads
SPREAD = 0.3  # of the space of a commit, over which its results lie
NOTE = "points: median of a session's launches; bars: its interval, 95% from six launches on (fewer: all launches)"


def render(entries: Sequence[Entry], format: str, over: str = "") -> bytes:
    """The figure's file. over: commit or time; "" is commit, where every entry has one.

    Raises UsageError where there is nothing to draw, or more than a figure holds.
    """
    drawn = [entry for entry in entries if entry.median_ms is not None]
    over = over or ("commit" if all(entry.git_commit for entry in drawn) else "time")
    if over == "commit":
        drawn = [entry for entry in drawn if entry.git_commit]
    if not drawn:
        raise UsageError("there is no result to draw" + " that knows its commit; try --over time" * (over == "commit"))
    panels = _grouped(drawn, _panel)
    if len(panels) > MOST_PANELS:
        raise UsageError(f"{len(panels)} pairs of model and device are too many for a figure; give --model or --device")
    pyplot = figures.pyplot("a plot")
    size = (9, 0.8 + 2.8 * len(panels))
    figure, axes = pyplot.subplots(len(panels), 1, figsize=size, layout="constrained", squeeze=False)
    for panel, ((model, device, emulated), found) in zip(axes[:, 0], panels, strict=True):
        _draw(panel, found, over)
        title = cleaning.figure(f"{model} on {device}") + ", EMULATED: says nothing of a real device" * emulated
        panel.set_title(title, fontsize=9)
    figure.supxlabel(NOTE, fontsize=7)
    return figures.saved(figure, format)


def _panel(entry: Entry) -> tuple[str, str, bool]:
    return entry.model, entry.device, entry.emulated


def _line(entry: Entry) -> tuple[str, str, int]:
    return entry.runtime, entry.precision, entry.num_threads


def _draw(axes: Any, entries: Sequence[Entry], over: str) -> None:
    places = _commits(entries) if over == "commit" else []
    lines = _grouped(entries, _line)
    threads = sorted({key[2] for key, _ in lines})
    for n, (key, found) in enumerate(lines):
        shift = SPREAD * (n / max(len(lines) - 1, 1) - 0.5)
        where = partial(_place, places, shift) if places else _time
        style = STYLES[threads.index(key[2]) % len(STYLES)]
        _draw_line(axes, found, where, style, COLORS.get(key[:2], OTHER))
    if places:
        _label(axes, places)
    else:
        figures.date_axis(axes)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("median latency, ms", fontsize=8)
    axes.tick_params(labelsize=7)
    axes.grid(axis="y", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))


def _draw_line(axes: Any, entries: Sequence[Entry], where: Callable[[Entry], Any], style: str, color: str) -> None:
    """Points with their bars, and a line through the middle of each place, which another version interrupts."""
    ordered = sorted(entries, key=lambda entry: (where(entry), entry.unix_time))
    low = [e.median_ms - e.low_ms if e.median_ms and e.low_ms else 0 for e in ordered]
    high = [e.high_ms - e.median_ms if e.median_ms and e.high_ms else 0 for e in ordered]
    xs, ys = [where(e) for e in ordered], [e.median_ms for e in ordered]
    axes.errorbar(xs, ys, yerr=(low, high), fmt="o", color=color, markersize=3, linewidth=0.9, capsize=2)
    runs = [list(found) for _, found in groupby(ordered, key=lambda entry: entry.runtime_version)]
    threads = f"{ordered[0].num_threads} thread{'s' * (ordered[0].num_threads > 1)}"
    versions = cleaning.figure(", then ".join(run[0].runtime_version for run in runs[:MOST_VERSIONS]))
    label: str | None = cleaning.figure(f"{ordered[0].runtime} {ordered[0].precision}, {threads}") + f"\n{versions}"
    for run in runs:
        middles = [(x, median(e.median_ms or 0 for e in found)) for x, found in _grouped(run, where)]
        axes.plot(*zip(*middles, strict=True), style, color=color, linewidth=1.1, label=label)
        label = None


def _commits(entries: Iterable[Entry]) -> list[str]:
    """In the order in which they were made, each with its changes after it: whenever they were measured."""
    first = {commit(e): (e.git_time or 0, bool(e.git_dirty), e.unix_time) for e in sorted(entries, key=_when)[::-1]}
    return sorted(first, key=lambda name: first[name])


def _label(axes: Any, places: Sequence[str]) -> None:
    step = -(-len(places) // MOST_LABELS)
    axes.set_xticks(
        range(0, len(places), step),
        [*map(cleaning.figure, places[::step])],
        rotation=45,
        ha="right",
        family="monospace",
    )
    axes.set_xlim(-0.5, len(places) - 0.5)


def _place(places: Sequence[str], shift: float, entry: Entry) -> float:
    return places.index(commit(entry)) + shift


def _when(entry: Entry) -> float:
    return entry.unix_time


def _time(entry: Entry) -> Any:
    return datetime.fromtimestamp(entry.unix_time)


def _grouped(entries: Iterable[Entry], key: Callable[[Entry], Any]) -> list[tuple[Any, list[Entry]]]:
    """By the key, in its order."""
    return [(value, list(found)) for value, found in groupby(sorted(entries, key=key), key=key)]
