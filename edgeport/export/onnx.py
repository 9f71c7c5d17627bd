"""Captured graph -> ONNX by torch.onnx; int8 by ONNX Runtime's quantizer."""

import itertools
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import torch
from onnx import TensorProto
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.calibrate import TensorData, TensorsData, create_calibrator, save_tensors_data
from onnxscript import optimizer

from edgeport import formats
from edgeport.export import fold_pixels, ranges
from edgeport.export.job import Job
from edgeport.formats.names import operator_name

NAME_SCOPES = "pkg.torch.onnx.name_scopes"
# What ONNX Runtime's kernels want as activations: VNNI multiplies unsigned by signed bytes, sdot signed by signed.
ACTIVATIONS = {"x86": QuantType.QUInt8, "arm": QuantType.QInt8}


Int8Program = Callable[[Job], torch.export.ExportedProgram | None]


def convert(job: Job, program: torch.export.ExportedProgram, int8_program: Int8Program) -> Iterator[tuple[str, Path]]:
    """Writes fp32.onnx, and int8.onnx if asked for; yields (precision, path) after each.

    int8_program: what int8 is made from, None if from the same.
    """
    fp32, source, int8 = (job.folder / name for name in ("fp32.onnx", "source.onnx", "int8.onnx"))
    model = _exported(program, job)
    onnx.save(model, fp32)
    yield "fp32", fp32
    if "int8" in job.precisions:
        other = int8_program(job)
        model = model if other is None else _exported(other, job)
        if job.optimize and job.target == "x86" and not job.int8_io:
            fold_pixels.run(model)
        onnx.save(model, source)
        _quantize(source, int8, job)
        yield "int8", int8


def _exported(program: torch.export.ExportedProgram, job: Job) -> onnx.ModelProto:
    exported = torch.onnx.export(program, dynamo=True, optimize=False, verbose=False)
    assert exported is not None
    optimizer.optimize_ir(exported.model)
    return ir.to_proto(_renamed(exported.model, job))


def _renamed(model: ir.Model, job: Job) -> ir.Model:
    """Operators named by their module, inputs and outputs by the network's; source text and paths left out."""
    modules = {node: _module(node) for node in model.graph}
    taken: dict[str, int] = {}
    for node in model.graph:
        module = modules[node]
        name = operator_name(_shared(node, modules) if module is None else module, node.op_type.lower())
        taken[name] = taken.get(name, 0) + 1
        node.name = name if taken[name] == 1 else f"{name}_{taken[name]}"
        for i, value in enumerate(node.outputs):
            value.name = node.name if i == 0 else f"{node.name}:{i}"
    for node in model.graph:
        node.metadata_props.clear()
    for value in (*model.graph.initializers.values(), *model.graph.inputs, *model.graph.outputs):
        value.metadata_props.clear()
    model.graph.metadata_props.clear()
    model.metadata_props.clear()
    for values, names in ((model.graph.inputs, job.input_names), (model.graph.outputs, job.output_names)):
        for value, name in zip(values, names, strict=True):
            value.name = name
    model.producer_version = None
    return model


def _module(node: ir.Node) -> str | None:
    """From what torch.onnx wrote beside the node; None where its optimiser made the node and wrote nothing."""
    text = node.metadata_props.get(NAME_SCOPES)
    if text is None:
        return None
    scopes = [s.strip(" '\"") for s in text.strip("[]").split(",")]
    return re.sub(r"@\d+$", "", scopes[-2]) if len(scopes) > 1 else ""


def _shared(node: ir.Node, modules: dict[ir.Node, str | None]) -> str:
    """The innermost module that holds all readers of what the node makes."""
    readers = [modules.get(use.node) for value in node.outputs for use in value.uses()]
    paths = [path.split(".") for path in readers if path is not None]
    shared = [scopes[0] for scopes in itertools.takewhile(lambda s: len(set(s)) == 1, zip(*paths, strict=False))]
    return ".".join(shared)


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, names: Sequence[str], arrays: Sequence[np.ndarray[Any, Any]]) -> None:
        self._samples: Iterator[dict[str, Any]] = iter(
            [dict(zip(names, sample, strict=True)) for sample in zip(*arrays, strict=True)]
        )

    def get_next(self) -> dict[str, Any] | None:
        return next(self._samples, None)


def _quantize(source: Path, path: Path, job: Job) -> None:
    """Static QDQ: weights int8 per channel, activations as the target's kernels want."""
    logging.getLogger().setLevel(logging.ERROR)  # it advises a preprocessing that has already been done
    found = job.folder / "ranges.json"
    save_tensors_data(_ranges(source, job), found)
    quantize_static(
        source,
        path,
        calibration_cache_path=found,
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        weight_type=QuantType.QInt8,
        activation_type=ACTIVATIONS[job.target],
    )
    quantized = onnx.load(path)
    if job.int8_io:
        _strip_edges(quantized)
    quantized.graph.ClearField("metadata_props")
    onnx.save(quantized, path)


def _ranges(fp32: Path, job: Job) -> TensorsData:
    """The smallest and largest values of all tensors over the samples, one for those that are moved together."""
    calibrator = create_calibrator(fp32, augmented_model_path=str(job.folder / "augmented.onnx"))
    calibrator.collect_data(_Reader(job.input_names, job.samples()))
    found = calibrator.compute_data()
    if job.optimize:
        given = {name: (float(np.min(data.lowest)), float(np.max(data.highest))) for name, data in found.items()}
        for name, extremes in ranges.shared(formats.read(fp32), given).items():
            low, high = (np.array(value, np.float32) for value in extremes)
            found[name] = TensorData(lowest=low, highest=high)
    return found


def _strip_edges(model: onnx.ModelProto) -> None:
    """Makes integer inputs and outputs: takes away the operators that convert them from and to floats."""
    graph = model.graph
    types = {t.name: t.data_type for t in graph.initializer}
    for value in graph.input:
        for node in [n for n in graph.node if n.op_type == "QuantizeLinear" and n.input[0] == value.name]:
            _rename(graph, node.output[0], value.name)
            value.type.tensor_type.elem_type = types[node.input[2]]
            graph.node.remove(node)
    for value in graph.output:
        for node in [n for n in graph.node if n.op_type == "DequantizeLinear" and n.output[0] == value.name]:
            quantized, code = node.input[0], types[node.input[2]]
            if any(value.name in n.input for n in graph.node):  # the network goes on with it as floats
                _rename(graph, value.name, f"{value.name}/float")
            else:
                graph.node.remove(node)
            _rename(graph, quantized, value.name)
            value.type.tensor_type.elem_type = code
    assert all(v.type.tensor_type.elem_type != TensorProto.UNDEFINED for v in (*graph.input, *graph.output))


def _rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    for node in graph.node:
        for names in (node.input, node.output):
            for i, name in enumerate(names):
                if name == old:
                    names[i] = new
