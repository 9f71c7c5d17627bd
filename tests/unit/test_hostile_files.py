"""Small files that would take gigabytes, hours or the process itself: each is refused, or read, within bounds."""

import contextlib
import importlib.util
import itertools
import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper
from small_models import small_onnx

from edgeport import confined, formats
from edgeport.agent.tensors import Tensor, filler, filling
from edgeport.attribution import shuffling
from edgeport.errors import ModelFileError
from edgeport.file_analysis import analyse_file, analyse_graph
from edgeport.formats import Graph, Node
from edgeport.formats import Tensor as GraphTensor
from edgeport.formats.bounds import Budget, sizes

LIMITS = confined.Limits(seconds=1, memory=200_000_000, answer=1000)
FLOAT = TensorProto.FLOAT
SCRIPT = Path(__file__).parents[2] / "scripts" / "fuzz_readers.py"


def saved(path: Path, nodes: list[Any], **options: Any) -> Path:
    """A model of these nodes from x to y, both lists of integers."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.INT64, shape) for name, shape in (("x", [8]), ("y", None)))
    graph = helper.make_graph(nodes, "g", [x], [y], options.pop("constants", []))
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    path.write_bytes(helper.make_model(graph, opset_imports=opsets, ir_version=8, **options).SerializeToString())
    return path


def doubling(path: Path, times: int) -> Path:
    """Concatenations, each of the one before with itself."""
    names = ["x", *(f"c{n}" for n in range(times - 1)), "y"]
    nodes = [helper.make_node("Concat", [a, a], [b], axis=0) for a, b in itertools.pairwise(names)]
    return saved(path, nodes)


def nested(path: Path, depth: int) -> Path:
    """Functions, each of which calls the next one twice."""

    def function(n: int) -> Any:
        callee, domain = (f"f{n + 1}", "own") if n + 1 < depth else ("Neg", "")
        calls = [helper.make_node(callee, [a], [b], domain=domain) for a, b in (("a", "b"), ("b", "c"))]
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
        return helper.make_function("own", f"f{n}", ["a"], ["c"], calls, opsets)

    return saved(
        path, [helper.make_node("f0", ["x"], ["y"], domain="own")], functions=[function(n) for n in range(depth)]
    )


def circular(path: Path) -> Path:
    """A function that calls itself."""
    call = helper.make_node("f", ["a"], ["c"], domain="own")
    function = helper.make_function("own", "f", ["a"], ["c"], [call], [helper.make_opsetid("own", 1)])
    return saved(path, [helper.make_node("f", ["x"], ["y"], domain="own")], functions=[function])


def test_concatenations_that_double_a_shape_reach_a_limit_of_memory(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"reading .*m\.onnx was given up: it took more than its limit of \d+ MB"):
        formats.read(doubling(tmp_path / "m.onnx", 30))


def test_functions_that_double_calls_reach_a_limit_of_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "FREE_SECONDS", 1.0)
    with pytest.raises(ModelFileError, match="was given up: it took longer than its time limit of 1 s"):
        formats.read(nested(tmp_path / "m.onnx", 40))


def test_a_function_that_calls_itself_ends_no_process_but_the_child(tmp_path: Path) -> None:
    with contextlib.suppress(ModelFileError):  # onnx may read it, or crash
        assert formats.read(circular(tmp_path / "m.onnx")).nodes[0].kind == "f"


def test_a_kind_that_is_no_text_is_shown_as_well_as_it_can_be(tmp_path: Path) -> None:
    path = saved(tmp_path / "m.onnx", [helper.make_node("SequenceConstruct", ["x"], ["y"])])
    path.write_bytes(path.read_bytes().replace(b"SequenceConstruct", b"SequenceC\xffnstruct"))
    assert formats.read(path).nodes[0].kind == "SequenceC\N{REPLACEMENT CHARACTER}nstruct"
    assert analyse_file(path, "m").layers[0].type == "SequenceC\N{REPLACEMENT CHARACTER}nstruct"


def test_sizes_whose_product_is_no_size_count_as_unknown(tmp_path: Path) -> None:
    constant = TensorProto(name="w", data_type=FLOAT, dims=[2**62, 2**62])
    path = saved(tmp_path / "m.onnx", [helper.make_node("Foreign", ["x", "w"], ["y"])], constants=[constant])
    assert formats.read(path).tensors["w"].shape is None
    assert sizes([2] * 65) is None
    assert sizes([3, -7]) == (3, -1)


def test_a_list_of_very_many_integers_is_no_shape(tmp_path: Path) -> None:
    path = small_onnx(tmp_path / "m.onnx")
    model = onnx.load(path)
    extra = helper.make_tensor_value_info("many", TensorProto.UINT8, [300_000_000])
    model.graph.input.append(extra)
    path.write_bytes(model.SerializeToString())
    assert formats.read(path).inputs[-1].shape == (300_000_000,)


def test_what_a_file_refers_to_again_and_again_is_followed_in_proportion_to_its_size() -> None:
    budget = Budget(1000)
    for _ in range(500):
        assert budget.name(b"a" * 2000)
    with pytest.raises(ModelFileError, match="refer to the same 1000 bytes again and again"):
        budget.spend(100_000)
    with pytest.raises(ModelFileError, match="a name of 50000 characters"):
        Budget(1000).name(b"a" * 50_000)


@pytest.mark.parametrize("kinds", [("Reshape", "Relu"), ("Transpose",), ("DequantizeLinear",)], ids=" ".join)
def test_long_chains_are_walked_in_bounded_time(kinds: tuple[str, ...]) -> None:
    count = 20_000
    nodes = tuple(
        Node(i, kinds[i % len(kinds)], "", (f"t{i}",), (f"t{i + 1}",), None, permutation=(0, 2, 3, 1))
        for i in range(count)
    )
    tensors = {f"t{i}": GraphTensor(f"t{i}", (1, 4, 4, 4), "float32") for i in range(count + 1)}
    graph = Graph("onnx", (), (), tensors, nodes, 1)
    shuffling(graph)  # which would take many minutes if each step looked at all others
    assert len(analyse_graph(graph, "m").layers) == count


# The child


def test_a_child_answers() -> None:
    assert confined.call(lambda: b"a" * 1000, LIMITS) == b"a" * 1000


def children() -> list[str]:
    """The processes of this one, by number; other tests of the same worker may have some."""
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()


def crash() -> bytes:
    os.kill(os.getpid(), signal.SIGSEGV)
    return b""


def spin() -> bytes:
    while True:
        pass


CASES: dict[str, tuple[Callable[[], bytes], str]] = {
    "memory": (lambda: bytes(10**9), "it took more than its limit of 200 MB of memory"),
    "time": (spin, "it took longer than its time limit of 1 s"),
    "answer": (lambda: bytes(2000), "it became more than the limit"),
    "crash": (crash, "it ended by SIGSEGV"),
    "error": (lambda: bytes([300]), "it ended with exit code 70"),
}


@pytest.mark.parametrize(("function", "told"), CASES.values(), ids=CASES)
def test_a_child_that_does_not_answer_is_told_with_its_limit(function: Callable[[], bytes], told: str) -> None:
    before = children()
    with pytest.raises(confined.ConfinedError, match=told):
        confined.call(function, LIMITS)
    assert children() == before


def test_a_child_leaves_no_core_file() -> None:
    def limit() -> bytes:
        return str(resource.getrlimit(resource.RLIMIT_CORE)).encode()

    assert confined.call(limit, LIMITS) == b"(0, 0)"


# Inputs


@pytest.mark.parametrize("dtype", ["uint8", "float32", "int64"])
def test_inputs_are_filled_in_pieces_of_bounded_size(dtype: str) -> None:
    tensor = Tensor("attention_mask", dtype, [1_000_003])
    pieces = list(filling(tensor))
    assert len(pieces) > 1
    assert max(map(len, pieces)) < 1_000_000
    assert b"".join(pieces) == filler(tensor)
    assert len(filler(tensor)) == tensor.nbytes


# Files by chance


def fuzzer() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fuzz_readers", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("suffix", [".onnx", ".tflite"])
def test_damaged_files_are_read_or_refused(suffix: str) -> None:
    script = fuzzer()
    seeds = script.seed_files(None)[suffix]
    answer = confined.call(lambda: bytes(script.read_block(suffix, seeds, 7, range(300))), script.LIMITS)
    assert answer.startswith(b"ok"), answer
