"""The page and the figure of the whole catalogue, from results that are made up."""

import sys
from collections import Counter
from pathlib import Path

import msgspec
import pytest
from small_results import launch, op, profile, result

from edgeport.breakdown import Change
from edgeport.errors import EdgeportError
from edgeport.formats import Graph, Node, Tensor
from edgeport.records import SCHEMA, Artifact, Calibration, Manifest, Model, OpProfile, Verification
from edgeport.reports import View, as_json
from edgeport.speedup import Reason, Speedup
from edgeport.stats import Estimate

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

import zoo_figure
import zoo_report
from zoo_report import CONFIGURATIONS, Configuration, Kept, Measured

FACTS = {"cpu_model": "Some Chip", "cpus": 2, "system": "Linux", "kernel": "6.1"}
# 1000 us a run: 500 of convolutions, 200, 100, 100 and 50 of the other classes, 50 of no operator
SOUND = profile(
    op("conv", 500, ""), op("shuffle", 200, ""), op("data", 100, ""), op("elemwise", 100, ""), op("other", 50, None)
)


def write_profiles(folder: Path, ms: dict[Configuration, float], profile: OpProfile = SOUND) -> None:
    """What edgeport profile --format json writes."""
    folder.mkdir(exist_ok=True)
    results = [
        result([launch(t, t), launch(t, t)], profile, runtime=runtime, precision=precision, facts=FACTS)
        for (runtime, precision), t in ms.items()
    ]
    (folder / zoo_report.PROFILES).write_text(as_json.render(results, View()))


def manifest(name: str) -> Manifest:
    verification = Verification(24, 0.1, 0.01, 31.23, 0.75)
    artifacts = tuple(
        Artifact(f"{name}.{precision}.{format}", format, precision, "", 1, (), (), verification)
        for format in ("onnx", "tflite")
        for precision in ("fp32", "int8")
    )
    model = Model(name, name, {}, 1_500_000, None, "")
    versions = {"edgeport": "0.1.0", "torch": "2.13.0"}
    return Manifest(SCHEMA, model, "x86", Calibration("some photos", 24, ""), versions, artifacts)


@pytest.fixture
def measured(tmp_path: Path) -> list[Measured]:
    """Two of equal work, one of a tenth of it that is as slow as the slower one; int8 halves all but the small one."""
    made = []
    for name, madds, fp32 in (
        ("big-fast", 140_000_000, 4.0),
        ("big-slow", 150_000_000, 10.0),
        ("small", 15_000_000, 9),
    ):
        int8 = fp32 / 2 if name != "small" else fp32 * 2
        write_profiles(tmp_path / name, {key: fp32 if key[1] == "fp32" else int8 for key in CONFIGURATIONS})
        kept = Kept(name, name.partition("-")[0], 1_500_000, madds, "2026-01-02")
        floats = {"tflite": Counter[str](), "onnx": Counter({"max": 8} if name == "small" else {})}
        (tmp_path / name / zoo_report.SPEEDUPS).write_bytes(msgspec.json.encode([*speedups(int8 / fp32).values()]))
        found = zoo_report.profiles(tmp_path / name), floats, zoo_report.speedups(tmp_path / name)
        made.append(Measured(kept, manifest(name), *found))
    return made


def speedups(ratio: float) -> dict[str, Speedup]:
    """The same in both runtimes, within 4%."""
    names = ("act", "stem", "head") if ratio >= 1 else ()
    reasons = tuple(Reason(Change(name, "", 1, 2, 100, 900 - n), "2 Max, Mul") for n, name in enumerate(names))
    estimate = Estimate(0.96 * ratio, ratio, 1.04 * ratio)
    return {runtime: Speedup(runtime, estimate, reasons) for runtime in zoo_report.TITLES}


