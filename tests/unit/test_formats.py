"""Model files of both formats read as one plain graph; what is no model is an error that says so."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from small_models import (
    Shape,
    one_node_onnx,
    one_operator_tflite,
    onnx_model,
    onnx_value,
    small_onnx,
    small_tflite,
)

from edgeport import formats
from edgeport.errors import ModelFileError
from edgeport.export.flatbuffer import Builder
from edgeport.records import Quantization, TensorInfo

MAKERS = {"onnx": small_onnx, "tflite": small_tflite}
Make = Callable[[Path], Path]


@pytest.fixture(params=sorted(MAKERS))
def model(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A real file of each format."""
    path: Path = MAKERS[request.param](tmp_path / f"small.{request.param}")
    return path


def weights(*shape: int) -> Any:
    return np.ones(shape, np.float32)


# What a file holds


def test_an_onnx_file_is_read_with_its_shapes_inferred(tmp_path: Path) -> None:
    graph = formats.read(small_onnx(tmp_path / "m.onnx"))
    assert (graph.format, graph.channel_axis, graph.opset) == ("onnx", 1, 17)
    assert graph.inputs == (TensorInfo("x", (1, 3, 8, 8), "float32", "NCHW"),)
    assert graph.outputs == (TensorInfo("y", (1, 8, 8, 8), "float32", "NCHW"),)
    assert [(n.kind, n.module, n.inputs, n.outputs) for n in graph.nodes] == [
        ("Conv", "stem", ("x", "w"), ("c",)),
        ("Relu", "", ("c",), ("y",)),
    ]
    assert graph.tensors["c"].shape == (1, 8, 8, 8)
    assert graph.tensors["w"].constant


def test_a_tflite_file_is_read_with_the_names_of_its_signature(tmp_path: Path) -> None:
    graph = formats.read(small_tflite(tmp_path / "m.tflite"))
    assert (graph.format, graph.channel_axis) == ("tflite", 3)
    assert graph.inputs == (TensorInfo("in0", (1, 8, 8, 3), "float32", "NHWC"),)
    assert graph.outputs == (TensorInfo("out", (1, 8, 8, 8), "float32", "NHWC"),)
    assert [(n.kind, n.module) for n in graph.nodes] == [("CONV_2D", "layer")]
    constant = [t.shape for t in graph.tensors.values() if t.constant]
    assert sorted(constant, key=str) == [(8, 3, 3, 3), (8,)]


def test_bytes_moved_count_inputs_weights_and_outputs(model: Path) -> None:
    graph = formats.read(model)
    conv = 4 * (3 * 64 + 8 * 3 * 9 + 8 * 64)
    bias = 4 * 8 if graph.format == "tflite" else 0
    assert graph.moved_bytes(graph.nodes[0]) == conv + bias


def test_each_tensor_leads_to_the_node_that_makes_it_and_those_that_read_it(tmp_path: Path) -> None:
    graph = formats.read(small_onnx(tmp_path / "m.onnx"))
    assert {name: node.kind for name, node in graph.producers().items()} == {"c": "Conv", "y": "Relu"}
    assert [node.kind for node in graph.consumers()["c"]] == ["Relu"]


def test_open_sizes_are_minus_one_and_can_be_filled_in(tmp_path: Path) -> None:
    path = one_node_onnx(tmp_path / "m.onnx", "Conv", ("n", 3, 8, 8), (8, 3, 3, 3))
    graph = formats.read(path)
    assert (graph.inputs[0].shape, graph.nodes[0].madds) == ((-1, 3, 8, 8), None)
    graph = formats.read(path, {"x": (2, 3, 8, 8)})
    assert (graph.inputs[0].shape, graph.nodes[0].madds) == ((2, 3, 8, 8), 2 * 8 * 36 * 27)


def test_a_module_is_taken_from_the_scopes_that_torch_writes(tmp_path: Path) -> None:
    model = onnx.load(one_node_onnx(tmp_path / "m.onnx", "Conv", (1, 3, 8, 8), (8, 3, 3, 3)))
    entry = model.graph.node[0].metadata_props.add()
    entry.key, entry.value = "pkg.torch.onnx.name_scopes", "['', 'convs.4', 'conv2d_5']"
    onnx.save(model, tmp_path / "m.onnx")
    assert formats.read(tmp_path / "m.onnx").nodes[0].module == "convs.4"


