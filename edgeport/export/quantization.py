"""Finds the int8 form of a network that keeps most of its answers, for any format.

Tried one after the other on samples that were held back, each kept only if it gains something there: bounds on what
shared ranges may cost, the ways to choose ranges, equal activations across the channels of depthwise convolutions,
corrected biases; and, where asked for, layers left in float, each for what it gains. What counts is the piece of the
outputs that does worst.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgeport.export import joins, ranges
from edgeport.export.job import Job
from edgeport.export.joins import Plan
from edgeport.export.ranges import Range, Tensors
from edgeport.formats.graph import Graph
from edgeport.formats.names import module_of
from edgeport.records import FloatLayer, LayerNoise, Quantized

Array = NDArray[Any]
Sample = Sequence[Array]  # one array an input

AUTO = "auto"
GAIN_DB = 0.5  # less is chance, and the simpler form stays
HELD_BACK = 4  # every fourth photo, of at least so many
FEWEST_TO_JUDGE = 8  # samples; of fewer, choices are judged on those that they are made by
MOST_HELD_BACK, MOST_SEEN = 16, 32  # that choices are judged and made by; the ranges themselves are of all samples
NOISELESS_DB = 120.0
LARGEST_FACTOR = 16.0  # that a channel is scaled by
# What a shared range may cost, in dB: the first is the quickest file; the last shares only where nothing is lost by it.
BOUNDS_DB = (joins.UNBOUNDED_DB, 3.0, 0.0)
NO_SHARING_DB = -1.0
FLOAT_JOINS = "unlike pieces joined in float"
FLOAT_JOINS_GAIN_DB = 2.0  # less is not worth the time that moving floats takes
MOST_TRIALS = 2  # layers tried in float for each that may stay so


class Layer(msgspec.Struct, frozen=True):
    """A convolution or linear layer. output: the tensor that it makes, after an activation that goes with it.

    linear: no activation goes with it; homogeneous: none, or ReLU. weight and bias name constants, "" for no bias.
    channel_axis: of the weight's output channels. depthwise: one output channel, or several, of each of the input's.
    """

    name: str
    input: str
    output: str
    weight: str
    bias: str
    channel_axis: int
    depthwise: bool
    linear: bool
    homogeneous: bool
    madds: int


class FloatFile(Protocol):
    """A float network that can be rewritten a little, and quantised.

    output_names: of the floats that it answers with. labels: of each of them the number of the piece that each element
    belongs to. channel_axis: of convolutions' inputs and outputs.
    """

    graph: Graph
    output_names: list[str]
    labels: list[Array]
    channel_axis: int

    def limits(self) -> Mapping[str, Range]:
        """What ranges must not leave, by tensor, since the int8 file has no operator for an activation there."""
        ...

    def needs_float(self) -> list[str]:
        """Names of operators that int8 cannot hold; to be asked once tensors() has run."""
        ...

    def layers(self) -> list[Layer]: ...

    def constant(self, name: str) -> Array: ...

    def set_constant(self, name: str, value: Array) -> None: ...

    def tensors(self, samples: Sequence[Sample]) -> Iterator[Tensors]:
        """Of each sample all floats that the network computes, by name."""
        ...

    def quantize(self, found: Mapping[str, Range], floats: Sequence[str]) -> Path:
        """Writes an int8 file. found: ranges of tensors by name; floats: names of operators to leave as they are."""
        ...

    def outputs(self, path: Path, samples: Sequence[Sample]) -> list[list[Array]]:
        """Of each sample the floats that it answers with, by the runtime's own int8 kernels."""
        ...

    def quantized_tensors(self, path: Path, samples: Sequence[Sample]) -> Iterator[Tensors]:
        """As tensors(), of an int8 file: as real numbers, under the same names."""
        ...


def run(file: FloatFile, samples: Sequence[Sample], job: Job) -> Quantized:
    """Quantises the file as the job asks. The last file that quantize() writes is the result."""
    search = _Search(file, samples, job)
    automatic = job.method == AUTO and search.can_judge
    methods = list(ranges.METHODS) if automatic else [_plain(job.method)]
    search.choose_bound(methods[0])
    search.try_float_joins()
    search.choose_method(methods)
    for name, change in CHANGES.items() if automatic else ():
        search.try_change(name, change)
    search.leave_floats(job.max_layers_float)
    return search.result()


def worst_db(labels: Sequence[Array], expected: Sequence[Sequence[Array]], found: Sequence[Sequence[Array]]) -> float:
    """The lowest signal-to-noise ratio of all pieces that have a signal, -120 to 120 dB.

    labels: of each output; expected, found: of each sample the outputs.
    """
    lowest = NOISELESS_DB
    for i, label in enumerate(labels):
        pairs = [(e[i], e[i] - f[i]) for e, f in zip(expected, found, strict=True)]
        signal, noise = (np.sum([_energies(label, v) for v in side], axis=0) for side in zip(*pairs, strict=True))
        lowest = min([lowest, *(_decibels(s, n) for s, n in zip(signal, noise, strict=True) if s)])
    return lowest