def rows(page: str, first: str) -> list[list[str]]:
    """Cells of the tables' rows that begin with this one."""
    found = ([cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line[:1] == "|")
    return [cells for cells in found if cells[0] == first]


def test_networks_of_equal_work_are_told_with_the_factor_between_them(measured: list[Measured]) -> None:
    page = zoo_report.page(measured, 39, "zoo.svg")
    assert rows(page, "litert")[0] == ["litert", "fp32", "big-fast", "4.00", "big-slow", "10.00", "2.5"]
    assert "3 of the 39 published variants" in page
    assert "140 to 150 million multiply-adds: big-fast, big-slow." in page


def test_more_work_in_no_more_time_is_told_with_the_factor_in_work(measured: list[Measured]) -> None:
    page = zoo_report.page(measured, 39, "zoo.svg")
    told = ["big-fast", "140.0", "4.00", "small", "15.0", "9.00", "9.3"]
    assert rows(page, "onnxruntime")[2] == ["onnxruntime", "fp32", *told]
    told = ["big-slow", "150.0", "5.00", "small", "15.0", "18.00", "10.0"]
    assert rows(page, "onnxruntime")[3] == ["onnxruntime", "int8", *told]


def test_a_variant_has_its_latencies_shares_and_agreement(measured: list[Measured]) -> None:
    latency, shares, agreement = rows(zoo_report.page(measured, 39, "zoo.svg"), "big-slow")
    times = ["10.00", "5.00", "0.50 [0.48, 0.52]"]
    assert latency == ["big-slow", "1.50", "150.0", *times, *times]
    assert shares == ["big-slow", *["50 / 10 / 10 / 20 / 5"] * 4]
    assert agreement == ["big-slow", "31.2", "75%", "31.2", "75%"]


def test_it_is_said_whether_int8_is_faster_and_what_stays_float(measured: list[Measured]) -> None:
    page = zoo_report.page(measured, 39, "zoo.svg")
    said = " ".join(page.split())
    assert "3 variants, int8 is faster than fp32 for 2 in LiteRT (1 slower) and faster than fp32 for 2 in ONNX" in said
    assert rows(page, "small")[-1] == ["small", "ONNX", "8 max", "0", "0%"]


def test_where_int8_is_not_faster_the_modules_that_lose_most_are_named(measured: list[Measured]) -> None:
    page = zoo_report.page(measured, 39, "zoo.svg")
    told = "act, +800 us: 2 Max, Mul; stem, +799 us: 2 Max, Mul"
    assert rows(page, "small")[1:3] == [["small", t, "2.00 [1.92, 2.08]", told] for t in ("LiteRT", "ONNX Runtime")]
    assert "It is everywhere" in zoo_report.page(measured[:2], 39, "zoo.svg")


def test_a_difference_within_the_interval_is_no_difference(measured: list[Measured]) -> None:
    page = zoo_report.page([*measured[:2], measured[2]._replace(speedups=speedups(1.02))], 39, "zoo.svg")
    assert "for 2 in LiteRT (0 slower, 1 not told apart)" in " ".join(page.split())


def test_results_from_before_it_was_measured_are_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(EdgeportError, match="measure --again"):
        zoo_report.speedups(tmp_path)


def test_micronets_int8_is_told_of_by_itself(measured: list[Measured]) -> None:
    assert "Shift-Max" not in zoo_report.page(measured, 39, "zoo.svg")
    kept = msgspec.structs.replace(measured[2].kept, model="micronet")
    page = zoo_report.page([*measured, measured[2]._replace(kept=kept)], 39, "zoo.svg")
    told = "in TFLite 0 operators stay float and the outputs keep 31.2 dB, in ONNX 8 operators stay float"
    assert told in " ".join(page.split())


def test_circumstances_are_told_once_each(measured: list[Measured]) -> None:
    page = zoo_report.page(measured, 39, "zoo.svg")
    assert page.count("Some Chip") == 1
    assert "Measured 2026-01-02, batch 1: the median of 2 launches' medians of 2 runs." in page
    assert "12 stable" in page


def test_lines_of_prose_are_short_enough(measured: list[Measured]) -> None:
    lines = zoo_report.page(measured, 39, "zoo.svg").splitlines()
    assert max(len(line) for line in lines if not line.startswith(("|", "!"))) <= 120


def test_latencies_that_are_not_stable_are_marked(measured: list[Measured]) -> None:
    stable = measured[0].profiles["litert", "fp32"]
    assert zoo_report.milliseconds(stable) == "4.00"
    assert zoo_report.milliseconds(msgspec.structs.replace(stable, verdict="drifting")) == "4.00\\*"


def test_a_missing_configuration_is_an_error(tmp_path: Path) -> None:
    write_profiles(tmp_path, dict.fromkeys(CONFIGURATIONS[:3], 1.0))
    with pytest.raises(EdgeportError, match="not all of"):
        zoo_report.profiles(tmp_path)


def test_classes_that_account_for_too_little_of_the_time_are_an_error(tmp_path: Path) -> None:
    write_profiles(tmp_path, dict.fromkeys(CONFIGURATIONS, 1.0), profile(op("conv", 500, "")))
    with pytest.raises(EdgeportError, match="the classes of litert fp32 make 50% of its run"):
        zoo_report.profiles(tmp_path)


def test_the_same_results_draw_the_same_figure(measured: list[Measured]) -> None:
    pytest.importorskip("matplotlib")
    drawn = zoo_figure.draw(measured)
    assert drawn == zoo_figure.draw(measured)
    assert drawn.startswith("<?xml")
    assert "<dc:date>" not in drawn


# Operators that stay float


def graph(*nodes: Node, dtypes: dict[str, str], constant: str = "") -> Graph:
    tensors = {name: Tensor(name, (1,), dtype, constant=name == constant) for name, dtype in dtypes.items()}
    return Graph("onnx", (), (), tensors, nodes, 1)


def node(index: int, kind: str, inputs: str, outputs: str) -> Node:
    return Node(index, kind, kind, tuple(inputs.split()), tuple(outputs.split()), None)


def test_what_stands_between_quantizers_is_int8_and_what_reads_floats_is_not() -> None:
    made = graph(
        node(0, "DequantizeLinear", "a", "b"),
        node(1, "Conv", "b w", "c"),
        node(2, "QuantizeLinear", "c", "d"),
        node(3, "DequantizeLinear", "d", "e"),
        node(4, "HardSwish", "e", "f"),
        node(5, "Max", "f", "g"),
        node(6, "QuantizeLinear", "g", "h"),
        dtypes={**dict.fromkeys("bcefgw", "float32"), **dict.fromkeys("adh", "uint8")},
        constant="w",
    )
    assert zoo_report.float_operators(made) == {"hardswish": 1, "max": 1}


def test_operators_on_integers_are_int8() -> None:
    made = graph(
        node(0, "QUANTIZE", "x", "a"),
        node(1, "CONV_2D", "a", "b"),
        node(2, "DEQUANTIZE", "b", "y"),
        dtypes={"x": "float32", "a": "int8", "b": "int8", "y": "float32"},
    )
    assert zoo_report.float_operators(made) == {}