def test_transposes_splits_and_gathers_tell_what_they_move(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Transpose", ["x"], ["a"], perm=[0, 2, 3, 1]),
        helper.make_node("Split", ["a"], ["b", "c"], axis=-1),
        helper.make_node("Gather", ["b", "i"], ["d"], axis=3),
        helper.make_node("Slice", ["c", "start", "end", "axes"], ["e"]),
    ]
    constants = {"i": np.array([1, 0]), "start": np.array([0]), "end": np.array([2]), "axes": np.array([-3])}
    outputs = [onnx_value("d", (1, 6, 6, 2)), onnx_value("e", (1, 2, 6, 2))]
    onnx.save(onnx_model(nodes, [onnx_value("x", (1, 4, 6, 6))], outputs, constants), tmp_path / "m.onnx")
    read = formats.read(tmp_path / "m.onnx").nodes
    assert [(n.permutation, n.axis, n.indices) for n in read] == [
        ((0, 2, 3, 1), None, None),
        (None, 3, None),
        (None, 3, (1, 0)),
        (None, 1, None),
    ]


@pytest.mark.parametrize("axes", [None, [0, 1, 2, 3]])
def test_a_slice_tells_the_one_axis_that_it_cuts_however_it_is_written(tmp_path: Path, axes: list[int] | None) -> None:
    starts, ends = np.zeros(4, np.int64), np.array([1, 4, 6, 6])
    constants = {"start": starts, "end": ends, **({} if axes is None else {"axes": np.array(axes)})}
    node = helper.make_node("Slice", ["x", *constants], ["y"])
    shapes = onnx_value("x", (1, 8, 6, 6)), onnx_value("y", (1, 4, 6, 6))
    onnx.save(onnx_model([node], shapes[:1], shapes[1:], constants), tmp_path / "m.onnx")
    assert formats.read(tmp_path / "m.onnx").nodes[0].axis == 1


def test_tflites_transposes_and_slices_tell_what_they_move(tmp_path: Path) -> None:
    order = np.array([0, 3, 1, 2], np.int32)
    turned = one_operator_tflite(tmp_path / "t.tflite", "TRANSPOSE", [(1, 4, 5, 6), order], (1, 6, 4, 5))
    assert formats.read(turned).nodes[0].permutation == (0, 3, 1, 2)
    begin, size = np.zeros(4, np.int32), np.array([1, 4, 5, 3], np.int32)
    cut = one_operator_tflite(tmp_path / "s.tflite", "SLICE", [(1, 4, 5, 6), begin, size], (1, 4, 5, 3))
    assert formats.read(cut).nodes[0].axis == 3


def test_tflites_splits_and_gathers_tell_what_they_move(tmp_path: Path) -> None:
    split = one_operator_tflite(tmp_path / "s.tflite", "SPLIT", [np.array(-1, np.int32), (1, 4, 5, 6)], (1, 4, 5, 3))
    assert formats.read(split).nodes[0].axis == 3
    rows = np.array([2, 0], np.int32)
    gather = one_operator_tflite(tmp_path / "g.tflite", "GATHER", [(1, 4, 5, 6), rows], (1, 4, 5, 2))
    assert [(n.axis, n.indices) for n in formats.read(gather).nodes] == [(3, (2, 0))]


def test_a_slice_along_two_axes_has_no_axis(tmp_path: Path) -> None:
    begin, size = np.zeros(4, np.int32), np.array([1, 2, 5, 3], np.int32)
    path = one_operator_tflite(tmp_path / "s.tflite", "SLICE", [(1, 4, 5, 6), begin, size], (1, 2, 5, 3))
    assert formats.read(path).nodes[0].axis is None


def test_a_custom_operator_is_called_what_it_calls_itself(tmp_path: Path) -> None:
    builder = Builder()
    x, y = builder.tensor("x", (1, 4), "float32"), builder.tensor("y", (1, 4), "float32")
    builder.operator("CUSTOM", [x], [y])
    builder.model.operatorCodes[0].customCode = b"MyOwnOperator"
    (tmp_path / "m.tflite").write_bytes(builder.finish({"in": x}, {"out": y}))
    assert formats.read(tmp_path / "m.tflite").nodes[0].kind == "MyOwnOperator"


