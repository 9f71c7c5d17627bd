"""The benchmark against the stock tools: what it compares and how it shows it, on made-up results."""

import sys
from pathlib import Path

import msgspec
import pytest

from edgeport.interleave import Block
from edgeport.protocol import Burst

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

import bench_export
from bench_export import OWN, STOCK, U8S8, Cell, Cost, Export, File, Report, ToolError

NETWORK = bench_export.parsed_network("shufflenet_v1:groups=3,weights=a/b.pth")
MB = 1_000_000


def file(maker: str, format: str, precision: str, sqnr_db: float | None = 30.0) -> File:
    return File("net", maker, format, precision, f"{maker}/{precision}.{format}", 2 * MB, 0.95, sqnr_db)


def block(**ms: float) -> Block:
    return Block({label: (Burst((round(t * MB),) * 3, (0, 1, 0)),) * 8 for label, t in ms.items()})


def report() -> Report:
    """int8 takes 2 ms to fp32's 4 in every block; stock tools 20 s and 10 s to edgeport's 15."""
    cell = Cell("net", "tflite of edgeport", 2, (0, 1), -19, (("int8", "fp32"),), (block(int8=2, fp32=4),) * 6)
    costs = {STOCK: {"tflite": (20, 900), "onnx": (10, 600)}, OWN: {"tflite, onnx": (15, 700)}}
    exports = [
        Export("net", maker, what, Cost(seconds, 2 * seconds, peak * MB, 2 * peak * MB))
        for maker, made in costs.items()
        for what, (seconds, peak) in made.items()
    ]
    files = [file(OWN, "tflite", "int8"), file(STOCK, "tflite", "fp32", None)]
    return Report("bench", "2026-01-01", {"processor": "Some Chip"}, {"torch": "2.13"}, exports, files, [cell])


def test_a_network_carries_its_arguments_and_weights() -> None:
    assert NETWORK.model == "shufflenet_v1"
    assert NETWORK.options == ("--set=groups=3", "--weights=a/b.pth")
    assert NETWORK.key == "shufflenet_v1-groups=3-weights=a-b.pth"
    assert bench_export.parsed_network("mobilenet_v1").options == ()


def test_each_runtime_and_precision_is_a_cell_and_edgeports_own_files_are_one() -> None:
    made = {(f.maker, f.format, f.precision): f for f in (file(OWN, "tflite", p) for p in ("fp32", "int8"))}
    made[STOCK, "tflite", "int8"] = file(STOCK, "tflite", "int8")
    made[U8S8, "onnx", "int8"] = file(U8S8, "onnx", "int8")
    cells = bench_export.cells(made, noise=False)
    assert cells == {
        "tflite int8": {OWN: Path("edgeport/int8.tflite"), STOCK: Path("stock/int8.tflite")},
        "tflite of edgeport": {"int8": Path("edgeport/int8.tflite"), "fp32": Path("edgeport/fp32.tflite")},
    }


def test_noise_is_a_file_against_itself() -> None:
    made = {(OWN, "onnx", "fp32"): file(OWN, "onnx", "fp32")}
    (arms,) = bench_export.cells(made, noise=True).values()
    assert len(arms) == 2
    assert len(set(arms.values())) == 1
    assert bench_export.comparisons(list(arms)) == ((bench_export.AGAIN, OWN),)


def test_only_what_is_there_is_compared() -> None:
    assert bench_export.comparisons([OWN, STOCK]) == ((OWN, STOCK),)
    assert bench_export.comparisons([OWN, STOCK, U8S8]) == ((OWN, STOCK), (OWN, U8S8), (U8S8, STOCK))


def test_the_table_shows_ratio_interval_and_circumstances() -> None:
    row = next(line for line in bench_export.as_table(report()).splitlines() if "int8 / fp32" in line)
    assert row.split("  ")[0] == "net"
    assert "0.500 [0.500, 0.500]" in row
    assert "2.00 / 4.00" in row
    assert row.endswith("33%")


def test_a_networks_files_have_one_figure_and_the_worst_is_named() -> None:
    blocks = {"tflite fp32": block(edgeport=2, stock=4), "onnx int8": block(edgeport=8, stock=4)}
    cells = [Cell("net", what, 1, (0,), 0, ((OWN, STOCK),), (made,) * 6) for what, made in blocks.items()]
    rows = bench_export.summary_rows(msgspec.structs.replace(report(), cells=cells))
    assert rows[1:] == [["net", "1", "1.000 of 2", "onnx int8", "2.000"]]


