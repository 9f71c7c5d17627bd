"""For Bencher: its Metric Format (bencher.dev/docs/reference/bencher-metric-format), read by its adapter `json`.

An object of benchmarks, each an object of measures. latency (ns) and file-size (bytes) are measures that Bencher has;
peak-memory (bytes) it makes when it first sees it.
"""

from collections.abc import Sequence
from typing import Any

from edgeport import cleaning, stats
from edgeport.records import Result
from edgeport.reports import View, rows


def render(results: Sequence[Result], view: View) -> str:
    """Raises UsageError where two results have the same name, of which Bencher would see one."""
    metrics = {rows.series(r): _measures(r) for r in rows.distinct(results)}
    return cleaning.as_json(metrics)


def _measures(result: Result) -> dict[str, Any]:
    peak = rows.peak_bytes(result)
    measures = {"latency": _latency(result), "file-size": {"value": result.size_bytes}}
    return {**measures, "peak-memory": {"value": peak}} if peak else measures


def _latency(result: Result) -> dict[str, float]:
    """With the interval of the median, where there are several launches."""
    interval = stats.latency_interval(result.launches)
    value = {"value": stats.latency(result.launches).median * 1e6}
    return {**value, "lower_value": interval.low * 1e6, "upper_value": interval.high * 1e6} if interval else value
