"""graph.pt2 -> fp32.tflite by litert-torch, for networks whose operators edgeport's own lowering does not know."""

from collections.abc import Sequence
from typing import Any

import litert_torch as converter
import torch
from ai_edge_litert.tools import flatbuffer_utils

from edgeport import graph
from edgeport.export.job import Job
from edgeport.formats.names import operator_name
from edgeport.graph._nodes import module_path
from edgeport.records import Rewrite

SCOPE = "edgeport"
aten = torch.ops.aten
PRODUCTS = (
    *(aten.conv1d.default, aten.conv2d.default, aten.conv3d.default, aten.conv2d.padding, aten.convolution.default),
    *(aten.conv_transpose1d.default, aten.conv_transpose2d.input, aten.conv_transpose3d.input),
    *(aten.linear.default, aten.matmul.default, aten.mm.default, aten.bmm.default, aten.addmm.default),
)
PRODUCT_KINDS = ("CONV_2D", "CONV_3D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "FULLY_CONNECTED", "BATCH_MATMUL")

# By the name that litert-torch is given for a module: its path, and whether it computes products itself.
Modules = dict[str, tuple[str, bool]]


def run(job: Job) -> tuple[Rewrite, ...]:
    """Writes fp32.tflite from graph.pt2. What it rewrote before that."""
    torch.set_num_threads(1)
    program = torch.export.load(job.graph)
    captured = program.module(check_guards=False)
    gm = torch.fx.GraphModule(captured, captured.graph)  # without its checks of the shapes that are about to change
    rewrites = graph.run_passes(gm, ("litert-torch",))
    example = tuple(_channels_last(t) for t in program.example_inputs[0])
    outputs = [module_path(node) for node in gm.graph.output_node().all_input_nodes]
    modules = _mark_modules(gm)
    converted = converter.convert(gm, example)
    model = flatbuffer_utils.read_model_from_bytearray(converted.model_content())
    _rename(model, modules, outputs, job)
    (job.folder / "fp32.tflite").write_bytes(flatbuffer_utils.convert_object_to_bytearray(model))
    return rewrites


def _channels_last(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.permute(0, 2, 3, 1).contiguous() if tensor.dim() == 4 else tensor


def _mark_modules(gm: torch.fx.GraphModule) -> Modules:
    """Gives each module a name of its own, which litert-torch writes into the tensors that the module makes.

    By itself it writes the last part of each path alone: of two lists of layers, both first ones are "0".
    """
    modules: Modules = {}
    scopes: dict[str, str] = {}
    for node in gm.graph.nodes:
        if node.op != "call_function":
            continue
        path = module_path(node)
        scope = scopes.setdefault(path, f"{SCOPE}_{len(scopes)}")
        _, computing = modules.get(scope, (path, False))
        modules[scope] = path, computing or node.target in PRODUCTS
        node.meta["nn_module_stack"] = {SCOPE: (scope.removeprefix(f"{SCOPE}_"), SCOPE)}
    return modules


def _rename(model: Any, modules: Modules, outputs: Sequence[str], job: Job) -> None:
    """Tensors named by module and operator, each name once; the signature's names are the network's.

    outputs: the modules that make the network's, whose tensors litert-torch names by the signature.
    """
    subgraph, signature = model.subgraphs[0], model.signatureDefs[0]
    taken: dict[str, int] = {}
    made = set()
    kinds = [flatbuffer_utils.opcode_to_name(model, op.opcodeIndex) or "custom" for op in subgraph.operators]
    paths = [_path(subgraph, op, kind, modules) for op, kind in zip(subgraph.operators, kinds, strict=True)]
    ends = dict(zip(map(int, subgraph.outputs), outputs, strict=True))
    paths = [
        next((ends[int(i)] for i in op.outputs if path is None and int(i) in ends), path)
        for op, path in zip(subgraph.operators, paths, strict=True)
    ]
    _fill_in(subgraph, paths)
    for op, kind, path in zip(subgraph.operators, kinds, paths, strict=True):
        for i in op.outputs:
            _name(subgraph.tensors[i], operator_name(path or "", kind.lower()), taken)
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


def _path(subgraph: Any, op: Any, kind: str, modules: Modules) -> str | None:
    """The module of an operator, None where litert-torch made it and does not say for whom.

    A fused operator's name lists its parts, what makes its output first; constants that several modules use may add
    those at the end. What computes a product belongs to the first part that does.
    """
    names = [part for i in op.outputs for part in subgraph.tensors[i].name.decode().split(";")]
    parts = [modules[part] for part in names if part in modules]
    computing = [path for path, computes in parts if computes and kind in PRODUCT_KINDS]
    return next(iter([*computing, *(path for path, _ in parts)]), None)


def _fill_in(subgraph: Any, paths: list[str | None]) -> None:
    """An operator of which nothing is said serves the next one that reads it, or else the one before it."""
    makers = {int(i): n for n, op in enumerate(subgraph.operators) for i in op.outputs}
    for n in reversed(range(len(paths))):
        for i in subgraph.operators[n].inputs:
            before = makers.get(int(i))
            if before is not None and paths[before] is None:
                paths[before] = paths[n]
    for n, op in enumerate(subgraph.operators):
        if paths[n] is None:
            paths[n] = next((paths[makers[int(i)]] for i in op.inputs if int(i) in makers), None)


def _name(tensor: Any, name: str, taken: dict[str, int]) -> None:
    taken[name] = taken.get(name, 0) + 1
    tensor.name = (name if taken[name] == 1 else f"{name}_{taken[name]}").encode()
