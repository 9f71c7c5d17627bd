"""fp32.tflite -> int8.tflite by ai-edge-quantizer: static, weights int8 per channel, activations int8."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from ai_edge_litert.tools import flatbuffer_utils
from ai_edge_quantizer import qtyping, quantizer, recipe
from ai_edge_quantizer.algorithm_manager import AlgorithmName

from edgeport import formats
from edgeport.export import float_operators, quantization
from edgeport.export.job import Job, channels_last
from edgeport.export.quantization import Array, Layer, Sample
from edgeport.export.ranges import Range, Tensors
from edgeport.formats.tflite import CHANNEL_AXIS
from edgeport.records import Quantized

EVERYTHING = ".*"
LAYERS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
NONE, RELU = schema.ActivationFunctionType.NONE, schema.ActivationFunctionType.RELU


def run(job: Job) -> Quantized:
    """Writes int8.tflite. Inputs and outputs stay floats unless the job asks otherwise."""
    samples = list(zip(*map(channels_last, job.samples()), strict=True))
    return quantization.run(TfliteFile(job), samples, job)


class TfliteFile:
    """Tensors go by the names that formats.read gives them: the file's own, #, and their number."""

    channel_axis = -1

    def __init__(self, job: Job) -> None:
        self._job = job
        source = job.folder / "fp32.tflite"
        self.graph = formats.read(source)
        self._model = flatbuffer_utils.read_model(str(source))
        self._tensors = self._model.subgraphs[0].tensors
        self._data: bytes | None = source.read_bytes()
        answers = [self._name(i) for i in self._model.subgraphs[0].outputs]
        self._floats = [self._is_float(name) for name in answers]
        self.output_names = [name for name, is_float in zip(answers, self._floats, strict=True) if is_float]
        pieces = [labels for labels, is_float in zip(job.pieces().values(), self._floats, strict=True) if is_float]
        self.labels = [labels.transpose(0, 2, 3, 1) if labels.ndim == 4 else labels for labels in pieces]
        self._known = {name.rpartition("#")[0]: name for name in self.graph.tensors}
        self._watch = float_operators.Watch(self.graph, self.constant, self.output_names)

    def limits(self) -> Mapping[str, Range]:
        """None: fused activations are attributes of the operators, whatever the ranges are."""
        return {}

    def needs_float(self) -> list[str]:
        return self._watch.operators()

    def layers(self) -> list[Layer]:
        found = []
        for node, op in zip(self.graph.nodes, self._model.subgraphs[0].operators, strict=True):
            constants = node.inputs[1:]
            if node.kind not in LAYERS or not all(self.graph.tensors[name].constant for name in constants):
                continue
            activation, depthwise = op.builtinOptions.fusedActivationFunction, node.kind == "DEPTHWISE_CONV_2D"
            found.append(
                Layer(
                    name=node.name,
                    input=node.inputs[0],
                    output=node.outputs[0],
                    weight=constants[0],
                    bias=constants[1] if len(constants) > 1 else "",
                    channel_axis=CHANNEL_AXIS if depthwise else 0,
                    depthwise=depthwise,
                    linear=activation == NONE,
                    homogeneous=activation in (NONE, RELU),
                    madds=node.madds or 0,
                )
            )
        return found

    def constant(self, name: str) -> Array:
        tensor, buffer = self._buffer(name)
        return np.frombuffer(bytes(buffer.data), np.float32).reshape(tensor.shape)

    def set_constant(self, name: str, value: Array) -> None:
        tensor, buffer = self._buffer(name)
        if sum(other.buffer == tensor.buffer for other in self._tensors) > 1:
            buffer, tensor.buffer = schema.BufferT(), len(self._model.buffers)
            self._model.buffers.append(buffer)
        buffer.data = np.frombuffer(np.ascontiguousarray(value, np.float32).tobytes(), np.uint8)
        self._data = None

    def tensors(self, samples: Sequence[Sample]) -> Iterator[Tensors]:
        for tensors in self._computed(self._bytes(), samples):
            self._watch.note(tensors)
            yield tensors

    def quantize(self, found: Mapping[str, Range], floats: Sequence[str]) -> Path:
        quantize = quantizer.Quantizer(self._bytes(), recipe.static_wi8_ai8())
        if not self._job.int8_io:
            for edge in (qtyping.TFLOperationName.INPUT, qtyping.TFLOperationName.OUTPUT):
                quantize.update_quantization_recipe(EVERYTHING, edge, algorithm_key=AlgorithmName.NO_QUANTIZE)
        if floats:
            names = "|".join(map(re.escape, floats))
            quantize.update_quantization_recipe(
                f"^({names})(;|$)", qtyping.TFLOperationName.ALL_SUPPORTED, algorithm_key=AlgorithmName.NO_QUANTIZE
            )
        ranges = {name.rpartition("#")[0]: _extremes(*found[name]) for name in found}
        made = quantize.quantize(ranges, enable_progress_report=False).quantized_model
        path = self._job.folder / "int8.tflite"
        path.write_bytes(made)
        return path

    def outputs(self, path: Path, samples: Sequence[Sample]) -> list[list[Array]]:
        interpreter = Interpreter(str(path), num_threads=1)
        interpreter.allocate_tensors()
        details = [d for d, is_float in zip(interpreter.get_output_details(), self._floats, strict=True) if is_float]
        made = []
        for sample in samples:
            self._invoke(interpreter, sample)
            made.append([_real(interpreter.get_tensor(d["index"]), d) for d in details])
        return made

    def quantized_tensors(self, path: Path, samples: Sequence[Sample]) -> Iterator[Tensors]:
        yield from self._computed(path.read_bytes(), samples)

    def _bytes(self) -> bytes:
        if self._data is None:
            self._data = bytes(flatbuffer_utils.convert_object_to_bytearray(self._model))
        return self._data

    def _name(self, i: int) -> str:
        return f"{self._tensors[i].name.decode()}#{i}"

    def _buffer(self, name: str) -> tuple[Any, Any]:
        tensor = self._tensors[int(name.rpartition("#")[2])]
        return tensor, self._model.buffers[tensor.buffer]

    def _computed(self, data: bytes, samples: Sequence[Sample]) -> Iterator[Tensors]:
        """All tensors of numbers that are no constants, as real numbers, without a delegate that would hide them."""
        interpreter = Interpreter(
            model_content=data,
            num_threads=1,
            experimental_preserve_all_tensors=True,
            experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        )
        interpreter.allocate_tensors()
        shown = [d for d in interpreter.get_tensor_details() if self._is_shown(d)]
        for sample in samples:
            self._invoke(interpreter, sample)
            yield {self._known[d["name"]]: _real(interpreter.get_tensor(d["index"]), d) for d in shown}

    def _is_shown(self, details: Mapping[str, Any]) -> bool:
        name = self._known.get(details["name"])
        known = name is not None and self._is_float(name)
        return known and bool(details["dtype"] == np.float32 or details["quantization"][0])

    def _is_float(self, name: str) -> bool:
        return self.graph.tensors[name].dtype == "float32" and not self.graph.tensors[name].constant

    def _invoke(self, interpreter: Interpreter, sample: Sample) -> None:
        for details, array in zip(interpreter.get_input_details(), sample, strict=True):
            scale, zero = details["quantization"]
            limits = np.iinfo(details["dtype"]) if scale else None
            stored = np.clip(np.round(array / scale) + zero, limits.min, limits.max) if limits else array
            interpreter.set_tensor(details["index"], stored.astype(details["dtype"]))
        interpreter.invoke()


def _extremes(low: float, high: float) -> dict[str, Array]:
    """As the quantizer takes them. Of no axis: it gives them to constants too, of other ranks than the tensor's."""
    return {"min": np.array(low, np.float32), "max": np.array(high, np.float32)}


def _real(array: Array, details: Mapping[str, Any]) -> Array:
    scale, zero = details["quantization"]
    return (array.astype(np.float32) - zero) * np.float32(scale) if scale else array