def test_an_optional_input_that_is_left_out_is_no_input(tmp_path: Path) -> None:
    builder = Builder()
    x, y = builder.tensor("x", (3, 20), "float32"), builder.tensor("y", (3, 7), "float32")
    kernel = builder.constant("w", weights(7, 20))
    builder.operator("FULLY_CONNECTED", [x, kernel, -1], [y])
    (tmp_path / "m.tflite").write_bytes(builder.finish({"in": x}, {"out": y}))
    [node] = formats.read(tmp_path / "m.tflite").nodes
    assert (len(node.inputs), node.madds) == (2, 3 * 20 * 7)


def test_tensors_that_share_their_name_stay_apart(tmp_path: Path) -> None:
    builder = Builder()
    x, y = builder.tensor("t", (1, 4), "float32"), builder.tensor("t", (1, 4), "float32")
    builder.subgraph.tensors[y].name = b"t"
    builder.operator("RELU", [x], [y])
    (tmp_path / "m.tflite").write_bytes(builder.finish({"in": x}, {"out": y}))
    graph = formats.read(tmp_path / "m.tflite")
    assert len(graph.tensors) == 2
    assert graph.nodes[0].inputs != graph.nodes[0].outputs


# Multiply-adds, against numbers worked out by hand


@pytest.mark.parametrize(
    ("kind", "data", "kernel", "attributes", "madds"),
    [
        ("Conv", (1, 3, 8, 8), (16, 3, 3, 3), {}, 16 * 6 * 6 * 27),
        ("Conv", (1, 3, 8, 8), (16, 3, 3, 3), {"strides": [2, 2], "pads": [1, 1, 1, 1]}, 16 * 4 * 4 * 27),
        ("Conv", (2, 12, 5, 5), (6, 4, 1, 1), {"group": 3}, 2 * 6 * 25 * 4),
        ("Conv", (1, 8, 6, 6), (8, 1, 3, 3), {"group": 8}, 8 * 4 * 4 * 9),
        ("Conv", (1, 4, 10), (5, 4, 3), {}, 5 * 8 * 12),
        ("ConvTranspose", (1, 4, 5, 5), (4, 6, 3, 3), {"strides": [2, 2]}, 4 * 25 * 6 * 9),
        ("ConvTranspose", (1, 4, 5, 5), (4, 3, 3, 3), {"group": 2}, 4 * 25 * 3 * 9),
        ("Gemm", (3, 20), (20, 7), {}, 3 * 20 * 7),
        ("Gemm", (3, 20), (7, 20), {"transB": 1}, 3 * 20 * 7),
        ("Gemm", (20, 3), (20, 7), {"transA": 1}, 3 * 20 * 7),
        ("MatMul", (2, 5, 3, 4), (4, 6), {}, 2 * 5 * 3 * 4 * 6),
        ("MatMul", (5, 3, 4), (5, 4, 6), {}, 5 * 3 * 4 * 6),
        ("MatMul", (3, 4), (4,), {}, 3 * 4),
        ("Add", (1, 8, 6, 6), (1, 8, 1, 1), {}, 0),
    ],
)
def test_multiply_adds_of_onnx(
    tmp_path: Path, kind: str, data: Shape, kernel: tuple[int, ...], attributes: dict[str, Any], madds: int
) -> None:
    rank = len(data) - 1 if len(kernel) == 1 else len(data)
    path = one_node_onnx(tmp_path / "m.onnx", kind, data, kernel, [f"d{i}" for i in range(rank)], **attributes)
    assert formats.read(path).nodes[0].madds == madds


def scales(*names: str) -> dict[str, Any]:
    """A scale and a zero point for each of these tensors."""
    pairs = ({f"{n}_scale": np.float32(0.5), f"{n}_zero": np.uint8(0)} for n in names)
    return {name: value for pair in pairs for name, value in pair.items()}


@pytest.mark.parametrize(
    ("kind", "data", "kernel", "madds"),
    [
        ("QLinearConv", (1, 3, 8, 8), (16, 3, 3, 3), 16 * 6 * 6 * 27),
        ("QLinearMatMul", (5, 20), (20, 7), 5 * 20 * 7),
        ("com.microsoft.QGemm", (5, 20), (20, 7), 5 * 20 * 7),
    ],
)
def test_multiply_adds_of_quantised_onnx(
    tmp_path: Path, kind: str, data: tuple[int, ...], kernel: tuple[int, ...], madds: int
) -> None:
    """The weights follow the scale and the zero point of the data."""
    constants = {**scales("x", "w", "y"), "w": np.ones(kernel, np.uint8)}
    inputs = ["x", "x_scale", "x_zero", "w", "w_scale", "w_zero", "y_scale", "y_zero"]
    out = (1, 16, 6, 6) if len(data) == 4 else (5, 7)
    ends = [onnx_value(name, shape, TensorProto.UINT8) for name, shape in (("x", data), ("y", out))]
    domain, _, kind = kind.rpartition(".")
    nodes = [helper.make_node(kind, inputs, ["y"], domain=domain)]
    onnx.save(onnx_model(nodes, ends[:1], ends[1:], constants), tmp_path / "m.onnx")
    assert formats.read(tmp_path / "m.onnx").nodes[0].madds == madds


