"""Makes the network, loads its weights, and captures it once as a graph that all converters share."""

import copy
import hashlib
import inspect
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor, nn
from torch.fx.graph import CodeGen

from edgeport import catalog, graph
from edgeport.catalog import Factory
from edgeport.errors import ExportError, UsageError
from edgeport.export import checkpoint, draws
from edgeport.records import Rewrite

SEED = 0
MOST_NAMED = 5  # parameters that a message lists


class Captured(msgspec.Struct, frozen=True):
    """network: as the user wrote it, in evaluation mode. graph: flat tensors in, a tuple of tensors out, rewritten by
    the passes for all formats; plain: the same before any pass.

    inputs: example tensors (batch of the shape asked for); names are the forward arguments'.
    """

    network: nn.Module
    graph: torch.fx.GraphModule
    plain: torch.fx.GraphModule
    inputs: tuple[Tensor, ...]
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    parameters: int
    weights_sha256: str
    passes: tuple[Rewrite, ...]

    def identity(self) -> str:
        """A hash of the graph and everything in it: two captures with the same one convert to the same files."""
        digest = hashlib.sha256(self.graph.code.encode())
        for name, tensor in sorted(self.graph.state_dict().items()):
            digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
            digest.update(_bytes(tensor))
        for name, tensor in zip(self.input_names, self.inputs, strict=True):
            digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        return digest.hexdigest()


def make_network(factory: Factory, arguments: dict[str, Any], weights: Path | None) -> nn.Module:
    """In evaluation mode. Without a file of weights they are random, of a fixed seed."""
    torch.manual_seed(SEED)
    network = factory.call if isinstance(factory.call, nn.Module) else catalog.build(factory, arguments)
    if not isinstance(network, nn.Module):
        raise UsageError(f"{factory.source} returned a {type(network).__name__}, not a torch.nn.Module")
    catalog.declared_preprocessing(network, factory.source)  # said now if it is wrong
    if weights:
        checkpoint.load(network, weights)
    return network.eval()


def capture(network: nn.Module, inputs: Sequence[Tensor], passes: Collection[str] | None = None) -> Captured:
    """The network as a graph, rewritten by all passes, or by those of these names alone.

    Raises ExportError that names the module in which torch.export, or the network itself, failed.
    """
    inputs = tuple(inputs)
    try:
        with torch.no_grad():
            program = torch.export.export(network, inputs)
    except Exception as e:  # a network's forward raises anything, and torch.export adds its own
        raise ExportError(_capture_failure(network, e)) from e
    gm = program.module(check_guards=False)
    output_names = _output_names(program)
    _flatten(gm)
    plain = copy.deepcopy(gm)
    rewrites = graph.run_passes(gm, graph.FORMATS, only=passes)
    return Captured(
        network=network,
        graph=gm,
        plain=plain,
        inputs=inputs,
        input_names=tuple(n.name for n in gm.graph.nodes if n.op == "placeholder"),
        output_names=output_names,
        parameters=sum(p.numel() for p in network.parameters()),
        weights_sha256=_state_hash(network),
        passes=rewrites,
    )


def program(gm: torch.fx.GraphModule, inputs: tuple[Tensor, ...]) -> torch.export.ExportedProgram:
    """A graph as the converters take it."""
    with torch.no_grad():
        return torch.export.export(gm, inputs)


def module_path(node: torch.fx.Node) -> str:
    """The path of the module that a graph's node belongs to, "" for the network itself."""
    stack = node.meta.get("nn_module_stack") or {}
    path = str(list(stack.values())[-1][0]) if stack else ""
    return re.sub(r"@\d+$", "", path)  # torch.export counts calls of one module: conv@1


def check_finite(network: nn.Module) -> None:
    """Raises ExportError that names the parameters, and the figures of batches, that hold NaN or infinity.

    Other buffers may hold infinity: masks do.
    """
    holding = []
    figures = {n for n, _ in network.named_buffers() if n.rpartition(".")[2] in ("running_mean", "running_var")}
    learnt = {n for n, _ in network.named_parameters()} | figures
    for name, tensor in (*network.named_parameters(), *network.named_buffers()):
        if not tensor.is_floating_point() or tensor.isfinite().all():
            continue
        nans, infinities = int(tensor.isnan().sum()), int(tensor.isinf().sum())
        if nans or name in learnt:
            module = name.rpartition(".")[0] or "(the network itself)"
            holding.append(f"{name} in module {module} ({nans} NaN, {infinities} infinite of {tensor.numel()})")
    if holding:
        more = f" and {len(holding) - MOST_NAMED} more" if len(holding) > MOST_NAMED else ""
        raise ExportError(
            f"the network's weights are not finite: {', '.join(holding[:MOST_NAMED])}{more}; nothing is converted: "
            "train it again, or give other --weights"
        )