def test_of_several_reports_the_last_one_of_each_network_counts() -> None:
    other = msgspec.structs.replace(report().cells[0], network="other")
    newer = msgspec.structs.replace(report().cells[0], num_threads=7)
    first = msgspec.structs.replace(report(), cells=[*report().cells, other], failures=["net: no", "other: no"])
    last = msgspec.structs.replace(report(), cells=[newer], command="bench net")
    made = bench_export.together([first, last])
    assert made.cells == [other, newer]
    assert len(made.exports) == len(report().exports)
    assert made.failures == ["other: no"]
    assert made.command == "bench, then bench net"


def test_the_stock_tools_are_added_up_against_one_export_of_edgeport() -> None:
    rows = bench_export.export_rows(report())[1:]
    assert rows[-1] == ["net", STOCK, "tflite, onnx", "30.0", "60.0", "900", "1800"]
    assert ["net", OWN, "tflite, onnx", "15.0", "30.0", "700", "1400"] in rows


def test_the_page_has_a_table_each_the_machine_and_the_method() -> None:
    page = bench_export.as_markdown(report())
    assert [line for line in page.splitlines() if line.startswith("## ")] == [
        *("## All files of a network", "## Latency", "## Export", "## Files", "## Method")
    ]
    assert "- processor: Some Chip" in page
    assert "| net | tflite fp32 | stock | 2.00 | 95% | equal |" in page
    for line in page.splitlines():
        assert line.startswith("|") or len(line) <= 120


def test_what_failed_is_shown() -> None:
    failed = msgspec.structs.replace(report(), failures=["net: litert-torch failed: no memory"])
    assert "no memory" in bench_export.as_markdown(failed)
    assert "no memory" in bench_export.as_table(failed)


def test_a_report_is_read_back_as_it_was_written() -> None:
    assert msgspec.json.decode(bench_export.as_json(report()), type=Report) == report()


def test_a_tools_cost_is_that_of_its_processes() -> None:
    child = "x = bytearray(b'1') * 60_000_000; import time; time.sleep(0.4)"
    program = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    cost = bench_export.watched("a tool", [sys.executable, "-c", program], NETWORK)
    assert cost.seconds > 0.4
    assert 0 < cost.cpu_seconds < cost.seconds + 5
    assert cost.peak_bytes > 60 * MB
    assert cost.together_bytes > 60 * MB


def test_a_tool_that_fails_is_an_error_with_its_last_words() -> None:
    with pytest.raises(ToolError, match=r"a tool failed: (.|\n)*no such network"):
        bench_export.watched("a tool", [sys.executable, "-c", "raise SystemExit('no such network')"], NETWORK)


def test_a_stock_export_is_made_again_only_if_it_would_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    cost = Cost(1, 1, 1, 1)

    def watched(what: str, *_: object) -> Cost:
        ran.append(what)
        return cost

    weights = tmp_path / "weights.pth"
    weights.write_bytes(b"1")
    network = bench_export.parsed_network(f"shufflenet_v2:weights={weights}")
    monkeypatch.setattr(bench_export, "watched", watched)
    for fresh in (False, False, True):
        assert bench_export.stock_export(network, tmp_path, "onnx", fresh).cost == cost
    assert ran == ["torch.onnx", "torch.onnx"]
    weights.write_bytes(b"2")
    bench_export.stock_export(network, tmp_path, "onnx", False)
    monkeypatch.setattr(bench_export, "versions", lambda: {"torch": "another"})
    bench_export.stock_export(network, tmp_path, "onnx", False)
    assert len(ran) == 4


def test_several_runs_are_shown_by_their_median_and_extremes() -> None:
    exports = [Export("net", STOCK, what, Cost(s, s, MB, MB)) for s in (3, 1, 8) for what in ("tflite", "onnx")]
    rows = bench_export.export_rows(msgspec.structs.replace(report(), exports=exports))[1:]
    assert [row[3] for row in rows] == ["3.0 (1.0 to 8.0)", "3.0 (1.0 to 8.0)", "6.0 (2.0 to 16.0)"]
