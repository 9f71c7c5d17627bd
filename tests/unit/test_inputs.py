"""What a file runs with where it leaves sizes open, and the values that a user gives its inputs."""

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper
from small_models import Shape, embedding_onnx, onnx_model, onnx_value, open_tflite

from edgeport import formats, inputs
from edgeport.errors import UsageError
from edgeport.formats import Graph


def graph_of(tmp_path: Path, *values: tuple[str, Shape, int]) -> Graph:
    """Of a file that hands each input on; a size is a number, a name, or "" for an open one without a name."""
    path = tmp_path / "open.onnx"
    given = [onnx_value(name, [size or None for size in shape], dtype) for name, shape, dtype in values]
    nodes = [helper.make_node("Identity", [name], [f"{name}_out"]) for name, _, _ in values]
    made = [onnx_value(f"{name}_out", [size or None for size in shape], dtype) for name, shape, dtype in values]
    onnx.save(onnx_model(nodes, given, made, {}), path)
    return formats.read(path)


def npz(path: Path, **arrays: NDArray[Any]) -> Path:
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return path


# Sizes


@pytest.mark.parametrize(
    ("shape", "dtype", "assumed"),
    [
        ((1, 3, "", ""), TensorProto.FLOAT, (1, 3, 224, 224)),  # as of a reader of text
        (("", 3, "", ""), TensorProto.FLOAT, (1, 3, 224, 224)),
        (("", "", "", ""), TensorProto.FLOAT, (1, 3, 224, 224)),
        (("batch", "", "", 3), TensorProto.FLOAT, (1, 224, 224, 3)),  # channels last, as TensorFlow's converters write
        (("N", 1, 32, "W"), TensorProto.FLOAT, (1, 1, 32, 224)),
        (("batch_size", "sequence_length"), TensorProto.INT64, (1, 128)),
        (("b", "T", 80), TensorProto.FLOAT, (1, 128, 80)),
        (("n", 64), TensorProto.FLOAT, (1, 64)),
        (("DynamicDimension.0", 3, 640, 640), TensorProto.FLOAT, (1, 3, 640, 640)),
        ((2, 3, 8, 8), TensorProto.FLOAT, None),
    ],
)
def test_an_open_size_has_a_usable_default(
    tmp_path: Path, shape: Shape, dtype: int, assumed: tuple[int, ...] | None
) -> None:
    found = inputs.shapes(graph_of(tmp_path, ("x", shape, dtype)), {})
    assert found.assumed == found.set == ({} if assumed is None else {"x": assumed})


def test_what_a_file_calls_alike_is_of_one_size(tmp_path: Path) -> None:
    values = [(name, ("batch", "seq"), TensorProto.INT64) for name in ("ids", "mask")]
    found = inputs.shapes(graph_of(tmp_path, *values), {"ids": (2, 16)})
    assert found.set == {"ids": (2, 16), "mask": (2, 16)}
    assert found.assumed == {"mask": (2, 16)}


@pytest.mark.parametrize("name", ["x", ""])
def test_sizes_that_are_given_are_not_assumed(tmp_path: Path, name: str) -> None:
    graph = graph_of(tmp_path, ("x", (1, 3, "", ""), TensorProto.FLOAT))
    assert inputs.shapes(graph, {name: (1, 3, 48, 320)}) == inputs.Shapes({"x": (1, 3, 48, 320)}, {})


