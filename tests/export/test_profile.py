"""`edgeport profile` end to end: latencies, and every operator traced back to the network that was written."""

import csv
import json
import re
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import Edgeport, edgeport
from torch import Tensor, nn

from edgeport import analysis, catalog, graph
from edgeport.export import capture
from edgeport.records import SCHEMA

FOUR = [("onnxruntime", "fp32"), ("onnxruntime", "int8"), ("litert", "fp32"), ("litert", "int8")]
LAUNCHES, RUNS, WARMUP = 2, 6, 3
QUICK = ("--launches=1", "--num-runs=2", "--warmup-runs=0", "--quiet")
MOBILENET = ("mobilenet_v2", "--set", "width=0.5")
CLASSES = ["conv", "elemwise", "data", "shuffle", "other"]
Profile = dict[str, Any]


@pytest.fixture(scope="session")
def profiles(shufflenet: Path) -> dict[tuple[str, str], Profile]:
    """The profiles of ShuffleNetV2 0.5 at 64x64, by runtime and precision."""
    runs = (f"--launches={LAUNCHES}", f"--num-runs={RUNS}", f"--warmup-runs={WARMUP}")
    done = edgeport("profile", shufflenet, "--format", "json", *runs)
    found = json.loads(done.out)
    assert [(p["runtime"], p["precision"]) for p in found] == FOUR
    return {(p["runtime"], p["precision"]): p for p in found}


@pytest.fixture(params=FOUR, ids=" ".join)
def profile(request: pytest.FixtureRequest, profiles: dict[tuple[str, str], Profile]) -> Profile:
    return profiles[request.param]


