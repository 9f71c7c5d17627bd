"""Operators that int8 leaves in float, on drawn graphs: masks, statistics, and fixed ranges that are hardly filled."""

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from edgeport.export import float_operators
from edgeport.export.float_operators import Values
from edgeport.formats.graph import Graph, Node, Tensor

Drawn = tuple[str, Sequence[str], Sequence[str]]


def left(
    *nodes: Drawn, format: str = "tflite", outputs: Sequence[str] = (), constants: Sequence[str] = (), **values: object
) -> list[str]:
    """Which operators stay in float, by the name of what they make. values: of tensors, by name."""
    drawn = [Node(i, kind, outs[0], tuple(ins), tuple(outs), None) for i, (kind, ins, outs) in enumerate(nodes)]
    names = {name for _, ins, outs in nodes for name in (*ins, *outs)}
    tensors = {name: Tensor(name, (1, 4), "float32", constant=name in constants) for name in names}
    known = Values()
    for name, numbers in values.items():
        known.note(name, np.asarray(numbers, np.float32))
    return float_operators.find(Graph(format, (), (), tensors, tuple(drawn), 1), known, outputs)


SMALL = {"LOGISTIC": [0.001, 0.05], "TANH": [-0.1, 0.2], "SOFTMAX": [0.01, 0.2]}


@pytest.mark.parametrize("kind", SMALL)
def test_an_answer_that_fills_little_of_a_fixed_range_stays_in_float(kind: str) -> None:
    assert left((kind, ["x"], ["y"]), outputs=["y"], y=SMALL[kind]) == ["y"]


@pytest.mark.parametrize("kind", SMALL)
def test_an_answer_that_fills_its_fixed_range_is_of_integers(kind: str) -> None:
    assert left((kind, ["x"], ["y"]), outputs=["y"], y=[-0.9, 0.9] if kind == "TANH" else [0.0, 0.9]) == []


def test_shares_reach_an_output_through_moves_joins_and_constants() -> None:
    nodes = (
        ("LOGISTIC", ["x"], ["shares"]),
        ("RESHAPE", ["shares"], ["moved"]),
        ("MUL", ["moved", "hundred"], ["percent"]),
        ("CONCATENATION", ["boxes", "percent"], ["all"]),
    )
    assert left(*nodes, outputs=["all"], constants=["hundred"], shares=[0.01, 0.2]) == ["shares"]


@pytest.mark.parametrize(("largest", "floats"), [(0.05, ["gate"]), (0.2, [])])
def test_within_a_network_a_sigmoid_may_fill_less_than_half_of_its_range(largest: float, floats: list[str]) -> None:
    nodes = (("LOGISTIC", ["x"], ["gate"]), ("MUL", ["x", "gate"], ["y"]), ("CONV_2D", ["y", "w"], ["z"]))
    assert left(*nodes, outputs=["z"], constants=["w"], gate=[0.0, largest]) == floats


def test_onnx_fixes_the_range_of_softmaxes_alone() -> None:
    nodes = (("Sigmoid", ["x"], ["a"]), ("Tanh", ["x"], ["b"]), ("Softmax", ["x"], ["c"]))
    given = {name: [0.0, 0.05] for name in "abc"}
    assert left(*nodes, format="onnx", outputs=["a", "b", "c"], **given) == ["c"]  # type: ignore[arg-type]


LOWEST = float(np.finfo(np.float32).min)
MASKS: Mapping[str, float] = {"infinite": -np.inf, "lowest": LOWEST, "1e9": -1e9, "1e4": -1e4}


@pytest.mark.parametrize("masked", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("kind", ["Add", "Where"])
def test_what_holds_a_mask_stays_in_float_and_products_do_not(kind: str, masked: float) -> None:
    nodes = (
        ("MatMul", ["q", "k"], ["scores"]),
        (kind, ["scores", "mask"], ["masked"]),
        ("Softmax", ["masked"], ["weights"]),
        ("MatMul", ["weights", "v"], ["y"]),
    )
    given = {"scores": [-3, 2], "mask": [0, masked], "masked": [-3, 2, masked], "weights": [0, 0.9], "y": [-1, 1]}
    assert left(*nodes, format="onnx", outputs=["y"], **given) == ["masked", "weights"]  # type: ignore[arg-type]


def test_a_padding_of_minus_infinity_is_no_mask() -> None:
    assert left(("PADV2", ["x"], ["p"]), ("MAX_POOL_2D", ["p"], ["y"]), x=[-1, 1], p=[-np.inf, 1], y=[-1, 1]) == []


def test_the_statistics_of_a_norm_stay_in_float_with_what_they_scale() -> None:
    nodes = (
        ("CONV_2D", ["x", "w"], ["a"]),
        ("MEAN", ["a", "axes"], ["mean"]),
        ("SQUARED_DIFFERENCE", ["a", "mean"], ["squares"]),
        ("MEAN", ["squares", "axes"], ["variance"]),
        ("ADD", ["variance", "epsilon"], ["safe"]),
        ("RSQRT", ["safe"], ["scale"]),
        ("SUB", ["a", "mean"], ["centred"]),
        ("MUL", ["centred", "scale"], ["normal"]),
        ("MUL", ["normal", "gamma"], ["scaled"]),
        ("CONV_2D", ["scaled", "w"], ["y"]),
    )
    found = left(*nodes, outputs=["y"], constants=["w", "axes", "epsilon", "gamma"])
    assert set(found) == {nodes[i][2][0] for i in range(1, 9)}


def test_a_division_by_a_constant_is_of_integers() -> None:
    assert left(("DIV", ["x", "c"], ["y"]), outputs=["y"], constants=["c"], x=[-1, 1], y=[-1, 1]) == []
