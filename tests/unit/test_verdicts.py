"""How comparisons are shown."""

import json
import xml.etree.ElementTree as ET
from typing import Any

import pytest
from small_comparisons import comparison, session
from small_results import op, profile, result

from edgeport.records import Accuracy, Comparison, Criteria
from edgeport.reports import View, as_table, verdicts

OPS = [op("conv", 400, "stage2.0.branch1.0"), op("conv", 300, "stage2.1.branch2.0"), op("other", 50, None)]
LONGER = [*OPS[:2], op("conv", 200, "stage2.1.extra"), op("elemwise", 45, ""), OPS[2]]
BEFORE, AFTER = result(profile=profile(*OPS)), result(profile=profile(*LONGER))
STRICT = Criteria(size_tolerance=0.05, accuracy_tolerance=0.01)
PASSED = comparison(session(), before=BEFORE, after=BEFORE)
SLOWER = comparison(session(0.3), session(0.3), before=BEFORE, after=AFTER)
APART = comparison(differences=("number of threads: 1 (as stored), 4 (now)",))
ALL = [PASSED, SLOWER, APART]


@pytest.mark.parametrize("format", verdicts.FORMATS)
@pytest.mark.parametrize("comparisons", [[], [PASSED], ALL], ids=len)
def test_every_format_shows_any_number(format: str, comparisons: list[Comparison]) -> None:
    assert verdicts.render(comparisons, format, View()).endswith("\n")


def test_a_table_says_the_slowdown_its_interval_and_where_it_comes_from() -> None:
    text = verdicts.render([SLOWER], "table", View(width=140))
    assert "+30.0%" in text
    assert "REGRESSED" in text
    by_module = text[text.index("by module") :]
    first = next(line for line in by_module.splitlines() if "stage" in line)
    assert first.split()[0] == "stage2.1"
    assert "1 → 2" in first
    assert "+0.200" in first
    assert "most of it in stage2.1" in text


def test_a_pass_needs_no_explanation() -> None:
    assert "what changed" not in verdicts.render([PASSED], "table", View())
    assert "what changed" in verdicts.render([SLOWER], "table", View())


@pytest.mark.parametrize("width", [80, 100, 160])
def test_tables_fit_the_terminal(width: int) -> None:
    for table in verdicts.tables([PASSED], View(width=width)):
        lines = as_table.draw([table], View(width=width)).splitlines()
        assert max(map(len, lines)) <= width


def test_why_there_is_no_verdict_is_said() -> None:
    assert "number of threads: 1 (as stored), 4 (now)" in verdicts.render([APART], "markdown", View())


def test_json_has_the_verdict_and_every_sample() -> None:
    document = json.loads(verdicts.render([SLOWER], "json", View()))
    assert document["outcome"] == "REGRESSED"
    assert document["slowdown"]["value"] == pytest.approx(0.3, abs=1e-3)
    assert document["slowdown"]["low"] < document["slowdown"]["high"]
    assert document["blocks"] == 20
    assert len(document["raw"]["sessions"][0]["blocks"][0]["ns"]["candidate"]) == 4
    assert document["modules"][0]["module"] == "stage2.1"
    assert [c["outcome"] for c in json.loads(verdicts.render(ALL, "json", View()))] == [
        "PASS",
        "REGRESSED",
        "INCONCLUSIVE",
    ]


def test_bounds_that_there_are_not_are_null() -> None:
    few = comparison(session(blocks=5))
    document = json.loads(verdicts.render([few], "json", View()))
    assert document["slowdown"]["low"] is None
    assert document["slowdown"]["high"] is None


def test_a_summary_begins_with_the_outcome() -> None:
    def heads(*made: Comparison) -> str:
        return verdicts.summary(made, View()).splitlines()[0]

    assert heads(PASSED) == "### ✅ edgeport: 1 PASS"
    assert heads(*ALL) == "### ❌ edgeport: 1 PASS, 1 REGRESSED, 1 INCONCLUSIVE"
    assert heads(PASSED, APART).startswith("### ❔")
    assert heads() == "### ❔ edgeport: nothing was measured"


def test_a_failure_is_no_pass_whatever_had_passed_before() -> None:
    text = verdicts.summary([PASSED], View(), "the board is gone")
    assert text.startswith("### ❔ edgeport: 1 PASS")
    assert "the board is gone" in text
    suite = ET.fromstring(verdicts.junit([PASSED], "the board is gone")).find("testsuite")  # noqa: S314  our own
    assert suite is not None
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("2", "0", "1")


def test_junit_has_a_case_a_check_failures_for_regressions_and_errors_for_what_is_not_known() -> None:
    counted = Accuracy("photos", 100, 90, 80)
    worse = comparison(session(), criteria=STRICT, accuracy=counted)
    suite = ET.fromstring(verdicts.junit([*ALL, worse])).find("testsuite")  # noqa: S314  our own
    assert suite is not None
    assert {n: suite.get(n) for n in ("tests", "failures", "errors")} == {"tests": "6", "failures": "2", "errors": "1"}
    failed = [case.get("name") for case in suite if case.find("failure") is not None]
    assert failed == ["net int8 litert latency", "net int8 litert accuracy"]
    assert "4 (now)" in ET.tostring(suite, encoding="unicode")


def test_sizes_and_accuracies_are_judged_in_rows_of_their_own() -> None:
    counted = Accuracy("photos", 200, 180, 170)
    made = comparison(session(), after=result(size_bytes=5_000_000), criteria=STRICT, accuracy=counted)
    text = verdicts.render([made], "table", View(width=140))
    size, accuracy = (next(x for x in text.splitlines() if f"  {what}  " in x) for what in ("size", "accuracy"))
    assert all(word in size for word in ("2.50 MB", "5.00 MB", "+100.0%", "REGRESSED"))
    assert all(word in accuracy for word in ("90.0%", "85.0%", "-5.0 points", "REGRESSED"))
    assert "-10 of 200 samples" in text


def test_what_was_measured_under_emulation_says_so_wherever_it_stands() -> None:
    emulated: Any = result(facts={"emulated": True, "machine": "aarch64"})
    virtual = comparison(session(), before=emulated, after=emulated, device="qemu")
    for made in ([virtual, PASSED], [PASSED, virtual]):
        for format in ("table", "markdown"):
            text = verdicts.render(made, format, View(width=200))
            assert "EMULATED: these times say nothing of a real device" in " ".join(text.split())
            assert "on qemu EMULATED" in text
            assert "on local EMULATED" not in text
            assert "aarch64" in text


def test_junit_is_xml_whatever_a_runtime_wrote() -> None:
    text = verdicts.junit([PASSED], "\x1b[31merror\x1b[0m \0 \ud800 ü\n")
    assert "?[31merror" in (ET.fromstring(text).findtext(".//error") or "")  # noqa: S314  our own