def test_weights_may_come_from_a_constant_operator_which_is_no_node_of_its_own(tmp_path: Path) -> None:
    value = numpy_helper.from_array(weights(16, 3, 3, 3))
    nodes = [helper.make_node("Constant", [], ["w"], value=value), helper.make_node("Conv", ["x", "w"], ["y"])]
    ends = onnx_value("x", (1, 3, 8, 8)), onnx_value("y", (1, 16, 6, 6))
    onnx.save(onnx_model(nodes, ends[:1], ends[1:], {}), tmp_path / "m.onnx")
    graph = formats.read(tmp_path / "m.onnx")
    assert [(n.kind, n.madds) for n in graph.nodes] == [("Conv", 16 * 6 * 6 * 27)]
    assert graph.tensors["w"].constant


@pytest.mark.parametrize(
    ("kind", "inputs", "out", "madds"),
    [
        ("CONV_2D", [(1, 8, 8, 3), weights(16, 3, 3, 3)], (1, 6, 6, 16), 16 * 6 * 6 * 27),
        ("CONV_2D", [(1, 5, 5, 12), weights(6, 1, 1, 4)], (1, 5, 5, 6), 6 * 25 * 4),
        ("DEPTHWISE_CONV_2D", [(1, 6, 6, 8), weights(1, 3, 3, 8)], (1, 4, 4, 8), 8 * 4 * 4 * 9),
        ("DEPTHWISE_CONV_2D", [(1, 6, 6, 4), weights(1, 3, 3, 8)], (1, 4, 4, 8), 8 * 4 * 4 * 9),
        ("FULLY_CONNECTED", [(3, 20), weights(7, 20)], (3, 7), 3 * 20 * 7),
        ("BATCH_MATMUL", [(5, 3, 4), (5, 4, 6)], (5, 3, 6), 5 * 3 * 4 * 6),
        (
            "TRANSPOSE_CONV",
            [np.array([1, 11, 11, 6], np.int32), weights(6, 3, 3, 4), (1, 5, 5, 4)],
            (1, 11, 11, 6),
            4 * 25 * 6 * 9,
        ),
        ("CONV_3D", [(1, 4, 5, 5, 2), weights(2, 3, 3, 2, 8)], (1, 3, 3, 3, 8), 8 * 27 * 18 * 2),
        ("ADD", [(1, 4, 4, 8), (1, 4, 4, 8)], (1, 4, 4, 8), 0),
    ],
)
def test_multiply_adds_of_tflite(
    tmp_path: Path, kind: str, inputs: list[Any], out: tuple[int, ...], madds: int
) -> None:
    assert formats.read(one_operator_tflite(tmp_path / "m.tflite", kind, inputs, out)).nodes[0].madds == madds


def test_multiply_adds_of_a_product_whose_left_side_is_transposed(tmp_path: Path) -> None:
    options = "BatchMatMul", {"adjX": True}
    path = one_operator_tflite(tmp_path / "m.tflite", "BATCH_MATMUL", [(5, 4, 3), (5, 4, 6)], (5, 3, 6), options)
    assert formats.read(path).nodes[0].madds == 5 * 3 * 4 * 6


def test_multiply_adds_that_are_not_counted_are_unknown_and_not_zero(tmp_path: Path) -> None:
    path = one_node_onnx(tmp_path / "m.onnx", "Einsum", (3, 20), (20, 7), (3, 7), equation="ij,jk->ik")
    assert formats.read(path).nodes[0].madds in (None, 3 * 20 * 7)


# Quantised edges


def dequantized(path: Path, **constants: Any) -> Path:
    """A model whose input is int8, and which begins with DequantizeLinear."""
    node = helper.make_node("DequantizeLinear", ["x", *constants], ["y"])
    ends = onnx_value("x", (1, 3, 4, 4), TensorProto.INT8), onnx_value("y", (1, 3, 4, 4))
    onnx.save(onnx_model([node], ends[:1], ends[1:], constants), path)
    return path


