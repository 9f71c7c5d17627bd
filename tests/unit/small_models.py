"""Real model files of a few hundred bytes, made here, and graphs drawn by hand."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgeport.export.flatbuffer import Builder
from edgeport.formats import Graph, Node, Tensor

OPSET, IR_VERSION = 17, 8  # old enough for any ONNX Runtime
Shape = Sequence[int | str | None]


def onnx_value(name: str, shape: Shape, dtype: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, list(shape))


def onnx_model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    constants: Mapping[str, NDArray[Any]],
) -> onnx.ModelProto:
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "small", inputs, outputs, initializers)
    return helper.make_model(graph, ir_version=IR_VERSION, opset_imports=[helper.make_opsetid("", OPSET)])


def one_node_onnx(
    path: Path, kind: str, data: Shape, weights: Sequence[int], out: Shape = ("a", "b", "c", "d"), **attributes: Any
) -> Path:
    """x -> kind(x, w) -> y, its output's shape left to be inferred."""
    node = helper.make_node(kind, ["x", "w"], ["y"], name=f"/layer/{kind}", **attributes)
    constants = {"w": np.ones(weights, np.float32)}
    onnx.save(onnx_model([node], [onnx_value("x", data)], [onnx_value("y", out)], constants), path)
    return path


def small_onnx(path: Path) -> Path:
    """Conv 3x3 of 3 to 8 channels, then Relu, on 1x3x8x8: runs in microseconds."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="/stem/conv2d", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["y"], name="/relu"),
    ]
    shapes = onnx_value("x", (1, 3, 8, 8)), onnx_value("y", (1, 8, 8, 8))
    onnx.save(onnx_model(nodes, shapes[:1], shapes[1:], {"w": np.ones((8, 3, 3, 3), np.float32)}), path)
    return path


def one_operator_tflite(
    path: Path,
    kind: str,
    inputs: Sequence[Sequence[int] | NDArray[Any]],
    out: Sequence[int],
    options: tuple[str, dict[str, Any]] | None = None,
) -> Path:
    """kind(inputs) -> out; an input is a shape, or the values of a constant."""
    builder = Builder()
    numbers, free = [], {}
    for n, given in enumerate(inputs):
        if isinstance(given, np.ndarray):
            numbers.append(builder.constant(f"w{n}", given))
        else:
            numbers.append(builder.tensor(f"x{n}", given, "float32"))
            free[f"in{n}"] = numbers[-1]
    result = builder.tensor(f"/layer/{kind.lower()}", out, "float32")
    builder.operator(kind, numbers, [result], options)
    path.write_bytes(builder.finish(free, {"out": result}))
    return path


def small_tflite(path: Path) -> Path:
    """CONV_2D 3x3 of 3 to 8 channels on 1x8x8x3: runs in microseconds."""
    weights, bias = np.ones((8, 3, 3, 3), np.float32), np.zeros(8, np.float32)
    options = "Conv2D", {"strideH": 1, "strideW": 1, "dilationHFactor": 1, "dilationWFactor": 1}
    return one_operator_tflite(path, "CONV_2D", [(1, 8, 8, 3), weights, bias], (1, 8, 8, 8), options)


def open_tflite(path: Path, signature: Sequence[int], stored: Sequence[int]) -> Path:
    """Doubles its input, whose sizes are those of the signature; -1 leaves one open, beside which another is stored."""
    builder = Builder()
    x, y = (builder.tensor(name, stored, "float32") for name in ("x", "y"))
    for tensor in (x, y):
        builder.subgraph.tensors[tensor].shapeSignature = np.array(signature, np.int32)
    builder.operator("ADD", [x, x], [y], ("Add", {}))
    path.write_bytes(builder.finish({"in": x}, {"out": y}))
    return path


def embedding_onnx(path: Path) -> Path:
    """Rows of a table by ids, of which a mask keeps some: integers decide what it computes."""
    nodes = [
        helper.make_node("Gather", ["w", "ids"], ["rows"], name="/words/Gather"),
        helper.make_node("Unsqueeze", ["mask", "last"], ["column"]),
        helper.make_node("Cast", ["column"], ["factor"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["rows", "factor"], ["y"]),
    ]
    given = [onnx_value(name, (1, 4), TensorProto.INT64) for name in ("ids", "mask")]
    table = np.arange(20, dtype=np.float32).reshape(10, 2)
    model = onnx_model(nodes, given, [onnx_value("y", (1, 4, 2))], {"w": table, "last": np.array([-1])})
    onnx.save(model, path)
    return path


def mixed_tflite(path: Path) -> Path:
    """CONV_2D, which XNNPACK takes over, then CUMSUM over the height, then over the width, which it
    does not know.
    """
    builder, shape = Builder(), (1, 64, 64, 8)
    image, weights = builder.tensor("x", (1, 64, 64, 3), "float32"), np.ones((8, 1, 1, 3), np.float32)
    made = [builder.tensor(name, shape, "float32") for name in ("conv", "rows", "columns")]
    inputs = [image, builder.constant("w", weights), builder.constant("b", np.zeros(8, np.float32))]
    strides = {"strideH": 1, "strideW": 1, "dilationHFactor": 1, "dilationWFactor": 1}
    builder.operator("CONV_2D", inputs, made[:1], ("Conv2D", strides))
    for axis in (1, 2):
        over = builder.constant("axis", np.array(axis, np.int32))
        builder.operator("CUMSUM", [made[axis - 1], over], [made[axis]], ("Cumsum", {}))
    path.write_bytes(builder.finish({"in": image}, {"out": made[-1]}))
    return path


MAKE = {"litert": small_tflite, "onnxruntime": small_onnx}
SUFFIX = {"litert": ".tflite", "onnxruntime": ".onnx"}
RUNTIMES = sorted(MAKE)


def small_model(folder: Path, runtime: str) -> Path:
    """One that this runtime runs in microseconds."""
    return MAKE[runtime](folder / f"small{SUFFIX[runtime]}")


class Drawing:
    """A graph drawn operator by operator. Channels are at axis 1 in an ONNX drawing, at 3 in a TFLite one."""

    def __init__(self, format: str) -> None:
        self.format = format
        self.tensors: dict[str, Tensor] = {}
        self.nodes: list[Node] = []

    def tensor(self, name: str, shape: Sequence[int], constant: bool = False) -> str:
        self.tensors[name] = Tensor(name, tuple(shape), "float32", constant)
        return name

    def add(self, kind: str, inputs: Sequence[str], *shapes: Sequence[int], name: str = "", **fields: Any) -> list[str]:
        """The names of its outputs: the operator's own, numbered from the second one on."""
        name = name or f"{kind}_{len(self.nodes)}"
        outputs = [self.tensor(f"{name}:{i}" if i else name, shape) for i, shape in enumerate(shapes)]
        fields.setdefault("module", None)
        self.nodes.append(Node(len(self.nodes), kind, name, tuple(inputs), tuple(outputs), **fields))
        return outputs

    def graph(self) -> Graph:
        axis = {"onnx": 1, "tflite": 3}[self.format]
        return Graph(self.format, (), (), self.tensors, tuple(self.nodes), axis)