def madds_by_module(network: nn.Module, shape: tuple[int, ...]) -> dict[str, int]:
    """Multiply-adds of each convolution and linear layer, counted while the network runs."""
    found: dict[str, int] = {}

    def counting(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def count(layer: nn.Module, _: Any, output: Tensor) -> None:
            weight = layer.weight
            assert isinstance(weight, Tensor)
            found[name] = output.numel() * weight[0].numel()

        return count

    for name, module in network.named_modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.register_forward_hook(counting(name))
    with torch.no_grad():
        network.eval()(torch.zeros(shape))
    return found


def madds_that_run(runtime: str, precision: str = "fp32") -> dict[str, int]:
    """Multiply-adds of the network as the passes leave it, by module: channels of zeros count, they are computed."""
    torch.manual_seed(0)
    network = catalog.find_factory("shufflenet_v2").call(width=0.5).eval()
    captured = capture.capture(network, (torch.zeros(1, 3, 64, 64),))
    if runtime == "litert":
        graph.run_passes(captured.graph, ("tflite",))
    found: dict[str, int] = {}
    for layer in analysis.analyse(captured, "").layers:
        if layer.madds:
            found[layer.module] = found.get(layer.module, 0) + layer.madds
    if (runtime, precision) == ("onnxruntime", "int8"):
        found["conv1.0"] = found["conv1.0"] * (2 * 2 * 12) // (3 * 3 * 3)  # on blocks of 2x2 pixels
    return found


def layers(profile: Profile) -> dict[str, int]:
    """Multiply-adds by module of what the profile calls convolutions."""
    found: dict[str, int] = {}
    for op in profile["ops"]:
        if op["class"] == "conv":
            assert op["module"] is not None, op
            found[op["module"]] = found.get(op["module"], 0) + op["madds"]
    return found


# What the JSON form holds


def test_what_was_measured(profile: Profile, shufflenet: Path) -> None:
    assert profile["schema"] == SCHEMA
    assert (profile["model"], profile["device"], profile["num_threads"]) == ("shufflenet_v2", "local", 1)
    assert profile["emulated"] is False
    entries = json.loads((shufflenet / "manifest.json").read_text())["artifacts"]
    entry = next(a for a in entries if a["file"] == profile["file"]["name"])
    assert profile["file"]["sha256"] == entry["sha256"]
    assert profile["facts"]["cpus"] >= 1
    assert profile["runtime_version"]


def test_latencies(profile: Profile) -> None:
    latency = profile["latency_ms"]
    assert 0 < latency["min"] <= latency["p10"] <= latency["median"] <= latency["p90"]
    samples = profile["raw"]["samples_ns"]
    assert [len(launch) for launch in samples] == [RUNS] * LAUNCHES
    assert latency["min"] == min(map(min, samples)) / 1e6
    assert profile["init_ms"] > 0
    assert profile["first_inference_ms"] > 0
    assert profile["peak_memory_bytes"] > 1_000_000
    assert profile["verdict"] in ("stable", "drifting", "throttled")


def test_raw_values_and_circumstances_are_kept(profile: Profile) -> None:
    raw = profile["raw"]
    assert raw["warmup_runs"] == WARMUP
    assert len(raw["profile"]["invoke_us"]) == RUNS
    for launch in raw["launches"]:
        assert launch["after"]["unix_time"] >= launch["before"]["unix_time"]
        assert {"khz", "celsius", "load_1min", "steal_ticks"} <= set(launch["before"])


# Where the time went


def test_every_convolution_is_traced_to_its_module_with_its_exact_cost(profile: Profile) -> None:
    expected = madds_that_run(profile["runtime"], profile["precision"])
    written = madds_by_module(catalog.find_factory("shufflenet_v2").call(width=0.5), (1, 3, 64, 64))
    assert layers(profile) == expected
    assert sum(op["madds"] for op in profile["ops"]) == sum(expected.values())
    assert set(expected) == set(written)
    blocks = (profile["runtime"], profile["precision"]) == ("onnxruntime", "int8")
    most = dict.fromkeys(written, 1.8) | ({"conv1.0": 2.4} if blocks else {})
    assert all(written[module] <= expected[module] <= most[module] * written[module] for module in written)


def test_classes_add_up_the_operators(profile: Profile) -> None:
    assert list(profile["classes"]) == CLASSES
    for name, line in profile["classes"].items():
        assert line["us"] == pytest.approx(sum(op["us"] for op in profile["ops"] if op["class"] == name))
        assert line["share"] == pytest.approx(line["us"] / profile["invoke_us"])
    assert sum(line["share"] for line in profile["classes"].values()) < 1.001
    known = sum(op["us"] for op in profile["ops"] if op["module"] is not None)
    assert profile["unattributed_share"] == pytest.approx(1 - known / profile["invoke_us"])


def test_shuffles_are_seen(unrouted: Path, here: Edgeport) -> None:
    profiles = json.loads(here("profile", unrouted, "--format=json", *QUICK).out)
    assert [(p["runtime"], p["precision"]) for p in profiles] == FOUR
    for profile in profiles:
        shuffles = [op for op in profile["ops"] if op["class"] == "shuffle"]
        assert profile["classes"]["shuffle"]["us"] > 0
        units = {f"stage{s}.{u}" for s, n in ((2, 4), (3, 8), (4, 4)) for u in range(n)}
        # Every unit ends in a shuffle. A module inside a unit may be named where a layout change serves it.
        assert {".".join(str(op["module"]).split(".")[:2]) for op in shuffles} == units


def test_operators_tell_what_they_are(profile: Profile) -> None:
    for op in profile["ops"]:
        assert {"name", "op", "class", "module", "shape", "us", "share", "madds", "gmacs", "bytes"} <= set(op)
        assert op["class"] in CLASSES
    first = next(op for op in profile["ops"] if op["class"] == "conv")
    assert first["module"] == "conv1.0"
    # 24 channels of 32 x 32, to which the passes add 8 of zeros, and for TFLite a row and a column
    assert sorted(first["shape"]) in ([1, 32, 32, 32], [1, 32, 33, 33])
    assert first["gmacs"] > 0
    assert first["bytes"] > 0


# A model by name: exported when need be, and only then


@pytest.fixture(scope="module")
def mobilenet(cache: Path) -> list[Profile]:
    options = ("--runtime=litert", "--format=json", "--launches=1", "--num-runs=10")
    found: list[Profile] = json.loads(edgeport("profile", *MOBILENET, *options).out)
    return found


def test_at_full_size_nearly_all_time_is_traced_to_modules(mobilenet: list[Profile]) -> None:
    expected = madds_by_module(catalog.find_factory("mobilenet_v2").call(width=0.5), (1, 3, 224, 224))
    assert [p["precision"] for p in mobilenet] == ["fp32", "int8"]
    for found in mobilenet:
        assert found["unattributed_share"] <= 0.05
        assert layers(found) == expected


def test_a_network_without_shuffles_has_none(mobilenet: list[Profile]) -> None:
    assert [p["classes"]["shuffle"]["us"] for p in mobilenet] == [0, 0]


def test_a_model_is_exported_once(mobilenet: list[Profile], cache: Path, here: Edgeport) -> None:
    def stamps() -> dict[Path, int]:
        """Of the files; a folder and the lock tell when they were used."""
        return {p: p.stat().st_mtime_ns for p in (cache / "exports").glob("*/*")}

    before = stamps()
    assert any(p.name == "mobilenet_v2.int8.tflite" for p in before)
    done = here("profile", *MOBILENET, "--runtime=litert", "--launches=1", "--num-runs=1", "--no-ops")
    assert stamps() == before
    assert "tflite fp32" not in done.err
    assert "mobilenet_v2.int8.tflite litert" in done.err


# Choices and forms


def test_runtime_and_precision_choose(shufflenet: Path, here: Edgeport) -> None:
    chosen = ("--runtime=litert", "--precision=int8", "--format=json", "--no-ops")
    found = json.loads(here("profile", shufflenet, *chosen, *QUICK).out)
    assert (found["runtime"], found["precision"], found["ops"], found["raw"]["profile"]) == ("litert", "int8", [], None)
    assert found["unattributed_share"] is None


@pytest.mark.parametrize(
    ("file", "runtime", "precision"),
    [("shufflenet_v2.int8.onnx", "onnxruntime", "int8"), ("shufflenet_v2.fp32.tflite", "litert", "fp32")],
)
def test_one_file(shufflenet: Path, file: str, runtime: str, precision: str, here: Edgeport) -> None:
    found = json.loads(here("profile", shufflenet / file, "--format=json", *QUICK).out)
    assert (found["runtime"], found["precision"]) == (runtime, precision)
    assert found["file"]["name"] == file
    assert len(found["ops"]) > 50


LITERT = ("--runtime=litert", "--precision=fp32", *QUICK)


def test_table_by_class(shufflenet: Path, here: Edgeport) -> None:
    text = here("profile", shufflenet, "--top=3", *LITERT).out
    for word in ("median ms", "shufflenet_v2 on local", "conv", "shuffle", "(unattributed)", "the 3 slowest operators"):
        assert word in text


def test_table_by_module(shufflenet: Path, here: Edgeport) -> None:
    text = here("profile", shufflenet, "--by=module", "--depth=1", *LITERT).out
    for module in ("conv1", "maxpool", "stage2", "stage3", "stage4", "conv5", "fc"):
        assert re.search(rf"^ *{module} ", text, re.MULTILINE), module
    assert "stage2.0" not in text


def test_table_by_op(shufflenet: Path, here: Edgeport) -> None:
    text = here("profile", shufflenet, "--by=op", *LITERT).out
    assert "stage3.1.branch2.5" in text
    assert text.index("conv1.0") < text.index("stage2.0.branch1.0") < text.index("conv5.0")


def read_csv(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(StringIO(text)))


def test_csv_has_a_row_an_operator_a_module_or_a_class(shufflenet: Path, here: Edgeport) -> None:
    by_op = read_csv(here("profile", shufflenet, "--format=csv", "--by=op", *LITERT).out)
    by_class = read_csv(here("profile", shufflenet, "--format=csv", *LITERT).out)
    by_module = read_csv(here("profile", shufflenet, "--format=csv", "--by=module", "--depth=2", *LITERT).out)
    assert [row["class"] for row in by_class] == [*CLASSES, "(unattributed)"]
    assert {"stage2.0", "stage4.3", "fc"} <= {row["module"] for row in by_module}
    total = sum(madds_that_run("litert").values())
    for rows in (by_op, by_class, by_module):
        assert sum(int(row["madds"]) for row in rows) == total
        assert {row["runtime"] for row in rows} == {"litert"}
    for rows in (by_class, by_module):
        assert sum(float(row["share"]) for row in rows) == pytest.approx(1, abs=1e-3)


def test_markdown(shufflenet: Path, here: Edgeport) -> None:
    text = here("profile", shufflenet, "--format=markdown", *LITERT).out
    assert text.startswith("**shufflenet_v2 on local")
    assert "| conv |" in text


def test_svg_in_a_file(shufflenet: Path, tmp_path: Path, here: Edgeport) -> None:
    pytest.importorskip("matplotlib")
    done = here("profile", shufflenet, "--format=svg", "-o", tmp_path / "bars.svg", *LITERT)
    assert done.out.strip() == str(tmp_path / "bars.svg")
    text = (tmp_path / "bars.svg").read_text(encoding="utf-8")
    assert "<svg" in text
    assert text.rstrip().endswith("</svg>")
    assert [p.name for p in tmp_path.iterdir()] == ["bars.svg"]
