"""From a network to a folder of verified files and its manifest."""

import contextlib
import functools
import hashlib
import importlib.metadata
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from torch.utils import _pytree

from edgeport import chatter, files, formats, graph, targets
from edgeport.catalog import Factory
from edgeport.errors import EdgeportError, ExportError, ModelFileError
from edgeport.export import cache, calibrate, capture, pieces, verify
from edgeport.export.calibrate import Samples
from edgeport.export.capture import Captured
from edgeport.export.converters import Converter, ConverterError, Onnx, Tflite
from edgeport.export.job import Converted, Job
from edgeport.export.manifest import MANIFEST, read_manifest
from edgeport.progress import Progress
from edgeport.records import (
    MIN_SQNR_DB,
    SCHEMA,
    Artifact,
    Manifest,
    Model,
    Preprocessing,
    Rewrite,
    TensorInfo,
    Verification,
)
from edgeport.runner import Runner

LOG = "export.log"
FORMATS = ("onnx", "tflite")
PRECISIONS = ("fp32", "int8")
FP32_RELATIVE_ERROR = 1e-3
LONGEST_REASON = 200
DISTRIBUTIONS = (
    *("edgeport", "torch", "onnx", "onnxscript", "onnxruntime"),
    *("litert-torch", "litert-converter", "ai-edge-litert", "ai-edge-quantizer", "numpy"),
)


class Request(msgspec.Struct, frozen=True):
    """What to export and how. name: of the files; target: whose kernels int8 is made for."""

    factory: Factory
    name: str
    arguments: dict[str, Any] = {}
    weights: Path | None = None
    input_shapes: tuple[str, ...] = ()
    formats: tuple[str, ...] = FORMATS
    precisions: tuple[str, ...] = PRECISIONS
    target: str = "x86"
    int8_io: bool = False
    calibration_data: Path | None = None
    min_sqnr_db: float = MIN_SQNR_DB
    optimize: bool = True
    calibration_method: str = "min-max"
    max_layers_float: int = 0


def export(request: Request, folder: Path, runner: Runner, progress: Progress) -> Manifest:
    """Exports into the folder. What verified is written even where something else failed.

    Raises ExportError that names each file that was not written, and why.
    """
    with _session(request, folder, progress, folder / LOG) as session:
        session.prepare()
        return session.convert(runner)


def export_cached(request: Request, runner: Runner, progress: Progress) -> Path:
    """The folder of an export with the same network, weights, samples, options and versions: made only once.

    It stays until this process ends, at least.
    """
    kept = files.cache_folder("exports")
    log = files.cache_folder("logs") / f"{request.name}.log"  # outlives a failed export, whose folder goes
    with tempfile.TemporaryDirectory(dir=kept, prefix=".new-") as temporary:
        made = Path(temporary) / "export"
        with _session(request, made, progress, log) as session:
            session.prepare()
            folder = kept / session.identity()
            with cache.locked(kept):
                if (folder / MANIFEST).is_file():
                    return cache.hold(folder)
            session.convert(runner)
        with cache.locked(kept):
            if not (folder / MANIFEST).is_file():  # another process may have been quicker
                shutil.rmtree(folder, ignore_errors=True)
                made.replace(folder)
            cache.hold(folder)
            cache.prune(kept)
        return folder


@contextlib.contextmanager
def _session(request: Request, folder: Path, progress: Progress, log: Path) -> Iterator["_Session"]:
    files.writable_folder(folder)
    log.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".converting-") as work:
        session = _Session(request, folder, Path(work), log, progress)
        try:
            with chatter.kept_in(log):
                yield session
        finally:
            for converter in session.converters:
                converter.stop()


