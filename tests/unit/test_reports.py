"""Every report format on two results, one with a profile and one without."""

import csv
import json
import sys
import xml.etree.ElementTree as ET
from io import StringIO
from typing import Any

import msgspec
import pytest
from small_results import launch, op, profile, result, shufflenet_profile

from edgeport import reports
from edgeport.attribution import CLASS_NAMES
from edgeport.breakdown import ROOT, UNATTRIBUTED
from edgeport.errors import ResultFileError, UsageError
from edgeport.records import SCHEMA, Commit, Origin, Result
from edgeport.reports import View, as_json
from edgeport.reports import rows as rows_of_all

BY = ("class", "op", "module")
PROFILED = result([launch(1234.5, 1240, 1300), launch(1250)], shufflenet_profile())
PLAIN = result([launch(1.25)], None, precision="fp32", runtime="onnxruntime", file="shufflenet_v2.fp32.onnx")
BOTH = [PROFILED, PLAIN]
DOCUMENT = {
    *("schema", "model", "file", "device", "emulated", "runtime", "runtime_version", "precision", "num_threads"),
    *("cores", "inputs", "verdict", "limits", "stolen_share", "latency_ms", "init_ms", "first_inference_ms"),
    *("peak_memory_bytes", "classes"),
    *("assumed_shapes", "input_data", "profiled_runs", "profiled_runs_set_aside", "too_short_to_break_down"),
    *("disturbed", "takes_outputs"),
    *("unattributed_share", "profiler_overhead", "invoke_us", "ops", "raw", "facts", "origin"),
}


def test_formats_are_those_of_the_files_in_the_folder() -> None:
    named = {"table", "json", "csv", "markdown", "svg", "bencher", "github-action-benchmark"}
    assert named <= set(reports.format_names())


@pytest.mark.parametrize("by", BY)
@pytest.mark.parametrize("format", sorted({*reports.format_names()} - {"svg"}))
def test_every_text_format_shows_two_results_under_every_view(format: str, by: str) -> None:
    text = reports.render(BOTH, format, View(by=by))
    assert "litert" in text
    assert text.endswith("\n")


def test_a_misspelt_format_gets_the_nearest_ones() -> None:
    with pytest.raises(UsageError, match=r"unknown format 'markdwon'.*csv.*did you mean markdown"):
        reports.check("markdwon")
    with pytest.raises(UsageError, match="unknown format"):
        reports.render(BOTH, "rows", View())


# JSON


def documents(results: list[Result]) -> Any:
    return json.loads(reports.render(results, "json", View()))


def test_json_has_one_object_for_one_result_and_a_list_for_several() -> None:
    assert set(documents([PROFILED])) == DOCUMENT
    assert [set(document) for document in documents(BOTH)] == [DOCUMENT, DOCUMENT]


def test_json_tells_the_latency_and_what_it_was_made_of() -> None:
    document = documents([PROFILED])
    latency = {"median": 1245.0, "p10": 1236.15, "p90": 1285.0, "min": 1234.5, "launch_std": pytest.approx(7.0710678)}
    assert document["schema"] == SCHEMA
    assert document["latency_ms"] == latency
    assert document["raw"]["samples_ns"] == [[1234500000, 1240000000, 1300000000], [1250000000]]
    assert (document["init_ms"], document["first_inference_ms"]) == (100, 9)
    assert document["peak_memory_bytes"] == 50 * 2**20
    assert document["file"] == {"name": "shufflenet_v2.int8.tflite", "sha256": "0" * 64, "size_bytes": 2_500_000}


def test_json_breaks_the_time_down_by_class_and_operator() -> None:
    document = documents([PROFILED])
    assert list(document["classes"]) == list(CLASS_NAMES)
    assert document["classes"]["conv"] == {"us": 500, "share": 0.5}
    assert document["unattributed_share"] == pytest.approx(0.1)
    assert document["invoke_us"] == 1000
    first, shuffle = document["ops"][:2]
    assert (first["class"], first["module"], first["gmacs"]) == ("conv", "stage2.0.branch1.0", pytest.approx(100))
    assert (shuffle["class"], shuffle["gmacs"], shuffle["share"]) == ("shuffle", None, pytest.approx(0.2))


