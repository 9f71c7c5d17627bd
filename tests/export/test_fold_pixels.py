"""A first convolution on blocks of pixels computes what it did on pixels."""

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import helper
from onnx import numpy_helper as arrays

from edgeport.export import fold_pixels

from .networks import few


def stem(
    size: tuple[int, int] = (16, 16),
    kernel: tuple[int, int] = (3, 3),
    pads: tuple[int, ...] = (1, 1, 1, 1),
    **given: Any,
) -> onnx.ModelProto:
    channels = given.pop("channels", 3)
    attributes = {"kernel_shape": list(kernel), "strides": [2, 2], "pads": list(pads), **given}
    groups = attributes.get("group", 1)
    weight = np.random.default_rng(0).standard_normal((6, channels // groups, *kernel)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "weight"], ["y"], name="/conv1.0/conv", **attributes)],
        "stem",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, (2, channels, *size))],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
        [arrays.from_array(weight, "weight")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return onnx.shape_inference.infer_shapes(model, strict_mode=True)


def answer(model: onnx.ModelProto) -> NDArray[Any]:
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    shape = session.get_inputs()[0].shape
    made: NDArray[Any] = session.run(None, {"x": np.random.default_rng(1).standard_normal(shape).astype(np.float32)})[0]
    return made


@few
@given(
    half=st.tuples(st.integers(4, 9), st.integers(4, 9)),
    kernel=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    pads=st.tuples(*[st.integers(0, 3)] * 4),
    channels=st.integers(1, 4),
)
def test_the_answer_stays(
    half: tuple[int, int], kernel: tuple[int, int], pads: tuple[int, int, int, int], channels: int
) -> None:
    model = stem((2 * half[0], 2 * half[1]), kernel, pads, channels=channels)
    before = answer(model)
    folded = fold_pixels.run(model)
    assert folded == (model.graph.node[0].op_type == "SpaceToDepth")
    np.testing.assert_allclose(answer(model), before, atol=1e-5)


def test_the_stem_of_imagenet_networks_reads_blocks() -> None:
    model = stem((224, 224))
    assert fold_pixels.run(model)
    assert [node.name for node in model.graph.node] == ["/conv1.0/space_to_depth", "/conv1.0/conv"]
    assert list(arrays.to_array(model.graph.initializer[0]).shape) == [6, 12, 2, 2]


@pytest.mark.parametrize(
    "other",
    [
        {"strides": [1, 1]},
        {"size": (15, 16)},
        {"dilations": [2, 2]},
        {"channels": 3, "group": 3},
        {"channels": 8},
        {"auto_pad": "SAME_UPPER", "pads": ()},
    ],
    ids=str,
)
def test_other_convolutions_stay(other: dict[str, Any]) -> None:
    if "auto_pad" in other:
        model = stem()
        del model.graph.node[0].attribute[:]
        attributes = {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_UPPER"}
        model.graph.node[0].attribute.extend(helper.make_attribute(k, v) for k, v in attributes.items())
    else:
        model = stem(**other)
    before = model.SerializeToString()
    assert not fold_pixels.run(model)
    assert model.SerializeToString() == before


def test_weights_that_another_convolution_has_too_stay() -> None:
    model = stem(channels=3)
    model.graph.initializer[0].CopyFrom(arrays.from_array(np.ones((3, 3, 3, 3), np.float32), "weight"))
    again = helper.make_node("Conv", ["y", "weight"], ["z"], name="/again/conv", kernel_shape=[3, 3])
    model.graph.node.append(again)
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, (2, 3, 6, 6)))
    shown = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, (2, 3, 8, 8))
    model.graph.value_info.append(shown)
    before = answer(model)
    assert not fold_pixels.run(model)
    assert np.array_equal(answer(model), before)
