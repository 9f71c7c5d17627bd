"""Captured graph -> ONNX by torch.onnx; int8 by ONNX Runtime's quantizer."""

import itertools
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import msgspec
import onnx
import onnx_ir as ir
import torch
from onnxscript import optimizer

from edgeport import targets
from edgeport.export import as_written, fold_pixels, pool_means, quantize_onnx, torchlib
from edgeport.export.capture import unique
from edgeport.export.job import Converted, Job
from edgeport.formats.names import operator_name
from edgeport.records import Quantized, Rewrite

NAME_SCOPES = "pkg.torch.onnx.name_scopes"
SPLIT = re.compile(r"_split_\d+$")  # what onnxscript appends to the name of a sequence that it takes apart

Int8Program = Callable[[Job], torch.export.ExportedProgram | None]
WrittenProgram = Callable[[], torch.export.ExportedProgram]
Told = Callable[[Rewrite], None]


def convert(
    job: Job,
    program: torch.export.ExportedProgram,
    int8_program: Int8Program,
    written_program: WrittenProgram,
    told: Told,
) -> Iterator[Converted]:
    """Writes fp32.onnx, and int8.onnx if asked for; yields each. Its outputs are called as output_names says.

    int8_program: what int8 is made from, None if from the same. written_program: as the network was written, for int8
    that is poor. told: of what was rewritten in the ONNX model.
    """
    job = msgspec.structs.replace(job, output_names=output_names(job))
    fp32, int8 = job.folder / "fp32.onnx", job.folder / "int8.onnx"
    model = _exported(program, job, told)
    onnx.save(model, fp32)
    yield Converted("fp32", fp32)
    if "int8" in job.precisions:
        other = int8_program(job)
        model = model if other is None else _exported(other, job, lambda _: None)
        if job.optimize and targets.is_x86(job.target) and not job.int8_io:
            before = len(model.graph.node)
            told(_rewrite(fold_pixels, fold_pixels.run(model), before, len(model.graph.node)))
        done = quantize_onnx.run(model, int8, job)
        if as_written.is_worth_a_try(job, done):
            done = _better(job, written_program(), int8, done)
        yield Converted("int8", int8, done)


def _better(job: Job, program: torch.export.ExportedProgram, path: Path, done: Quantized) -> Quantized:
    """Holds the int8 file against one of the graph as it was written, and leaves the better one."""
    plain = as_written.job_for(job)
    other = quantize_onnx.run(_exported(program, plain, lambda _: None), plain.folder / path.name, plain)
    if as_written.is_better(other, done):
        (plain.folder / path.name).replace(path)
    return as_written.told(other, done)


def _rewrite(module: ModuleType, changes: int, before: int, after: int) -> Rewrite:
    what = " ".join((module.__doc__ or "").split("\n\n")[0].split())
    return Rewrite(module.__name__.rpartition(".")[2], what, ("onnx",), changes, before, after)


def _exported(program: torch.export.ExportedProgram, job: Job, told: Told) -> onnx.ModelProto:
    torchlib.remember()
    exported = torch.onnx.export(program, dynamo=True, optimize=False, verbose=False)
    assert exported is not None
    written = _modules_of_values(exported.model)
    optimizer.optimize_ir(exported.model)
    if job.optimize:
        before = len(exported.model.graph)
        told(_rewrite(pool_means, pool_means.run(exported.model), before, len(exported.model.graph)))
    return ir.to_proto(_renamed(exported.model, written, job))


def _modules_of_values(model: ir.Model) -> dict[str, str]:
    """By the values' names, where torch.onnx says which module makes them."""
    modules = ((value.name, _module(node)) for node in model.graph for value in node.outputs)
    return {name: module for name, module in modules if name and module is not None}


def _renamed(model: ir.Model, written: dict[str, str], job: Job) -> ir.Model:
    """Operators named by their module, inputs and outputs by the network's; source text and paths left out.

    written: the modules of values before they were optimised, which keep their names where operators lose theirs.
    """
    modules = {node: _module(node) for node in model.graph}
    for node, module in modules.items():
        if module is None:
            stems = (SPLIT.sub("", value.name or "") for value in node.outputs)
            modules[node] = next((written[stem] for stem in stems if stem in written), None)
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
    _name_edges(model.graph, job)
    model.producer_version = None
    return model


def output_names(job: Job) -> tuple[str, ...]:
    """The outputs' names in ONNX, where they share one space with the inputs': those that are taken get a number."""
    return unique(job.output_names, job.input_names)


def _name_edges(graph: ir.Graph, job: Job) -> None:
    """Inputs and outputs named by the network's names, and constants so that they take none of these."""
    outputs = output_names(job)
    for name in {*job.input_names, *outputs} & set(graph.initializers):
        constant = graph.initializers.pop(name)
        constant.name = f"/{name}"
        graph.initializers.add(constant)
    for value, name in zip(graph.inputs, job.input_names, strict=True):
        value.name = name
    given: set[ir.Value] = {*graph.inputs, *graph.initializers.values()}
    for i, name in enumerate(outputs):
        if graph.outputs[i] in given:  # it is an input, a constant, or an output before it
            node = ir.node("Identity", [graph.outputs[i]], name=operator_name("", f"{name}/identity"))
            node.outputs[0].shape, node.outputs[0].type = graph.outputs[i].shape, graph.outputs[i].type
            graph.append(node)
            graph.outputs[i] = node.outputs[0]
        given.add(graph.outputs[i])
        graph.outputs[i].name = name


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
