"""Each operator that runs is in the module that computes it in PyTorch, by the numbers that flow through both."""

import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
from command_line import edgeport

from edgeport import attribution, formats
from edgeport.attribution import Attributed, Row
from edgeport.formats import Graph

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

import check_attribution
import module_networks
from check_attribution import Judged

FILES = ("fp32.onnx", "fp32.tflite", "int8.onnx", "int8.tflite")


def exported(name: str, folder: Path) -> Path:
    _, shapes, _, _ = module_networks.SIZES[name]
    inputs = [f"--input-shape={shape}" for shape in shapes]
    edgeport("export", f"{module_networks.__file__}:{name}", *inputs, "--min-sqnr-db=-50", "-o", folder)
    return folder


@pytest.fixture(scope="module")
def ssd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lists of layers, and an operator that edgeport's own lowering does not know: litert-torch converts it."""
    return exported("ssd", tmp_path_factory.mktemp("ssd"))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A block that is called three times, a weight that two layers have, functions that ONNX Runtime takes apart."""
    return exported("shared", tmp_path_factory.mktemp("shared"))


def judged(name: str, folder: Path) -> dict[str, Judged]:
    arguments, shapes, _, _ = module_networks.SIZES[name]
    return check_attribution.judge(f"{module_networks.__file__}:{name}", arguments, shapes, folder)


@pytest.mark.parametrize("name", ["ssd", "shared"])
def test_no_operator_is_in_a_wrong_module(name: str, request: pytest.FixtureRequest) -> None:
    found = judged(name, request.getfixturevalue(name))
    assert tuple(sorted(found)) == FILES
    for file, verdict in found.items():
        assert [w for w in verdict.wrong if w.module is not None] == [], file
        assert not any("Invalid Unary" in w.name for w in verdict.wrong), file


def test_litert_torchs_convolutions_are_each_in_a_layer_of_their_own(ssd: Path) -> None:
    """Children of lists too, which litert-torch names by their numbers alone: scores.0 and boxes.0 are both "0"."""
    heads = {f"{kind}.{n}" for kind in ("scores", "boxes") for n in range(3)}
    extras = {f"extras.{n}.{layer}" for n in range(2) for layer in (0, 3)}
    backbone = {f"backbone.{layer}" for layer in (0, 3, 6)}
    for precision in ("fp32", "int8"):
        nodes = formats.read(ssd / f"ssd.{precision}.tflite").nodes
        modules = [str(node.module) for node in nodes if node.kind == "CONV_2D"]
        assert sorted(modules) == sorted(heads | extras | backbone)


def test_the_checker_sees_an_operator_in_a_wrong_module(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = attribution.attribute

    def dishonest(rows: Sequence[Row], graph: Graph, optimized: Graph | None) -> list[Attributed]:
        return [msgspec.structs.replace(a, module="elsewhere") for a in honest(rows, graph, optimized)]

    monkeypatch.setattr(attribution, "attribute", dishonest)
    for verdict in judged("shared", shared).values():
        assert verdict.share < check_attribution.LEAST_SHARE