def test_json_of_a_result_without_a_profile_says_null_and_not_zero() -> None:
    document = documents([PLAIN])
    assert (document["classes"], document["ops"]) == ({}, [])
    absent = ("unattributed_share", "profiler_overhead", "invoke_us")
    assert [document[key] for key in absent] == [None, None, None]
    assert document["raw"]["profile"] is None


def test_json_says_how_much_time_others_took_at_worst() -> None:
    quiet, busy = launch(1, after={"total_ticks": 1200}), launch(1, after={"steal_ticks": 30, "total_ticks": 1200})
    assert documents([result([quiet, busy, quiet])])["stolen_share"] == pytest.approx(0.1)
    assert documents([result([launch(1)])])["stolen_share"] is None


def test_json_says_that_a_device_was_emulated() -> None:
    assert documents([result(facts={"emulated": True})])["emulated"] is True


@pytest.mark.parametrize(
    "results", [[PROFILED], BOTH, [result(origin=Origin(1.5, "0.1", Commit("ab", 3, None, True)))]]
)
def test_json_is_read_back_as_the_results_that_it_was_made_of(results: list[Result]) -> None:
    assert as_json.read(reports.render(results, "json", View()).encode(), "x.json") == results


def test_json_of_before_the_origin_was_told_is_read() -> None:
    document = documents([PROFILED])
    document["schema"] = 1
    del document["origin"], document["raw"]["profile"]["before"], document["raw"]["profile"]["after"]
    [read] = as_json.read(json.dumps(document).encode(), "x.json")
    assert isinstance(read, Result)
    assert read.profile is not None
    assert (read.launches, read.profile.ops, read.origin) == (PROFILED.launches, shufflenet_profile().ops, None)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"schema": 99}, f"of schema 99, this edgeport knows {SCHEMA}; upgrade"),
        ({"device": None}, "device"),
        ({"raw": {"launches": []}}, "is missing"),
        ({"raw": {"launches": [], "warmup_runs": 1, "profile": None}}, "no samples"),
    ],
)
def test_json_that_holds_no_results_is_named_with_the_reason(change: dict[str, Any], why: str) -> None:
    with pytest.raises(ResultFileError, match=rf"x\.json holds no results.*{why}"):
        as_json.read(json.dumps({**documents([PLAIN]), **change}).encode(), "x.json")


@pytest.mark.parametrize("text", [b"", b"no json", b"3", b"[3]", b'"text"', b"{}", b'{"benchmarks": []}', b"\xff"])
def test_any_other_file_is_no_results_either(text: bytes) -> None:
    with pytest.raises(ResultFileError, match=r"x\.json holds no results"):
        as_json.read(text, "x.json")


# Formats of services


class Metric(msgspec.Struct, forbid_unknown_fields=True):
    """A metric of Bencher's Metric Format, as its reference has it."""

    value: float
    lower_value: float | msgspec.UnsetType = msgspec.UNSET
    upper_value: float | msgspec.UnsetType = msgspec.UNSET


class Benchmark(msgspec.Struct, forbid_unknown_fields=True):
    """An entry of customSmallerIsBetter, as github-action-benchmark's README has it."""

    name: str
    unit: str
    value: float
    range: str | msgspec.UnsetType = msgspec.UNSET
    extra: str | msgspec.UnsetType = msgspec.UNSET


INT8, FP32 = "shufflenet_v2 int8 litert on local, 1 thread", "shufflenet_v2 fp32 onnxruntime on local, 1 thread"


def test_bencher_gets_nanoseconds_with_their_interval_and_bytes() -> None:
    found = msgspec.json.decode(reports.render(BOTH, "bencher", View()), type=dict[str, dict[str, Metric]])
    assert list(found) == [INT8, FP32]
    assert found[INT8] == {
        "latency": Metric(1245e6, 1240e6, 1250e6),
        "file-size": Metric(2_500_000),
        "peak-memory": Metric(50 * 2**20),
    }
    assert found[FP32]["latency"] == Metric(1.25e6)  # one launch tells nothing of its interval
    assert max(map(len, found)) <= 1024  # the most that Bencher takes


