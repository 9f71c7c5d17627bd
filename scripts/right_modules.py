"""Which modules are right for each operator of a converted network, by the numbers that flow through both.

PyTorch runs once, with a hook on every module: each value that it computes is kept with the innermost module that was
running. The file runs with all its tensors kept, and each is looked up among PyTorch's values, whatever the order of
its axes. An operator's parts are then PyTorch's operators between what it reads and what it makes, where a tensor that
PyTorch does not have counts with the next ones that it has. Right for the operator are the modules of its parts, and
for one that computes nothing those that make the value that it moves, and those that read it.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from edgeport.attribution import class_of
from edgeport.formats import Graph, Node

SAMPLES = 8192  # elements of a tensor that are compared
BLOCKS = (4, 8, 16)  # channels that ONNX Runtime may keep together
# Relative distances that pass for the same numbers: in float; in eight bits at most, and beyond twice the least one.
EXACT, ROUGH, SLACK = 1e-3, 0.35, 0.1

Floats = NDArray[np.float64]


class Value(msgspec.Struct):
    """Something that PyTorch computed. inputs: numbers of the values that it was computed from."""

    array: Floats
    module: str
    inputs: tuple[int, ...]


class Trace(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Keeps what a network computes. A module is known by the innermost name that it was called under."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.values: list[Value] = []
        self._latest: dict[int, int] = {}
        self._kept: list[Tensor] = []
        self._running = [""]
        for path, module in network.named_modules():
            module.register_forward_pre_hook(lambda *_, path=path: self._running.append(path))
            module.register_forward_hook(lambda *_: self._running.pop() and None)

    def take(self, tensors: Sequence[Tensor]) -> None:
        """The network's inputs, before it runs."""
        for tensor in tensors:
            self._keep(tensor, ())

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        flat, _ = torch.utils._pytree.tree_flatten((args, kwargs))
        inputs = tuple(self._latest[id(t)] for t in flat if isinstance(t, Tensor) and id(t) in self._latest)
        for tensor in torch.utils._pytree.tree_leaves(made):
            if isinstance(tensor, Tensor):
                self._keep(tensor, inputs)
        return made

    def _keep(self, tensor: Tensor, inputs: tuple[int, ...]) -> None:
        self._latest[id(tensor)] = len(self.values)
        self._kept.append(tensor)  # so that its id stays its own
        array = tensor.detach().double().numpy().copy()
        self.values.append(Value(array, self._running[-1], inputs))


def trace(network: nn.Module, inputs: Sequence[Tensor]) -> list[Value]:
    """What the network computes of these inputs, in the order in which it does."""
    tracing = Trace(network)
    tracing.take(inputs)
    with torch.no_grad(), tracing:
        network(*inputs)
    return tracing.values


class Matcher:
    """Finds a file's tensor among PyTorch's values."""

    def __init__(self, values: Sequence[Value]) -> None:
        self.values = values
        self._generator = np.random.default_rng(0)
        self._places: dict[int, NDArray[np.int64]] = {}
        self._by_size: dict[int, list[tuple[int, Floats]]] = {}
        self._images: dict[tuple[int, ...], set[int]] = {}
        for n, value in enumerate(values):
            if value.array.size > 1 and np.ptp(value.array) > 0 and np.isfinite(value.array).all():
                sample = value.array.ravel()[self._sampled(value.array.size)]
                self._by_size.setdefault(value.array.size, []).append((n, sample))
                if value.array.ndim == 4:
                    shape = value.array.shape
                    self._images.setdefault((shape[0], *shape[2:]), set()).add(shape[1])

    def find(self, array: NDArray[Any], rough: bool) -> frozenset[int]:
        """Numbers of the values that it may be. rough: whether it is computed in eight bits, or from what is.

        Eight-bit numbers themselves are compared up to their scale and offset.
        """
        if array.dtype == object or array.size < 2:
            return frozenset()
        scaled = array.dtype in (np.int8, np.uint8)
        told = array.astype(np.float64)
        distances: dict[int, float] = {}
        for form in self._forms(told):
            flat = form.ravel()[self._sampled(form.size)] if form.size in self._by_size else None
            for n, sample in self._by_size.get(form.size, []):
                assert flat is not None
                distance = _affine_distance(flat, sample) if scaled else _distance(flat, sample)
                distances[n] = min(distance, distances.get(n, np.inf))
        least = min(distances.values(), default=np.inf)
        if rough:
            return frozenset(n for n, d in distances.items() if d < min(ROUGH, 2 * least + SLACK))
        close = frozenset(n for n, d in distances.items() if d < EXACT)
        return close or self._rearranged(told)

    def _sampled(self, size: int) -> NDArray[np.int64]:
        if size not in self._places:
            every = np.arange(size)
            self._places[size] = every if size <= SAMPLES else np.sort(self._generator.choice(every, SAMPLES, False))
        return self._places[size]

    def _forms(self, array: Floats) -> list[Floats]:
        """The tensor with its axes in every order that a converter or a runtime may have put them in."""
        plain = array.squeeze()
        orders = itertools.permutations(range(plain.ndim)) if plain.ndim <= 3 else [range(plain.ndim)]
        forms = [plain.transpose(tuple(order)) for order in orders]
        if array.ndim == 4:
            forms += [array.transpose(0, 3, 1, 2), *self._unblocked(array)]
        return forms

    def _unblocked(self, array: Floats) -> list[Floats]:
        n, channels, h, w = array.shape
        found = []
        for block, real in itertools.product(BLOCKS, self._images.get((n, h, w), ())):
            if channels % block == 0 and 0 <= channels - real < block:
                blocked = array.reshape(n, channels // block, h, w, block)
                found.append(blocked.transpose(0, 1, 4, 2, 3).reshape(array.shape)[:, :real])
        return found

    def _rearranged(self, array: Floats) -> frozenset[int]:
        """By its numbers alone, where passes changed the order of channels; zeros may have been added."""
        ordered = np.sort(array[array != 0].ravel())
        found = set()
        for n, value in enumerate(self.values):
            if value.array.size <= array.size < 2 * value.array.size and value.array.size > 8:
                own = value.array[np.abs(value.array) > 0]
                if len(own) == len(ordered) > 8 and _distance(ordered, np.sort(own.ravel())) < EXACT:
                    found.add(n)
        return frozenset(found)


def _distance(a: Floats, b: Floats) -> float:
    return float(np.linalg.norm(a - b) / (np.linalg.norm(b) + 1e-12))


def _affine_distance(a: Floats, b: Floats) -> float:
    """What no scale and offset of a can tell of b."""
    a, b = a - a.mean(), b - b.mean()
    correlation = float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b) + 1e-12))
    return float(np.sqrt(max(0.0, 1 - correlation**2))) if correlation > 0 else 1.0


