"""Reads .tflite files with the schema that ships in ai-edge-litert."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgeport.cost import convolution_madds, matmul_madds, transposed_convolution_madds
from edgeport.errors import ModelFileError
from edgeport.formats.graph import Axis, Graph, Node, Tensor
from edgeport.formats.names import module_of
from edgeport.records import Quantization, TensorInfo

IDENTIFIER = b"TFL3"
CHANNEL_AXIS = 3
COUNTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV", "BATCH_MATMUL", "CONV_3D")
UNCOUNTED = (
    *("LSTM", "RNN", "SVDF", "UNIDIRECTIONAL_SEQUENCE_LSTM", "UNIDIRECTIONAL_SEQUENCE_RNN", "CONV_3D_TRANSPOSE"),
    *("BIDIRECTIONAL_SEQUENCE_LSTM", "BIDIRECTIONAL_SEQUENCE_RNN", "IF", "WHILE", "CALL_ONCE", "LSH_PROJECTION"),
)


def read(path: Path, shapes: Mapping[str, Sequence[int]] | None = None) -> Graph:
    """The main subgraph. shapes: of tensors by name, inputs by what a user knows them by. Raises ModelFileError for a
    file that is no TFLite model or is damaged.
    """
    data = path.read_bytes()
    if data[4:8] != IDENTIFIER:
        raise ModelFileError(f"{path} is not a TFLite model (its identifier is {data[4:8]!r}, not {IDENTIFIER!r})")
    from ai_edge_litert import schema_py_generated as schema

    try:
        return _Reader(schema, schema.Model.GetRootAs(data, 0), shapes or {}).graph()
    except Exception as e:  # a damaged flatbuffer fails anywhere, with any error that indexing bytes can raise
        raise ModelFileError(f"{path} is a damaged TFLite model ({type(e).__name__}: {e}); export it again") from e


class _Reader:
    def __init__(self, schema: Any, model: Any, shapes: Mapping[str, Sequence[int]]) -> None:
        self.model, self.subgraph, self.shapes = model, model.Subgraphs(0), shapes
        self.kinds = _names(schema.BuiltinOperator)
        self.types = {code: name.lower() for code, name in _names(schema.TensorType).items()}
        self.names = self._io_names()
        self.known_as = {i: self._known_as(i) for i in _ints(self.subgraph.InputsAsNumpy())}
        self.tensors = [self._tensor(i) for i in range(self.subgraph.TensorsLength())]

    def graph(self) -> Graph:
        ins, outs = self.names
        inputs = tuple(self._info(i, ins) for i in self.subgraph.InputsAsNumpy())
        axes = (self._open_axes(i) for i in self.subgraph.InputsAsNumpy())
        nodes = tuple(self._node(i) for i in range(self.subgraph.OperatorsLength()))
        return Graph(
            format="tflite",
            inputs=inputs,
            outputs=tuple(self._info(i, outs) for i in self.subgraph.OutputsAsNumpy()),
            tensors={t.name: t for t in self.tensors},
            nodes=nodes,
            channel_axis=CHANNEL_AXIS,
            open_axes={info.name: found for info, found in zip(inputs, axes, strict=True) if found},
        )

    def _tensor(self, i: int) -> Tensor:
        t = self.subgraph.Tensors(i)
        buffer = self.model.Buffers(t.Buffer())
        name = f"{(t.Name() or b'').decode(errors='replace')}#{i}"  # names may repeat, numbers do not
        return Tensor(
            name=name,
            shape=tuple(self.shapes.get(self.known_as.get(i, name), _signature(t))),
            dtype=self.types.get(t.Type(), str(t.Type())),
            constant=buffer.DataLength() > 0 or buffer.Offset() > 1,
            quantization=_quantization(t.Quantization()),
        )

    def _io_names(self) -> tuple[dict[int, str], dict[int, str]]:
        """Signature names of tensors, which are what a user knows them by."""
        if not self.model.SignatureDefsLength():
            return {}, {}
        signature = self.model.SignatureDefs(0)
        ins = [signature.Inputs(i) for i in range(signature.InputsLength())]
        outs = [signature.Outputs(i) for i in range(signature.OutputsLength())]
        return tuple({m.TensorIndex(): m.Name().decode() for m in maps} for maps in (ins, outs))  # type: ignore[return-value]

    def _known_as(self, i: int) -> str:
        """The name by which a user knows an input."""
        return self.names[0].get(i) or (self.subgraph.Tensors(i).Name() or b"").decode(errors="replace")

    def _info(self, i: int, names: dict[int, str]) -> TensorInfo:
        tensor = self.tensors[i]
        name = names.get(int(i), tensor.name.rpartition("#")[0])
        layout = "NHWC" if len(tensor.shape or ()) == 4 else None
        return TensorInfo(name, tensor.shape or (), tensor.dtype, layout, tensor.quantization)

    def _node(self, index: int) -> Node:
        op = self.subgraph.Operators(index)
        code = self.model.OperatorCodes(op.OpcodeIndex())
        kind = self.kinds[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())]
        custom = kind == "CUSTOM"
        if custom:
            kind = (code.CustomCode() or b"CUSTOM").decode()
        inputs = [self.tensors[i] if i >= 0 else None for i in _ints(op.InputsAsNumpy())]
        outputs = [self.tensors[i] for i in _ints(op.OutputsAsNumpy())]
        name = outputs[0].name.rpartition("#")[0] if outputs else ""
        return Node(
            index=index,
            kind=kind,
            name=name,
            inputs=tuple(t.name for t in inputs if t),
            outputs=tuple(t.name for t in outputs),
            module=module_of(name),
            custom=custom,
            madds=None if custom else _madds(kind, inputs, outputs),
            permutation=self._constant(op, 1) if kind == "TRANSPOSE" else None,
            axis=self._axis(kind, op, inputs, outputs),
            indices=self._constant(op, 1) if kind == "GATHER" else None,
        )

    def _open_axes(self, i: int) -> tuple[Axis, ...]:
        """Of an input: a file keeps a size beside each that it leaves open, which is what it is run with by default."""
        t = self.subgraph.Tensors(i)
        sizes = enumerate(_signature(t))
        return tuple(Axis(d, stored=int(t.Shape(d)) if d < t.ShapeLength() else 0) for d, size in sizes if size < 1)

    def _constant(self, op: Any, position: int) -> tuple[int, ...] | None:
        """The values of a constant integer input."""
        if op.InputsLength() <= position:
            return None
        t = self.subgraph.Tensors(op.Inputs(position))
        data = self.model.Buffers(t.Buffer()).DataAsNumpy()
        if isinstance(data, int):  # flatbuffers' way to say that there is none
            return None
        dtype = {"int32": np.int32, "int64": np.int64}.get(self.types[t.Type()])
        return tuple(int(v) for v in data.view(dtype)) if dtype else None

    def _axis(self, kind: str, op: Any, inputs: Sequence[Tensor | None], outputs: Sequence[Tensor]) -> int | None:
        """The one axis along which it takes slices: for slices, the one whose size changes."""
        if kind == "SPLIT":
            axis = self._constant(op, 0)
            return axis[0] % len(outputs[0].shape or (0,)) if axis else None
        if kind not in ("SLICE", "STRIDED_SLICE", "SPLIT_V", "GATHER") or not inputs or inputs[0] is None:
            return None
        before, after = inputs[0].shape or (), outputs[0].shape or ()
        changed = [d for d, (a, b) in enumerate(zip(before, after, strict=False)) if a != b]
        return changed[0] if len(changed) == 1 and len(before) == len(after) else None


def _signature(t: Any) -> tuple[int, ...]:
    """The shape of a tensor, -1 where the file leaves a size open."""
    shape = t.ShapeSignature if t.ShapeSignatureLength() else t.Shape
    return tuple(int(shape(d)) for d in range(t.ShapeSignatureLength() or t.ShapeLength()))


def _names(enum: Any) -> dict[int, str]:
    return {value: name for name, value in vars(enum).items() if isinstance(value, int)}


def _ints(values: Any) -> list[int]:
    return [] if isinstance(values, int) else [int(v) for v in values]


def _quantization(q: Any) -> Quantization | None:
    """Of a whole tensor; per-channel scales belong to weights and are not told here."""
    if q is None or q.ScaleLength() != 1:
        return None
    return Quantization(float(q.Scale(0)), int(q.ZeroPoint(0)) if q.ZeroPointLength() else 0)


def _madds(kind: str, inputs: Sequence[Tensor | None], outputs: Sequence[Tensor]) -> int | None:
    """Weight layouts as in TFLite's schema: CONV_2D O,H,W,I; DEPTHWISE_CONV_2D 1,H,W,O; TRANSPOSE_CONV O,H,W,I."""
    if kind in UNCOUNTED or kind.startswith("STABLEHLO_"):
        return None
    if kind not in COUNTED:
        return 0
    shapes = [t.shape if t else None for t in inputs]
    out = outputs[0].shape
    weights = shapes[1] if len(shapes) > 1 else None
    if out is None or weights is None or min((*out, *weights), default=1) < 0:
        return None
    if kind == "DEPTHWISE_CONV_2D":
        return convolution_madds(out, weights[1:3])
    if kind == "CONV_3D":
        return convolution_madds(out, weights[:4])
    if kind == "TRANSPOSE_CONV":
        return transposed_convolution_madds(shapes[2] or (), weights[:3])
    if kind == "BATCH_MATMUL":
        left = shapes[0] or (0, 0)
        return matmul_madds(out, left[-1] * left[-2] // out[-2])  # whichever of its two axes is the inner one
    return convolution_madds(out, weights[1:])
