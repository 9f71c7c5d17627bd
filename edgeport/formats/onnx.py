"""Reads .onnx files with the onnx package."""

from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path

import msgspec
import onnx
from onnx import numpy_helper, shape_inference

from edgeport.cost import convolution_madds, matmul_madds, transposed_convolution_madds
from edgeport.errors import ModelFileError
from edgeport.formats import bounds
from edgeport.formats.bounds import Budget, text
from edgeport.formats.graph import Axis, Graph, Node, Tensor
from edgeport.formats.names import module_of
from edgeport.records import Quantization, TensorInfo

CHANNEL_AXIS = 1
SCOPES = "pkg.torch.onnx.name_scopes"
# Input that holds the weights, by kind: those of quantised operators follow their scales (ONNX Runtime's contrib ops).
WEIGHTS = {"QLinearConv": 3, "QGemm": 3, "QLinearMatMul": 3}
CONVOLUTIONS = ("Conv", "FusedConv", "QLinearConv", "ConvInteger", "NhwcFusedConv")
PRODUCTS = ("Gemm", "MatMul", "FusedGemm", "FusedMatMul", "QGemm", "QLinearMatMul", "MatMulInteger")
UNCOUNTED = (
    *("Einsum", "LSTM", "GRU", "RNN", "DeformConv", "If", "Loop", "Scan", "MatMulNBits", "DynamicQuantizeMatMul"),
    *("Attention", "MultiHeadAttention", "GroupQueryAttention", "QAttention", "PackedAttention"),
)
# Whose operators are known: those of other domains, and the file's own functions, may compute anything.
DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft", "com.microsoft.nchwc", "com.ms.internal.nhwc")
DTYPES: dict[int, str] = {
    onnx.TensorProto.FLOAT: "float32",
    onnx.TensorProto.DOUBLE: "float64",
    onnx.TensorProto.FLOAT16: "float16",
}


def read(path: Path, shapes: Mapping[str, Sequence[int]] | None = None) -> Graph:
    """The main graph, its shapes inferred from the inputs' (which may be set here by name), and where that leaves any
    open those given here.

    Raises ModelFileError for a file that is no ONNX model or is damaged.
    """
    try:
        model = onnx.load(path, load_external_data=False)
        if not model.graph.node:
            raise ModelFileError("it holds no operators")
        return _Reader(_inferred(model, shapes or {}), shapes or {}, Budget(path.stat().st_size)).graph()
    except ModelFileError as e:
        raise ModelFileError(f"{path} is not an ONNX model, or is damaged: {e}; export it again") from e
    except MemoryError:
        raise
    except Exception as e:  # damaged bytes may still parse, and then fail anywhere
        raise ModelFileError(f"{path} is not an ONNX model, or is damaged ({type(e).__name__}: {e})") from e


def _inferred(model: onnx.ModelProto, input_shapes: Mapping[str, Sequence[int]]) -> onnx.ModelProto:
    """With all shapes that follow from the inputs'; as it is where onnx cannot tell (foreign operators)."""
    for value in model.graph.input:
        if value.name in input_shapes:
            _set_shape(value, input_shapes[value.name])
    try:
        return shape_inference.infer_shapes(model, data_prop=_has_short_lists(model))
    except (shape_inference.InferenceError, ValueError, RuntimeError):
        return model


def _has_short_lists(model: onnx.ModelProto) -> bool:
    """Whether onnx may follow the values of shapes: it takes any list of integers for one, and writes each of its
    elements down.
    """
    ranks = (value.type.tensor_type.shape.dim for value in model.graph.input)
    return all(len(dims) != 1 or dims[0].dim_value <= bounds.MOST_RANK for dims in ranks)