def example_inputs(factory: Factory, asked: Sequence[str], network: nn.Module | None = None) -> tuple[Tensor, ...]:
    """Tensors of the shapes asked for ("1,3,224,224", or "1,16:int64"), else of those declared, that networks can take.

    Random floats; zeros of integers, which are rows of any embedding; ones of booleans and of what the network calls a
    mask.
    """
    if asked:
        parsed = [_parse_shape(text) for text in asked]
    elif factory.input_shapes:
        parsed = [(shape, torch.float32) for shape in factory.input_shapes]
    else:
        raise UsageError(
            f"the input shape of {factory.source} is unknown; give --input-shape 1,3,224,224, once an input"
        )
    generator = torch.Generator().manual_seed(SEED)
    names = list(inspect.signature(network.forward).parameters) if network is not None else []
    names += [""] * len(parsed)
    return tuple(_example(name, shape, dtype, generator) for (shape, dtype), name in zip(parsed, names, strict=False))


def _example(name: str, shape: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    if dtype.is_floating_point:
        return torch.randn(shape, generator=generator, dtype=dtype)
    is_mask = dtype == torch.bool or draws.MASK in name.lower()
    return torch.ones(shape, dtype=dtype) if is_mask else torch.zeros(shape, dtype=dtype)


def _parse_shape(text: str) -> tuple[tuple[int, ...], torch.dtype]:
    sizes, _, name = text.partition(":")
    dtype = getattr(torch, name or "float32", None)
    try:
        shape = tuple(int(size) for size in sizes.split(",") if size.strip())
    except ValueError:
        shape = (0,)
    if not isinstance(dtype, torch.dtype) or any(size < 1 for size in shape):
        raise UsageError(f"--input-shape {text}: write sizes of at least 1, and a type if not float32: 1,16:int64")
    return shape, dtype


def _capture_failure(network: nn.Module, error: Exception) -> str:
    text = str(error).strip().partition("\n\n")[0]
    where = _failing_module(network, error)
    return f"the network cannot be captured{where}: {type(error).__name__}: {text}"


def _failing_module(network: nn.Module, error: Exception) -> str:
    """Where it failed: the innermost module whose forward is on the traceback."""
    paths = {id(module): path for path, module in network.named_modules()}
    chain: BaseException | None = error
    while chain is not None:
        for frame in reversed(inspect.getinnerframes(chain.__traceback__) if chain.__traceback__ else []):
            owner = frame.frame.f_locals.get("self")
            if id(owner) in paths and "torch/nn/modules/module.py" not in frame.filename:
                path = paths[id(owner)] or "(the network itself)"
                return f", in module {path} ({type(owner).__name__}, {frame.filename}:{frame.lineno})"
        chain = chain.__cause__ or chain.__context__
    return ""


def _output_names(program: torch.export.ExportedProgram) -> tuple[str, ...]:
    """Keys of a dict of outputs; output, or output_0 and so on, otherwise."""
    spec = program.call_spec.out_spec
    assert spec is not None
    if spec.type is dict and all(child.is_leaf() for child in spec.children()):
        return tuple(str(key) for key in spec.context)
    n = spec.num_leaves
    return ("output",) if n == 1 else tuple(f"output_{i}" for i in range(n))


def _flatten(gm: torch.fx.GraphModule) -> None:
    """Flat tensors in and out: what every format has, whatever the network's own forward takes and returns."""
    gm.graph.set_codegen(CodeGen())
    output = gm.graph.output_node()
    results = output.args[0]
    flat = tuple(results) if isinstance(results, (tuple, list)) else (results,)
    if not all(isinstance(r, torch.fx.Node) for r in flat):
        raise ExportError("the network returns something that is no tensor; return tensors, or a tuple or dict of them")
    output.args = (flat,)
    for node in gm.graph.nodes:
        if node.op == "placeholder" and isinstance(node.meta.get("val"), (int, float, bool)):
            raise ExportError(f"input {node.name!r} of the network is no tensor; bind it with --set or in the factory")
    gm.recompile()


def _state_hash(network: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode() + _bytes(tensor))
    return digest.hexdigest()


def _bytes(tensor: Tensor) -> bytes:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""
