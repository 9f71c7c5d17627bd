"""Which int8 tensors have one range: what is moved always, what is joined where it costs little and loses nothing."""

import math
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeport.export import joins
from edgeport.export.joins import Rules
from edgeport.export.ranges import Range
from edgeport.formats.graph import Graph, Node, Tensor

NAMES = [f"t{i}" for i in range(8)]
Drawn = tuple[str, Sequence[str], Sequence[str]]


def graph(*nodes: Drawn, tensors: Mapping[str, Tensor] | None = None) -> Graph:
    drawn = [Node(i, kind, f"n{i}", tuple(ins), tuple(outs), None) for i, (kind, ins, outs) in enumerate(nodes)]
    named = {name: Tensor(name, (1, 4), "float32") for _, ins, outs in nodes for name in (*ins, *outs)}
    return Graph("onnx", (), (), {**named, **(tensors or {})}, tuple(drawn), 1)


def planned(
    drawing: Graph, ranges: Mapping[str, Range], most_db: float = math.inf, **rules: object
) -> dict[str, Range]:
    return joins.plan(drawing, ranges, Rules(**rules), most_db).ranges  # type: ignore[arg-type]


def test_what_a_concat_joins_has_the_range_of_its_result() -> None:
    found = planned(graph(("Concat", ["a", "b"], ["c"])), {"a": (-1, 1), "b": (0, 5), "c": (-1, 5)})
    assert set(found.values()) == {(-1, 5)}


def test_ranges_pass_through_slices_and_pools_but_not_through_convolutions() -> None:
    moved = graph(
        ("CONV_2D", ["x"], ["a"]),
        ("SLICE", ["a"], ["b"]),
        ("MAX_POOL_2D", ["b"], ["c"]),
        ("CONCATENATION", ["c", "d"], ["e"]),
        ("CONV_2D", ["e"], ["y"]),
    )
    measured = dict.fromkeys("abc", (0.0, 1.0)) | {
        "x": (-9.0, 9.0),
        "y": (-7.0, 7.0),
        "d": (-2.0, 0.5),
        "e": (-2.0, 1.0),
    }
    found = planned(moved, measured)
    assert {found[name] for name in "abcde"} == {(-2.0, 1.0)}
    assert (found["x"], found["y"]) == (measured["x"], measured["y"])


SKIP = graph(
    ("Conv", ["x"], ["skip"]),
    ("MaxPool", ["skip"], ["pooled"]),
    ("Conv", ["pooled"], ["deep"]),
    ("Concat", ["skip", "deep"], ["both"]),
    ("Conv", ["both"], ["y"]),
)
SKIPPED = {"skip": (0.0, 1.0), "pooled": (0.0, 1.0), "deep": (0.0, 4.0), "both": (0.0, 4.0)}


@pytest.mark.parametrize(("most_db", "shared"), [(math.inf, True), (12.1, True), (12.0, False), (0.0, False)])
def test_a_piece_that_is_read_elsewhere_keeps_its_range_where_sharing_costs_too_much(
    most_db: float, shared: bool
) -> None:
    plan = joins.plan(SKIP, SKIPPED, Rules(), most_db)
    assert plan.ranges["skip"] == plan.ranges["pooled"] == ((0.0, 4.0) if shared else (0.0, 1.0))
    assert plan.ranges["deep"] == (0.0, 4.0)  # nobody else reads it
    (told,) = plan.joins
    assert (told.pieces, told.shared) == (2, 2 if shared else 1)
    assert told.cost_db == pytest.approx(12.04 if shared else 0.0, abs=0.01)


def test_the_cost_is_that_of_all_that_share_a_range() -> None:
    dense = graph(
        ("Concat", ["a", "b"], ["ab"]),
        ("Conv", ["ab"], ["c"]),
        ("Concat", ["a", "b", "c"], ["abc"]),
        ("Conv", ["abc"], ["y"]),
    )
    ranges = {"a": (0.0, 1.0), "b": (0.0, 1.0), "ab": (0.0, 1.0), "c": (0.0, 8.0), "abc": (0.0, 8.0)}
    apart = planned(dense, ranges, 6.0)
    assert (apart["ab"], apart["a"], apart["c"], apart["abc"]) == ((0.0, 1.0), (0.0, 1.0), (0.0, 8.0), (0.0, 8.0))
    assert set(planned(dense, ranges).values()) == {(0.0, 8.0)}


@pytest.mark.parametrize("limit", [(0.0, math.inf), (0.0, 6.0), (-1.0, 1.0)])
def test_no_range_leaves_the_limits_of_an_activation_that_is_left_to_it(limit: Range) -> None:
    drawing = graph(("Concat", ["relu", "signed"], ["both"]), ("Conv", ["both"], ["y"]))
    ranges = {"relu": (max(limit[0], -1.0), 1.0), "signed": (-9.0, 9.0), "both": (-9.0, 9.0)}
    found = planned(drawing, ranges, limits={"relu": limit})
    assert found["relu"] == ranges["relu"]
    assert found["signed"] == found["both"] == (-9.0, 9.0)


