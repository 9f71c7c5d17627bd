"""What a file costs, counted without running it, and what it does not tell."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper
from small_models import Drawing, one_operator_tflite, onnx_model, onnx_value, small_onnx, small_tflite

from edgeport import formats, guidelines
from edgeport.errors import ModelFileError, UsageError
from edgeport.file_analysis import analyse_file, analyse_graph
from edgeport.formats import Graph, Node, Tensor
from edgeport.layers import Analysis
from edgeport.reports import View, inspection

FORMATS = ("table", "json", "csv", "markdown")


def shown(analysis: Analysis) -> None:
    """Every form of the report can be made of it."""
    for format in FORMATS:
        for by in ("type", "layer", "module"):
            assert inspection.render([analysis], format, View(by=by))


def test_a_convolution_by_hand(tmp_path: Path) -> None:
    for path in (small_onnx(tmp_path / "a.onnx"), small_tflite(tmp_path / "a.tflite")):
        analysis = analyse_file(path, "small")
        layer = analysis.layers[0]
        assert (layer.type, layer.channels, layer.groups, layer.params) == ("Conv 3x3", (3, 8), 1, 216)
        assert layer.madds == analysis.madds == 8 * 8 * 8 * 27
        assert layer.mac_bytes == 4 * (8 * 8 * (3 + 8) + 216)
        assert layer.activation_bytes == 4 * 8 * 8 * 8
        assert analysis.params == 216 + (8 if path.suffix == ".tflite" else 0)  # with its bias
        shown(analysis)


@pytest.mark.parametrize(
    ("kind", "data", "weights", "out", "expected"),
    [
        ("Conv", (1, 8, 6, 6), (8, 1, 3, 3), (1, 8, 6, 6), ("Conv DW 3x3", (8, 8), 8)),
        ("Conv", (1, 8, 6, 6), (12, 4, 1, 1), (1, 12, 6, 6), ("Conv group 1x1", (8, 12), 2)),
        ("ConvTranspose", (1, 8, 6, 6), (8, 4, 2, 2), (1, 4, 12, 12), ("Transposed Conv 2x2", (8, 4), 1)),
        ("Conv", (1, 3, 20), (4, 3, 5), (1, 4, 16), ("Conv 5", (3, 4), 1)),
        ("CONV_2D", (1, 6, 6, 8), (12, 1, 1, 4), (1, 6, 6, 12), ("Conv group 1x1", (8, 12), 2)),
        ("DEPTHWISE_CONV_2D", (1, 6, 6, 8), (1, 3, 3, 8), (1, 6, 6, 8), ("Conv DW 3x3", (8, 8), 8)),
    ],
)
def test_geometry_of_convolutions(
    kind: str, data: tuple[int, ...], weights: tuple[int, ...], out: tuple[int, ...], expected: tuple[object, ...]
) -> None:
    drawing = Drawing("tflite" if kind.isupper() else "onnx")
    x, w = drawing.tensor("x", data), drawing.tensor("w", weights, constant=True)
    drawing.add(kind, [x, w], out, madds=1000)
    (layer,) = analyse_graph(drawing.graph(), "one").layers
    assert (layer.type, layer.channels, layer.groups) == expected


def test_a_product_with_weights_is_a_linear_layer_and_one_of_two_maps_is_none() -> None:
    drawing = Drawing("onnx")
    x, w = drawing.tensor("x", (5, 7)), drawing.tensor("w", (7, 3), constant=True)
    made = drawing.add("MatMul", [x, w], (5, 3), madds=105)
    y = drawing.tensor("y", (3, 4))
    drawing.add("MatMul", [*made, y], (5, 4), madds=60)
    linear, product = analyse_graph(drawing.graph(), "two").layers
    assert (linear.kind, linear.type, linear.channels, linear.params) == ("linear", "FC", (7, 3), 21)
    assert linear.mac_bytes == 4 * (35 + 15 + 21)
    assert (product.kind, product.type, product.params) == ("matmul", "MatMul", 0)
    assert product.mac_bytes == 4 * (15 + 12 + 20)


def test_quantising_belongs_to_the_operators_between() -> None:
    """But for the network's first and last, which read and write floats."""
    drawing = Drawing("onnx")
    scale = drawing.tensor("scale", (), constant=True)
    w8 = drawing.tensor("w8", (8, 8, 1, 1), constant=True)
    drawing.tensors["w8"] = Tensor("w8", (8, 8, 1, 1), "int8", True)
    shape = (1, 8, 4, 4)

    def quantized(name: str) -> str:
        (made,) = drawing.add("QuantizeLinear", [name, scale], shape)
        drawing.tensors[made] = Tensor(made, shape, "uint8")
        return drawing.add("DequantizeLinear", [made, scale], shape)[0]

    weights = drawing.add("DequantizeLinear", [w8, scale], (8, 8, 1, 1))[0]
    x = quantized(drawing.tensor("x", shape))
    for _ in range(2):
        x = quantized(drawing.add("Conv", [x, weights], shape, madds=1024)[0])
    analysis = analyse_graph(drawing.graph(), "quantized")
    convolutions = [layer for layer in analysis.layers if layer.kind == "conv"]
    assert [layer.mac_bytes for layer in convolutions] == [2 * 128 + 64] * 2
    assert [layer.activation_bytes for layer in convolutions] == [128] * 2
    others = [(layer.type, layer.mac_bytes) for layer in analysis.layers if layer.writes and layer.kind != "conv"]
    assert others == [("QuantizeLinear", 5 * 128), ("DequantizeLinear", 5 * 128)]
    assert analysis.params == 64