class _Session:
    """One export. Files appear in the folder only at its end, all together."""

    def __init__(self, request: Request, folder: Path, work: Path, log: Path, progress: Progress) -> None:
        self.request, self.folder, self.work, self.log, self.progress = request, folder, work, log, progress
        self.converters: list[Converter] = []
        self.made: list[tuple[Path, Artifact]] = []
        self.failures: list[tuple[str, str | ConverterError]] = []

    def prepare(self) -> None:
        """Captures the network and loads the samples."""
        request, step = self.request, "capture"
        self.progress.started(step)
        network = capture.make_network(request.factory, request.arguments, request.weights)
        inputs = capture.example_inputs(request.factory, request.input_shapes)
        passes = None if request.optimize else graph.REQUIRED
        self.captured: Captured = capture.capture(network, inputs, passes)
        self.pieces = pieces.of_outputs(self.captured.plain)
        # a network may know better than its file what it was trained with
        self.preprocessing = getattr(network, "PREPROCESSING", request.factory.preprocessing)
        self.samples: Samples = calibrate.load(
            request.calibration_data, _tensor_infos(self.captured), self.preprocessing
        )
        self.progress.finished(step, f"{self.captured.parameters:,} parameters{_images(self.preprocessing)}")
        if request.weights is None and self.captured.parameters:
            self.progress.warned("the weights are random; give --weights FILE for a network that has learnt something")
        if self.samples.warning and "int8" in request.precisions:
            self.progress.warned(self.samples.warning)

    def identity(self) -> str:
        """What the export's bytes depend on."""
        request = self.request
        parts = [
            *(self.captured.identity(), self.samples.record().sha256, request.name, request.target, request.int8_io),
            *(
                request.calibration_method,
                request.max_layers_float,
                request.min_sqnr_db,
                request.formats,
                request.precisions,
                sorted(_versions().items()),
                SCHEMA,
            ),
            _code(),
        ]
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:24]

    def convert(self, runner: Runner) -> Manifest:
        """Runs the converters side by side, verifies each file as it comes, and writes the folder."""
        program = capture.program(self.captured.graph, self.captured.inputs)
        job = self._job()
        if "tflite" in self.request.formats:
            self.converters.append(Tflite(program, self.captured.graph, self.log))
        if "onnx" in self.request.formats:
            self.converters.append(Onnx(program, self.captured))
        self._reference = self._run_network()
        pool = ThreadPoolExecutor(len(self.converters))
        futures = [pool.submit(self._collect, converter, job, runner) for converter in self.converters]
        try:
            for future in futures:
                future.result()
        finally:  # after Ctrl-C the threads end when what they wait for ends, which _session sees to
            pool.shutdown(wait=False)
        return self._write()

    def _job(self) -> Job:
        request = self.request
        job = Job(
            directory=str(self.work),
            precisions=request.precisions,
            target=request.target,
            int8_io=request.int8_io,
            input_names=self.captured.input_names,
            output_names=self.captured.output_names,
            optimize=request.optimize,
            method=request.calibration_method,
            max_layers_float=request.max_layers_float,
        )
        try:
            job.store(self.samples.arrays, [output.labels for output in self.pieces])
        except OSError as e:
            raise ExportError(f"cannot write to {self.folder}: {files.reason(e)}") from e
        return job

    def _collect(self, converter: Converter, job: Job, runner: Runner) -> None:
        expected = [f"{converter.format} {precision}" for precision in self.request.precisions]
        pending = list(job.precisions) if "fp32" in job.precisions else ["fp32", *job.precisions]
        step = f"{converter.format} {pending[0]}"
        try:
            self.progress.started(step)
            for converted in converter.convert(job):
                step = f"{converter.format} {converted.precision}"
                if step in expected:
                    self._accept(step, converted, runner)
                pending.remove(converted.precision)
                if pending:
                    step = f"{converter.format} {pending[0]}"
                    self.progress.started(step)
        except ConverterError as e:
            self._fail(step, e)
        except EdgeportError as e:
            self._fail(step, str(e))
        except OSError as e:
            self._fail(step, files.reason(e))

    def _accept(self, step: str, converted: Converted, runner: Runner) -> None:
        """Verifies a converted file; notes it, or why it is not accepted."""
        path, precision = converted.path, converted.precision
        self.progress.advanced(step, "verifying")
        exact = targets.needs_exact_products(self.request.target)
        outputs = verify.run_artifact(runner, path, self.samples.arrays, exact)
        verification = verify.compare(self._reference, outputs)
        bad = _objection(verification, converted, self.request)
        if bad:
            self._fail(step, bad)
            return
        found = formats.read(path)
        artifact = Artifact(
            file=f"{self.request.name}.{precision}{path.suffix}",
            format=found.format,
            precision=precision,
            sha256=files.sha256(path),
            size_bytes=path.stat().st_size,
            inputs=found.inputs,
            outputs=found.outputs,
            verification=verification,
            opset=found.opset,
            quantized=converted.quantized,
        )
        self.made.append((path, artifact))
        self.progress.finished(step, _figures(verification))

    def _fail(self, step: str, why: str | ConverterError) -> None:
        self.progress.failed(step)
        self.failures.append((step, why))

    def _explained(self, failure: ConverterError) -> str:
        """The converter's own words, after the operator and the module that they are about."""
        nodes = _nodes_named(self.captured, "\n".join(failure.causes))
        text = str(failure).strip().partition("\n")[0][:LONGEST_REASON]
        if not nodes:
            return f"the converter failed: {text} (its log: {self.log})"
        where = sorted({capture.module_path(n) or "(the network itself)" for n in nodes})
        operators = ", ".join(sorted({str(n.target) for n in nodes}))
        return f"operator {operators} in module {', '.join(where)} cannot be converted: {text} (its log: {self.log})"

    def _run_network(self) -> verify.Outputs:
        """PyTorch's outputs for the samples, float64, one array (samples, ...) an output."""
        rows, threads = [], torch.get_num_threads()
        torch.set_num_threads(1)  # the converters have the other cores; more threads wait for each other then
        try:
            with torch.no_grad():
                for sample in zip(*self.samples.arrays, strict=True):
                    made = self.captured.network(*(torch.from_numpy(a.copy()) for a in sample))  # it may write to them
                    rows.append([t.to(torch.float64).numpy() for t in _pytree.tree_leaves(made)])
        finally:
            torch.set_num_threads(threads)
        return [np.stack(output) for output in zip(*rows, strict=True)]

    def _write(self) -> Manifest:
        order = {(f, p): i for i, (f, p) in enumerate((f, p) for f in FORMATS for p in PRECISIONS)}
        self.made.sort(key=lambda m: order[m[1].format, m[1].precision])
        manifest = self._manifest()
        if manifest.artifacts:
            with files.whole_file(self.folder / MANIFEST) as beside:  # first, so that no file is left without one
                beside.write_text(msgspec.json.format(msgspec.json.encode(manifest)).decode() + "\n", encoding="utf-8")
                for path, artifact in self.made:
                    path.replace(self.folder / artifact.file)
        if self.failures:
            written = ", ".join(a.file for _, a in self.made) or "nothing"
            # explained only now: it traces the network, which two threads cannot do at once
            told = [f"{s}: {self._explained(w) if isinstance(w, ConverterError) else w}" for s, w in self.failures]
            raise ExportError("\n".join([*sorted(told), f"written to {self.folder}: {written}"]))
        return manifest

    def _manifest(self) -> Manifest:
        request, captured = self.request, self.captured
        model = Model(
            name=request.name,
            source=request.factory.source,
            arguments=request.arguments,
            parameters=captured.parameters,
            weights=request.weights.name if request.weights else None,
            weights_sha256=captured.weights_sha256,
            paper=request.factory.paper,
        )
        fresh = Manifest(
            schema=SCHEMA,
            model=model,
            target=request.target,
            calibration=self.samples.record(),
            versions=_versions(),
            artifacts=tuple(artifact for _, artifact in self.made),
            preprocessing=self.preprocessing,
            passes=(*captured.passes, *self._own_passes()),
        )
        return _with_earlier(self.folder, fresh)

    def _own_passes(self) -> Iterator[Rewrite]:
        """Those of the converters, of whose files one is written."""
        formats_made = {artifact.format for _, artifact in self.made}
        for converter in self.converters:
            for rewrite in converter.passes if converter.format in formats_made else ():
                yield msgspec.structs.replace(rewrite, formats=(converter.format,))