def _energies(label: Array, values: Array) -> Array:
    """Of each piece the sum of squares."""
    squares = np.square(values, dtype=np.float64).ravel()
    return np.asarray(np.bincount(label.ravel(), squares, minlength=1))


def _energy(values: Array) -> float:
    return float(np.square(values, dtype=np.float64).sum())


def _decibels(signal: float, noise: float) -> float:
    if not noise:
        return NOISELESS_DB
    ratio = signal / noise
    if not 0 < ratio < np.inf:  # or not a number
        return -NOISELESS_DB
    return float(np.clip(10 * np.log10(ratio), -NOISELESS_DB, NOISELESS_DB))


def _bound_name(bound_db: float) -> str:
    """As the manifest has it."""
    return "ranges shared" if bound_db == joins.UNBOUNDED_DB else f"ranges shared up to {bound_db:g} dB"


def _plain(method: str) -> str:
    return ranges.EXTREMES if method == AUTO else method


class _Search:
    def __init__(self, file: FloatFile, samples: Sequence[Sample], job: Job) -> None:
        self.file, self.samples, self.shares, self.int8_io = file, samples, job.optimize, job.int8_io
        photos = job.groups or tuple(range(len(samples)))
        held = set(list(dict.fromkeys(photos))[::HELD_BACK])
        enough = len(samples) >= FEWEST_TO_JUDGE and len(held) < len(set(photos))
        self.can_judge = enough and bool(file.output_names)
        pairs = list(zip(samples, photos, strict=True))
        self.held = [s for s, photo in pairs if photo in held or not self.can_judge][:MOST_HELD_BACK]
        self.seen = [s for s, photo in pairs if photo not in held or not self.can_judge][:MOST_SEEN]
        names = file.output_names
        self.expected = [[tensors[name] for name in names] for tensors in file.tensors(self.held)]
        self.method, self.score = ranges.EXTREMES, -NOISELESS_DB
        self.bound_db = BOUNDS_DB[0] if self.shares else NO_SHARING_DB
        self.spreads: dict[str, ranges.Spread] = {}
        self.tried: dict[str, float] = {}
        self.changes: list[str] = []
        self.left: list[FloatLayer] = []
        self.cut_apart: list[str] = []

    def choose_bound(self, method: str) -> None:
        """Takes the largest bound on what shared ranges may cost that is as good as the best one."""
        self.method = method
        self.spreads = self._spreads(self.seen)
        plans = {self._plan(bound).joins: bound for bound in reversed(BOUNDS_DB)} if self.shares else {}
        if len(plans) < 2:
            return
        scores = {}
        for self.bound_db in sorted(plans.values(), reverse=True):
            scores[self.bound_db] = self._judge()
        best = max(scores.values())
        self.bound_db = next(bound for bound, score in scores.items() if score > best - GAIN_DB)
        self.tried |= {_bound_name(bound): score for bound, score in scores.items()}
        self.changes.append(_bound_name(self.bound_db))

    def try_float_joins(self) -> None:
        """Joins in float what is unlike and cut apart again, if the outputs gain much by it."""
        names = joins.unlike_and_cut_apart(self.file.graph, self._ranges())
        if not names:
            return
        before, self.cut_apart = self._judge(), names
        self.tried[FLOAT_JOINS] = self._judge()
        if self.tried[FLOAT_JOINS] < before + FLOAT_JOINS_GAIN_DB:
            self.cut_apart = []
        else:
            self.changes.append(FLOAT_JOINS)

    def choose_method(self, methods: Sequence[str]) -> None:
        """Takes the method with the best signal-to-noise ratio on the samples held back."""
        self.spreads = self._spreads(self.seen, counted=any(method != ranges.EXTREMES for method in methods))
        scores = {}
        for self.method in methods:
            scores[self.method] = self._judge()
        first, best = methods[0], max(scores, key=scores.__getitem__)
        self.method = best if scores[best] > scores[first] + GAIN_DB else first
        self.score = scores[self.method]
        self.tried |= scores

    def try_change(self, name: str, change: "Change") -> None:
        """Changes the float file's constants, and back if that gains nothing."""
        path, spreads = self._quantized(), self.spreads
        before: dict[str, Array] = {}
        for constant, value in change(self, path):
            before.setdefault(constant, self.file.constant(constant).copy())
            self.file.set_constant(constant, value)
        if not before:
            return
        self.spreads = self._spreads(self.seen)
        self.tried[name] = self._judge()
        if self.tried[name] > self.score + GAIN_DB:
            self.score = self.tried[name]
            self.changes.append(name)
            return
        self.spreads = spreads
        for constant, value in before.items():
            self.file.set_constant(constant, value)

    def leave_floats(self, most: int) -> None:
        """The layers that gain most in float, one after the other."""
        layers = {layer.name: layer for layer in self.file.layers()}
        while len(self.left) < most:
            noisy = sorted(self._losses(), key=lambda pair: -pair[1])
            floats = [layer.name for layer in self.left]
            names = [name for name, _ in noisy if name not in floats][: MOST_TRIALS * most]
            gains = {name: self._judge(name) - self.score for name in names}
            best = max(gains, key=gains.__getitem__, default="")
            if not best or gains[best] < GAIN_DB:
                break
            self.score += gains[best]
            self.left.append(FloatLayer(best, module_of(best) or "", gains[best], layers[best].madds))

    def result(self) -> Quantized:
        """Of a last quantisation, by all samples."""
        self.spreads = self._spreads(self.samples)
        plan, path = self._plan(self.bound_db), self._quantized()
        noise = self._noise(path)
        layers = [layer for layer in self.file.layers() if layer.output in noise]
        return Quantized(
            method=self.method,
            held_back=len(self.held) if self.can_judge else 0,
            worst_db=self.score if self.can_judge else None,
            tried=self.tried if self.can_judge else {},
            changes=tuple(self.changes),
            float_layers=tuple(self.left),
            layers=tuple(LayerNoise(la.name, module_of(la.name) or "", noise[la.output]) for la in layers),
            joins=plan.joins,
            float_joins=tuple(self._float_joins()),
            float_operators=tuple(self.file.needs_float()),
        )

    def _spreads(self, samples: Sequence[Sample], counted: bool | None = None) -> dict[str, ranges.Spread]:
        needed = self.method != ranges.EXTREMES if counted is None else counted
        return ranges.spreads(lambda: self.file.tensors(samples), needed)

    def _judge(self, *floats: str) -> float:
        """Signal-to-noise ratio of the worst piece of the outputs, with these layers in float too."""
        return worst_db(self.file.labels, self.expected, self.file.outputs(self._quantized(*floats), self.held))

    def _ranges(self) -> dict[str, Range]:
        return {name: ranges.METHODS[self.method](spread) for name, spread in self.spreads.items()}

    def _plan(self, bound_db: float) -> Plan:
        rules = joins.Rules(self.file.output_names, self.file.limits(), self._floats())
        return joins.plan(self.file.graph, self._ranges(), rules, bound_db)

    def _floats(self) -> list[str]:
        """Names of the operators that stay in float in any case."""
        return [*self.file.needs_float(), *(layer.name for layer in self.left), *self._float_joins()]

    def _float_joins(self) -> list[str]:
        """Where outputs are integers they have one range in any case."""
        graph, names = self.file.graph, self.file.output_names if not self.int8_io else []
        return list(dict.fromkeys([*joins.unlike_at_outputs(graph, names, self._ranges()), *self.cut_apart]))

    def _quantized(self, *floats: str) -> Path:
        return self.file.quantize(self._plan(self.bound_db).ranges, [*self._floats(), *floats])

    def _noise(self, path: Path) -> dict[str, float]:
        """Signal-to-noise ratio of every tensor that is quantised, by name."""
        signal: dict[str, float] = {}
        noise: dict[str, float] = {}
        pairs = zip(self.file.tensors(self.held), self.file.quantized_tensors(path, self.held), strict=True)
        for expected, found in pairs:
            for name in expected.keys() & found.keys():
                signal[name] = signal.get(name, 0.0) + _energy(expected[name])
                noise[name] = noise.get(name, 0.0) + _energy(expected[name] - found[name])
        return {name: _decibels(signal[name], noise[name]) for name in signal if signal[name]}

    def _losses(self) -> Iterator[tuple[str, float]]:
        """Of each layer how much signal-to-noise ratio goes from its input to its output, in dB."""
        noise = self._noise(self._quantized())
        for layer in self.file.layers():
            if layer.output in noise:
                yield layer.name, noise.get(layer.input, NOISELESS_DB) - noise[layer.output]