# What a file does not tell


def open_onnx(path: Path) -> Path:
    """Conv and Relu on an image of no fixed size."""
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]), helper.make_node("Relu", ["c"], ["y"])]
    values = onnx_value("x", (1, 3, "h", "w")), onnx_value("y", (1, 8, "h", "w"))
    onnx.save(onnx_model(nodes, values[:1], values[1:], {"w": np.ones((8, 3, 3, 3), np.float32)}), path)
    return path


def test_open_sizes_are_said_and_what_follows_from_them_is_null(tmp_path: Path) -> None:
    analysis = analyse_file(open_onnx(tmp_path / "open.onnx"), "open")
    document = json.loads(inspection.render([analysis], "json", View()))
    assert document["open_inputs"] == {"x": [1, 3, None, None]}
    assert [(x["madds"], x["mac_bytes"], x["activation_bytes"]) for x in document["layers"]] == [(None, None, None)] * 2
    assert document["unknown_operators"] == {"Conv": 1, "Relu": 1}
    verdicts = {v["guideline"]: v["kept"] for v in document["guidelines"]["verdicts"]}
    assert verdicts == dict.fromkeys(("G1", "G2", "G3", "G4"))
    assert "input x is 1x3x?x?; give --input-shape x=SIZES" in inspection.render([analysis], "table", View())
    shown(analysis)


@pytest.mark.parametrize("name", ["x", ""])
def test_open_sizes_can_be_given(name: str, tmp_path: Path) -> None:
    analysis = analyse_file(open_onnx(tmp_path / "open.onnx"), "open", {name: (1, 3, 8, 8)})
    assert (analysis.madds, analysis.open_inputs, analysis.unknown) == (8 * 8 * 8 * 27, (), {})


def test_sizes_for_an_input_that_there_is_not_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"has no input 'z'; it has x"):
        analyse_file(open_onnx(tmp_path / "open.onnx"), "open", {"z": (1, 3, 8, 8)})


