"""For github-action-benchmark, its tool `customSmallerIsBetter`: a list of {name, unit, value, range, extra}.

What its README says: range and extra may be missing; range is shown beside the value, and read as a number after "± ".
"""

from collections.abc import Sequence
from typing import Any

from edgeport import cleaning, stats
from edgeport.records import Result
from edgeport.reports import View, rows


def render(results: Sequence[Result], view: View) -> str:
    """Raises UsageError where two results have the same name, which the charts would draw as one."""
    entries = [entry for result in rows.distinct(results) for entry in _entries(result)]
    return cleaning.as_json(entries)


def _entries(result: Result) -> list[dict[str, Any]]:
    name, peak = rows.series(result), rows.peak_bytes(result)
    entries = [_latency(result), {"name": f"{name}: file size", "unit": "MB", "value": result.size_bytes / 1e6}]
    return [*entries, {"name": f"{name}: peak memory", "unit": "MiB", "value": peak / 2**20}] if peak else entries


def _latency(result: Result) -> dict[str, Any]:
    """range: the standard deviation of the launches' medians, where there are several."""
    latency = stats.latency(result.launches)
    entry = {
        "name": f"{rows.series(result)}: median latency",
        "unit": "ms",
        "value": latency.median,
        "extra": "\n".join(_circumstances(result)),
    }
    return entry if latency.launch_std is None else {**entry, "range": f"± {latency.launch_std:.6f}"}


def _circumstances(result: Result) -> list[str]:
    latency = stats.latency(result.launches)
    return [
        f"p10 {latency.p10:.3f} ms, p90 {latency.p90:.3f} ms, {len(result.launches)} launches, {stats.verdict(result)}",
        f"{result.runtime} {result.runtime_version}, {result.facts.get('cpu_model') or result.facts.get('machine')}",
        f"{result.file}, sha256 {result.sha256[:12]}",
    ]
