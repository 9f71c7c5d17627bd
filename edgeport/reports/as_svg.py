"""For looking at: one bar a result, its length the latency, cut into the classes of ShuffleNetV2's Fig. 2."""

from collections.abc import Sequence
from typing import Any

from edgeport import breakdown, cleaning, stats
from edgeport.errors import UsageError
from edgeport.records import Result
from edgeport.reports import View, figures, rows

COLORS = {
    "conv": "#3b6fb6",
    "elemwise": "#e0a33e",
    "data": "#8c9aa8",
    "shuffle": "#c8553d",
    "other": "#6a9a5b",
    breakdown.UNATTRIBUTED: "#dddddd",
}


def render(results: Sequence[Result], view: View) -> str:
    """Raises UsageError where matplotlib is not installed."""
    pyplot = figures.pyplot("--format svg")
    profiled = [r for r in results if r.profile]
    if not profiled:
        raise UsageError("--format svg draws breakdowns; leave out --no-ops")
    figure, axes = pyplot.subplots(figsize=(8, 1.5 + 0.5 * len(profiled)), layout="constrained")
    _draw(axes, profiled)
    axes.set_title(cleaning.figure(rows.headline(profiled)), fontsize=9, wrap=True)
    return figures.saved(figure, "svg").decode()


def _draw(axes: Any, results: Sequence[Result]) -> None:
    labels = [cleaning.figure(rows.label(r, results)).replace(" ", "\n", 1) for r in results]
    starts = [0.0] * len(results)
    columns = [{line.key: line.share for line in breakdown.by_class(r.profile)} for r in results if r.profile]
    medians = [stats.latency(r.launches).median for r in results]
    for name, color in COLORS.items():
        widths = [shares[name] * m for shares, m in zip(columns, medians, strict=True)]
        bars = axes.barh(labels, widths, left=starts, color=color, label=name, height=0.62)
        shown = [
            f"{s[name]:.0%}" if s[name] > 0.06 and w > 0.04 * max(medians) else ""
            for s, w in zip(columns, widths, strict=True)
        ]
        axes.bar_label(bars, shown, label_type="center", color="white", fontsize=8)
        starts = [s + w for s, w in zip(starts, widths, strict=True)]
    for y, m in enumerate(medians):
        axes.text(m, y, f"  {m:.2f} ms", va="center", fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(0, max(medians) * 1.16)
    axes.set_xlabel("median latency, ms (batch 1), cut by the profiled shares", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.figure.legend(ncols=len(COLORS), fontsize=8, frameon=False, loc="outside lower center")
