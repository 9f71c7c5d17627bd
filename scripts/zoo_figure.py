"""The figure of scripts/zoo.py: measured latency over multiply-adds."""

import math
from collections.abc import Sequence
from io import StringIO
from typing import Any

from zoo_report import CONFIGURATIONS, EQUAL, TITLES, WITHIN, Configuration, Measured, bargain, equals, extremes

MARKERS, COLORS = "osD^vPX*", ("#3b6fb6", "#6a9a5b", "#e0a33e", "#c8553d", "#7d5ba6", "#8c9aa8")
RATES = (1, 3, 10, 30, 100)  # billions of multiply-adds a second, drawn as lines where the points lie
FAINT, DARK, TIMES = "#b8b8b8", "#333333", "\N{MULTIPLICATION SIGN}"
LOUD: dict[str, Any] = {"fontsize": 11, "fontweight": "bold"}


def draw(measured: Sequence[Measured]) -> str:
    """Latency over multiply-adds, a panel a configuration: the same measurements draw the same file."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "edgeport"
    from matplotlib import pyplot

    drawing, panels = pyplot.subplots(2, 2, figsize=(9.6, 8.2), sharex=True, sharey=True, layout="constrained")
    for axes, key in zip(panels.T.flat, CONFIGURATIONS, strict=True):
        draw_panel(axes, measured, key)
    for axes in panels[-1]:
        axes.set_xlabel("multiply-adds, millions", fontsize=9)
    for axes in panels[:, 0]:
        axes.set_ylabel("median latency, ms", fontsize=9)
    drawing.suptitle("Equal work, unequal time; equal time, unequal work", fontsize=11)
    handles, labels = panels[0, 0].get_legend_handles_labels()
    drawing.legend(handles, labels, ncols=len(labels), fontsize=9, frameon=False, loc="outside lower center")
    out = StringIO()
    drawing.savefig(out, format="svg", metadata={"Date": None})
    pyplot.close(drawing)
    return out.getvalue()


def draw_panel(axes: Any, measured: Sequence[Measured], key: Configuration) -> None:
    axes.set(xscale="log", yscale="log")
    axes.set_title(f"{TITLES[key[0]]}, {key[1]}", fontsize=10)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(plain_number)
        axis.set_minor_formatter("")
    everything = [(m.madds / 1e6, m.ms(k)) for m in measured for k in CONFIGURATIONS]
    (left, right), (low, high) = (widened(values) for values in zip(*everything, strict=True))
    axes.set(xlim=(left, right), ylim=(low, high))
    draw_rates(axes, (left, right), (low, high))
    for i, model in enumerate(dict.fromkeys(m.kept.model for m in measured)):
        own = [m for m in measured if m.kept.model == model]
        axes.scatter(
            [m.madds / 1e6 for m in own],
            [m.ms(key) for m in own],
            marker=MARKERS[i % len(MARKERS)],
            color=COLORS[i % len(COLORS)],
            edgecolor="white",
            linewidth=0.5,
            s=42,
            label=model,
            zorder=3,
        )
    annotate(axes, measured, key)


def plain_number(value: float, _: int) -> str:
    return f"{value:g}"


def widened(values: Sequence[float]) -> tuple[float, float]:
    """Limits of a logarithmic axis with some room around the values, more of it below, for text."""
    return min(values) / 2, max(values) * 1.5


def draw_rates(axes: Any, x: tuple[float, float], y: tuple[float, float]) -> None:
    """Lines along which the machine computes at one rate: x million multiply-adds at r billions a second take x / r ms.

    Each is labelled where it leaves the panel at the left or the bottom.
    """
    for rate in RATES:
        axes.plot(x, [v / rate for v in x], color=FAINT, linewidth=0.6, zorder=1)
        start = max(x[0], y[0] * rate)
        if start < x[1] and start / rate < y[1]:
            note(axes, f"{rate} GMAC/s", (start, start / rate), (5, 5), fontsize=6.5, color="#888888")


def annotate(axes: Any, measured: Sequence[Measured], key: Configuration) -> None:
    """Between networks of equal work the factor in time; between those of equal time the factor in work."""
    equal = equals(measured)
    if len(equal) > 1:
        fast, slow = extremes(equal, key)
        left, right = (EQUAL / 1e6 * (1 + side * WITHIN) for side in (-1, 1))
        axes.axvspan(left, right, color="#f3ead0", zorder=0, linewidth=0)
        name(axes, fast, key, (10, -16))
        name(axes, slow, key, (-10, 16))
        middle = math.sqrt(fast.ms(key) * slow.ms(key))
        note(axes, f"{TIMES}{slow.ms(key) / fast.ms(key):.1f}", (left, middle), (-4, 0), **LOUD)
    a, b = bargain(measured, key)
    ends = [(m.madds / 1e6, m.ms(key)) for m in (b, a)]
    axes.plot(*zip(*ends, strict=True), color=DARK, linewidth=0.8, linestyle=":", zorder=2)
    name(axes, b, key, (-10, 16))
    (x1, y1), (x2, y2) = ends
    note(
        axes,
        f"{TIMES}{a.madds / b.madds:.0f} the work",
        (math.sqrt(x1 * x2), math.sqrt(y1 * y2)),
        (-14, -8),
        fontsize=7.5,
    )


def name(axes: Any, measured: Measured, key: Configuration, offset: tuple[float, float]) -> None:
    line = {"arrowstyle": "-", "color": DARK, "linewidth": 0.5, "shrinkB": 3}
    note(axes, measured.name, (measured.madds / 1e6, measured.ms(key)), offset, fontsize=7.5, arrowprops=line)


def note(axes: Any, text: str, at: tuple[float, float], offset: tuple[float, float], **style: Any) -> None:
    """Text beside a point, on the side that the offset (in points) goes to."""
    side = {"ha": "left" if offset[0] > 0 else "right", "va": "center"}
    axes.annotate(text, at, xytext=offset, textcoords="offset points", **{"color": DARK, **side, **style})
