"""Captured graph -> TFLite by litert-torch; int8 by ai-edge-quantizer."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import litert_torch
import numpy as np
import torch
from ai_edge_litert.tools import flatbuffer_utils
from ai_edge_quantizer import qtyping, quantizer, recipe
from ai_edge_quantizer.algorithm_manager import AlgorithmName

from edgeport import graph
from edgeport.export.job import Job
from edgeport.formats.names import operator_name

SIGNATURE = "serving_default"
EVERYTHING = ".*"


def convert(job: Job, program: torch.export.ExportedProgram) -> Iterator[tuple[str, Path]]:
    """Writes fp32.tflite, and from it int8.tflite if asked for; yields (precision, path) after each."""
    captured = program.module(check_guards=False)
    gm = torch.fx.GraphModule(captured, captured.graph)  # without its checks of the shapes that are about to change
    graph.run_passes(gm, ("tflite",))
    example = tuple(_channels_last(t) for t in program.example_inputs[0])
    converted = litert_torch.convert(gm, example)
    paths = _paths_by_scope(gm)
    model = flatbuffer_utils.read_model_from_bytearray(converted.model_content())
    _rename(model, paths, job)
    data = bytes(flatbuffer_utils.convert_object_to_bytearray(model))
    fp32 = job.folder / "fp32.tflite"
    fp32.write_bytes(data)
    yield "fp32", fp32
    if "int8" in job.precisions:
        int8 = job.folder / "int8.tflite"
        int8.write_bytes(_quantize(data, job))
        yield "int8", int8


def _channels_last(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.permute(0, 2, 3, 1).contiguous() if tensor.dim() == 4 else tensor


def _paths_by_scope(gm: torch.fx.GraphModule) -> dict[str, str]:
    """litert-torch's names for modules (a.Net/b.Conv2d_conv1) -> the modules' paths (conv1)."""
    paths = {}
    for node in gm.graph.nodes:
        scope, before = "", ""
        for path, kind in (node.meta.get("nn_module_stack") or {}).values():
            path = re.sub(r"@\d+$", "", str(path))
            own = path[len(before) :].lstrip(".") if path.startswith(before) else path
            kind = kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__qualname__}"
            scope += f"/{kind}_{own}" if own else f"/{kind}"
            paths[scope.lstrip("/")] = path
            before = path
    return paths


def _rename(model: Any, paths: dict[str, str], job: Job) -> None:
    """Tensors named by module and operator, each name once; inputs and outputs by the network's names."""
    subgraph, signature = model.subgraphs[0], model.signatureDefs[0]
    taken: dict[str, int] = {}
    for tensor in subgraph.tensors:
        _name(tensor, "/constant", taken)
    for op in subgraph.operators:
        kind = flatbuffer_utils.opcode_to_name(model, op.opcodeIndex) or "custom"
        for i in op.outputs:
            tensor = subgraph.tensors[i]
            scope = [part for part in tensor.name.decode().split(";") if part in paths]
            _name(tensor, operator_name(paths[scope[-1]] if scope else "", kind.lower()), taken)
    for indices, maps, names in (
        (subgraph.inputs, signature.inputs, job.input_names),
        (subgraph.outputs, signature.outputs, job.output_names),
    ):
        by_index = {m.tensorIndex: m for m in maps}
        for i, name in zip(indices, names, strict=True):
            subgraph.tensors[i].name = name.encode()
            by_index[i].name = name.encode()


def _name(tensor: Any, name: str, taken: dict[str, int]) -> None:
    taken[name] = taken.get(name, 0) + 1
    tensor.name = (name if taken[name] == 1 else f"{name}_{taken[name]}").encode()


def _quantize(data: bytes, job: Job) -> bytes:
    """Static: weights int8 per channel, activations int8; inputs and outputs as floats unless asked otherwise."""
    quantize = quantizer.Quantizer(data, recipe.static_wi8_ai8())
    if not job.int8_io:
        for edge in (qtyping.TFLOperationName.INPUT, qtyping.TFLOperationName.OUTPUT):
            quantize.update_quantization_recipe(EVERYTHING, edge, algorithm_key=AlgorithmName.NO_QUANTIZE)
    arrays = [a.transpose(0, 1, 3, 4, 2) if a.ndim == 5 else a for a in job.samples()]
    samples = [dict(zip(job.input_names, map(np.ascontiguousarray, s), strict=True)) for s in zip(*arrays, strict=True)]
    ranges = quantize.calibrate({SIGNATURE: samples}, num_threads=1)
    return bytes(quantize.quantize(ranges, enable_progress_report=False).quantized_model)