def _with_earlier(folder: Path, fresh: Manifest) -> Manifest:
    """With the files of an earlier export of the very same network into this folder, which this one did not make."""
    try:
        earlier = read_manifest(folder)
    except ModelFileError:
        return fresh
    if _without_files(earlier) != _without_files(fresh):
        return fresh
    made = {a.file for a in fresh.artifacts}
    kept = [a for a in earlier.artifacts if a.file not in made and _is_whole(folder, a)]
    other = {a.format for a in kept} - {a.format for a in fresh.artifacts}
    passes = [p for p in earlier.passes if p.formats != graph.FORMATS and other.issuperset(p.formats)]
    return msgspec.structs.replace(fresh, artifacts=(*fresh.artifacts, *kept), passes=(*fresh.passes, *passes))


def _without_files(manifest: Manifest) -> Manifest:
    """What is said of the network, and what was done to it for all formats alike."""
    shared = tuple(p for p in manifest.passes if p.formats == graph.FORMATS)
    return msgspec.structs.replace(manifest, artifacts=(), passes=shared)


def _is_whole(folder: Path, artifact: Artifact) -> bool:
    path = folder / artifact.file
    return path.is_file() and files.sha256(path) == artifact.sha256


def _images(preprocessing: Preprocessing | None) -> str:
    """What the network is given for a photo, as the line on its capture says it."""
    if preprocessing is None:
        return ""
    said = f"; images: {preprocessing.colors} of 0 to {255 * preprocessing.scale:g}"
    if preprocessing.mean == (0, 0, 0) and preprocessing.std == (1, 1, 1):
        return f"{said}, not normalised"
    mean, std = (" ".join(f"{value:g}" for value in values) for values in (preprocessing.mean, preprocessing.std))
    return f"{said}, mean {mean}, std {std}"