class Change(Protocol):
    """What may be done to the float file: (constant, new value) of each change."""

    def __call__(self, search: _Search, path: Path) -> Iterator[tuple[str, Array]]: ...


def _equalize(search: _Search, path: Path) -> Iterator[tuple[str, Array]]:
    """Scales each channel between a layer and a depthwise convolution so that all have the largest one's range.

    Exact: nothing, or a ReLU, lies between, and per-channel weights take the factors in. Nagel et al.: Data-Free
    Quantization through Weight Equalization and Bias Correction, 4.1; with the activations' own ranges.
    """
    once = _read_once(search.file)
    layers = search.file.layers()
    own = [la for la in layers if la.weight in once]
    makers = {la.output: la for la in own if la.homogeneous and (not la.bias or la.bias in once)}
    hidden = once - set(search.file.output_names)
    pairs = [(makers[s.input], s) for s in own if s.depthwise and s.input in makers.keys() & hidden]
    extremes = _largest(search, {second.input for _, second in pairs})
    for first, second in pairs:
        largest = extremes[second.input]
        if not 0 < largest.max() < np.inf:
            continue
        factors = np.clip(largest.max() / np.maximum(largest, largest.max() * 1e-6), 1, LARGEST_FACTOR)
        yield first.weight, _scaled(search.file.constant(first.weight), factors, first.channel_axis)
        if first.bias:
            yield first.bias, _scaled(search.file.constant(first.bias), factors, -1)
        yield second.weight, _scaled(search.file.constant(second.weight), 1 / factors, second.channel_axis)


