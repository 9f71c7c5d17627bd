"""How comparisons are shown: tables for a terminal or a pull request, JSON with every sample, JUnit for a CI server."""

from collections.abc import Sequence
from typing import Any
from xml.etree import ElementTree

import msgspec

from edgeport import breakdown, compare
from edgeport.compare import Check
from edgeport.records import SCHEMA, Comparison, OpProfile
from edgeport.reports import View, as_markdown, as_table
from edgeport.reports.rows import Table
from edgeport.stats import Estimate

FORMATS = ("table", "json", "markdown")
MARKS = {compare.PASS: "✅", compare.IMPROVED: "✅", compare.REGRESSED: "❌", compare.INCONCLUSIVE: "❔"}
SHOWN_CHANGES = 6
LEAST_SHARE = 0.05  # of the largest change: smaller ones explain nothing


def render(comparisons: Sequence[Comparison], format: str, view: View) -> str:
    """view: depth of the modules, width of the terminal."""
    if format == "json":
        documents = [document(comparison, view.depth) for comparison in comparisons]
        data = msgspec.json.encode(documents[0] if len(documents) == 1 else documents)
        return msgspec.json.format(data, indent=1).decode() + "\n"
    if format == "markdown":
        return as_markdown.draw(tables(comparisons, view), view) + _reasons(comparisons, "- ")
    return as_table.draw(tables(comparisons, view), view) + _reasons(comparisons, "")


def summary(comparisons: Sequence[Comparison], view: View) -> str:
    """Markdown for a pull request: the outcome first."""
    outcomes = [compare.outcome(c) for c in comparisons]
    counts = ", ".join(f"{outcomes.count(o)} {o}" for o in MARKS if o in outcomes)
    worst = next((o for o in (compare.REGRESSED, compare.INCONCLUSIVE) if o in outcomes), compare.PASS)
    mark = MARKS[worst if outcomes else compare.INCONCLUSIVE]
    return f"### {mark} edgeport: {counts or 'nothing was measured'}\n\n{render(comparisons, 'markdown', view)}"


def document(comparison: Comparison, depth: int) -> dict[str, Any]:
    """The JSON form of a comparison: what follows from it, and below "raw" all that was measured."""
    verdict = compare.latency_verdict(comparison)
    before, after = _profiles(comparison)
    return {
        "schema": SCHEMA,
        "kind": "comparison",
        "name": comparison.name,
        "device": comparison.device,
        "outcome": compare.outcome(comparison),
        "slowdown": _plain(verdict.slowdown),
        "noise": _plain(verdict.noise),
        "block_spread": compare.block_spread(comparison),
        "blocks": verdict.blocks,
        "checks": compare.checks(comparison),
        "differences": comparison.differences,
        "modules": breakdown.changes(before, after, depth),
        "ops": breakdown.changes(before, after, depth, by_op=True),
        "values": [compare.values(s) for s in comparison.sessions],
        "raw": comparison,
    }


def junit(comparisons: Sequence[Comparison]) -> str:
    """One test case a check, as Jenkins and GitLab read them: a regression is a failure, what is not known an error."""
    suite = ElementTree.Element("testsuite", name="edgeport")
    counts = {"tests": 0, "failures": 0, "errors": 0}
    for comparison in comparisons:
        for check in (c for c in compare.checks(comparison) if c.outcome):
            name = f"{comparison.name} {check.what}"
            case = ElementTree.SubElement(suite, "testcase", classname=f"edgeport.{comparison.device}", name=name)
            kind = {compare.REGRESSED: "failure", compare.INCONCLUSIVE: "error"}.get(check.outcome or "")
            counts["tests"] += 1
            if kind:
                counts[f"{kind}s"] += 1
                message = f"{check.outcome}: {check.reason}"
                ElementTree.SubElement(case, kind, message=message).text = _explained(comparison, check)
    for name, count in counts.items():
        suite.set(name, str(count))
    root = ElementTree.Element("testsuites")
    root.append(suite)
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def tables(comparisons: Sequence[Comparison], view: View) -> list[Table]:
    found = [_verdicts(comparisons)]
    for comparison in comparisons:
        latency = compare.checks(comparison)[0]
        if latency.outcome != compare.PASS and all(_profiles(comparison)):
            found += [_changes(comparison, view.depth, by_op=False), _changes(comparison, view.depth, by_op=True)]
    return found


def _verdicts(comparisons: Sequence[Comparison]) -> Table:
    header = ("what", "of", "baseline", "candidate", "change", "interval", "blocks", "a block's sd", "copy", "verdict")
    rows = tuple(_row(c, check) for c in comparisons for check in compare.checks(c))
    return Table(_title(comparisons), header, rows, (2, 3, 4, 5, 6, 7, 8), (8, 7, 3, 2))


