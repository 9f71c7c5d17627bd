"""From a profiler's rows to the operators of the file: alignment, classes, shuffles, what names remain."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_models import Drawing

from edgeport import attribution
from edgeport.attribution import CLASS_NAMES, CLASSES, Row, align, class_of, shuffling
from edgeport.formats import Graph

# What XNNPACK calls the operators of a kind.
EVENTS = {
    "conv2d": ["Convolution (NHWC, F32) IGEMM", "Fully Connected (NC, F32) GEMM", "Convolution (NHWC, QC8) IGEMM"],
    "depthwiseconv2d": ["Convolution (NHWC, F32) DWConv", "Convolution (NHWC, QC8) DWConv"],
    "fullyconnected": ["Fully Connected (NC, F32) GEMM", "Fully Connected (NC, QS8, QC8W) GEMM"],
    "averagepool2d": ["Average Pooling (NHWC, F32)"],
    "maxpool2d": ["Max Pooling (NHWC, S8)"],
    "mean": ["Mean (F32)"],
    "softmax": ["Softmax (NC, F32)"],
    "add": ["Add (ND, F32)"],
    "mul": ["Multiply (ND, F32)"],
    "concatenation": ["Copy (NC, X32)"],
    "pad": ["Constant Pad (ND, X32)"],
    "quantize": ["Convert (NC, F32, QS8)"],
    "relu6": ["Clamp (NC, F32)"],
    "transpose": ["Transpose (ND, X32)"],
}
LEFT_OUT = ("pad", "quantize", "relu6", "transpose")  # XNNPACK may give no event for them
KEPT = tuple(kind for kind in EVENTS if kind not in (*LEFT_OUT, "concatenation"))
FOREIGN = "Something That No Operator Gives"
Operators = list[tuple[str, int]]
Profile = tuple[list[str], list[int | None]]


@st.composite
def networks(draw: st.DrawFn) -> Operators:
    """(kind, the most events that it may give), such that what runs between two operators tells them apart."""
    operators: Operators = []
    for kind in draw(st.lists(st.sampled_from(KEPT), min_size=1, max_size=12)):
        operators.append((kind, 2))
        between = draw(st.sampled_from((None, "concatenation", *LEFT_OUT)))
        if between:
            operators.append((between, draw(st.integers(2, 4)) if between == "concatenation" else 2))
    return operators


@st.composite
def profiles(draw: st.DrawFn, operators: Operators) -> Profile:
    """Events that a run of these operators may give, and which operator gave each."""
    events: list[str] = []
    truth: list[int | None] = []
    for n, (kind, most) in enumerate(operators):
        if draw(st.integers(0, 9)) == 0:
            events, truth = [*events, FOREIGN], [*truth, None]
        count = draw(st.integers(0 if kind in LEFT_OUT else 1, most if kind == "concatenation" else 1))
        name = draw(st.sampled_from(EVENTS[kind]))
        events, truth = events + [name] * count, truth + [n] * count
    return events, truth


@given(st.data())
def test_events_are_matched_with_the_operators_that_gave_them(data: st.DataObject) -> None:
    operators = data.draw(networks())
    events, truth = data.draw(profiles(operators))
    assert align(events, [kind for kind, _ in operators], [most for _, most in operators]) == truth


@given(st.lists(st.sampled_from([e for names in EVENTS.values() for e in names])), st.lists(st.sampled_from([*EVENTS])))
def test_whatever_is_aligned_keeps_its_order_and_its_limits(events: list[str], kinds: list[str]) -> None:
    matched = align(events, kinds, [2] * len(kinds))
    assert len(matched) == len(events)
    given_by = [m for m in matched if m is not None]
    assert given_by == sorted(given_by)
    assert max(Counter(given_by).values(), default=0) <= 2


def test_an_event_without_an_operator_does_not_shift_those_behind_it() -> None:
    events = ["Add (ND, F32)", FOREIGN, "Softmax (NC, F32)", "Mean (F32)"]
    assert align(events, ["add", "softmax", "mean"], [2, 2, 2]) == [0, None, 1, 2]


# Classes


def test_every_kind_stands_in_one_class_only() -> None:
    kinds = Counter(kind for names in CLASSES.values() for kind in names.split())
    assert [kind for kind, n in kinds.items() if n > 1] == []


def test_the_table_speaks_of_the_classes_that_reports_show() -> None:
    assert set(CLASSES) <= set(CLASS_NAMES)
    assert CLASS_NAMES == ("conv", "elemwise", "data", "shuffle", "other")


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        ("Conv QLinearConv CONV_2D DEPTHWISE_CONV_2D FULLY_CONNECTED Gemm MatMul BATCH_MATMUL", "conv"),
        ("Add ADD Relu RELU6 QLinearAdd HARD_SWISH Sigmoid LOGISTIC Mul", "elemwise"),
        ("Concat CONCATENATION Transpose STRIDED_SLICE Pad QuantizeLinear DEQUANTIZE ReorderInput", "data"),
        ("MaxPool AVERAGE_POOL_2D Softmax MEAN GlobalAveragePool MyCustomOperator", "other"),
    ],
)
def test_both_formats_names_of_an_operator_fall_into_its_class(kinds: str, expected: str) -> None:
    assert {kind: class_of(kind) for kind in kinds.split()} == dict.fromkeys(kinds.split(), expected)


# Channel shuffles and splits


def images(format: str, channels: int, size: tuple[int, int] = (4, 6)) -> tuple[Drawing, str]:
    drawing = Drawing(format)
    shape = (1, channels, *size) if format == "onnx" else (1, *size, channels)
    return drawing, drawing.tensor("x", shape)


def convolved(drawing: Drawing, name: str) -> str:
    """Something that computes, so that what lies before and behind it does not touch."""
    kind = "Conv" if drawing.format == "onnx" else "CONV_2D"
    return drawing.add(kind, [name], drawing.tensors[name].shape or ())[0]


def reshaped(drawing: Drawing, name: str, shape: Sequence[int]) -> str:
    return drawing.add("Reshape" if drawing.format == "onnx" else "RESHAPE", [name], shape)[0]


def transposed(drawing: Drawing, name: str, order: Sequence[int]) -> str:
    shape = np.empty(drawing.tensors[name].shape or ()).transpose(order).shape
    kind = "Transpose" if drawing.format == "onnx" else "TRANSPOSE"
    return drawing.add(kind, [name], shape, permutation=tuple(order))[0]


def shuffled(drawing: Drawing, name: str, groups: int) -> str:
    """Channel shuffle in three operators, in the format's own layout."""
    before = drawing.tensors[name].shape or ()
    if drawing.format == "onnx":
        n, c, h, w = before
        apart, order = (n, groups, c // groups, h, w), (0, 2, 1, 3, 4)
    else:
        n, h, w, c = before
        apart, order = (n, h, w, groups, c // groups), (0, 1, 2, 4, 3)
    return reshaped(drawing, transposed(drawing, reshaped(drawing, name, apart), order), before)


def shuffled_by_five(drawing: Drawing, name: str, groups: int) -> str:
    """The same of channels-last data as litert-torch makes it: to NCHW and back."""
    n, h, w, c = drawing.tensors[name].shape or ()
    name = transposed(drawing, name, (0, 3, 1, 2))
    name = reshaped(drawing, name, (n, groups, c // groups, h, w))
    name = reshaped(drawing, transposed(drawing, name, (0, 2, 1, 3, 4)), (n, c, h, w))
    return transposed(drawing, name, (0, 2, 3, 1))


def kinds_marked(drawing: Drawing) -> list[str]:
    found = shuffling(drawing.graph())
    return [node.kind for node in drawing.nodes if node.index in found]


@pytest.mark.parametrize("format", ["onnx", "tflite"])
@given(groups=st.integers(1, 4), each=st.integers(1, 4))
def test_a_shuffle_of_three_operators_is_marked_if_it_moves_any_channel(format: str, groups: int, each: int) -> None:
    drawing, x = images(format, groups * each)
    convolved(drawing, shuffled(drawing, convolved(drawing, x), groups))
    moves = groups > 1 and each > 1
    assert shuffling(drawing.graph()) == ({1, 2, 3} if moves else set())


@given(groups=st.integers(1, 4), each=st.integers(1, 4))
def test_a_shuffle_of_five_operators_is_marked_if_it_moves_any_channel(groups: int, each: int) -> None:
    drawing, x = images("tflite", groups * each)
    convolved(drawing, shuffled_by_five(drawing, convolved(drawing, x), groups))
    moves = groups > 1 and each > 1
    assert shuffling(drawing.graph()) == ({1, 2, 3, 4, 5} if moves else set())


def test_a_gather_of_channels_is_a_shuffle_and_one_of_rows_is_not() -> None:
    for axis, expected in ((1, ["Gather"]), (2, [])):
        drawing, x = images("onnx", 4)
        drawing.add("Gather", [convolved(drawing, x)], (1, 4, 4, 6), axis=axis, indices=(2, 0, 3, 1))
        assert kinds_marked(drawing) == expected


@pytest.mark.parametrize(
    ("format", "kind", "axis"),
    [("onnx", "Split", 1), ("onnx", "Slice", 1), ("tflite", "SPLIT", 3), ("tflite", "STRIDED_SLICE", 3)],
)
def test_cutting_channels_apart_is_a_shuffle(format: str, kind: str, axis: int) -> None:
    drawing, x = images(format, 8)
    half = (1, 4, 4, 6) if format == "onnx" else (1, 4, 6, 4)
    drawing.add(kind, [convolved(drawing, x)], half, half, axis=axis)
    assert kinds_marked(drawing) == [kind]


@pytest.mark.parametrize(
    ("format", "kind", "axis", "left"),
    [
        ("onnx", "Slice", 2, (1, 8, 2, 6)),
        ("onnx", "Split", 3, (1, 8, 4, 3)),
        ("tflite", "STRIDED_SLICE", 1, (1, 2, 6, 8)),
        ("tflite", "SPLIT", 2, (1, 4, 3, 8)),
    ],
)
def test_cutting_an_image_apart_in_space_is_data(format: str, kind: str, axis: int, left: tuple[int, ...]) -> None:
    drawing, x = images(format, 8)
    drawing.add(kind, [convolved(drawing, x)], left, left, axis=axis)
    assert kinds_marked(drawing) == []


def test_joining_channels_is_data() -> None:
    drawing, x = images("tflite", 8)
    drawing.add("CONCATENATION", [convolved(drawing, x), convolved(drawing, x)], (1, 4, 6, 16))
    assert kinds_marked(drawing) == []


def test_joining_channels_right_before_a_shuffle_belongs_to_it() -> None:
    drawing, x = images("tflite", 8)
    joined = drawing.add("CONCATENATION", [convolved(drawing, x), convolved(drawing, x)], (1, 4, 6, 16))
    convolved(drawing, shuffled(drawing, joined[0], 2))
    assert kinds_marked(drawing) == ["CONCATENATION", "RESHAPE", "TRANSPOSE", "RESHAPE"]


def test_flattening_is_data() -> None:
    drawing, x = images("onnx", 8)
    reshaped(drawing, convolved(drawing, x), (1, 8 * 4 * 6))
    assert kinds_marked(drawing) == []


def test_changing_the_layout_and_back_is_data() -> None:
    drawing, x = images("onnx", 8)
    there = transposed(drawing, convolved(drawing, x), (0, 2, 3, 1))
    transposed(drawing, convolved(drawing, there), (0, 3, 1, 2))
    assert kinds_marked(drawing) == []


def test_rearranging_rows_is_data() -> None:
    drawing, x = images("onnx", 8)
    apart = transposed(drawing, reshaped(drawing, convolved(drawing, x), (1, 8, 2, 2, 6)), (0, 1, 3, 2, 4))
    reshaped(drawing, apart, (1, 8, 4, 6))
    assert kinds_marked(drawing) == []


def test_a_shuffle_right_behind_a_change_of_the_layout_is_marked() -> None:
    drawing, x = images("onnx", 6)
    convolved(drawing, shuffled(drawing, transposed(drawing, convolved(drawing, x), (0, 3, 1, 2)), 2))
    assert kinds_marked(drawing) == ["Transpose", "Reshape", "Transpose", "Reshape"]


@pytest.mark.parametrize("tokens", [4, 5])
def test_taking_the_heads_of_attention_apart_is_data(tokens: int) -> None:
    """With as many tokens as heads, the transpose gives back the shape that it was given."""
    drawing = Drawing("onnx")
    x = drawing.tensor("x", (1, tokens, 32))
    apart = transposed(drawing, reshaped(drawing, convolved(drawing, x), (1, tokens, 4, 8)), (0, 2, 1, 3))
    reshaped(drawing, transposed(drawing, convolved(drawing, apart), (0, 2, 1, 3)), (1, tokens, 32))
    assert kinds_marked(drawing) == []


# LiteRT


def runtime_op(index: int, us: float = 1.0) -> Row:
    """An operator that LiteRT ran itself: its row carries the operator's number."""
    return Row(name="CUSTOM", source="runtime", index=index, us=us)


def event(name: str, us: float = 1.0) -> Row:
    return Row(name=name, source="delegate", index=99, us=us)


def interrupted_network() -> Drawing:
    """x -> conv -> custom -> conv, and beside it x -> depthwise, which stands last in the file."""
    drawing, x = images("tflite", 8)
    shape = (1, 4, 6, 8)
    first = drawing.add("CONV_2D", [x], shape, madds=10, module="first")
    custom = drawing.add("CUSTOM", first, shape, module="custom")
    drawing.add("CONV_2D", custom, shape, madds=20, module="second")
    drawing.add("DEPTHWISE_CONV_2D", [x], shape, madds=30, module="beside")
    return drawing


def test_what_need_not_wait_for_the_runtimes_own_operator_runs_before_it() -> None:
    conv, depthwise = EVENTS["conv2d"][0], EVENTS["depthwiseconv2d"][0]
    rows = [event(conv, 1), event(depthwise, 2), runtime_op(1, 3), event(conv, 4)]
    attributed = attribution.attribute_litert(rows, interrupted_network().graph())
    assert [a.node.module if a.node else None for a in attributed] == ["first", "beside", "custom", "second"]


def test_a_delegates_event_that_fits_no_operator_keeps_its_time_and_its_class() -> None:
    rows = [event(EVENTS["conv2d"][0], 1), event("Transpose (ND, X32)", 5), event(EVENTS["depthwiseconv2d"][0], 2)]
    ops = attribution.op_times([*rows, runtime_op(1), event(EVENTS["conv2d"][0])], interrupted_network().graph(), None)
    assert [(op.us, op.class_, op.module) for op in ops][:3] == [
        (1, "conv", "first"),
        (5, "data", None),
        (2, "conv", "beside"),
    ]


def test_rows_of_one_operator_are_added_up_and_cost_once() -> None:
    drawing, x = images("tflite", 8)
    left = drawing.add("CONV_2D", [x], (1, 4, 6, 8), madds=100, module="stem")
    drawing.add("CONCATENATION", [*left, x], (1, 4, 6, 16), module="join")
    rows = [event(EVENTS["conv2d"][0], 2.5), event(EVENTS["conv2d"][0], 1.5), event("Copy", 1), event("Copy", 3)]
    ops = attribution.op_times(rows, drawing.graph(), None)
    assert [(op.op, op.us, op.madds) for op in ops] == [("CONV_2D", 4, 100), ("CONCATENATION", 4, 0)]
    moved = 4 * (4 * 6 * 8)
    assert [op.bytes for op in ops] == [2 * moved, 4 * moved]


def test_every_microsecond_of_the_rows_is_in_the_operators() -> None:
    rows = [event("Copy", 1.25), event(FOREIGN, 2), runtime_op(1, 4), event("Mean (F32)", 8)]
    ops = attribution.op_times(rows, interrupted_network().graph(), None)
    assert sum(op.us for op in ops) == 15.25


def test_a_shuffles_operators_are_of_class_shuffle() -> None:
    drawing, x = images("tflite", 8)
    convolved(drawing, shuffled(drawing, convolved(drawing, x), 2))
    rows = [event(EVENTS["conv2d"][0]), event("Transpose (ND, X32)"), event(EVENTS["conv2d"][0])]
    ops = attribution.op_times(rows, drawing.graph(), None)
    assert [op.class_ for op in ops] == ["conv", "shuffle", "conv"]


def test_what_moves_data_and_tells_no_module_has_that_of_what_it_serves() -> None:
    """First that of its reader, then that of its maker; what computes keeps to itself."""
    drawing, x = images("tflite", 8)
    padded = drawing.add("PAD", [x], (1, 6, 8, 8), name="pad")
    made = drawing.add("CONV_2D", padded, (1, 4, 6, 8), module="stem")
    turned = drawing.add("TRANSPOSE", made, (1, 8, 4, 6), name="turn")
    drawing.add("MEAN", turned, (1, 8), name="mean")
    rows = [event(name) for name in ("Constant Pad", EVENTS["conv2d"][0], "Transpose", "Mean")]
    ops = attribution.op_times(rows, drawing.graph(), None)
    assert [(op.op, op.module) for op in ops][:3] == [("PAD", "stem"), ("CONV_2D", "stem"), ("TRANSPOSE", "stem")]


def modules_of(drawing: Drawing, *events: str) -> list[tuple[str, str | None]]:
    """(operator, module) of each row, in order."""
    ops = attribution.op_times([event(name) for name in events], drawing.graph(), None)
    return [(op.op, op.module) for op in ops]


def test_a_function_that_xnnpack_does_not_name_is_the_functions_that_stands_there() -> None:
    """In eight bits it computes functions of one tensor from tables, and its name for them says nothing."""
    drawing, x = images("tflite", 8)
    shape = (1, 4, 6, 8)
    made = drawing.add("CONV_2D", [x], shape, module="conv")
    for kind in ("HARD_SWISH", "LOGISTIC"):
        made = drawing.add(kind, made, shape, module=kind.lower())
    drawing.add("ADD", [*made, x], shape, module="join")
    found = modules_of(drawing, EVENTS["conv2d"][1], *["Invalid Unary Op"] * 2, "Add (ND)")
    assert found == [
        ("CONV_2D", "conv"),
        ("HARD_SWISH", "hard_swish"),
        ("LOGISTIC", "logistic"),
        ("ADD", "join"),
    ]


@pytest.mark.parametrize("name", ["Clamp (NC)", "Invalid Unary Op"])
def test_an_activation_that_is_fused_in_the_file_and_not_in_xnnpack_belongs_to_its_operator(name: str) -> None:
    drawing, x = images("tflite", 8)
    added = drawing.add("ADD", [x, x], (1, 4, 6, 8), module="join")
    drawing.add("CONV_2D", added, (1, 4, 6, 8), module="conv")
    assert modules_of(drawing, "Add (ND)", name, EVENTS["conv2d"][0]) == [("ADD", "join"), ("CONV_2D", "conv")]


def test_what_fits_no_operator_has_a_module_only_where_there_is_one_choice() -> None:
    drawing, x = images("tflite", 8)
    for module in ("block", "block", "other"):
        x = drawing.add("CONV_2D", [x], (1, 4, 6, 8), module=module)[0]
    conv = EVENTS["conv2d"][0]
    found = modules_of(drawing, conv, FOREIGN, conv, FOREIGN, conv)
    assert [module for op, module in found if op == FOREIGN] == ["block", None]


def test_a_reshape_that_xnnpack_puts_before_a_product_is_the_products() -> None:
    drawing, x = images("tflite", 8)
    averaged = drawing.add("MEAN", [x], (1, 8), module="pool")
    drawing.add("FULLY_CONNECTED", averaged, (1, 10), module="head")
    found = modules_of(drawing, "Mean (ND) Reduce", "Static Reshape (NC)", EVENTS["fullyconnected"][0])
    assert [module for _, module in found] == ["pool", "head", "head"]


# ONNX Runtime


def small_network() -> Drawing:
    """x -> add -> conv -> relu -> gemm, as in the file."""
    drawing, x = images("onnx", 8)
    shape = (1, 8, 4, 6)
    added = drawing.add("Add", [x, x], shape, name="/pre/add", module="pre")
    weights = drawing.tensor("stem.weight", (8, 8, 1, 1), constant=True)
    made = drawing.add("Conv", [*added, weights], shape, name="/stem/conv", module="stem", madds=1536)
    active = drawing.add("Relu", made, shape, name="/act/relu", module="act")
    head = drawing.tensor("head.weight", (192, 10), constant=True)
    drawing.add("Gemm", [*active, head], (1, 10), name="/head/gemm", module="head", madds=1920)
    return drawing


def optimized(*nodes: tuple[str, str, Sequence[str], str]) -> Graph:
    """What ONNX Runtime made of it: (kind, name, inputs, output), in order."""
    drawing = Drawing("onnx")
    for kind, name, inputs, output in nodes:
        drawing.add(kind, inputs, (1, 8, 4, 6), name=output)
        drawing.nodes[-1] = type(drawing.nodes[-1])(len(drawing.nodes) - 1, kind, name, tuple(inputs), (output,), None)
    return drawing.graph()


def ran(op: str, name: str, us: float = 1.0, shape: tuple[int, ...] = (1, 8, 4, 6)) -> Row:
    return Row(name=name, source="runtime", index=0, us=us, op=op, outputs=(shape,))


def modules(rows: Sequence[Row], graph: Graph | None) -> list[str | None]:
    attributed = attribution.attribute_onnxruntime(rows, small_network().graph(), graph)
    return [a.node.module if a.node else None for a in attributed]


@pytest.mark.parametrize("name", ["/stem/conv", "/stem/conv_nchwc", "/stem/conv_token_5", "/stem/conv_quant"])
def test_an_operator_is_known_by_its_name_under_what_optimisation_appends(name: str) -> None:
    assert modules([ran("Conv", name)], optimized(("Conv", name, ["a", "b"], "renamed"))) == ["stem"]


def test_an_operator_is_known_without_the_optimised_graph_too() -> None:
    assert modules([ran("Conv", "/stem/conv")], None) == ["stem"]


@pytest.mark.parametrize("weights", ["stem.weight", "stem.weight_quantized", "stem.weight_DequantizeLinear"])
def test_a_renamed_convolution_is_known_by_its_weights(weights: str) -> None:
    graph = optimized(("QLinearConv", "fused 7", ["a", weights], "renamed"))
    assert modules([ran("QLinearConv", "fused 7")], graph) == ["stem"]


def test_a_convolution_that_swallowed_its_activation_is_still_the_convolution() -> None:
    graph = optimized(("FusedConv", "fused 7", ["a", "b"], "/act/relu"))
    assert modules([ran("FusedConv", "fused 7")], graph) == ["stem"]


def test_operators_that_share_their_name_are_told_apart_by_their_order() -> None:
    graph = optimized(("Conv", "", ["a", "stem.weight"], "p"), ("Conv", "", ["p", "head.weight"], "q"))
    assert modules([ran("Conv", ""), ran("Conv", "")], graph) == ["stem", "head"]


def quantized_network() -> Drawing:
    """x -> conv -> hard-swish -> conv, each between QuantizeLinear and DequantizeLinear, as quantizers write it."""
    drawing, x = images("onnx", 8)
    shape = (1, 8, 4, 6)
    x = drawing.add("QuantizeLinear", [x], shape, name="x_QuantizeLinear")[0]
    x = drawing.add("DequantizeLinear", [x], shape, name="x_DequantizeLinear")[0]
    for kind, module in (("Conv", "first"), ("HardSwish", "act"), ("Conv", "second")):
        name = f"/{module}/{kind.lower()}"
        x = drawing.add(kind, [x], shape, name=name, module=module)[0]
        x = drawing.add("QuantizeLinear", [x], shape, name=f"{name}_QuantizeLinear", module=module)[0]
        x = drawing.add("DequantizeLinear", [x], shape, name=f"{name}_DequantizeLinear", module=module)[0]
    return drawing


def test_parts_of_an_inlined_function_have_its_module_though_they_have_no_names() -> None:
    """ONNX Runtime takes HardSwish apart; its profiler makes up names for the parts."""
    graph = optimized(
        ("QuantizeLinear", "x_QuantizeLinear", ["x"], "q"),
        ("QLinearConv", "/first/conv_token_6", ["q"], "c"),
        ("DequantizeLinear", "/first/conv_DequantizeLinear", ["c"], "d"),
        ("HardSigmoid", "h", ["d"], "h"),
        ("Mul", "m", ["d", "h"], "m"),
        ("QuantizeLinear", "/act/hardswish_QuantizeLinear", ["m"], "r"),
        ("QLinearConv", "/second/conv_token_9", ["r"], "s"),
        ("DequantizeLinear", "/second/conv_DequantizeLinear", ["s"], "t"),
    )
    named = [ran(node.kind, node.name) for node in graph.nodes]
    rows = [*named[:3], ran("HardSigmoid", "HardSigmoid_59"), ran("Mul", "Mul_60"), *named[5:]]
    ops = attribution.op_times(rows, quantized_network().graph(), graph)
    told = ["first", "first", "first", "act", "act", "act", "second", "second"]
    assert [op.module for op in ops] == told


def test_parts_of_an_inlined_function_are_not_taken_for_what_that_reads() -> None:
    drawing, x = images("onnx", 8)
    made = drawing.add("Gemm", [x], (1, 8), name="/fc/gemm", module="fc")
    drawing.add("HardSwish", made, (1, 8), name="/act/hardswish", module="act")
    graph = optimized(
        ("FusedGemm", "fused 3", ["x"], "g"),
        ("HardSigmoid", "h", ["g"], "h"),
        ("Mul", "/act/hardswish", ["g", "h"], "/act/hardswish"),
    )
    rows = [ran("FusedGemm", "fused 3"), ran("HardSigmoid", "HardSigmoid_7"), ran("Mul", "Mul_8")]
    attributed = attribution.attribute(rows, drawing.graph(), graph)
    assert [a.module for a in attributed][1:] == ["act", "act"]


def test_a_name_that_leads_nowhere_stays_unattributed() -> None:
    assert modules([ran("Conv", "/elsewhere/conv")], optimized(("Conv", "/elsewhere/conv", ["a"], "b"))) == [None]


def test_putting_the_layout_back_is_the_convolutions_own_and_costs_no_multiplications() -> None:
    graph = optimized(("Conv", "/stem/conv_nchwc", ["a", "b"], "c"), ("ReorderOutput", "", ["c"], "d"))
    rows = [ran("Conv", "/stem/conv_nchwc", 4), ran("ReorderOutput", "", 1)]
    ops = attribution.op_times(rows, small_network().graph(), graph)
    assert [(op.module, op.class_, op.madds, op.us) for op in ops] == [
        ("stem", "conv", 1536, 4),
        ("stem", "data", 0, 1),
    ]


def test_changing_the_layout_for_a_convolution_is_that_convolutions_own() -> None:
    graph = optimized(
        ("Add", "/pre/add", ["x", "x"], "a"), ("ReorderInput", "", ["a"], "b"), ("Conv", "/stem/conv", ["b"], "c")
    )
    rows = [ran("Add", "/pre/add", 1), ran("ReorderInput", "", 2), ran("Conv", "/stem/conv", 4)]
    ops = attribution.op_times(rows, small_network().graph(), graph)
    assert [(op.op, op.module, op.madds) for op in ops] == [
        ("Add", "pre", 0),
        ("ReorderInput", "stem", 0),
        ("Conv", "stem", 1536),
    ]


def test_the_optimised_graphs_shuffles_are_seen_by_the_shapes_that_ran() -> None:
    drawing, x = images("onnx", 8)
    convolved(drawing, shuffled(drawing, convolved(drawing, x), 2))
    shapes = [drawing.tensors[node.outputs[0]].shape or () for node in drawing.nodes]
    rows = [ran(node.kind, node.name, shape=shape) for node, shape in zip(drawing.nodes, shapes, strict=True)]
    blind = Drawing("onnx")
    blind.nodes = drawing.nodes
    ops = attribution.op_times(rows, drawing.graph(), blind.graph())
    assert [op.class_ for op in ops] == ["conv", "shuffle", "shuffle", "shuffle", "conv"]


# Graphs that are made to exhaust: each of these took minutes, gigabytes or the stack


def test_a_long_chain_of_transposes_is_followed_to_its_end() -> None:
    drawing, x = images("onnx", 8)
    for _ in range(2_000):
        x = transposed(drawing, x, (0, 1, 3, 2))
    assert not shuffling(drawing.graph())


def test_a_reshape_that_reads_one_tensor_twice_is_followed_once() -> None:
    drawing, x = images("onnx", 8)
    for _ in range(40):
        shape = drawing.tensors[x].shape or ()
        x = drawing.add("Reshape", [x, x], shape)[0]
    assert not shuffling(drawing.graph())


@pytest.mark.parametrize("shape", [(1, 4_000_000, 1, 1), (1, 2, 2_000_000, 1)])
def test_chains_on_large_tensors_are_given_up(shape: Sequence[int]) -> None:
    drawing = Drawing("onnx")
    x = drawing.tensor("x", shape)
    for _ in range(5_000):
        x = transposed(drawing, x, (0, 1, 3, 2))
    assert not shuffling(drawing.graph())


@pytest.mark.parametrize("order", [(0, 1, 1, 2), (0, 1, 2), (0, 1, 2, 9)])
def test_a_permutation_that_is_none_is_no_shuffle(order: Sequence[int]) -> None:
    drawing, x = images("onnx", 8)
    drawing.add("Transpose", [x], (1, 8, 4, 6), permutation=tuple(order))
    assert not shuffling(drawing.graph())


def test_shapes_of_more_axes_than_numpy_has_are_no_shuffle() -> None:
    drawing, x = images("onnx", 8)
    drawing.add("Reshape", [reshaped(drawing, x, (*[1] * 200, 192))], (1, 8, 4, 6))
    assert not shuffling(drawing.graph())


def test_data_of_a_long_chain_belongs_to_what_reads_its_end() -> None:
    drawing, x = images("onnx", 8)
    for _ in range(20_000):
        x = drawing.add("Identity", [x], (1, 8, 4, 6))[0]
    drawing.add("Conv", [x], (1, 8, 4, 6), module="stem")
    graph = drawing.graph()
    modules = attribution.Modules(graph)
    assert {modules.of(node) for node in graph.nodes} == {"stem"}


def test_the_nearest_module_counts_and_of_equally_near_ones_the_first_reader() -> None:
    drawing, x = images("onnx", 8)
    shape = (1, 8, 4, 6)
    cast = drawing.add("Cast", [x], shape)[0]
    far = drawing.add("Identity", [cast], shape)[0]
    drawing.add("Relu", [far], shape, module="far")
    drawing.add("Conv", [cast], shape, module="first")
    drawing.add("Conv", [cast], shape, module="second")
    modules = attribution.Modules(drawing.graph())
    assert [modules.of(node) for node in drawing.nodes[:2]] == ["first", "far"]


def test_thousands_of_operators_that_wait_for_one_another_are_put_in_order() -> None:
    """Every second one is the runtime's own, so that a turn takes one operator."""
    drawing, x = images("tflite", 8)
    for _ in range(10_000):
        x = drawing.add("CONV_2D", [x], (1, 4, 6, 8), module="m")[0]
    rows = [runtime_op(i) if i % 2 else event("Nothing") for i in range(10_000)]
    assert [a.node.index for a in attribution.attribute_litert(rows, drawing.graph()) if a.node] == list(
        range(1, 10_000, 2)
    )


def test_more_events_than_can_be_compared_stay_unmatched() -> None:
    assert align(["Convolution"] * 8_000, ["conv2d"] * 8_000, [1] * 8_000) == [None] * 8_000


def test_a_network_of_two_thousand_operators_is_aligned() -> None:
    assert align(["Convolution"] * 2_000, ["conv2d"] * 2_000, [2] * 2_000) == list(range(2_000))
