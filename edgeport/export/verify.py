"""Runs an artifact through the agent on the host and compares it with PyTorch."""

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgeport import formats, protocol, scratch
from edgeport.export.calibrate import Array
from edgeport.kit import RUNTIME_OF
from edgeport.records import PieceVerification, TensorInfo, Verification
from edgeport.runner import Runner

Outputs = list[NDArray[np.float64]]
LEAST_DB = -120.0
# Of an output's largest value: what differs less than that from its mean does not vary, it is rounding.
ROUNDING = 1e-6
MOST_AXES = 4  # samples, batch, rows, classes: a map of more has no classes on its last axis


def run_artifact(runner: Runner, artifact: Path, arrays: Sequence[Array], exact: bool = False) -> Outputs:
    """The artifact's outputs, one array (samples, ...) an output, in PyTorch's layout and as real numbers.

    arrays: one an input, (samples, *shape) as PyTorch takes them; laid out and quantised here as the artifact wants.
    exact: int8 products are added to 32 bits, as other processors do, though the device's own kernels may not.
    """
    graph = formats.read(artifact)
    transport = runner.transport
    with scratch.folder() as folder, transport.folder() as there:
        data = [folder / f"in{i}" for i in range(len(graph.inputs))]
        results = [f"{there}/out{i}" for i in range(len(graph.outputs))]
        for path, array, info in zip(data, arrays, graph.inputs, strict=True):
            path.write_bytes(_stored(array, info).tobytes())
        options = [f"--samples={len(arrays[0])}", *(f"--data={transport.put(p)}" for p in data)]
        options += [f"--result={name}" for name in results]
        options += ["--exact-products"] if exact else []
        messages = runner.run("infer", RUNTIME_OF[artifact.suffix], artifact, options)
        shapes = [output.shape for output in messages[protocol.Inferred].outputs]
        outputs = []
        for name, info, shape in zip(results, graph.outputs, shapes, strict=True):
            path = folder / "out"
            transport.get(name, path)
            outputs.append(_real(np.fromfile(path, dtype=info.dtype), info, shape))
        return outputs


class Part(msgspec.Struct, frozen=True):
    """A part of an output that is judged by itself. output: its number; labels: of each of its elements the number of
    the piece that it belongs to, in the output's shape, None for a whole output.
    """

    output: int
    name: str
    piece: str = ""
    labels: Array | None = None
    number: int = 0
    is_float: bool = True

    def of(self, outputs: Outputs) -> NDArray[np.float64]:
        """Its elements, one row a sample."""
        values = outputs[self.output]
        flat = values.reshape(len(values), -1)
        return flat if self.labels is None else flat[:, self.labels.ravel() == self.number]

    @property
    def place(self) -> str:
        return place(self.name, self.piece)


def place(output: str, piece: str) -> str:
    """How a piece of an output is named: by the slice that it is, or the operator that made it."""
    return f"{output}{piece}" if piece.startswith("[") or not piece else f"{output} ({piece})"


def compare(
    reference: Outputs, outputs: Outputs, parts: Sequence[Part] | None = None, held_back: bool = False
) -> Verification:
    """The outputs as a whole, and each part by itself. parts: each output is one if it is not given.

    Equal infinities, and NaN where PyTorch has NaN, count as equal.
    """
    parts = parts or [Part(i, f"output_{i}") for i in range(len(reference))]
    judged = [_judge(part, part.of(reference), part.of(outputs)) for part in parts]
    sums = [sums for _, sums in judged]
    error = max((s.error for s in sums), default=0.0)
    largest = max((s.largest for s in sums), default=0.0)
    floats = [s for s, part in zip(sums, parts, strict=True) if part.is_float]
    signal, noise = sum(s.signal for s in floats), sum(s.noise for s in floats)
    return Verification(
        samples=len(reference[0]),
        max_absolute_error=error,
        max_relative_error=error / largest if largest else error,
        sqnr_db=_decibels(signal, noise),
        top1_agreement=_top1_agreement(reference[0], outputs[0]) if _may_be_scores(parts) else None,
        held_back=held_back,
        pieces=tuple(piece for piece, _ in judged),
    )


class _Sums(msgspec.Struct, frozen=True):
    error: float
    largest: float
    signal: float
    noise: float
    varying: float


def _judge(part: Part, expected: NDArray[np.float64], found: NDArray[np.float64]) -> tuple[PieceVerification, _Sums]:
    sums = _sums(expected, found)
    judged = PieceVerification(
        output=part.name,
        piece=part.piece,
        max_absolute_error=sums.error,
        max_relative_error=sums.error / sums.largest if sums.largest else sums.error,
        sqnr_db=_decibels(sums.signal, sums.noise) if part.is_float else None,
        varying_db=_decibels(sums.varying, sums.noise) if part.is_float and sums.varying else None,
        agreement=None if part.is_float else _agreement(expected, found),
    )
    return judged, sums


def _sums(expected: NDArray[np.float64], found: NDArray[np.float64]) -> _Sums:
    """Of what is finite; the rest has no error where both sides have the same there, and an infinite one else."""
    equal = (expected == found) | (np.isnan(expected) & np.isnan(found))
    numbers = np.isfinite(expected) & np.isfinite(found)
    real, made = expected[numbers], found[numbers]
    error = float(np.abs(made - real).max(initial=0.0)) if np.all(equal | numbers) else np.inf
    largest = float(np.abs(real).max(initial=0.0))
    around = real - (real.mean() if real.size else 0.0)
    varies = float(np.abs(around).max(initial=0.0)) > ROUNDING * largest
    noise = float(np.square(made - real).sum()) if np.isfinite(error) else np.inf
    return _Sums(error, largest, float(np.square(real).sum()), noise, float(np.square(around).sum()) if varies else 0.0)


def _decibels(signal: float, noise: float) -> float | None:
    """None where there is no noise; LEAST_DB where there is nothing else, or no end of it."""
    if not noise:
        return None
    return max(float(10 * np.log10(signal / noise)), LEAST_DB) if signal and np.isfinite(noise) else LEAST_DB


def _may_be_scores(parts: Sequence[Part]) -> bool:
    """Whether the first output is one piece of floats."""
    return parts[0].is_float and all(part.output for part in parts[1:])


def _agreement(expected: NDArray[np.float64], found: NDArray[np.float64]) -> float:
    return float(np.mean(expected == found)) if expected.size else 1.0


def _top1_agreement(expected: NDArray[np.float64], found: NDArray[np.float64]) -> float | None:
    """The first axis is the samples'."""
    if expected.ndim < 2 or expected.ndim > MOST_AXES or expected.shape[-1] < 2 or not expected.size:
        return None
    return float(np.mean(np.argmax(expected, axis=-1) == np.argmax(found, axis=-1)))


def _stored(array: Array, info: TensorInfo) -> Array:
    """As the artifact stores it: channels last, quantised, of its element type."""
    if info.layout == "NHWC":
        array = array.transpose(0, 1, 3, 4, 2)
    if info.quantization:
        limits = np.iinfo(np.dtype(info.dtype))
        scaled = np.round(array / info.quantization.scale) + info.quantization.zero_point
        array = np.clip(scaled, limits.min, limits.max)
    return np.ascontiguousarray(array.astype(info.dtype))


def _real(flat: Array, info: TensorInfo, shape: tuple[int, ...]) -> NDArray[np.float64]:
    array = flat.reshape(-1, *shape).astype(np.float64)
    if info.quantization:
        array = (array - info.quantization.zero_point) * info.quantization.scale
    return array.transpose(0, 1, 4, 2, 3) if info.layout == "NHWC" else array
