"""Makes the network, loads its weights, and captures it once as a graph that all converters share."""

import copy
import hashlib
import inspect
import traceback
import warnings
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor, nn
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode
from torch.fx.graph import CodeGen

from edgeport import catalog, graph
from edgeport.catalog import Factory
from edgeport.errors import ExportError, UsageError, causes
from edgeport.export import checkpoint, draws, fitness
from edgeport.graph._nodes import memory_of, overwritten
from edgeport.records import Rewrite

SEED = 0
MOST_NAMED = 5  # parameters that a message lists


class Captured(msgspec.Struct, frozen=True):
    """network: as the user wrote it, in evaluation mode. graph: flat tensors in, a tuple of tensors out, rewritten by
    the passes for all formats; plain: the same before any pass. warning: why the graph is not rewritten, "" if it is.

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
    warning: str = ""

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
    fitness.need_float32(network, inputs)
    try:
        with torch.no_grad():
            repeatable = _is_repeatable(network, inputs)
            program = torch.export.export(network, inputs)
    except ExportError:
        raise
    except Exception as e:  # a network's forward raises anything, and torch.export adds its own
        raise ExportError(_capture_failure(network, inputs, e)) from e
    gm = program.module(check_guards=False)
    output_names = _output_names(program)
    _flatten(gm)
    fitness.need_no_writes(gm)
    if not repeatable:
        fitness.need_no_chance(gm)
    plain, warning = _copied(gm), ""
    try:
        rewrites = graph.run_passes(gm, graph.FORMATS, only=passes)
    except Exception as e:  # a mistake in a pass costs speed, and not the export
        traceback.print_exc()
        warning = f"the graph is left as it was written, because {causes(e)[0]}; please report it"
        gm = _copied(plain)
        rewrites = graph.run_passes(gm, graph.FORMATS, only=graph.REQUIRED)
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
        warning=warning,
    )


def _copied(gm: torch.fx.GraphModule) -> torch.fx.GraphModule:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch's own, of how its specifications of trees are copied
        return copy.deepcopy(gm)


def _is_repeatable(network: nn.Module, inputs: tuple[Tensor, ...]) -> bool:
    """As fitness.need_no_state(); true where the network does not take the examples' numbers, which only have a shape.

    Whatever else is wrong with its forward, torch.export says better.
    """
    try:
        return fitness.need_no_state(network, inputs)
    except ExportError:
        raise
    except Exception:  # a network's forward raises anything
        return True


def program(gm: torch.fx.GraphModule, inputs: tuple[Tensor, ...]) -> torch.export.ExportedProgram:
    """A graph as the converters take it."""
    with torch.no_grad():
        return torch.export.export(gm, inputs)


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
    try:
        return tuple(_example(name, *sizes, generator) for sizes, name in zip(parsed, names, strict=False))
    except (RuntimeError, MemoryError) as e:  # PyTorch's own for what is too large
        shapes = " and ".join("x".join(map(str, shape)) for shape, _ in parsed)
        raise UsageError(f"an input of {shapes} cannot be made ({str(e).strip()}); give smaller sizes") from e


def _example(name: str, shape: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    if dtype.is_floating_point:
        return torch.randn(shape, generator=generator, dtype=dtype)
    is_mask = dtype == torch.bool or draws.MASK in name.lower()
    return torch.ones(shape, dtype=dtype) if is_mask else torch.zeros(shape, dtype=dtype)


def _parse_shape(text: str) -> tuple[tuple[int, ...], torch.dtype]:
    sizes, _, name = text.partition(":")
    dtype = getattr(torch, name or "float32", None)
    try:
        shape = tuple(int(size) for size in sizes.split(","))
    except ValueError:
        shape = (0,)
    if not isinstance(dtype, torch.dtype) or any(size < 1 for size in shape):
        raise UsageError(f"--input-shape {text}: write sizes of at least 1, and a type if not float32: 1,16:int64")
    return shape, dtype


def _capture_failure(network: nn.Module, inputs: Sequence[Tensor], error: Exception) -> str:
    where = _failing_module(network, error)
    if isinstance(error, GuardOnDataDependentSymNode):
        return (
            f"the network cannot be captured{where}: forward decides by the numbers in a tensor. A file computes the "
            "same operators whatever the numbers are: in place of `if` and loops that read them, .item() and "
            "int(tensor), use torch.where or masks, or decide in the factory"
        )
    text = str(error).strip().partition("\n\n")[0].rstrip(".")
    return f"the network cannot be captured{where}: {type(error).__name__}: {text}{_remedy(network, inputs, error)}"


def _remedy(network: nn.Module, inputs: Sequence[Tensor], error: Exception) -> str:
    """What to change in the network, where the kind of failure tells; else ""."""
    if isinstance(error, TypeError) and (mismatch := _unlike_forward(network, len(inputs))):
        return f"; {mismatch}"
    if "not a known type" in str(error):
        return ". Let forward take and return tensors, or tuples, lists and dicts of them"
    if ".numpy()" in str(error) or "FakeTensor" in str(error):
        return ". Compute with torch alone in forward: what NumPy and Python compute from tensors is in no file"
    return ""


def _unlike_forward(network: nn.Module, given: int) -> str:
    """How many inputs forward takes, where that is not how many are given; else ""."""
    parameters = inspect.signature(network.forward).parameters.values()
    kinds = inspect.Parameter
    needed_by_name = [p.name for p in parameters if p.kind == kinds.KEYWORD_ONLY and p.default is kinds.empty]
    if needed_by_name:
        return f"inputs are given by position, but forward takes {', '.join(needed_by_name)} by name alone"
    places = [p for p in parameters if p.kind in (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD)]
    least = sum(p.default is kinds.empty for p in places)
    open_ended = any(p.kind == kinds.VAR_POSITIONAL for p in parameters)
    if least <= given and (open_ended or given <= len(places)):
        return ""
    names = ", ".join(p.name for p in places)
    return f"forward takes {names}, and shapes are given for {given}; give --input-shape once an input, in that order"


def _failing_module(network: nn.Module, error: Exception) -> str:
    """Where it failed: the innermost module whose forward is on the traceback."""
    paths = {id(module): path for path, module in network.named_modules()}
    chain: BaseException | None = error
    while chain is not None:
        for frame in reversed(inspect.getinnerframes(chain.__traceback__) if chain.__traceback__ else []):
            first = frame.frame.f_code.co_varnames[:1]
            owner = frame.frame.f_locals.get(first[0]) if first else None
            if id(owner) in paths and "torch/nn/modules/module.py" not in frame.filename:
                path = paths[id(owner)] or "(the network itself)"
                return f", in module {path} ({type(owner).__name__}, {frame.filename}:{frame.lineno})"
        chain = chain.__cause__ or chain.__context__
    return ""


def _output_names(program: torch.export.ExportedProgram) -> tuple[str, ...]:
    """Keys of a dict of outputs, numbered where one holds several; output, or output_0 and so on, otherwise.

    What is None has no name. Two keys that read the same are told apart by a number.
    """
    spec = program.call_spec.out_spec
    assert spec is not None
    leaves = [leaf for leaf in program.graph_signature.user_outputs if leaf is not None]
    keys = _keys(spec)
    if not keys or len(keys) != len(spec.children()):
        return ("output",) if len(leaves) == 1 else tuple(f"output_{i}" for i in range(len(leaves)))
    present = iter(program.graph_signature.user_outputs)
    wanted: list[str] = []
    for key, child in zip(keys, spec.children(), strict=True):
        below = sum(next(present) is not None for _ in range(child.num_leaves))
        wanted += [str(key) or "output"] if below == 1 else [f"{key}_{i}" for i in range(below)]
    return unique(wanted)


def _keys(spec: Any) -> tuple[Any, ...]:
    """Keys of a dict, or names of a named tuple's fields; none of anything else."""
    if isinstance(spec.type, type) and issubclass(spec.type, dict):
        return tuple(spec.context)
    return tuple(getattr(spec.context, "_fields", ()))


def unique(names: Sequence[str], taken: Collection[str] = ()) -> tuple[str, ...]:
    """The names, with a number behind those that are taken, or that stand before them already."""
    chosen: list[str] = []
    for name in names:
        free, n = name, 0
        while free in taken or free in chosen:
            n += 1
            free = f"{name}_{n}"
        chosen.append(free)
    return tuple(chosen)


def _flatten(gm: torch.fx.GraphModule) -> None:
    """Flat tensors in and out: what every format has, whatever the network's own forward takes and returns."""
    gm.graph.set_codegen(CodeGen())
    output = gm.graph.output_node()
    results = output.args[0]
    flat = tuple(results) if isinstance(results, (tuple, list)) else (results,)
    output.args = (tuple(result for result in flat if result is not None),)
    fitness.need_fixed_outputs(gm)
    for node in gm.graph.nodes:
        if node.op == "placeholder" and isinstance(node.meta.get("val"), (int, float, bool)):
            raise ExportError(f"input {node.name!r} of the network is no tensor; bind it with --set or in the factory")
    _spare_inputs(gm)
    gm.recompile()


def _spare_inputs(gm: torch.fx.GraphModule) -> None:
    """Copies each input that an operator writes to: files leave their inputs alone, and answer the same."""
    written = dict.fromkeys(memory_of(tensor) for node in gm.graph.nodes for tensor in overwritten(node))
    for node in written:
        if node.op == "placeholder":
            with gm.graph.inserting_after(node):
                copied = gm.graph.call_function(torch.ops.aten.clone.default, (node,))
            copied.meta = {**next(iter(node.users)).meta, "val": node.meta["val"]}
            node.replace_all_uses_with(copied)
            copied.args = (node,)


def _state_hash(network: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode() + _bytes(tensor))
    return digest.hexdigest()


def _bytes(tensor: Tensor) -> bytes:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""
