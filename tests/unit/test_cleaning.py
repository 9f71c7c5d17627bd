"""Names that others chose are shown as they are written, and do nothing where they are shown."""

import csv
import json
import re
from io import StringIO
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_results import op, profile, result

from edgeport import cleaning, cli, reports
from edgeport.display import Steps
from edgeport.reports import View, as_json, verdicts

CLIPBOARD, TITLE, CSI_8BIT, BIDI = "\x1b]52;c;cHduZWQ=\x1b\\", "\x1b]0;gone\x07", "\x9b2J", "\u202egnp.exe"
HTML, MENTION, LINK, IMAGE = (
    "<img src=x onerror=alert(1)>",
    "@everyone",
    "https://evil.example",
    "![x](http://e.example)",
)
HOSTILE = (CLIPBOARD, TITLE, CSI_8BIT, BIDI, HTML, MENTION, LINK, IMAGE, "a|b", "a\\|b", "``` x", "`", "[red]x[/red]")
OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def hostile(name: str) -> Any:
    return result(
        model=name,
        device=name,
        facts={"cpu_model": name, "machine": name, "emulated": False},
        profile=profile(op("conv", 1000, name, name=name, op=name)),
    )


@pytest.mark.parametrize("format", sorted({*reports.format_names()} - {"svg"}))
@pytest.mark.parametrize("by", ["op", "module"])
def test_no_format_passes_on_what_a_terminal_obeys(format: str, by: str) -> None:
    for name in HOSTILE:
        assert not OBEYED.search(reports.render([hostile(name)], format, View(by=by)))


def test_a_figure_is_xml_and_takes_no_name_for_a_formula() -> None:
    pytest.importorskip("matplotlib")
    from xml.etree import ElementTree

    drawn = reports.render([hostile(f"{CLIPBOARD} $\\frac{{$ {HTML}")], "svg", View())
    ElementTree.fromstring(drawn)  # noqa: S314  our own
    assert not OBEYED.search(drawn)


def test_json_keeps_names_as_they_are() -> None:
    kept = [hostile(name) for name in HOSTILE]
    assert as_json.read(as_json.render(kept, View()).encode(), "x.json") == kept


@given(st.text())
def test_json_for_a_terminal_says_the_same(text: str) -> None:
    shown = cleaning.as_json({text: text})
    assert json.loads(shown) == {text: text}
    assert not OBEYED.search(shown)


@given(st.text(st.characters(exclude_categories=[])))
def test_text_for_a_terminal_can_be_written_and_a_line_is_one(text: str) -> None:
    for shown in (cleaning.text(text), cleaning.line(text)):
        shown.encode()
        assert not OBEYED.search(shown)
    assert len(cleaning.line(text).splitlines()) <= 1


@pytest.mark.parametrize(
    "plain", ["stage2.0.branch1.0", "画像 ünïcödé", "CONV_2D", "-0.5 %", "Intel @ 2.5GHz", "a → b"]
)
def test_usual_names_are_shown_as_they_are(plain: str) -> None:
    assert plain == cleaning.text(plain) == cleaning.line(plain) == cleaning.markdown_cell(plain)


@pytest.mark.parametrize(
    "name", [HTML, MENTION, LINK, IMAGE, "a*b*", "`x`", "``", "&lt;", "#12", "www.e.example", "_x_"]
)
def test_in_markdown_what_would_be_more_than_text_is_code(name: str) -> None:
    shown = cleaning.markdown(name)
    fence = re.match("`+", shown)
    assert fence
    assert shown.endswith(fence[0])
    assert fence[0] not in shown[len(fence[0]) : -len(fence[0])].replace(f"`{fence[0]}", "")
    assert name in shown


@pytest.mark.parametrize("name", ["a|b", "a\\|<b>", "|", "\\"])
def test_no_name_makes_a_cell_more_of_a_table_in_markdown(name: str) -> None:
    [line] = [x for x in reports.render([hostile(name)], "markdown", View(by="op")).splitlines() if "28x116" in x]
    assert len(re.findall(r"(?<!\\)\|", line)) == 10
    assert not re.search(r"\\\\+\|", line)


def test_what_failed_cannot_end_its_block_of_code() -> None:
    told = verdicts.summary([], View(), f"it failed\n```\n{HTML}\n{MENTION}")
    assert told.count("\n````\n") == 2
    assert told.index("\n````\n") < told.index(HTML) < told.rindex("\n````\n")


@pytest.mark.parametrize("formula", ["=cmd|' /C calc'!A0", "+1+1", "-1+1", "@SUM(A1)", " =1+1", "\uff1d1+1", "=1"])
def test_no_cell_of_a_csv_is_a_formula(formula: str) -> None:
    [row] = csv.reader(StringIO(cleaning.as_csv([[formula, "-0.5", "+3.2%", "-", -1.5]])))
    assert row == [f"'{formula}", "-0.5", "+3.2%", "-", "-1.5"]


def test_errors_notes_and_warnings_are_cleaned(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["profile", f"{CLIPBOARD}.onnx"]) == 2
    assert cli.run(["profile", "x", "--device", f"{TITLE}\udcff"]) == 2
    file = StringIO()
    with Steps(file) as steps:
        steps.started(CSI_8BIT)
        steps.finished(CSI_8BIT, f"{BIDI}\n[bold]")
        steps.warned(CLIPBOARD)
    told = f"{capsys.readouterr().err}{file.getvalue()}"
    assert not OBEYED.search(told)
    assert "[bold]" in told


def test_nothing_but_the_function_that_cleans_prints() -> None:
    folder = Path(cli.__file__).parent
    texts = {p.name: p.read_text() for p in folder.glob("*.py") if p.name != "checks.py"}
    assert [name for name, text in texts.items() if re.search(r"typer\.echo|\bprint\(|stdout\.write", text)] == []


def test_a_name_is_cleaned_where_a_history_is_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "r.json"
    path.write_bytes(msgspec.json.encode(as_json.document(hostile(f"{CLIPBOARD}{HTML}"))))
    database = ("--database", str(tmp_path / "h.db"))
    assert cli.run(["history", "add", str(path), *database]) == 0
    for format in ("table", "csv", "markdown", "json"):
        assert cli.run(["history", "list", "--format", format, *database]) == 0
    assert not OBEYED.search(capsys.readouterr().out)