def test_guidelines_about_blocks_need_modules(tmp_path: Path) -> None:
    """Without names of modules nobody knows where a block begins."""
    drawing = Drawing("onnx")
    x, w = drawing.tensor("x", (1, 8, 4, 4)), drawing.tensor("w", (8, 8, 1, 1), constant=True)
    for module in (None, "block"):
        drawing.nodes.clear()
        branches = [drawing.add("Conv", [x, w], (1, 8, 4, 4), madds=1024, module=module)[0] for _ in range(3)]
        drawing.add("Sum", branches, (1, 8, 4, 4), module=module)
        analysis = analyse_graph(drawing.graph(), "branches")
        (verdict,) = [v for v in guidelines.score(analysis).verdicts if v.guideline == "G3"]
        assert (verdict.kept, verdict.figure) == ((None, None) if module is None else (False, 3))


def test_operators_that_are_not_known_are_named_with_null(tmp_path: Path) -> None:
    path = one_operator_tflite(tmp_path / "odd.tflite", "CUMSUM", [(1, 8), np.array(1, np.int32)], (1, 8))
    analysis = analyse_file(path, "odd")
    assert analysis.unknown == {"CUMSUM": 1}
    (layer,) = json.loads(inspection.render([analysis], "json", View()))["layers"]
    assert (layer["madds"], layer["mac_bytes"]) == (None, None)


# Files that lie

names = st.sampled_from(["a", "b", "c", "d", ""])
KINDS = """
    Conv ConvTranspose QLinearConv Gemm MatMul Add Mul Relu Concat Reshape QuantizeLinear DequantizeLinear MaxPool Odd
    CONV_2D DEPTHWISE_CONV_2D TRANSPOSE_CONV FULLY_CONNECTED CONV_3D
"""
kinds = st.sampled_from(KINDS.split())
sizes = st.lists(st.sampled_from([0, 1, 2, 8, -1, 2**40, 2**63 - 1]), max_size=5).map(tuple)


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Any operators of any tensors, circles and missing ones too."""
    tensors = {
        name: Tensor(
            name, draw(st.none() | sizes), draw(st.sampled_from(["float32", "int8", "strange"])), draw(st.booleans())
        )
        for name in draw(st.sets(names))
    }
    nodes = tuple(
        Node(
            i,
            draw(kinds),
            draw(names),
            tuple(draw(st.lists(names, max_size=4))),
            tuple(draw(st.lists(names, max_size=2))),
            draw(st.sampled_from([None, "", "block", "block.0"])),
            madds=draw(st.sampled_from([None, 0, 7, 2**80])),
        )
        for i in range(draw(st.integers(0, 6)))
    )
    format, axis = draw(st.sampled_from([("onnx", 1), ("tflite", 3)]))
    return Graph(format, (), (), tensors, nodes, axis)


@given(graphs())
def test_whatever_a_graph_holds_it_is_counted_or_said_to_be_unknown(graph: Graph) -> None:
    analysis = analyse_graph(graph, "any")
    assert len(analysis.layers) == len(graph.nodes)
    for layer in analysis.layers:
        assert min(layer.madds, layer.mac, layer.mac_bytes, layer.activation_bytes, layer.params) >= 0
    shown(analysis)


def test_a_missing_a_damaged_and_a_foreign_file_are_refused(tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.tflite"
    damaged.write_bytes(small_tflite(tmp_path / "a.tflite").read_bytes()[:100])
    foreign = tmp_path / "foreign.onnx"
    foreign.write_text("no model")
    for path in (damaged, foreign, tmp_path / "missing.onnx"):
        with pytest.raises(ModelFileError, match=path.name):
            analyse_file(path, "x")


def test_a_graph_in_a_circle_is_read(tmp_path: Path) -> None:
    nodes = [helper.make_node("Relu", ["b"], ["a"]), helper.make_node("Relu", ["a"], ["b"])]
    values = onnx_value("x", (1, 4)), helper.make_tensor_value_info("b", TensorProto.FLOAT, [1, 4])
    path = tmp_path / "circle.onnx"
    onnx.save(onnx_model(nodes, values[:1], values[1:], {}), path)
    assert len(analyse_graph(formats.read(path), "circle").layers) == 2
