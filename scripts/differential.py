"""What edgeport makes of a network held against PyTorch, piece by piece; against its plain export and stock tools too.

All runs in this process, which a converter or a runtime may end: check_random_networks has it run in others.
"""

import importlib
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec
import numpy as np
import onnxruntime
import torch
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray
from random_networks import Network

from edgeport import formats, graph
from edgeport.errors import causes
from edgeport.export import capture, pieces
from edgeport.export.capture import Captured
from edgeport.export.converters import Converter, Onnx, Tflite
from edgeport.export.job import PIECES, SAMPLES, Job
from edgeport.export.pieces import Pieces
from edgeport.export.worker import TASKS
from edgeport.records import TensorInfo

Array = NDArray[Any]
Arrays = Sequence[Array]  # one an input or output, (samples, *shape)
Figures = dict[str, float]  # of each piece

FORMATS = ("onnx", "tflite")
CALIBRATION_SAMPLES, VERDICT_SAMPLES = 16, 32
MOST_ERROR = 1e-4  # of fp32, of a piece's largest value
ENOUGH_DB, LOST_DB = 40.0, 1.0  # int8 is right above the first; else it may lose the second against others
MOST_DB = 120.0
DOUBTFUL_DB = 20.0  # below it the plain export is made, to be held against
LONGEST_REASON = 300


class Fault(msgspec.Struct, frozen=True):
    """file: such as int8.onnx; kind: refused, wrong (fp32), noisy (int8), crashed or endless."""

    file: str
    kind: str
    text: str
    piece: str = ""


class Record(msgspec.Struct):
    """What came of one network. own_lowering: litert-torch was not needed; seconds: of processor time.

    figures: of edgeport's files and the others', by maker and file; of fp32 the largest error over the piece's largest
    value, of int8 decibels.
    """

    seed: int
    kind: str
    steps: int
    compared: bool = False
    own_lowering: bool = True
    figures: dict[str, dict[str, Figures]] = {}
    faults: list[Fault] = []
    seconds: float = 0.0


class _Tflite(Tflite):
    """The same in this process, which has the libraries loaded."""

    lowered = True

    def _lower(self, job: Job) -> bool:
        self.lowered = super()._lower(job)
        return self.lowered

    def _work(self, task: str, job: Job) -> str:
        return msgspec.json.encode(importlib.import_module(TASKS[task]).run(job)).decode()


class Subject:
    """A network, its samples, and what PyTorch makes of them. pieces: of each output."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.calibration = network.samples(CALIBRATION_SAMPLES, 1)
        self.given = network.samples(VERDICT_SAMPLES, 2)
        self.expected = run_network(network, self.given)
        self.example = tuple(torch.from_numpy(a[0].copy()) for a in self.calibration)
        self.pieces: tuple[Pieces, ...] = ()

    def figures(self, made: Arrays, precision: str) -> Figures:
        """Of each piece, of some of these outputs."""
        figures: Figures = {}
        for i, (expected, found, output) in enumerate(zip(self.expected, made, self.pieces, strict=True)):
            shaped = found.reshape(expected.shape)
            for name, wanted, got in zip(output.names, output.split(expected), output.split(shaped), strict=True):
                figures[f"{i}{name}"] = _error(wanted, got) if precision == "fp32" else sqnr_db(wanted, got)
        return figures


def check(network: Network, compared: bool = False, formats: Sequence[str] = FORMATS) -> Record:
    """Exports the network to these formats. compared: also plainly and with the stock tools, whatever int8 loses."""
    begun = time.process_time()
    record = Record(network.seed, network.kind, len(network.steps), compared)
    subject = Subject(network)
    for format in formats:
        own = _made(subject, format, record, optimize=True)
        others = [_made(subject, format, record, optimize=False)] if compared or _is_doubtful(own) else []
        if compared:
            others += [_figures_of(subject, record, maker, tool) for maker, tool in STOCK[format]]
        record.faults += judged(format, own, others)
    record.seconds = round(time.process_time() - begun, 2)
    return record


def run_network(network: torch.nn.Module, given: Arrays) -> list[Array]:
    """PyTorch's outputs, float64."""
    with torch.no_grad():
        rows = [network(*(torch.from_numpy(a.copy()) for a in sample)) for sample in zip(*given, strict=True)]
    return [torch.stack(column).double().numpy() for column in zip(*rows, strict=True)]