def _read_once(file: FloatFile) -> set[str]:
    """Tensors and constants that a single operator reads, and that may be changed for its sake."""
    return {name for name, nodes in file.graph.consumers().items() if len(nodes) == 1}


def _largest(search: _Search, names: set[str]) -> dict[str, Array]:
    """Of each channel of these tensors the largest absolute value."""
    axis, found = search.file.channel_axis, dict[str, Array]()
    for tensors in search.file.tensors(search.seen[: 2 * HELD_BACK]) if names else ():
        for name in names:
            values = np.abs(np.moveaxis(tensors[name], axis, 0)).reshape(tensors[name].shape[axis], -1).max(axis=1)
            found[name] = np.maximum(found.get(name, 0), values)
    return found


def _scaled(constant: Array, factors: Array, axis: int) -> Array:
    """Along an axis, which may hold several neighbours for each factor."""
    channels = np.moveaxis(constant, axis, -1)
    each = factors.repeat(channels.shape[-1] // len(factors))
    return np.ascontiguousarray(np.moveaxis(channels * each, -1, axis), constant.dtype)


def _correct_biases(search: _Search, path: Path) -> Iterator[tuple[str, Array]]:
    """Takes the mean error that a layer adds to each channel out of its bias, where no activation follows.

    Of the error in its output, what comes through its weights from that in its input is left to the layers before.
    The same paper, 4.2, with errors measured on samples.
    """
    once = _read_once(search.file)
    layers = [layer for layer in search.file.layers() if layer.linear and layer.bias in once]
    errors = _mean_errors(search, path, {name for layer in layers for name in (layer.input, layer.output)})
    for layer in layers:
        if layer.output in errors and layer.input in errors:
            through = _through(search.file, layer, errors[layer.input])
            if through is not None:
                value = search.file.constant(layer.bias) - (errors[layer.output] - through)
                yield layer.bias, value.astype(np.float32)


def _mean_errors(search: _Search, path: Path, names: set[str]) -> dict[str, Array]:
    """Of each channel of these tensors, as far as they are quantised."""
    sums: dict[str, Array] = {}
    seen = search.seen[: 2 * HELD_BACK]
    pairs = zip(search.file.tensors(seen), search.file.quantized_tensors(path, seen), strict=True)
    for expected, found in pairs:
        for name in names & expected.keys() & found.keys():
            error = found[name] - expected[name]
            axis = search.file.channel_axis if error.ndim > 2 else -1
            mean = np.moveaxis(error, axis, 0).reshape(error.shape[axis], -1).mean(axis=1)
            sums[name] = sums.get(name, np.zeros_like(mean)) + mean / len(seen)
    return sums


def _through(file: FloatFile, layer: Layer, error: Array) -> Array | None:
    """What the layer's weights make of a mean error of its input; None for a convolution of several groups."""
    weight = np.moveaxis(file.constant(layer.weight), layer.channel_axis, 0)
    if layer.depthwise:
        return np.asarray(weight.reshape(len(weight), -1).sum(axis=1) * error.repeat(len(weight) // len(error)))
    inputs = 1 if file.channel_axis == 1 or weight.ndim == 2 else weight.ndim - 1
    if weight.shape[inputs] != len(error):
        return None
    return np.asarray(np.moveaxis(weight, inputs, 1).reshape(*_outer(weight, inputs), -1).sum(axis=2) @ error)


def _outer(weight: Array, inputs: int) -> tuple[int, int]:
    return weight.shape[0], weight.shape[inputs]


CHANGES: dict[str, Change] = {"equal depthwise ranges": _equalize, "corrected biases": _correct_biases}