class _Reader:
    def __init__(self, model: onnx.ModelProto, shapes: Mapping[str, Sequence[int]], budget: Budget) -> None:
        self.model, self.budget = model, budget
        self.constants = {text(t.name): t for t in model.graph.initializer}
        self.constants |= {
            text(n.output[0]): a.t
            for n in model.graph.node
            if n.op_type == "Constant"
            for a in n.attribute
            if a.name == "value"
        }
        self.tensors = {name: _constant_tensor(name, t) for name, t in self.constants.items()}
        for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
            if value.type.HasField("tensor_type") and text(value.name) not in self.tensors:
                self.tensors[text(value.name)] = _value_tensor(value)
        self.quantizing = _quantizing(model.graph.node)
        for name, shape in shapes.items():
            tensor = self.tensors.get(name, Tensor(name, None, ""))
            if tensor.shape is None or min(tensor.shape, default=1) < 0:
                self.tensors[name] = msgspec.structs.replace(tensor, shape=bounds.sizes(shape))

    def graph(self) -> Graph:
        graph = self.model.graph
        nodes = [n for n in graph.node if n.op_type != "Constant"]
        inputs = [v for v in graph.input if text(v.name) not in self.constants]
        opsets = {o.domain: o.version for o in self.model.opset_import}
        return Graph(
            format="onnx",
            inputs=tuple(self._info(v, "DequantizeLinear") for v in inputs),
            outputs=tuple(self._info(v, "QuantizeLinear") for v in graph.output),
            tensors=self.tensors,
            nodes=tuple(self._node(i, n) for i, n in enumerate(nodes)),
            channel_axis=CHANNEL_AXIS,
            opset=opsets.get("", opsets.get("ai.onnx")),
            open_axes={text(v.name): axes for v in inputs if (axes := _open_axes(v))},
        )

    def _info(self, value: onnx.ValueInfoProto, quantizing: str) -> TensorInfo:
        """quantizing: the kind of operator that tells what the integers of such an input or output mean."""
        name = self.budget.name(value.name)
        tensor = self.tensors.get(name) or Tensor(name, (), "not a tensor")
        layout = "NCHW" if len(tensor.shape or ()) == 4 else None
        node = self.quantizing.get((quantizing, name)) if tensor.dtype in ("int8", "uint8") else None
        quantization = self._quantization(node) if node else None
        return TensorInfo(name, tensor.shape or (), tensor.dtype, layout, quantization)

    def _quantization(self, node: onnx.NodeProto) -> Quantization | None:
        """None where it is computed, in another file, or by channel."""
        known = [self.constants.get(text(i)) for i in node.input[1:3]]
        if any(t is None or t.data_location == onnx.TensorProto.EXTERNAL or prod(t.dims) != 1 for t in known):
            return None
        scale, *zero = (numpy_helper.to_array(t) for t in known if t is not None)
        return Quantization(float(scale.item()), int(zero[0].item()) if zero else 0)

    def _node(self, index: int, node: onnx.NodeProto) -> Node:
        attributes = {a.name: a for a in node.attribute if a.name in ("axis", "perm")}
        inputs, outputs = (tuple(self.budget.name(i) for i in ends if i) for ends in (node.input, node.output))
        name = self.budget.name(node.name) or (text(node.output[0]) if node.output else "")
        kind = self.budget.name(node.op_type)
        permutation = attributes["perm"].ints if kind == "Transpose" and "perm" in attributes else ()
        return Node(
            index=index,
            kind=kind,
            name=name,
            inputs=inputs,
            outputs=outputs,
            module=None if self._is_dequantized_constant(node) else _module(node, name),
            madds=bounds.count(self._madds(node)),
            permutation=tuple(permutation) if 0 < len(permutation) <= bounds.MOST_RANK else None,
            axis=self._axis(node, attributes["axis"].i if "axis" in attributes else 0),
            indices=self._values(text(node.input[1])) if kind == "Gather" else None,
        )

    def _is_dequantized_constant(self, node: onnx.NodeProto) -> bool:
        """Named after the constant, it is part of what reads it."""
        return node.op_type == "DequantizeLinear" and bool(node.input) and text(node.input[0]) in self.constants

    def _shape(self, name: str | bytes) -> tuple[int, ...] | None:
        tensor = self.tensors.get(text(name))
        shape = tensor.shape if tensor else None
        return shape if shape is not None and min(shape, default=1) >= 0 else None

    def _madds(self, node: onnx.NodeProto) -> int | None:
        """Weight layouts as in ONNX: Conv O,I/group,kernel; ConvTranspose I,O/group,kernel; MatMul ...,K,N."""
        kind = node.op_type
        if kind in UNCOUNTED or node.domain not in DOMAINS:
            return None
        if kind not in (*CONVOLUTIONS, *PRODUCTS, "ConvTranspose"):
            return 0
        out, weights = self._shape(node.output[0]), self._shape(node.input[WEIGHTS.get(kind, 1)])
        data = self._shape(node.input[0])
        if kind == "ConvTranspose":
            return transposed_convolution_madds(data, weights[1:]) if data and weights else None
        if out is None or weights is None:
            return None
        if kind in CONVOLUTIONS:
            return convolution_madds(out, weights[1:])
        transposed = any(a.name == "transB" and a.i for a in node.attribute)
        return matmul_madds(out, weights[-1] if transposed or len(weights) < 2 else weights[-2])

    def _axis(self, node: onnx.NodeProto, axis: int) -> int | None:
        shape = self._shape(node.input[0]) if node.input else None
        if node.op_type in ("Split", "Gather"):
            return axis % len(shape) if shape else axis
        if node.op_type != "Slice":
            return None
        after = self._shape(node.output[0])
        changed = [d for d, (a, b) in enumerate(zip(shape or (), after or (), strict=False)) if a != b]
        return changed[0] if len(changed) == 1 else None

    def _values(self, name: str) -> tuple[int, ...] | None:
        """Of a constant of few numbers."""
        constant = self.constants.get(name)
        if constant is None or constant.data_location == onnx.TensorProto.EXTERNAL:
            return None
        if not 0 <= prod(constant.dims) <= bounds.MOST_INDICES:
            return None
        self.budget.spend(8 * prod(constant.dims))
        return tuple(int(v) for v in numpy_helper.to_array(constant).ravel())


