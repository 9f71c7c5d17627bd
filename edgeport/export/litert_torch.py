"""graph.pt2 -> fp32.tflite by litert-torch, for networks whose operators edgeport's own lowering does not know."""

import re
from typing import Any

import litert_torch as converter
import torch
from ai_edge_litert.tools import flatbuffer_utils

from edgeport import graph
from edgeport.export.job import Job
from edgeport.formats.names import operator_name
from edgeport.records import Rewrite


def run(job: Job) -> tuple[Rewrite, ...]:
    """Writes fp32.tflite from graph.pt2. What it rewrote before that."""
    torch.set_num_threads(1)
    program = torch.export.load(job.graph)
    captured = program.module(check_guards=False)
    gm = torch.fx.GraphModule(captured, captured.graph)  # without its checks of the shapes that are about to change
    rewrites = graph.run_passes(gm, ("litert-torch",))
    example = tuple(_channels_last(t) for t in program.example_inputs[0])
    converted = converter.convert(gm, example)
    model = flatbuffer_utils.read_model_from_bytearray(converted.model_content())
    _rename(model, _paths_by_scope(gm), job)
    (job.folder / "fp32.tflite").write_bytes(flatbuffer_utils.convert_object_to_bytearray(model))
    return rewrites


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
    """Tensors named by module and operator, each name once; the signature's names are the network's."""
    subgraph, signature = model.subgraphs[0], model.signatureDefs[0]
    taken: dict[str, int] = {}
    made = set()
    for op in subgraph.operators:
        kind = flatbuffer_utils.opcode_to_name(model, op.opcodeIndex) or "custom"
        for i in op.outputs:
            tensor = subgraph.tensors[i]
            scope = [part for part in tensor.name.decode().split(";") if part in paths]
            _name(tensor, operator_name(paths[scope[-1]] if scope else "", kind.lower()), taken)
            made.add(int(i))
    for i, tensor in enumerate(subgraph.tensors):
        if i not in made:
            _name(tensor, "/constant", taken)
    for indices, maps, names in (
        (subgraph.inputs, signature.inputs, job.input_names),
        (subgraph.outputs, signature.outputs, job.output_names),
    ):
        by_index = {m.tensorIndex: m for m in maps}
        for i, name in zip(indices, names, strict=True):
            by_index[i].name = name.encode()


def _name(tensor: Any, name: str, taken: dict[str, int]) -> None:
    taken[name] = taken.get(name, 0) + 1
    tensor.name = (name if taken[name] == 1 else f"{name}_{taken[name]}").encode()