class Right:
    """The right modules of a graph's operators. arrays: its tensors' values, by name. rough: whether they are of a
    network in eight bits.
    """

    def __init__(self, values: Sequence[Value], graph: Graph, rough: bool, arrays: Mapping[str, NDArray[Any]]) -> None:
        self.values = values
        self.producers, self.consumers = graph.producers(), graph.consumers()
        self.dynamic = self._computed(graph)
        matcher = Matcher(values)
        self.matched = {name: matcher.find(array, rough) for name, array in arrays.items() if name in self.dynamic}
        self.known: dict[int, set[str]] = {}
        self.readers: dict[int, set[int]] = {}
        for n, value in enumerate(values):
            for i in value.inputs:
                self.readers.setdefault(i, set()).add(n)

    def modules(self, node: Node) -> set[str]:
        """Empty where nothing that PyTorch computes is known before or behind it."""
        sources = {v for name in node.inputs for v in self._before(name, set())}
        targets = {v for name in node.outputs for v in self._behind(name, set())}
        parts = self._between(sources, targets)
        found = {self.values[n].module for n in parts}
        if targets & sources and (
            not parts or class_of(node.kind) == "data"
        ):  # it moves what is there, or puts it into another form
            beside = targets | {reader for n in targets for reader in self.readers.get(n, ())}
            makers = {
                self.producers[name].index: self.producers[name] for name in node.inputs if name in self.producers
            }
            found |= {self.values[n].module for n in beside}
            found |= {module for maker in makers.values() for module in self._of_maker(maker)}
        return found

    def _of_maker(self, node: Node) -> set[str]:
        """The modules of the parts of the operator that makes what another one moves."""
        if node.index not in self.known:
            self.known[node.index] = set()  # of a circle nothing is known
            self.known[node.index] = self.modules(node)
        return self.known[node.index]

    def _computed(self, graph: Graph) -> set[str]:
        """Names of what depends on the inputs."""
        found = {info.name for info in graph.inputs} | {n for n in graph.tensors if not graph.tensors[n].constant}
        return found | {name for node in graph.nodes for name in node.outputs}

    def _before(self, name: str, seen: set[str]) -> frozenset[int]:
        if name in seen or name not in self.dynamic:
            return frozenset()
        seen.add(name)
        if self.matched.get(name):
            return self.matched[name]
        maker = self.producers.get(name)
        return frozenset(v for i in (maker.inputs if maker else ()) for v in self._before(i, seen))

    def _behind(self, name: str, seen: set[str]) -> frozenset[int]:
        if name in seen:
            return frozenset()
        seen.add(name)
        if self.matched.get(name):
            return self.matched[name]
        outputs = [o for reader in self.consumers.get(name, []) for o in reader.outputs]
        return frozenset(v for o in outputs for v in self._behind(o, seen))

    def _between(self, sources: set[int], targets: set[int]) -> set[int]:
        """Values on the way from what is read to what is made, with what is made."""
        behind, left = set(), list(sources)
        while left:
            for reader in self.readers.get(left.pop(), ()):
                if reader not in behind:
                    behind.add(reader)
                    left.append(reader)
        before: set[int] = set()
        left = [t for t in targets if t not in sources]
        while left:
            value = left.pop()
            if value in before or value in sources:
                continue
            before.add(value)
            left += self.values[value].inputs
        return before & (behind | targets)