def _title(comparisons: Sequence[Comparison]) -> str:
    if not comparisons:
        return "nothing was measured"
    first = comparisons[0]
    by, result = first.criteria, first.candidates[0]
    chip = result.facts.get("cpu_model") or result.facts.get("machine")
    cores = f"core{'s' * (len(first.cores) > 1)} {', '.join(map(str, first.cores))}"
    threads = f"{result.num_threads} thread{'s' * (result.num_threads > 1)} on {cores}"
    devices = ", ".join(dict.fromkeys(c.device for c in comparisons))
    emulated = ", EMULATED: these times say nothing of a real device" if result.facts.get("emulated") else ""
    shared = f" over {by.comparisons} comparisons" if by.comparisons > 1 else ""
    limits = f"tolerance {by.tolerance:.1%}, effect {by.effect:.1%}, alpha {by.alpha:g}{shared}"
    return f"candidate against baseline on {devices} ({chip}), {threads}{emulated}; {limits}"


def _row(comparison: Comparison, check: Check) -> tuple[str, ...]:
    values = (_shown(check.what, v) for v in (check.before, check.after))
    name = f"{comparison.name} on {comparison.device}"
    if check.what != "latency":
        points = " points" if check.what == "accuracy" else "%"
        change = "" if check.change is None else f"{100 * check.change:+.1f}{points}"
        return (name, check.what, *values, change, "", "", "", "", check.outcome or "not judged")
    verdict, spread = compare.latency_verdict(comparison), compare.block_spread(comparison)
    slowdown, noise = verdict.slowdown, verdict.noise
    return (
        name,
        check.what,
        *values,
        f"{slowdown.value:+.1%}" if slowdown else "-",
        _interval(slowdown) if slowdown else "-",
        str(verdict.blocks),
        "-" if spread is None else f"{spread:.1%}",
        f"{noise.value:+.1%}" if noise else "-",
        verdict.outcome,
    )


def _shown(what: str, value: float | None) -> str:
    if value is None:
        return "-"
    return {"latency": f"{value / 1e6:.3g} ms", "size": f"{value / 1e6:.2f} MB", "accuracy": f"{value:.1%}"}[what]


def _interval(estimate: Estimate) -> str:
    return f"{estimate.low:+.1%} to {estimate.high:+.1%}".replace("-inf%", "?").replace("+inf%", "?")


def _changes(comparison: Comparison, depth: int, by_op: bool) -> Table:
    largest = _largest(comparison, depth, by_op)
    key = ("module", "operator") if by_op else ("module",)
    header = (*key, "operators", "baseline ms", "candidate ms", "difference ms")
    rows = tuple(
        (
            *((c.module, c.op) if by_op else (c.module,)),
            str(c.ops_after) if c.ops_before == c.ops_after else f"{c.ops_before} → {c.ops_after}",
            f"{c.us_before / 1e3:.3f}",
            f"{c.us_after / 1e3:.3f}",
            f"{c.us / 1e3:+.3f}",
        )
        for c in largest
    )
    by = "operator" if by_op else "module"
    title = f"{comparison.name} on {comparison.device}: what changed most by {by} (profiled launches, apart)"
    return Table(title, header, rows, tuple(range(len(key), len(header))))


def _largest(comparison: Comparison, depth: int, by_op: bool) -> list[breakdown.Change]:
    found = breakdown.changes(*_profiles(comparison), depth, by_op)
    least = LEAST_SHARE * abs(found[0].us) if found else 0.0
    return [c for c in found[:SHOWN_CHANGES] if abs(c.us) >= least]


def _profiles(comparison: Comparison) -> tuple[list[OpProfile], list[OpProfile]]:
    before, after = ([r.profile for r in rs if r.profile] for rs in (comparison.baselines, comparison.candidates))
    return before, after


def _reasons(comparisons: Sequence[Comparison], bullet: str) -> str:
    """Why, of each check that is no plain pass."""
    lines = []
    for comparison in comparisons:
        for check in compare.checks(comparison):
            if check.outcome not in (None, compare.PASS):
                name = f"{comparison.name} on {comparison.device}"
                lines.append(f"{bullet}{name}: {check.what} {check.outcome}: {_explained(comparison, check)}\n")
    return "\n" + "".join(lines) if lines else ""


def _explained(comparison: Comparison, check: Check) -> str:
    """The reason, and the module that it comes from where that can be told."""
    if check.what != "latency" or check.outcome != compare.REGRESSED or not all(_profiles(comparison)):
        return check.reason
    slower = [c for c in _largest(comparison, 2, by_op=False) if c.us > 0]
    return check.reason + (f"; most of it in {slower[0].module} ({slower[0].us / 1e3:+.3f} ms)" if slower else "")


def _plain(estimate: Estimate | None) -> dict[str, float | None] | None:
    """Infinite bounds are null."""
    if estimate is None:
        return None
    pairs = {"low": estimate.low, "value": estimate.value, "high": estimate.high}
    return {name: value if abs(value) != float("inf") else None for name, value in pairs.items()}