def test_github_action_benchmark_gets_values_of_which_smaller_ones_are_better() -> None:
    found = msgspec.json.decode(reports.render(BOTH, "github-action-benchmark", View()), type=list[Benchmark])
    first = found[0]
    assert (first.name, first.unit, first.value) == (f"{INT8}: median latency", "ms", 1245)
    assert isinstance(first.range, str)
    assert float(first.range.removeprefix("± ")) == pytest.approx(7.0710678, abs=1e-6)
    assert [(b.name.rpartition(": ")[2], b.unit, b.value) for b in found[1:3]] == [
        ("file size", "MB", 2.5),
        ("peak memory", "MiB", 50),
    ]
    assert found[3].range is msgspec.UNSET
    assert len({b.name for b in found}) == len(found) == 6


@pytest.mark.parametrize("format", ["bencher", "github-action-benchmark"])
def test_a_service_does_not_mix_what_is_not_comparable(format: str) -> None:
    others = [result(num_threads=2), result(device="rpi4"), result(facts={"emulated": True}), result(precision="fp32")]
    names = [rows_of_all.series(r) for r in [result(), *others]]
    assert len(set(names)) == len(names)
    assert all(name in reports.render([result(), *others], format, View()) for name in names)


@pytest.mark.parametrize("format", ["bencher", "github-action-benchmark"])
def test_two_results_of_one_name_are_not_passed_off_as_one(format: str) -> None:
    with pytest.raises(UsageError, match=f"several results of {INT8}"):
        reports.render([PROFILED, result()], format, View())


# CSV


def rows(results: list[Result], by: str) -> list[dict[str, str]]:
    return list(csv.DictReader(StringIO(reports.render(results, "csv", View(by=by, depth=1)))))


@pytest.mark.parametrize(("by", "count"), [("class", 6), ("op", 6), ("module", 4)])
def test_csv_has_a_row_for_each_line_and_one_for_a_result_without_a_profile(by: str, count: int) -> None:
    found = rows(BOTH, by)
    assert [row["precision"] for row in found] == ["int8"] * count + ["fp32"]
    assert all(None not in row and None not in row.values() for row in found)


def test_csv_holds_the_numbers_of_the_breakdown() -> None:
    found = rows([PROFILED], "class")
    assert [(row["class"], float(row["us"])) for row in found][:2] == [("conv", 500), ("elemwise", 100)]
    assert sum(float(row["share"]) for row in found) == pytest.approx(1)
    assert {row["median_ms"] for row in found} == {"1245.000000"}


def test_csv_survives_commas_and_quotes_in_names() -> None:
    name = 'Fully Connected (NC, F32), "GEMM"'
    [row] = rows([result(profile=profile(op("conv", 10, "a,b", name=name)))], "op")
    assert (row["name"], row["module"], row["shape"]) == (name, "a,b", "1x28x28x116")


# Tables


def deep_profile() -> Any:
    path = ".".join(["features"] * 9)
    return profile(op("conv", 400, path, 10**9, op="QLinearConvolutionWithAVeryLongName"), op("data", 100, None))


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("by", BY)
def test_a_table_fits_the_width_asked_for(by: str, width: int) -> None:
    deep = result([launch(12345.678)], deep_profile(), model="a_model_with_a_name_" * 5)
    for results in (BOTH, [deep], [PROFILED] * 4):
        text = reports.render(results, "table", View(by=by, depth=9, width=width))
        assert max(map(len, text.splitlines())) <= width


@pytest.mark.parametrize("width", [80, 120])
def test_a_table_shows_the_verdict_and_whole_numbers(width: int) -> None:
    text = reports.render([PROFILED], "table", View(width=width)).partition("share of")[0]
    assert {"litert", "int8", "stable", "1245.00", "1236.15", "1285.00", "1234.50"} <= set(text.split())