def test_an_integer_input_tells_its_quantisation(tmp_path: Path) -> None:
    path = dequantized(tmp_path / "m.onnx", scale=np.float32(0.5), zero=np.int8(-3))
    assert formats.read(path).inputs[0].quantization == Quantization(0.5, -3)


def test_a_zero_point_that_is_left_out_is_zero(tmp_path: Path) -> None:
    path = dequantized(tmp_path / "m.onnx", scale=np.float32(0.5))
    assert formats.read(path).inputs[0].quantization == Quantization(0.5, 0)


def test_an_input_quantised_by_channel_is_read_without_one_scale(tmp_path: Path) -> None:
    path = dequantized(tmp_path / "m.onnx", scale=np.ones(3, np.float32), zero=np.zeros(3, np.int8))
    assert formats.read(path).inputs[0].quantization is None


def test_a_scale_that_the_network_computes_is_not_known(tmp_path: Path) -> None:
    nodes = [helper.make_node("Abs", ["s"], ["scale"]), helper.make_node("DequantizeLinear", ["x", "scale"], ["y"])]
    ends = onnx_value("x", (1, 3, 4, 4), TensorProto.INT8), onnx_value("s", ())
    onnx.save(onnx_model(nodes, ends, [onnx_value("y", (1, 3, 4, 4))], {}), tmp_path / "m.onnx")
    assert formats.read(tmp_path / "m.onnx").inputs[0].quantization is None


def test_a_tflite_tensor_tells_its_quantisation(tmp_path: Path) -> None:
    from ai_edge_litert import schema_py_generated as schema

    builder = Builder()
    x, y = builder.tensor("x", (1, 4, 4, 3), "float32"), builder.tensor("y", (1, 4, 4, 3), "float32")
    quantization = schema.QuantizationParametersT()
    quantization.scale, quantization.zeroPoint = np.array([0.25], np.float32), np.array([7], np.int64)
    builder.subgraph.tensors[x].quantization = quantization
    builder.subgraph.tensors[x].type = schema.TensorType.INT8
    builder.operator("DEQUANTIZE", [x], [y])
    (tmp_path / "m.tflite").write_bytes(builder.finish({"in": x}, {"out": y}))
    info = formats.read(tmp_path / "m.tflite").inputs[0]
    assert info == TensorInfo("in", (1, 4, 4, 3), "int8", "NHWC", Quantization(0.25, 7))


# What is no model


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"absent\.onnx"):
        formats.read(tmp_path / "absent.onnx")


@pytest.mark.parametrize("suffix", ["onnx", "tflite"])
@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 a zip file", b"just some text\n" * 20, bytes(4096)])
def test_a_foreign_file_is_refused_by_its_name(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"foreign.{suffix}"
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match=f"foreign.{suffix}"):
        formats.read(path)


@pytest.mark.parametrize(("suffix", "other"), [("onnx", small_tflite), ("tflite", small_onnx)])
def test_a_model_under_the_other_formats_name_is_refused(tmp_path: Path, suffix: str, other: Make) -> None:
    with pytest.raises(ModelFileError, match=f"wrong.{suffix}"):
        formats.read(other(tmp_path / f"wrong.{suffix}"))


def refused(path: Path, data: bytes) -> bool:
    """Whether this content is refused. Anything but ModelFileError is passed on."""
    path.write_bytes(data)
    try:
        formats.read(path)
    except ModelFileError:
        return True
    return False


def test_a_file_cut_off_anywhere_is_read_or_refused_but_never_breaks_the_reader(model: Path) -> None:
    data = model.read_bytes()
    found = [refused(model, data[:length]) for length in range(0, len(data), 29)]
    assert all(found[: len(found) // 2])
    assert not refused(model, data)


@pytest.mark.parametrize(
    "make",
    [
        small_onnx,
        small_tflite,
    ],
)
def test_a_file_with_wrong_bytes_is_read_or_refused_but_never_breaks_the_reader(tmp_path: Path, make: Make) -> None:
    path = make(tmp_path / f"damaged.{'onnx' if make is small_onnx else 'tflite'}")
    data, source = path.read_bytes(), random.Random(0)
    found = []
    for _ in range(200):
        damaged = bytearray(data)
        for _ in range(3):
            damaged[source.randrange(len(data))] = source.randrange(256)
        found.append(refused(path, bytes(damaged)))
    assert any(found)