def run_file(path: Path, given: Arrays) -> list[Array]:
    """A file's outputs for samples as PyTorch takes them, as PyTorch lays them out, (samples, ...)."""
    run = _run_onnx if path.suffix == ".onnx" else _run_tflite
    declared = formats.read(path)
    stored = [_laid_out(a, info) for a, info in zip(given, declared.inputs, strict=True)]
    rows = run(path, stored)
    return [
        _as_pytorch(np.stack(column), i) for column, i in zip(zip(*rows, strict=True), declared.outputs, strict=True)
    ]


def _laid_out(array: Array, info: TensorInfo) -> Array:
    array = array.transpose(0, 1, 3, 4, 2) if info.layout == "NHWC" else array
    return np.ascontiguousarray(array.astype(info.dtype))


def _as_pytorch(array: Array, info: TensorInfo) -> Array:
    return (array.transpose(0, 1, 4, 2, 3) if info.layout == "NHWC" else array).astype(np.float64)


def _run_onnx(path: Path, given: Arrays) -> list[list[Array]]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    return [session.run(None, dict(zip(names, sample, strict=True))) for sample in zip(*given, strict=True)]


def _run_tflite(path: Path, given: Arrays) -> list[list[Array]]:
    interpreter, rows = Interpreter(str(path), num_threads=1), []
    interpreter.allocate_tensors()
    for sample in zip(*given, strict=True):
        for details, array in zip(interpreter.get_input_details(), sample, strict=True):
            interpreter.set_tensor(details["index"], _quantized(array, details))
        interpreter.invoke()
        rows.append([_real(interpreter.get_tensor(d["index"]), d) for d in interpreter.get_output_details()])
    return rows


def _quantized(array: Array, details: dict[str, Any]) -> Array:
    """As an input takes it: the stock tools' int8 files take int8."""
    scale, zero = details["quantization"]
    if details["dtype"] != np.int8 or not scale:
        return array
    whole: Array = np.clip(np.round(array / scale) + zero, -128, 127).astype(np.int8)
    return whole


def _real(array: Array, details: dict[str, Any]) -> Array:
    """What the numbers of an output stand for, in memory of their own."""
    scale, zero = details["quantization"]
    if details["dtype"] != np.int8 or not scale:
        return array.copy()
    values: Array = (array.astype(np.float64) - zero) * scale
    return values


def _error(expected: Array, found: Array) -> float:
    """The largest difference over the largest value expected; infinite where one is not finite and the other is."""
    difference = np.where(expected == found, 0.0, np.abs(found - expected))
    largest = float(np.abs(expected).max(initial=0.0))
    error = float(difference.max(initial=0.0)) / (largest or 1.0)
    return error if np.isfinite(error) else float("inf")


def sqnr_db(expected: Array, found: Array) -> float:
    """Signal to noise, at most 120 dB; -120 of what is no number."""
    signal, noise = (float(np.square(values).sum()) for values in (expected, found - expected))
    if not noise:
        return MOST_DB
    ratio = signal / noise
    return float(np.clip(10 * np.log10(ratio), -MOST_DB, MOST_DB)) if 0 < ratio < np.inf else -MOST_DB


# edgeport's own files


def _made(subject: Subject, format: str, record: Record, optimize: bool) -> dict[str, Figures]:
    """Figures of both precisions; faults of the optimised files go into the record."""
    maker = "edgeport" if optimize else "plain"
    figures: dict[str, Figures] = record.figures.setdefault(maker, {})
    own = {}
    with tempfile.TemporaryDirectory() as folder:
        expected = [f"fp32.{format}", f"int8.{format}"]
        try:
            for path in _files(subject, Path(folder), format, record, optimize):
                figures[path.name] = own[path.name] = subject.figures(run_file(path, subject.given), path.stem)
                expected.remove(path.name)
        except Exception as e:  # converters and runtimes raise what they like
            if optimize:
                record.faults.append(Fault(expected[0], "refused", _reason(e)))
    return own


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {causes(error)[-1].strip()}"[:LONGEST_REASON]


def _files(subject: Subject, folder: Path, format: str, record: Record, optimize: bool) -> Iterator[Path]:
    captured = capture.capture(subject.network, subject.example, None if optimize else graph.REQUIRED)
    subject.pieces = pieces.of_outputs(captured.plain)
    job = Job(
        str(folder), ("fp32", "int8"), "x86", False, captured.input_names, captured.output_names, optimize=optimize
    )
    np.savez(folder / SAMPLES, *subject.calibration)
    np.savez(folder / PIECES, *(output.labels for output in subject.pieces))
    converter = _converter(format, captured, folder)
    for converted in converter.convert(job):
        yield converted.path
    if isinstance(converter, _Tflite) and optimize:
        record.own_lowering = converter.lowered