def _tensor_infos(captured: Captured) -> list[TensorInfo]:
    pairs = zip(captured.input_names, captured.inputs, strict=True)
    return [TensorInfo(name, tuple(t.shape), str(t.dtype).removeprefix("torch.")) for name, t in pairs]


def _objection(verification: Verification, converted: Converted, request: Request) -> str | None:
    sqnr, error = verification.sqnr_db, verification.max_relative_error
    if not np.isfinite(error):
        return "its outputs are not finite where PyTorch's are"
    if converted.precision == "fp32" and error > FP32_RELATIVE_ERROR:
        return f"its outputs differ from PyTorch's by {error:.1e} of their largest, more than {FP32_RELATIVE_ERROR:.0e}"
    if converted.precision == "int8" and sqnr is not None and sqnr < request.min_sqnr_db:
        layers = converted.quantized.layers if converted.quantized else ()
        first = next((layer for layer in layers if layer.sqnr_db < request.min_sqnr_db), None)
        lost = f", from {first.module or first.name} on" if first else ""
        weights = "" if request.weights else "--weights (an untrained network's values may come to nothing), "
        return (
            f"int8 loses too much{lost}: signal-to-noise ratio {sqnr:.1f} dB, below {request.min_sqnr_db:g} dB; give "
            f"{weights}--calibration-data that is like what the network will see, or lower --min-sqnr-db"
        )
    return None


def _figures(verification: Verification) -> str:
    sqnr = "equal" if verification.sqnr_db is None else f"SQNR {verification.sqnr_db:.1f} dB"
    error = f"max error {verification.max_absolute_error:.2g} ({verification.max_relative_error:.1e} relative)"
    return f"{error}, {sqnr}, top-1 {verification.top1_agreement:.0%} of {verification.samples}"


def _nodes_named(captured: Captured, text: str) -> Sequence[torch.fx.Node]:
    """Operators of the network whose names stand in a converter's error; of its decomposed form if none does."""
    found = _mentioned(captured.graph.graph, text)
    if not found:
        with contextlib.suppress(Exception):  # an explanation only; the converter's text is shown in any case
            program = torch.export.export(captured.graph, captured.inputs).run_decompositions()
            found = _mentioned(program.graph, text)
    return found


def _mentioned(graph: torch.fx.Graph, text: str) -> list[torch.fx.Node]:
    text = re.sub(r"\bprims\b|\btorch\.ops\.aten\b", "aten", text.replace("::", "."))
    found = []
    for node in graph.nodes:
        name = str(node.target).rpartition(".")[0] if node.op == "call_function" else ""
        if name.count(".") >= 1 and re.search(rf"(?<![\w.]){re.escape(name)}(?!\w)", text):
            found.append(node)
    return found


@functools.cache
def _code() -> str:
    """A hash of edgeport's own code that exports: what was made by another version of it is made anew."""
    root, digest = Path(__file__).parent.parent, hashlib.sha256()
    for path in sorted(p for part in ("export", "graph", "formats") for p in (root / part).glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _versions() -> dict[str, str]:
    versions = {}
    for name in DISTRIBUTIONS:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions
