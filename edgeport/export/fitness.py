"""Examines whether files can hold a network: they keep float32, no state from one run to the next, and no chance.

Every refusal says what was seen, in which module, and what to change in the network.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node
from torch.utils import _pytree

from edgeport.errors import ExportError
from edgeport.graph._nodes import argument, fixed_shape, memory_of, module_path, overwritten

KEEPS_NOTHING = (
    "A file keeps nothing between runs: let forward take the state as one more input and return the new state as one "
    "more output"
)
REPEATABLE = 1e-5  # of an answer's largest value: what sums in another order may differ by
NAMED = 3  # attributes or parameters that a message lists
OWN = frozenset(vars(nn.Module()))  # what every module has besides its author's attributes

Answers = list[Tensor]


def need_float32(network: nn.Module, inputs: Sequence[Tensor]) -> None:
    """Raises ExportError for weights or inputs of another floating type, or of complex numbers."""
    wrong = {name: p.dtype for name, p in network.named_parameters() if _is_foreign(p)}
    if wrong:
        raise ExportError(
            f"the network's weights are {_types(wrong.values())} ({_listed(list(wrong))}); edgeport writes files of "
            "float32 and of int8 made from it: call .float() on the network before the factory returns it, and give "
            "float32 inputs"
        )
    given = {f"input {i + 1}": x.dtype for i, x in enumerate(inputs) if _is_foreign(x)}
    if given:
        raise ExportError(
            f"{_listed(list(given))} of the network is {_types(given.values())}; edgeport writes files of float32: "
            "leave the type out of --input-shape, or give int32, int64 or bool"
        )


def tensors_of(answers: Any) -> Answers:
    """What a network returns as flat tensors; nothing stands for None."""
    return [leaf for leaf in _pytree.tree_leaves(answers) if isinstance(leaf, Tensor)]


def need_no_state(network: nn.Module, inputs: Sequence[Tensor]) -> bool:
    """Whether the answers are the same each time; False where they follow the seed of PyTorch's random numbers.

    Raises ExportError where they differ for another reason, and names what keeps state.
    """

    def run(seed: int) -> Answers:
        torch.manual_seed(seed)
        return [t.detach().clone() for t in tensors_of(network(*(x.clone() for x in inputs)))]

    with torch.random.fork_rng(devices=[]):
        before = list(_attributes(network))
        first, again = run(0), run(1)
        if _same(first, again):
            return True
        changed = _changed(before, network)
        one, other, one_again = run(0), run(1), run(0)
    if _same(one, one_again) and not _same(one, other):
        return False
    where = f"forward changes {_listed(changed)}" if changed else "or draws random numbers that PyTorch knows not of"
    raise ExportError(
        f"the network keeps state ({where}): its answers to the same inputs differ from one call to the next. "
        f"{KEEPS_NOTHING}"
    )


def need_no_chance(gm: GraphModule) -> None:
    """Raises ExportError that names the operators which draw random numbers. To be asked where answers follow them."""
    drawing = [node for node in gm.graph.nodes if _draws(node)]
    operators = ", ".join(f"operator {n.target} in module {place(n)}" for n in drawing[:NAMED])
    raise ExportError(
        f"the network draws random numbers ({operators or 'where, its graph does not tell'}): its answers to the same "
        "inputs differ, and a file answers the same each time. Switch dropout and noise off where `self.training` is "
        "False (functional.dropout needs training=self.training), or let forward take the noise as one more input"
    )


def _draws(node: Node) -> bool:
    target = node.target
    if node.op != "call_function" or torch.Tag.nondeterministic_seeded not in getattr(target, "tags", ()):
        return False
    arguments = target._schema.arguments  # type: ignore[union-attr]
    switches = [i for i, a in enumerate(arguments) if a.name in ("train", "training", "dropout_p")]
    return all(argument(node, i, arguments[i].default_value) for i in switches)


def need_no_writes(gm: GraphModule) -> None:
    """Raises ExportError for a graph that overwrites its own parameters or buffers."""
    written: dict[str, Node] = {}
    for node in gm.graph.nodes:
        for memory in map(memory_of, overwritten(node)):
            if memory.op == "get_attr":
                written.setdefault(str(memory.target), node)
    if written:
        node = next(iter(written.values()))
        raise ExportError(
            f"the network keeps state: operator {node.target} in module {place(node)} overwrites its "
            f"{_listed(list(written))}. {KEEPS_NOTHING}; or write it only where `self.training` is True"
        )


def need_fixed_outputs(gm: GraphModule) -> None:
    """Raises ExportError for outputs that are no real tensors of fixed shape. The graph's outputs are flat."""
    results: Any = gm.graph.output_node().args[0]
    if not results:
        raise ExportError("the network returns no tensor; let forward return what the file is to compute")
    for i, node in enumerate(results):
        where = f"output {i + 1} of the network"
        if not isinstance(node, Node) or not isinstance(node.meta.get("val"), Tensor):
            raise ExportError(f"{where} is {_described(node)}, no tensor; let forward return tensors alone")
        value = node.meta["val"]
        if fixed_shape(value) is None:
            raise ExportError(
                f"the shape of output {i + 1} depends on the numbers in the inputs{_first_open(gm)}; files have fixed "
                "shapes: let forward return the full tensor and a mask, or a fixed number of entries by torch.topk"
            )
        if value.dtype.is_complex:
            raise ExportError(f"{where} is {_types([value.dtype])}; let forward return torch.view_as_real of it")