@pytest.mark.parametrize("by", ["op", "module"])
def test_a_table_in_a_narrow_terminal_keeps_times_and_shares_whole(by: str) -> None:
    words = set(reports.render([PROFILED], "table", View(by=by, width=80)).split())
    assert {"0.400", "40.0%", "0.100", "10.0%"} <= words


def test_a_table_shows_what_the_view_asks_for() -> None:
    by_module = reports.render([PROFILED], "table", View(by="module", depth=1, width=120))
    assert "stage2 " in by_module
    assert "stage2.0" not in by_module
    by_op = reports.render([PROFILED], "table", View(by="op", width=120))
    assert by_op.index("stage2.0.branch1.0") < by_op.index("stage2.1.branch2.0") < by_op.index(ROOT)
    assert UNATTRIBUTED in by_op


def test_the_slowest_operators_alone_are_listed_unless_all_are_asked_for() -> None:
    few = reports.render([PROFILED], "table", View(top=2, width=120))
    assert "the 2 slowest operators" in few
    assert "stage3.0" not in few
    assert "stage3.0" in reports.render([PROFILED], "table", View(top=0, width=120))


def test_brackets_in_a_name_are_shown_and_not_taken_for_markup() -> None:
    shown = result(profile=profile(op("conv", 400, "blocks[red]0")))
    assert "blocks[red]0" in reports.render([shown], "table", View(by="op", width=120))


def test_numbers_of_an_emulated_device_are_marked() -> None:
    emulated = result(facts={"emulated": True, "machine": "aarch64"})
    for format in ("table", "markdown"):
        assert "EMULATED" in reports.render([emulated], format, View(width=120))


def test_numbers_of_a_device_that_was_slowed_down_say_so_and_why_in_the_headline() -> None:
    slow = launch(1.0, 1.1)
    slow = msgspec.structs.replace(slow, after={**slow.after, "throttled_bits": 0x50005})
    headline = reports.render([result([slow])], "table", View(width=140)).splitlines()[0]
    assert "THROTTLED (under-voltage, throttling)" in headline
    assert "THROTTLED" not in reports.render([PLAIN], "table", View(width=140))


def test_devices_side_by_side_are_told_apart_everywhere() -> None:
    pi = result(device="pi", profile=PROFILED.profile, facts={"emulated": True, "machine": "aarch64"})
    text = reports.render([PROFILED, pi], "table", View(width=160))
    assert {"device", "local", "pi"} <= set(text.split())
    assert text.count("pi (EMULATED)") >= 3  # latencies, classes, operators
    csv = reports.render([PROFILED, pi], "csv", View()).splitlines()
    assert csv[0].split(",")[6] == "emulated"
    assert {line.split(",")[6] for line in csv[1:] if line.split(",")[2] == "pi"} == {"true"}


# Markdown


@pytest.mark.parametrize("by", BY)
def test_a_markdown_table_has_as_many_columns_in_every_row(by: str) -> None:
    piped = result(profile=profile(op("conv", 400, "a|b", 10**6), op("other", 100, None)), runtime="litert|x")
    for block in reports.render([PROFILED, piped], "markdown", View(by=by)).split("\n\n"):
        lines = block.replace("\\|", "").splitlines()
        if lines and lines[0].startswith("|"):
            assert len({line.count("|") for line in lines}) == 1
            assert set(lines[1]) <= set("|-: ")


# SVG


def test_an_svg_is_well_formed_and_the_same_each_time() -> None:
    pytest.importorskip("matplotlib")
    text = reports.render(BOTH, "svg", View())
    assert ET.fromstring(text).tag.endswith("svg")  # noqa: S314  our own file
    assert reports.render(BOTH, "svg", View()) == text


def test_an_svg_needs_a_profile() -> None:
    pytest.importorskip("matplotlib")
    with pytest.raises(UsageError, match="--no-ops"):
        reports.render([PLAIN], "svg", View())


def test_an_svg_without_matplotlib_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UsageError, match=r"edgeport\[plot\]"):
        reports.render(BOTH, "svg", View())
