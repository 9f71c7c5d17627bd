"""Runs an artifact through the agent on the host and compares it with PyTorch."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeport import formats
from edgeport.export.calibrate import Array
from edgeport.kit import RUNTIME_OF
from edgeport.records import TensorInfo, Verification
from edgeport.runner import Runner

Outputs = list[NDArray[np.float64]]


def run_artifact(runner: Runner, artifact: Path, arrays: Sequence[Array], exact: bool = False) -> Outputs:
    """The artifact's outputs, one array (samples, ...) an output, in PyTorch's layout and as real numbers.

    arrays: one an input, (samples, *shape) as PyTorch takes them; laid out and quantised here as the artifact wants.
    exact: int8 products are added to 32 bits, as other processors do, though the device's own kernels may not.
    """
    graph = formats.read(artifact)
    transport = runner.transport
    with tempfile.TemporaryDirectory(prefix="edgeport-") as folder, transport.folder() as there:
        data = [Path(folder, f"in{i}") for i in range(len(graph.inputs))]
        results = [f"{there}/out{i}" for i in range(len(graph.outputs))]
        for path, array, info in zip(data, arrays, graph.inputs, strict=True):
            path.write_bytes(_stored(array, info).tobytes())
        options = [f"--samples={len(arrays[0])}", *(f"--data={transport.put(p)}" for p in data)]
        options += [f"--result={name}" for name in results]
        options += ["--exact-products"] if exact else []
        messages = runner.run("infer", RUNTIME_OF[artifact.suffix], artifact, options)
        shapes = [tuple(o["shape"]) for o in messages["inferred"]["outputs"]]
        outputs = []
        for name, info, shape in zip(results, graph.outputs, shapes, strict=True):
            path = Path(folder, "out")
            transport.get(name, path)
            outputs.append(_real(np.fromfile(path, dtype=info.dtype), info, shape))
        return outputs


def compare(reference: Outputs, outputs: Outputs) -> Verification:
    """All outputs together; top-1 over the last axis of the first one. Equal infinities count as equal."""
    pairs = [(r.ravel(), o.ravel()) for r, o in zip(reference, outputs, strict=True)]
    expected, found = (np.concatenate(side) for side in zip(*pairs, strict=True))
    difference = np.where(expected == found, 0.0, found - expected)
    largest = float(np.abs(expected).max(initial=0.0))
    error = float(np.abs(difference).max(initial=0.0))
    noise, signal = float(np.square(difference).sum()), float(np.square(expected).sum())
    return Verification(
        samples=len(reference[0]),
        max_absolute_error=error,
        max_relative_error=error / largest if largest else error,
        sqnr_db=float(10 * np.log10(signal / noise)) if noise and signal else None,
        top1_agreement=float(np.mean(_top1(reference[0]) == _top1(outputs[0]))),
    )


def _top1(output: NDArray[np.float64]) -> Array:
    """The largest entry of each sample; that of each row where an output has rows."""
    return np.asarray(np.argmax(output.reshape(len(output), -1), axis=-1))


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