def _first_open(gm: GraphModule) -> str:
    """Where shapes stop being fixed, as a message says it."""
    for node in gm.graph.nodes:
        value = node.meta.get("val")
        if node.op == "call_function" and isinstance(value, Tensor) and fixed_shape(value) is None:
            return f" (operator {node.target} in module {place(node)})"
    return ""


def place(node: Node) -> str:
    """The path of the node's module, as messages say it."""
    return module_path(node) or "(the network itself)"


def _described(result: object) -> str:
    if result is None:
        return "None"
    if isinstance(result, Node):
        return f"the number that {result.target} takes out of a tensor"
    return f"the {type(result).__name__} {result!r}"


def _is_foreign(tensor: Tensor) -> bool:
    return tensor.is_complex() or (tensor.is_floating_point() and tensor.dtype != torch.float32)


def _types(types: Any) -> str:
    return " and ".join(sorted({str(t).removeprefix("torch.") for t in types}))


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


class _Attribute(msgspec.Struct, frozen=True):
    """A value that a module keeps. version: of a tensor, how often it has been written to."""

    name: str
    value: Any
    version: int | None


def _attributes(network: nn.Module) -> Iterator[_Attribute]:
    """Every tensor, number and text that the modules keep, those in lists and dicts as well."""
    for path, module in network.named_modules():
        own = {name: value for name, value in vars(module).items() if name not in OWN}
        for name, kept in {**module._buffers, **module._parameters, **own}.items():
            whole = f"{path}.{name}" if path else name
            for leaf in _pytree.tree_leaves(kept):
                if isinstance(leaf, Tensor):
                    yield _Attribute(whole, leaf, leaf._version)
                elif isinstance(leaf, (int, float, str, type(None))):
                    yield _Attribute(whole, leaf, None)


def _changed(before: Sequence[_Attribute], network: nn.Module) -> list[str]:
    """Names of the attributes that hold something else than before, each once."""

    def grouped(attributes: Any) -> dict[str, list[tuple[Any, int | None]]]:
        groups: dict[str, list[tuple[Any, int | None]]] = {}
        for one in attributes:
            kept = id(one.value) if isinstance(one.value, Tensor) else repr(one.value)
            groups.setdefault(one.name, []).append((kept, one.version))
        return groups

    old, new = grouped(before), grouped(_attributes(network))
    return [name for name in {**new, **old} if old.get(name) != new.get(name)]


def _same(one: Answers, other: Answers) -> bool:
    return len(one) == len(other) and all(map(_agree, one, other))


def _agree(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if not one.is_floating_point() and not one.is_complex():
        return bool((one == other).all())
    finite = one[one.isfinite()].abs()
    tolerance = REPEATABLE * float(finite.max()) if finite.numel() else 0.0
    return torch.allclose(one, other, rtol=0.0, atol=tolerance, equal_nan=True)