def test_two_activations_of_one_kind_share() -> None:
    drawing = graph(("Concat", ["a", "b"], ["both"]))
    ranges = {"a": (0.0, 1.0), "b": (0.0, 3.0), "both": (0.0, 3.0)}
    limits = {"a": (0.0, math.inf), "b": (0.0, math.inf)}
    assert set(planned(drawing, ranges, limits=limits).values()) == {(0.0, 3.0)}


def test_padding_with_a_number_far_out_does_not_widen_what_is_padded() -> None:
    drawing = graph(("PADV2", ["x"], ["padded"]), ("CONV_2D", ["x"], ["y"]))
    ranges = {"x": (0.0, 1.0), "padded": (-100.0, 1.0), "y": (0.0, 1.0)}
    assert planned(drawing, ranges, 0.0) == ranges


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["Concat", "Split", "Conv", "Add", "Transpose"]),
            st.lists(st.sampled_from(NAMES), min_size=1, max_size=3),
            st.lists(st.sampled_from(NAMES), min_size=1, max_size=2),
        ),
        max_size=6,
    ),
    st.dictionaries(
        st.sampled_from(NAMES), st.tuples(st.floats(-5, 0), st.floats(0, 5)).filter(lambda r: r[0] <= r[1])
    ),
    st.sampled_from([-1.0, 0.0, 1.0, 6.0, math.inf]),
    st.lists(st.sampled_from(NAMES), max_size=2),
)
def test_no_range_gets_narrower_and_none_costs_more_than_it_may(
    nodes: list[Drawn], known: dict[str, Range], most_db: float, limited: list[str]
) -> None:
    limits = {name: (0.0, math.inf) for name in limited if name in known and known[name][0] == 0}
    plan = joins.plan(graph(*nodes), known, Rules(limits=limits), most_db)
    assert plan.ranges.keys() == known.keys()
    for name, (low, high) in known.items():
        assert plan.ranges[name][0] <= low
        assert plan.ranges[name][1] >= high
    assert all(told.cost_db <= max(most_db, 0.0) and told.shared <= told.pieces for told in plan.joins)


# Pieces of unlike ranges

BOXES, SCORES = (0.0, 600.0), (0.0, 1.0)


def test_the_last_join_of_unlike_pieces_and_what_lies_behind_it_stay_in_float() -> None:
    drawing = graph(
        ("Conv", ["x"], ["boxes"]),
        ("Sigmoid", ["s"], ["scores"]),
        ("Concat", ["boxes", "scores"], ["both"]),
        ("Transpose", ["both"], ["turned"]),
        ("Mul", ["turned", "scale"], ["y"]),
        tensors={"scale": Tensor("scale", (), "float32", constant=True)},
    )
    assert joins.unlike_at_outputs(drawing, ["y"], {"boxes": BOXES, "scores": SCORES}) == ["n4", "n3", "n2"]
    assert joins.unlike_at_outputs(drawing, ["y"], {"boxes": BOXES, "scores": BOXES}) == []
    assert joins.unlike_at_outputs(drawing, ["boxes"], {"boxes": BOXES, "scores": SCORES}) == []


def test_joins_that_feed_the_last_one_are_taken_apart_too() -> None:
    drawing = graph(
        ("Concat", ["b1", "s1"], ["level1"]),
        ("Reshape", ["level1"], ["flat1"]),
        ("Concat", ["b2", "s2"], ["level2"]),
        ("Concat", ["flat1", "level2"], ["y"]),
    )
    ranges = {"b1": BOXES, "b2": BOXES, "s1": SCORES, "s2": SCORES, "level1": BOXES, "level2": BOXES, "flat1": BOXES}
    assert sorted(joins.unlike_at_outputs(drawing, ["y"], ranges)) == ["n0", "n1", "n2", "n3"]


def test_a_join_before_a_computation_is_no_output_s() -> None:
    drawing = graph(("Concat", ["boxes", "scores"], ["both"]), ("Conv", ["both"], ["y"]))
    assert joins.unlike_at_outputs(drawing, ["y"], {"boxes": BOXES, "scores": SCORES}) == []


def test_an_operator_in_float_shares_no_range() -> None:
    drawing = graph(("Concat", ["boxes", "scores"], ["y"]))
    ranges = {"boxes": BOXES, "scores": SCORES, "y": BOXES}
    assert planned(drawing, ranges, outputs=["y"], floats=["n0"]) == ranges


def test_unlike_pieces_that_are_cut_apart_again_are_told_with_the_moves_between() -> None:
    drawing = graph(
        ("Concat", ["boxes", "scores"], ["both"]),
        ("Reshape", ["both"], ["flat"]),
        ("Split", ["flat"], ["b", "s"]),
        ("Sigmoid", ["s"], ["y"]),
    )
    assert joins.unlike_and_cut_apart(drawing, {"boxes": BOXES, "scores": SCORES}) == ["n0", "n1", "n2"]
    assert joins.unlike_and_cut_apart(drawing, {"boxes": BOXES, "scores": BOXES}) == []
    assert joins.unlike_and_cut_apart(SKIP, SKIPPED) == []
