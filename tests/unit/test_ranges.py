"""Ranges of int8 tensors: what is moved together has one, and none gets narrower."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from edgeport.export import ranges
from edgeport.formats.graph import Graph, Node

NAMES = [f"t{i}" for i in range(8)]


def graph(*nodes: tuple[str, Sequence[str], Sequence[str]]) -> Graph:
    made = [Node(i, kind, f"n{i}", tuple(ins), tuple(outs), None) for i, (kind, ins, outs) in enumerate(nodes)]
    return Graph("onnx", (), (), {}, tuple(made), 1)


def test_what_a_concat_joins_has_the_range_of_its_result() -> None:
    found = ranges.shared(graph(("Concat", ["a", "b"], ["c"])), {"a": (-1, 1), "b": (0, 5), "c": (-1, 5)})
    assert set(found.values()) == {(-1, 5)}


def test_ranges_pass_through_slices_and_pools_but_not_through_convolutions() -> None:
    moved = graph(
        ("CONV_2D", ["x"], ["a"]),
        ("SLICE", ["a"], ["b"]),
        ("MAX_POOL_2D", ["b"], ["c"]),
        ("CONCATENATION", ["c", "d"], ["e"]),
        ("CONV_2D", ["e"], ["y"]),
    )
    given = dict.fromkeys("abce", (0.0, 1.0)) | {"x": (-9.0, 9.0), "y": (-7.0, 7.0), "d": (-2.0, 0.5)}
    found = ranges.shared(moved, given)
    assert {found[name] for name in "abcde"} == {(-2.0, 1.0)}
    assert (found["x"], found["y"]) == (given["x"], given["y"])


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
)
def test_no_range_gets_narrower_and_movers_agree(
    nodes: list[tuple[str, list[str], list[str]]], known: dict[str, tuple[float, float]]
) -> None:
    found = ranges.shared(graph(*nodes), known)
    assert found.keys() == known.keys()
    for name, (low, high) in known.items():
        assert found[name][0] <= low
        assert found[name][1] >= high
    for kind, ins, outs in nodes:
        if kind not in ("Conv", "Add"):
            assert len({found[n] for n in (*ins, *outs) if n in found}) <= 1
