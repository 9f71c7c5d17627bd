"""Builds a .tflite file operator by operator, with the schema classes that ship in ai-edge-litert."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools import flatbuffer_utils
from numpy.typing import NDArray

SCHEMA_VERSION = 3
SIGNATURE = "serving_default"
# Of operators that are written in a form which the first version did not have.
VERSIONS = {"BROADCAST_TO": 2, "TRANSPOSE_CONV": 3}  # the only one, and the one with a bias
TENSOR_TYPES = {
    "float32": schema.TensorType.FLOAT32,
    "int32": schema.TensorType.INT32,
    "bool": schema.TensorType.BOOL,
}


class Builder:
    """One subgraph. Tensors are numbers, constants with equal content are stored once, names are made unique."""

    def __init__(self) -> None:
        self.model = schema.ModelT()
        self.model.version = SCHEMA_VERSION
        self.model.description = "made by edgeport"
        self.model.buffers = [schema.BufferT()]
        self.model.operatorCodes = []
        self.subgraph = schema.SubGraphT()
        self.subgraph.name = "main"
        self.subgraph.tensors, self.subgraph.operators = [], []
        self.subgraph.inputs, self.subgraph.outputs = [], []
        self.model.subgraphs = [self.subgraph]
        self._names: dict[str, int] = {}
        self._constants: dict[tuple[str, tuple[int, ...], bytes], int] = {}
        self._codes: dict[str, int] = {}

    def tensor(self, name: str, shape: Sequence[int], dtype: str, buffer: int = 0) -> int:
        tensor = schema.TensorT()
        tensor.name = self._unique(name).encode()
        tensor.shape = np.array(shape, np.int32)
        tensor.type = TENSOR_TYPES[dtype]
        tensor.buffer = buffer
        self.subgraph.tensors.append(tensor)
        return len(self.subgraph.tensors) - 1

    def constant(self, name: str, value: NDArray[Any]) -> int:
        value = np.ascontiguousarray(value)
        key = (str(value.dtype), value.shape, value.tobytes())
        if key not in self._constants:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(key[2], np.uint8)
            self.model.buffers.append(buffer)
            self._constants[key] = self.tensor(name, value.shape, key[0], len(self.model.buffers) - 1)
        return self._constants[key]

    def shape(self, tensor: int) -> tuple[int, ...]:
        return tuple(int(d) for d in self.subgraph.tensors[tensor].shape)

    def operator(
        self,
        kind: str,
        inputs: Sequence[int],
        outputs: Sequence[int],
        options: tuple[str, dict[str, Any]] | None = None,
    ) -> Any:
        """options: the schema's options table without its "Options", and the fields to set in it."""
        op = schema.OperatorT()
        op.opcodeIndex = self._code(kind)
        op.inputs, op.outputs = list(inputs), list(outputs)
        if options:
            table, fields = options
            op.builtinOptionsType = getattr(schema.BuiltinOptions, f"{table}Options")
            op.builtinOptions = getattr(schema, f"{table}OptionsT")()
            for field, value in fields.items():
                setattr(op.builtinOptions, field, value)
        self.subgraph.operators.append(op)
        return op

    def finish(self, inputs: dict[str, int], outputs: dict[str, int]) -> bytes:
        """The file's bytes. The signature gives inputs and outputs these names; tensors keep their own."""
        signature = schema.SignatureDefT()
        signature.signatureKey = SIGNATURE.encode()
        signature.inputs = [_mapped(name, i) for name, i in inputs.items()]
        signature.outputs = [_mapped(name, i) for name, i in outputs.items()]
        self.model.signatureDefs = [signature]
        self.subgraph.inputs, self.subgraph.outputs = list(inputs.values()), list(outputs.values())
        return bytes(flatbuffer_utils.convert_object_to_bytearray(self.model))

    def _unique(self, name: str) -> str:
        self._names[name] = self._names.get(name, 0) + 1
        return name if self._names[name] == 1 else f"{name}_{self._names[name]}"

    def _code(self, kind: str) -> int:
        if kind not in self._codes:
            code = schema.OperatorCodeT()
            code.builtinCode = getattr(schema.BuiltinOperator, kind)
            code.deprecatedBuiltinCode = min(code.builtinCode, 127)  # the schema's own rule for old readers
            code.version = VERSIONS.get(kind, 1)
            self.model.operatorCodes.append(code)
            self._codes[kind] = len(self.model.operatorCodes) - 1
        return self._codes[kind]


def _mapped(name: str, tensor: int) -> Any:
    entry = schema.TensorMapT()
    entry.name, entry.tensorIndex = name.encode(), tensor
    return entry