@pytest.mark.parametrize(
    ("signature", "stored", "assumed"),
    [
        ((-1, -1), (1, 1), (1, 128)),
        ((-1, 8, 8, 3), (1, 8, 8, 3), (1, 8, 8, 3)),
        ((1, -1, -1, 3), (1, 1, 1, 3), (1, 224, 224, 3)),
        ((1, -1, -1, 3), (1, 96, 96, 3), (1, 96, 96, 3)),  # what the file keeps beside is what it was made with
    ],
)
def test_a_tflite_file_tells_its_open_sizes_by_its_signature(
    tmp_path: Path, signature: Sequence[int], stored: Sequence[int], assumed: tuple[int, ...]
) -> None:
    graph = formats.read(open_tflite(tmp_path / "open.tflite", signature, stored))
    assert graph.inputs[0].shape == tuple(signature)
    assert inputs.shapes(graph, {}).assumed == {"in": assumed}
    given = tuple(5 if size < 0 else size for size in signature)
    assert inputs.shapes(graph, {"": given}) == inputs.Shapes({"in": given}, {})


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"x": (1, 4, 8, 8)}, r"--input-shape x=1,4,8,8: the model takes 1,3,\?,\?"),
        ({"x": (1, 3, 8)}, r"x=1,3,8: the model takes 1,3,\?,\?"),
        ({"x": (1, 3, 0, 8)}, r"the model takes 1,3,\?,\?"),
        ({"y": (1, 3, 8, 8)}, r"the model has no input 'y'; it has x"),
    ],
)
def test_sizes_that_the_file_does_not_leave_open_are_refused(
    tmp_path: Path, asked: dict[str, tuple[int, ...]], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        inputs.shapes(graph_of(tmp_path, ("x", (1, 3, "", ""), TensorProto.FLOAT)), asked)


def test_of_several_inputs_each_size_needs_its_name(tmp_path: Path) -> None:
    graph = graph_of(tmp_path, *((name, ("n", 4), TensorProto.FLOAT) for name in ("a", "b")))
    with pytest.raises(UsageError, match=r"the model has 2 inputs; write a=SIZES, once each"):
        inputs.shapes(graph, {"": (1, 4)})


# Values


def test_values_give_the_sizes_too(tmp_path: Path) -> None:
    graph = graph_of(tmp_path, ("x", (1, 3, "", ""), TensorProto.FLOAT))
    values = inputs.fitting(inputs.load(npz(tmp_path / "v.npz", anything=np.zeros((1, 3, 32, 48)))), graph)
    assert inputs.shapes(graph, {}, values) == inputs.Shapes({"x": (1, 3, 32, 48)}, {})
    assert values.arrays["x"].dtype == np.float32
    with pytest.raises(UsageError, match=r"x=1,3,8,8: the values given are of 1,3,32,48"):
        inputs.shapes(graph, {"x": (1, 3, 8, 8)}, values)


def test_an_image_as_pytorch_has_it_is_turned_for_a_file_that_takes_channels_last(tmp_path: Path) -> None:
    image = np.arange(1 * 3 * 8 * 8).reshape(1, 3, 8, 8)
    graph = formats.read(open_tflite(tmp_path / "open.tflite", (-1, 8, 8, 3), (1, 8, 8, 3)))
    values = inputs.fitting(inputs.load(npz(tmp_path / "v.npz", x=image)), graph)
    assert np.array_equal(values.arrays["in"], image.transpose(0, 2, 3, 1))


def test_a_record_says_which_inputs_were_given_and_by_which_file(tmp_path: Path) -> None:
    given = inputs.load(npz(tmp_path / "v.npz", b=np.zeros(1), a=np.zeros(1)))
    assert (given.record().file, given.record().inputs) == ("v.npz", ("a", "b"))
    assert len(given.record().sha256) == 64


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        (
            {"other": np.zeros((1, 4)), "ids": np.zeros((1, 4))},
            r"it has an array 'other'; the model's inputs are ids, x",
        ),
        ({}, r"it has no array; the model's inputs are ids, x"),
        ({"ids": np.zeros((1, 5), np.int64)}, r"'ids' is of 1,5: the model takes 1,4"),
        ({"ids": np.int64(3)}, r"'ids' is of a single number: the model takes 1,4"),
        ({"ids": np.full((1, 4), 0.5)}, r"'ids' holds float64, the model takes int32"),
        ({"ids": np.full((1, 4), 2**40)}, r"'ids' holds numbers that are no int32"),
        ({"x": np.zeros((1, 2), complex)}, r"'x' holds complex128, the model takes float32"),
        ({"x": np.array([["a", "b"]])}, r"'x' holds <U1, the model takes float32"),
    ],
)
def test_values_that_do_not_fit_are_refused(tmp_path: Path, arrays: dict[str, NDArray[Any]], words: str) -> None:
    graph = graph_of(tmp_path, ("ids", (1, 4), TensorProto.INT32), ("x", (1, 2), TensorProto.FLOAT))
    given = inputs.load(npz(tmp_path / "v.npz", **arrays))
    with pytest.raises(UsageError, match=rf"--input-data v\.npz: {words}"):
        inputs.fitting(given, graph)


def test_some_of_the_inputs_may_be_given_alone(tmp_path: Path) -> None:
    graph = formats.read(embedding_onnx(tmp_path / "e.onnx"))
    given = inputs.load(npz(tmp_path / "v.npz", mask=np.array([[True, False, True, True]])))
    assert inputs.fitting(given, graph).arrays["mask"].tolist() == [[1, 0, 1, 1]]


def write_text(path: Path) -> None:
    path.write_text("no archive")


def write_pickle(path: Path) -> None:
    np.savez(path, x=np.array([{"an": "object"}], dtype=object))


def write_cut(path: Path) -> None:
    np.savez(path, x=np.zeros(1000))
    path.write_bytes(path.read_bytes()[:500])


def write_liar(path: Path) -> None:
    """An array whose header promises 8 TB."""
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }".ljust(117) + b"\n"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)


def write_array(path: Path) -> None:
    with path.open("wb") as f:
        np.save(f, np.zeros(3))


@pytest.mark.parametrize("write", [write_text, write_pickle, write_cut, write_liar, write_array])
def test_a_file_that_is_no_npz_of_plain_arrays_is_refused(tmp_path: Path, write: Any) -> None:
    path = tmp_path / "v.npz"
    write(path)
    with pytest.raises(UsageError, match=r"--input-data .*v\.npz: it is not an \.npz file of plain arrays"):
        inputs.load(path)


def test_a_missing_file_is_named_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"absent\.npz.*no such file"):
        inputs.load(tmp_path / "absent.npz")


def test_a_file_that_unpacks_to_more_than_there_is_room_for_is_not_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "v.npz"
    np.savez_compressed(path, x=np.zeros(1 << 20, np.uint8))
    monkeypatch.setattr(inputs, "MOST_BYTES", 1 << 19)
    with pytest.raises(UsageError, match=r"it unpacks to 1 MiB; give 0 at most"):
        inputs.load(path)
