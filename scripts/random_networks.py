"""Random networks for check_random_networks: each is made from one integer, its weights and samples with it.

A network is a list of steps, each of which reads inputs or earlier results, and prints as source-like text. Layers are
scaled as they are added, so that what they make has the size of 1, or another one on purpose; statistics of batch
normalisations are those of data; what would be constant, or explode, is drawn again.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Shape = tuple[int, ...]
SCALING_SAMPLES = 8  # that layers are scaled by
MOST_ELEMENTS = 6000  # of one result
LEAST_SPREAD, LARGEST = 1e-3, 1e4
LONGEST_NAMES = 64


class Input(NamedTuple):
    """high: of integers, the first one that none is; 0 for floats. mask: a row of ones and then zeros."""

    name: str
    shape: Shape
    high: int = 0
    mask: bool = False

    def draw(self, generator: torch.Generator) -> Tensor:
        if self.mask:
            width = self.shape[-1]
            length = torch.randint(min(2, width), width + 1, (1,), generator=generator)
            return (torch.arange(self.shape[-1]) < length).long().expand(self.shape).contiguous()
        if self.high:
            return torch.randint(0, self.high, self.shape, generator=generator)
        return torch.randn(self.shape, generator=generator)

    def __str__(self) -> str:
        kind = "mask" if self.mask else f"integers below {self.high}" if self.high else "floats"
        return f"{self.name}: {kind} {self.shape}"


class Step(nn.Module):
    """One result of a network. sources: names of what the function takes; text: how the step prints."""

    def __init__(
        self, name: str, text: str, function: Callable[..., Tensor], sources: Sequence[str], layers: Sequence[nn.Module]
    ) -> None:
        super().__init__()
        self.name, self.text, self.function, self.sources = name, text, function, tuple(sources)
        self.layers = nn.ModuleList(layers)

    def forward(self, *values: Tensor) -> Tensor:
        return self.function(*values)

    def reading(self, sources: Sequence[str]) -> "Step":
        return Step(self.name, self.text, self.function, sources, list(self.layers))

    def __str__(self) -> str:
        return f"{self.name} = {self.text}({', '.join(self.sources)})"


class Network(nn.Module):
    """Steps one after another. kind: the family that it is of."""

    def __init__(
        self, seed: int, kind: str, inputs: Sequence[Input], steps: Sequence[Step], outputs: Sequence[str]
    ) -> None:
        super().__init__()
        needed = _needed(steps, outputs)
        self.seed, self.kind, self.outputs = seed, kind, tuple(outputs)
        self.steps = nn.ModuleList(step for step in steps if step.name in needed)
        self.inputs = tuple(given for given in inputs if given.name in needed)

    def forward(self, *given: Tensor) -> tuple[Tensor, ...]:
        values = {declared.name: value for declared, value in zip(self.inputs, given, strict=True)}
        for step in self._steps():
            values[step.name] = step(*(values[name] for name in step.sources))
        return tuple(values[name] for name in self.outputs)

    def samples(self, count: int, seed: int) -> tuple[NDArray[np.generic], ...]:
        """One array an input, (samples, *shape). Other seeds give other samples."""
        generator = torch.Generator().manual_seed(1_000_003 * self.seed + seed)
        rows = [[given.draw(generator) for given in self.inputs] for _ in range(count)]
        return tuple(torch.stack(column).numpy() for column in zip(*rows, strict=True))

    def smaller(self) -> Iterator["Network"]:
        """Networks with less in them, the smallest first: one result alone, or all results but for one step."""
        steps, inputs = self._steps(), self.inputs
        if len(self.outputs) > 1 or steps[-1].name != self.outputs[0]:
            for name in self.outputs:
                yield Network(self.seed, self.kind, inputs, steps, [name])
        for step in steps[:-1]:
            yield Network(self.seed, self.kind, inputs, steps, [step.name])
        for i, step in enumerate(steps):
            for source in step.sources:
                yield self._without(i, source)

    def _without(self, index: int, source: str) -> "Network":
        """The network with what the step reads in place of what it makes; it may no longer run."""
        gone, steps = self._steps()[index].name, []
        for step in (s for i, s in enumerate(self._steps()) if i != index):
            steps.append(step.reading([source if name == gone else name for name in step.sources]))
        outputs = [source if name == gone else name for name in self.outputs]
        return Network(self.seed, self.kind, self.inputs, steps, outputs)

    def _steps(self) -> list[Step]:
        return [step for step in self.steps if isinstance(step, Step)]

    def __str__(self) -> str:
        lines = [f"# seed {self.seed}, {self.kind}", *map(str, self.inputs), *map(str, self._steps())]
        return "\n".join([*lines, f"return {', '.join(self.outputs)}"])


class UnfitError(Exception):
    """What was drawn is constant, explodes, or is too large; something else is to be drawn."""


class Builder:
    """A network as it grows. values: of each name what it is for the scaling samples, (samples, *shape)."""

    def __init__(self, seed: int, kind: str) -> None:
        self.seed, self.kind = seed, kind
        self.random = random.Random(seed)
        self.inputs: list[Input] = []
        self.steps: list[Step] = []
        self.values: dict[str, Tensor] = {}
        self._generator = torch.Generator().manual_seed(seed)

    def input(self, shape: Shape, high: int = 0, mask: bool = False) -> str:
        given = Input(f"x{len(self.inputs)}", shape, high, mask)
        self.inputs.append(given)
        self.values[given.name] = torch.stack([given.draw(self._generator) for _ in range(SCALING_SAMPLES)])
        return given.name

    def add(self, text: str, function: Callable[..., Tensor], *sources: str, layers: Sequence[nn.Module] = ()) -> str:
        """The name of a new result. Raises UnfitError."""
        layers = [layer.eval() for layer in layers]
        made = self.run(function, *sources)
        if made.is_floating_point():
            _check(made)
        name = f"v{len(self.steps)}"
        self.steps.append(Step(name, text, function, sources, layers))
        self.values[name] = made
        return name

    def layer(self, layer: nn.Module, *sources: str, size: float | None = None) -> str:
        """A layer with weights, scaled so that what it makes is of this size: of 1 as a rule."""
        wanted = size or self.random.choice([1.0] * 8 + [0.2, 4.0])
        parameters = [p for p in (getattr(layer, "weight", None), getattr(layer, "bias", None)) if p is not None]
        with torch.no_grad():
            spread = float(self.run(layer.eval(), *sources).std())
            if not LEAST_SPREAD < spread < LARGEST:
                raise UnfitError(f"a layer of size {spread}")
            for parameter in parameters:
                parameter.mul_(wanted / spread)
        return self.add(_text(layer), layer, *sources, layers=[layer])

    def run(self, function: Callable[..., Tensor], *sources: str) -> Tensor:
        with torch.no_grad():
            rows = [function(*(v.clone() for v in row)) for row in zip(*(self.values[s] for s in sources), strict=True)]
        return torch.stack(rows)

    def shape(self, name: str) -> Shape:
        return tuple(self.values[name].shape[1:])

    def one(self, *choices: object) -> object:
        return self.random.choice(choices)

    def integer(self, low: int, high: int) -> int:
        return self.random.randint(low, max(low, high))

    def chance(self, share: float) -> bool:
        return self.random.random() < share

    def divisor(self, number: int) -> int:
        return self.random.choice([d for d in range(1, number + 1) if number % d == 0])

    def attempt(self, make: Callable[["Builder"], object]) -> bool:
        """Whether it fits; nothing of it stays if not."""
        steps, inputs = len(self.steps), len(self.inputs)
        try:
            make(self)
        except (UnfitError, RuntimeError):  # RuntimeError: of torch, for a kernel larger than the image and the like
            for step in self.steps[steps:]:
                del self.values[step.name]
            for given in self.inputs[inputs:]:
                del self.values[given.name]
            del self.steps[steps:], self.inputs[inputs:]
            return False
        return True

    def unread(self) -> list[str]:
        """Results that nothing reads, in their order."""
        read = {name for step in self.steps for name in step.sources}
        return [step.name for step in self.steps if step.name not in read]

    def network(self, outputs: Sequence[str]) -> Network:
        return Network(self.seed, self.kind, self.inputs, self.steps, outputs).eval()


def _check(made: Tensor) -> None:
    largest, spread = float(made.abs().max()), float(made.std())
    if made[0].numel() > MOST_ELEMENTS or made.dim() > 7:
        raise UnfitError(f"a result of {tuple(made.shape)}")
    if not (spread > LEAST_SPREAD and largest < LARGEST) or spread < 0.02 * largest:
        raise UnfitError(f"a result of size {largest} that varies by {spread}")


def _text(layer: nn.Module) -> str:
    return str(layer).replace("\n", " ")


def _needed(steps: Sequence[Step], outputs: Sequence[str]) -> set[str]:
    needed = set(outputs)
    for step in reversed(steps):
        if step.name in needed:
            needed.update(step.sources)
    return needed