def _converter(format: str, captured: Captured, folder: Path) -> Converter:
    program = capture.program(captured.graph, captured.inputs)
    return Onnx(program, captured) if format == "onnx" else _Tflite(program, captured, folder / "log")


# The verdict


def _is_doubtful(made: dict[str, Figures]) -> bool:
    int8 = [db for file, figures in made.items() if file.startswith("int8") for db in figures.values()]
    return min(int8, default=0.0) < DOUBTFUL_DB


def judged(format: str, own: dict[str, Figures], others: Sequence[dict[str, Figures]]) -> Iterator[Fault]:
    for piece, error in own.get(f"fp32.{format}", {}).items():
        if error > MOST_ERROR:
            yield Fault(f"fp32.{format}", "wrong", f"{error:.1e} of the largest value off", piece)
    for piece, db in own.get(f"int8.{format}", {}).items():
        known = [figures[piece] for other in others for f, figures in other.items() if f.startswith("int8")]
        best = max(known, default=-np.inf)
        if db < min(ENOUGH_DB, best - LOST_DB):
            yield Fault(f"int8.{format}", "noisy", f"{db:.1f} dB, {best:.1f} elsewhere", piece)


# The stock tools, as stock_export has them, for any number of inputs


def _figures_of(
    subject: Subject, record: Record, maker: str, tool: Callable[[Subject, Path], Path]
) -> dict[str, Figures]:
    """Nothing where the tool does not take the network."""
    folder = Path(tempfile.mkdtemp())
    try:
        path = tool(subject, folder)
        made = {"int8": subject.figures(run_stock(path, subject), "int8")}
    except Exception as e:  # of tools that edgeport is only held against
        record.figures.setdefault(maker, {})[f"refused: {_reason(e)[:80]}"] = {}
        return {}
    finally:
        shutil.rmtree(folder)
    record.figures.setdefault(maker, {}).update(made)
    return made


def run_stock(path: Path, subject: Subject) -> list[Array]:
    """Outputs of a file whose inputs and outputs are laid out as PyTorch's are."""
    run = _run_onnx if path.suffix == ".onnx" else _run_tflite
    rows = run(path, subject.given)
    return [np.stack(column).astype(np.float64) for column in zip(*rows, strict=True)]


class _StockQuantizer(Protocol):
    def __call__(self, subject: Subject, folder: Path) -> Path: ...


def _stock_onnx(activations: str) -> _StockQuantizer:
    def export(subject: Subject, folder: Path) -> Path:
        from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
        from onnxruntime.quantization.shape_inference import quant_pre_process

        source, prepared, made = (folder / f"{name}.onnx" for name in ("fp32", "prepared", "int8"))
        torch.onnx.export(subject.network, subject.example, str(source), dynamo=True, verbose=False)
        quant_pre_process(str(source), str(prepared))
        names = [value.name for value in onnxruntime.InferenceSession(str(source)).get_inputs()]
        rows = iter([dict(zip(names, sample, strict=True)) for sample in zip(*subject.calibration, strict=True)])

        class Reader(CalibrationDataReader):  # type: ignore[misc]
            def get_next(self) -> dict[str, Any] | None:
                return next(rows, None)

        types = {"activation_type": getattr(QuantType, activations), "weight_type": QuantType.QInt8}
        quantize_static(str(prepared), str(made), Reader(), **types)
        return made

    return export


def _stock_tflite(subject: Subject, folder: Path) -> Path:
    import litert_torch
    from ai_edge_quantizer import quantizer, recipe

    source, made = folder / "fp32.tflite", folder / "int8.tflite"
    litert_torch.convert(subject.network, subject.example).export(str(source))
    quantize = quantizer.Quantizer(str(source), recipe.static_wi8_ai8())
    types = [d["dtype"] for d in Interpreter(str(source)).get_input_details()]
    rows = [
        {f"args_{i}": a.astype(t) for i, (a, t) in enumerate(zip(sample, types, strict=True))}
        for sample in zip(*subject.calibration, strict=True)
    ]
    ranges = quantize.calibrate({"serving_default": rows})
    quantize.quantize(ranges).export_model(str(made), overwrite=True)
    return made


STOCK: dict[str, list[tuple[str, _StockQuantizer]]] = {
    "onnx": [("stock U8S8", _stock_onnx("QUInt8")), ("stock S8S8", _stock_onnx("QInt8"))],
    "tflite": [("stock", _stock_tflite)],
}