def _quantizing(nodes: Sequence[onnx.NodeProto]) -> dict[tuple[str, str], onnx.NodeProto]:
    """The first node of each kind that reads or makes a tensor in eight bits, by kind and the tensor's name."""
    told: dict[tuple[str, str], onnx.NodeProto] = {}
    for node in nodes:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") and node.input and node.output:
            for name in (node.input[0], node.output[0]):
                told.setdefault((node.op_type, text(name)), node)
    return told


def _module(node: onnx.NodeProto, name: str) -> str | None:
    """From the scopes that torch.onnx writes beside a node, else from its name, else from what it makes."""
    for entry in node.metadata_props:
        if entry.key == SCOPES:
            scopes = [part.strip(" '\"") for part in text(entry.value).strip("[]").split(",")]
            return scopes[-2] if len(scopes) > 1 else ""
    found = module_of(name)
    return found if found is not None or not node.output else module_of(text(node.output[0]))


def _set_shape(value: onnx.ValueInfoProto, shape: Sequence[int]) -> None:
    dims = value.type.tensor_type.shape
    dims.ClearField("dim")
    for size in shape:
        dims.dim.add().dim_value = size


def _constant_tensor(name: str, t: onnx.TensorProto) -> Tensor:
    return Tensor(name, bounds.sizes(t.dims), _dtype(t.data_type), constant=True)


def _value_tensor(value: onnx.ValueInfoProto) -> Tensor:
    kind = value.type.tensor_type
    shape = None
    if kind.HasField("shape"):
        shape = bounds.sizes([d.dim_value if d.HasField("dim_value") else -1 for d in kind.shape.dim])
    return Tensor(text(value.name), shape, _dtype(kind.elem_type))


def _open_axes(value: onnx.ValueInfoProto) -> tuple[Axis, ...]:
    dims = enumerate(value.type.tensor_type.shape.dim)
    return tuple(Axis(i, text(d.dim_param)) for i, d in dims if not d.HasField("dim_value") or d.dim_value < 1)


def _dtype(code: int) -> str:
    return DTYPES.get(code) or str(onnx.TensorProto.DataType.Name(code)).lower()
