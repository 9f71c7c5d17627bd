"""How comparisons are shown: tables for a terminal or a pull request, JSON with every sample, JUnit for a CI server."""

import re
from collections.abc import Callable, Sequence
from typing import Any
from xml.etree import ElementTree

from edgeport import breakdown, cleaning, compare
from edgeport.compare import Check
from edgeport.records import SCHEMA, Comparison, OpProfile
from edgeport.reports import View, as_markdown, as_table
from edgeport.reports.rows import Table
from edgeport.stats import Estimate

FORMATS = ("table", "json", "markdown")
MARKS = {compare.PASS: "✅", compare.IMPROVED: "✅", compare.REGRESSED: "❌", compare.INCONCLUSIVE: "❔"}
NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # not even escaped
SHOWN_CHANGES = 6
LEAST_SHARE = 0.05  # of the largest change: smaller ones explain nothing


def render(comparisons: Sequence[Comparison], format: str, view: View) -> str:
    """view: depth of the modules, width of the terminal."""
    if format == "json":
        documents = [document(comparison, view.depth) for comparison in comparisons]
        return cleaning.as_json(documents[0] if len(documents) == 1 else documents)
    if format == "markdown":
        return as_markdown.draw(tables(comparisons, view), view) + _reasons(comparisons, "- ", cleaning.markdown)
    return as_table.draw(tables(comparisons, view), view) + _reasons(comparisons, "", cleaning.line)


def summary(comparisons: Sequence[Comparison], view: View, failure: str = "") -> str:
    """Markdown for a pull request: the outcome first. failure: what kept the rest from being compared."""
    outcomes = [compare.outcome(c) for c in comparisons]
    counts = ", ".join(f"{outcomes.count(o)} {o}" for o in MARKS if o in outcomes) or "nothing was measured"
    worst = next((o for o in (compare.REGRESSED, compare.INCONCLUSIVE) if o in outcomes), compare.PASS)
    mark = MARKS[worst if outcomes and not failure else compare.INCONCLUSIVE]
    block = cleaning.markdown_block(failure)
    told = f"**Then it failed**, and there is no verdict on the rest:\n\n{block}\n\n" if failure else ""
    body = render(comparisons, "markdown", view) if comparisons else ""
    return f"### {mark} edgeport: {counts}\n\n{told}{body}"


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


def junit(comparisons: Sequence[Comparison], failure: str = "") -> str:
    """One test case a check, as Jenkins and GitLab read them: a regression is a failure, what is not known an error."""
    cases = [
        _case(f"edgeport.{c.device}", f"{c.name} {check.what}", check.outcome, check.reason, _explained(c, check))
        for c in comparisons
        for check in compare.checks(c)
        if check.outcome
    ]
    if failure:
        cases.append(_case("edgeport", "check", compare.INCONCLUSIVE, failure.partition("\n")[0], failure))
    counts = {f"{kind}s": sum(case.find(kind) is not None for case in cases) for kind in ("failure", "error")}
    suite = ElementTree.Element("testsuite", name="edgeport", tests=str(len(cases)))
    for name, count in counts.items():
        suite.set(name, str(count))
    suite.extend(cases)
    root = ElementTree.Element("testsuites")
    root.append(suite)
    ElementTree.indent(root)
    text = ElementTree.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{NO_XML.sub("?", text)}\n'


def _case(group: str, name: str, outcome: str, reason: str, text: str) -> ElementTree.Element:
    case = ElementTree.Element("testcase", classname=group, name=name)
    kind = {compare.REGRESSED: "failure", compare.INCONCLUSIVE: "error"}.get(outcome)
    if kind:
        ElementTree.SubElement(case, kind, message=f"{outcome}: {reason}").text = text
    return case


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
    by = comparisons[0].criteria
    places = dict.fromkeys(map(_place, comparisons))
    emulated = any(c.candidates[0].is_emulated for c in comparisons)
    warning = ", EMULATED: these times say nothing of a real device" if emulated else ""
    shared = f" over {by.comparisons} comparisons" if by.comparisons > 1 else ""
    limits = f"tolerance {by.tolerance:.1%}, effect {by.effect:.1%}, alpha {by.alpha:g}{shared}"
    return f"candidate against baseline on {' and '.join(places)}{warning}; {limits}"


def _place(comparison: Comparison) -> str:
    result = comparison.candidates[0]
    chip = result.facts.get("cpu_model") or result.facts.get("machine")
    cores = f"core{'s' * (len(comparison.cores) > 1)} {', '.join(map(str, comparison.cores))}"
    threads = f"{result.num_threads} thread{'s' * (result.num_threads > 1)} on {cores}"
    return f"{comparison.device} ({chip}), {threads}"


def _row(comparison: Comparison, check: Check) -> tuple[str, ...]:
    values = (_shown(check.what, v) for v in (check.before, check.after))
    name = _named(comparison)
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


def _named(comparison: Comparison) -> str:
    emulated = " EMULATED" * comparison.candidates[0].is_emulated
    return f"{comparison.name} on {comparison.device}{emulated}"


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
    title = f"{_named(comparison)}: what changed most by {by} (profiled launches, apart)"
    return Table(title, header, rows, tuple(range(len(key), len(header))))


def _largest(comparison: Comparison, depth: int, by_op: bool) -> list[breakdown.Change]:
    found = breakdown.changes(*_profiles(comparison), depth, by_op)
    least = LEAST_SHARE * abs(found[0].us) if found else 0.0
    return [c for c in found[:SHOWN_CHANGES] if abs(c.us) >= least]


def _profiles(comparison: Comparison) -> tuple[list[OpProfile], list[OpProfile]]:
    before, after = ([r.profile for r in rs if r.profile] for rs in (comparison.baselines, comparison.candidates))
    return before, after


def _reasons(comparisons: Sequence[Comparison], bullet: str, clean: Callable[[str], str]) -> str:
    """Why, of each check that is no plain pass."""
    lines = []
    for comparison in comparisons:
        for check in compare.checks(comparison):
            if check.outcome not in (None, compare.PASS):
                name, why = clean(_named(comparison)), clean(_explained(comparison, check))
                lines.append(f"{bullet}{name}: {check.what} {check.outcome}: {why}\n")
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
