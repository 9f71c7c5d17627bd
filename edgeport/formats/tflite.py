"""Reads .tflite files with the schema that ships in ai-edge-litert."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgeport.cost import convolution_madds, matmul_madds, transposed_convolution_madds
from edgeport.errors import ModelFileError
from edgeport.formats import bounds
from edgeport.formats.bounds import Budget
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
    try:
        return _Reader(schema.Model.GetRootAs(data, 0), shapes or {}, Budget(len(data))).graph()
    except ModelFileError as e:
        raise ModelFileError(f"{path} is no file that a converter writes: {e}; export it again") from e
    except MemoryError:
        raise
    except Exception as e:  # a damaged flatbuffer fails anywhere, with any error that indexing bytes can raise
        raise ModelFileError(f"{path} is a damaged TFLite model ({type(e).__name__}: {e}); export it again") from e


class _Reader:
    def __init__(self, model: Any, shapes: Mapping[str, Sequence[int]], budget: Budget) -> None:
        self.model, self.subgraph, self.shapes, self.budget = model, model.Subgraphs(0), shapes, budget
        self.kinds = _names(schema.BuiltinOperator)
        self.types = {code: name.lower() for code, name in _names(schema.TensorType).items()}
        self.names = self._io_names()
        self.known_as = {i: self._known_as(i) for i in self._ints(self.subgraph.InputsAsNumpy())}
        self.tensors = [self._tensor(i) for i in range(self.subgraph.TensorsLength())]

    def graph(self) -> Graph:
        ins, outs = self.names
        numbers = self._ints(self.subgraph.InputsAsNumpy())
        inputs = tuple(self._info(i, ins) for i in numbers)
        axes = (self._open_axes(i) for i in numbers)
        nodes = tuple(self._node(i) for i in range(self.subgraph.OperatorsLength()))
        return Graph(
            format="tflite",
            inputs=inputs,
            outputs=tuple(self._info(i, outs) for i in self._ints(self.subgraph.OutputsAsNumpy())),
            tensors={t.name: t for t in self.tensors},
            nodes=nodes,
            channel_axis=CHANNEL_AXIS,
            open_axes={info.name: found for info, found in zip(inputs, axes, strict=True) if found},
        )

    def _tensor(self, i: int) -> Tensor:
        t = self.subgraph.Tensors(i)
        buffer = self.model.Buffers(t.Buffer())
        name = f"{self.budget.name(t.Name())}#{i}"  # names may repeat, numbers do not
        known = self.known_as.get(i, name)
        return Tensor(
            name=name,
            shape=bounds.sizes(self.shapes[known] if known in self.shapes else _signature(t)),
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
        told = [{m.TensorIndex(): self.budget.name(m.Name()) for m in maps} for maps in (ins, outs)]
        return told[0], told[1]

    def _known_as(self, i: int) -> str:
        """The name by which a user knows an input."""
        return self.names[0].get(i) or self.budget.name(self.subgraph.Tensors(i).Name())

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
            kind = self.budget.name(code.CustomCode()) or "CUSTOM"
        inputs = [self.tensors[i] if i >= 0 else None for i in self._ints(op.InputsAsNumpy())]
        outputs = [self.tensors[i] for i in self._ints(op.OutputsAsNumpy())]
        self.budget.spend(sum(len(t.name) for t in (*inputs, *outputs) if t))
        name = outputs[0].name.rpartition("#")[0] if outputs else ""
        return Node(
            index=index,
            kind=kind,
            name=name,
            inputs=tuple(t.name for t in inputs if t),
            outputs=tuple(t.name for t in outputs),
            module=module_of(name),
            custom=custom,
            madds=None if custom else bounds.count(_madds(kind, inputs, outputs)),
            permutation=self._constant(op, 1) if kind == "TRANSPOSE" else None,
            axis=self._axis(kind, op, inputs, outputs),
            indices=self._constant(op, 1) if kind == "GATHER" else None,
        )

    def _ints(self, values: Any) -> list[int]:
        if isinstance(values, int):  # flatbuffers' way to say that there are none
            return []
        self.budget.spend(values.nbytes)
        return [int(v) for v in values]

    def _open_axes(self, i: int) -> tuple[Axis, ...]:
        """Of an input: a file keeps a size beside each that it leaves open, which is what it is run with by default."""
        t = self.subgraph.Tensors(i)
        sizes = enumerate(_signature(t))
        return tuple(Axis(d, stored=int(t.Shape(d)) if d < t.ShapeLength() else 0) for d, size in sizes if size < 1)

    def _constant(self, op: Any, position: int) -> tuple[int, ...] | None:
        """The values of a constant integer input, where they are few."""
        if op.InputsLength() <= position:
            return None
        t = self.subgraph.Tensors(op.Inputs(position))
        data = self.model.Buffers(t.Buffer()).DataAsNumpy()
        if isinstance(data, int) or len(data) > 8 * bounds.MOST_INDICES:  # flatbuffers' way to say that there is none
            return None
        self.budget.spend(len(data))
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
    """The shape of a tensor, -1 where the file leaves a size open; one of more axes than any is cut short."""
    shape = t.ShapeSignature if t.ShapeSignatureLength() else t.Shape
    rank = t.ShapeSignatureLength() or t.ShapeLength()
    return tuple(int(shape(d)) for d in range(min(rank, bounds.MOST_RANK + 1)))


def _names(enum: Any) -> dict[int, str]:
    return {value: name for name, value in vars(enum).items() if isinstance(value, int)}


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
