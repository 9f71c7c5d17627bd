"""From a network to a folder of verified files and its manifest."""

import contextlib
import hashlib
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch

from edgeport import chatter, files, formats, graph, scratch, targets
from edgeport.catalog import Factory
from edgeport.errors import EdgeportError, ExportError
from edgeport.export import (
    acceptance,
    blame,
    cache,
    calibrate,
    capture,
    earlier,
    fitness,
    pieces,
    uses,
    verify,
    versions,
)
from edgeport.export import folder as folders
from edgeport.export.calibrate import Samples
from edgeport.export.capture import Captured
from edgeport.export.converters import Converter, ConverterError, Onnx, Tflite
from edgeport.export.job import Converted, Job
from edgeport.export.manifest import MANIFEST
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
FEW_SAMPLES = 32  # with more, better ranges come from other things than more data


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
    with scratch.folder(kept) as temporary:
        made = temporary / "export"
        with _session(request, made, progress, log) as session:
            session.prepare()
            folder = kept / session.identity()
            with cache.locked(kept):
                if earlier.is_whole(folder):
                    return cache.hold(folder)
            session.convert(runner)
        with cache.locked(kept):
            if not earlier.is_whole(folder):  # another process may have been quicker
                shutil.rmtree(folder, ignore_errors=True)
                made.replace(folder)
            cache.hold(folder)
            cache.prune(kept)
        return folder


@contextlib.contextmanager
def _session(request: Request, folder: Path, progress: Progress, log: Path) -> Iterator["_Session"]:
    files.writable_folder(folder)
    log.unlink(missing_ok=True)
    with scratch.folder(folder) as work:
        session = _Session(request, folder, work, log, progress)
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
        capture.check_finite(network)
        inputs = capture.example_inputs(request.factory, request.input_shapes, network)
        passes = None if request.optimize else graph.REQUIRED
        self.captured: Captured = capture.capture(network, inputs, passes)
        self.pieces = pieces.of_outputs(self.captured.plain)
        self.parts = _parts(self.captured, self.pieces)
        # a network may know better than its file what it was trained with
        self.preprocessing = getattr(network, "PREPROCESSING", request.factory.preprocessing)
        infos = _tensor_infos(self.captured)
        self.samples: Samples = calibrate.load(
            request.calibration_data, infos, self.preprocessing, lambda: uses.draws_for(self.captured.plain, infos)
        )
        if self.samples.is_drawn:
            examples = tuple(torch.from_numpy(array[0].copy()) for array in self.samples.arrays)
            self.captured = msgspec.structs.replace(self.captured, inputs=examples)
        self.progress.finished(step, f"{self.captured.parameters:,} parameters{_images(self.preprocessing)}")
        if self.captured.warning:
            self.progress.warned(self.captured.warning)
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
                sorted(versions.of_libraries().items()),
                SCHEMA,
            ),
            versions.of_own_code(),
        ]
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:24]

    def convert(self, runner: Runner) -> Manifest:
        """Runs the converters side by side, verifies each file as it comes, and writes the folder."""
        program = capture.program(self.captured.graph, self.captured.inputs)
        job = self._job()
        if "tflite" in self.request.formats:
            self.converters.append(Tflite(program, self.captured, self.log))
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
            groups=self.samples.fit_groups,
        )
        try:
            job.store(self.samples.fit_arrays(), [output.labels for output in self.pieces])
        except OSError as e:
            raise ExportError(f"cannot write to {self.folder}: {files.reason(e)}") from e
        return job

    def _collect(self, converter: Converter, job: Job, runner: Runner) -> None:
        """Takes each file as it comes. No int8 is taken, nor made, of an fp32 file that is not right."""
        asked = self.request.precisions
        pending = list(asked) if "fp32" in asked else ["fp32", *asked]
        step = f"{converter.format} {pending[0]}"
        try:
            self.progress.started(step)
            for converted in converter.convert(job):
                step = f"{converter.format} {converted.precision}"
                pending.remove(converted.precision)
                if not self._accept(step, converted, runner):
                    break
                if pending:
                    step = f"{converter.format} {pending[0]}"
                    self.progress.started(step)
        except ConverterError as e:
            self._fail(step, e)
        except EdgeportError as e:
            self._fail(step, str(e))
        except OSError as e:
            self._fail(step, files.reason(e))
        if "int8" in pending and step == f"{converter.format} fp32":
            self._fail(f"{converter.format} int8", f"not made, because the {step} file that it comes from failed")

    def _accept(self, step: str, converted: Converted, runner: Runner) -> bool:
        """Verifies a converted file; notes it if it was asked for, or why it is not accepted."""
        path, precision = converted.path, converted.precision
        self.progress.advanced(step, "verifying")
        exact = targets.needs_exact_products(self.request.target)
        outputs = verify.run_artifact(runner, path, self.samples.arrays, exact)
        verification, calibrated = self._verified(outputs, precision)
        bad = acceptance.objection(verification, precision, converted.quantized, self._asked())
        bad = bad or (acceptance.not_finite(calibrated) if calibrated else None)
        if bad:
            self._fail(step, bad)
            return False
        if precision in self.request.precisions:
            artifact = self._artifact(converted, verification, calibrated)
            self.made.append((path, artifact))
            for name, given in artifact.renamed.items():
                self.progress.warned(f"output {name!r} is {given!r} in {artifact.file}, where an input has its name")
        self.progress.finished(step, acceptance.figures(verification, precision))
        lost = acceptance.lost(verification) if precision == "int8" else ""
        if lost:
            self.progress.warned(f"{step}: {lost}")
        return True

    def _asked(self) -> acceptance.Asked:
        request = self.request
        return acceptance.Asked(
            min_sqnr_db=request.min_sqnr_db,
            has_weights=request.weights is not None or not self.captured.parameters,
            has_data=request.calibration_data is not None and self.samples.count >= FEW_SAMPLES,
            method=request.calibration_method,
            max_layers_float=request.max_layers_float,
        )

    def _verified(self, outputs: verify.Outputs, precision: str) -> tuple[Verification, Verification | None]:
        """What a file is judged by, and how it does on the samples that its ranges are from, if those are others.

        No range of an fp32 file is from any sample: it is judged by all.
        """
        samples, everything = self.samples, list(range(self.samples.count))
        if precision == "fp32":
            return self._compared(outputs, everything, True), None
        if not samples.held:
            return self._compared(outputs, everything, False), None
        return self._compared(outputs, samples.verdict, True), self._compared(outputs, samples.fit, False)

    def _compared(self, outputs: verify.Outputs, chosen: list[int], held_back: bool) -> Verification:
        reference, found = ([output[chosen] for output in side] for side in (self._reference, outputs))
        return verify.compare(reference, found, self.parts, held_back)

    def _artifact(self, converted: Converted, verification: Verification, calibrated: Verification | None) -> Artifact:
        path, found = converted.path, formats.read(converted.path)
        return Artifact(
            file=f"{self.request.name}.{converted.precision}{path.suffix}",
            format=found.format,
            precision=converted.precision,
            sha256=files.sha256(path),
            size_bytes=path.stat().st_size,
            inputs=found.inputs,
            outputs=found.outputs,
            verification=verification,
            opset=found.opset,
            quantized=converted.quantized,
            renamed=_renamed(self.captured.output_names, found.outputs),
            calibrated=calibrated,
        )

    def _fail(self, step: str, why: str | ConverterError) -> None:
        self.progress.failed(step)
        self.failures.append((step, why))

    def _explained(self, step: str, failure: ConverterError) -> str:
        """What cannot be converted and where it stands, why, and what to do."""
        others = [f for f in self.request.formats if not step.startswith(f)]
        text = "\n".join(failure.causes)
        return blame.explained(self.captured, text, failure.suspects, others, self.log)

    def _run_network(self) -> verify.Outputs:
        """PyTorch's outputs for the samples, float64, one array (samples, ...) an output."""
        rows, threads = [], torch.get_num_threads()
        torch.set_num_threads(1)  # the converters have the other cores; more threads wait for each other then
        try:
            with torch.no_grad():
                for sample in zip(*self.samples.arrays, strict=True):
                    made = self.captured.network(*(torch.from_numpy(a.copy()) for a in sample))  # it may write to them
                    rows.append([t.to(torch.float64).numpy() for t in fitness.tensors_of(made)])
        except Exception as e:  # a network's forward raises anything, for numbers that it does not take
            raise ExportError(
                f"the network does not take the samples ({self.samples.source}): {type(e).__name__}: "
                f"{str(e).partition(chr(10))[0]}; give --calibration-data that it takes"
            ) from e
        finally:
            torch.set_num_threads(threads)
        outputs = [np.stack(output) for output in zip(*rows, strict=True)]
        for name, output in zip(self.captured.output_names, outputs, strict=True):
            if output.size and not np.isfinite(output).any():
                raise ExportError(
                    f"PyTorch's own output {name!r} has no finite number for any sample ({self.samples.source}), so "
                    "no file can be verified; give --calibration-data that the network takes, or mend the network"
                )
        return outputs

    def _write(self) -> Manifest:
        order = {(f, p): i for i, (f, p) in enumerate((f, p) for f in FORMATS for p in PRECISIONS)}
        self.made.sort(key=lambda m: order[m[1].format, m[1].precision])
        try:
            with folders.changing(self.folder, MANIFEST):
                manifest = self._deliver()
        except OSError as e:
            raise ExportError(f"cannot write to {e.filename or self.folder}: {files.reason(e)}") from e
        if self.failures:
            written = ", ".join(a.file for _, a in self.made) or "nothing"
            if full := files.storage_error(" ".join(str(why) for _, why in self.failures)):
                there = f"cannot write to {self.folder}: {full}; make room there, or choose another folder"
                raise ExportError(f"{there}\nwritten to {self.folder}: {written}")
            # explained only now: it traces the network, which two threads cannot do at once
            told = [f"{s}: {self._explained(s, w) if isinstance(w, ConverterError) else w}" for s, w in self.failures]
            raise ExportError("\n".join([*sorted(told), f"written to {self.folder}: {written}"]))
        return manifest

    def _deliver(self) -> Manifest:
        """Puts what verified, and its manifest, into the folder: all of it or nothing."""
        manifest = self._manifest()
        if manifest.artifacts:
            fresh = self.work / "fresh"
            fresh.mkdir()
            for path, artifact in self.made:
                path.replace(fresh / artifact.file)
            (fresh / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest)) + b"\n")
            folders.replace(self.folder, fresh, MANIFEST)
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
            versions=versions.of_libraries(),
            artifacts=tuple(artifact for _, artifact in self.made),
            preprocessing=self.preprocessing,
            passes=(*captured.passes, *self._own_passes()),
        )
        return earlier.with_earlier(self.folder, fresh)

    def _own_passes(self) -> Iterator[Rewrite]:
        """Those of the converters, of whose files one is written."""
        formats_made = {artifact.format for _, artifact in self.made}
        for converter in self.converters:
            for rewrite in converter.passes if converter.format in formats_made else ():
                yield msgspec.structs.replace(rewrite, formats=(converter.format,))


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


def _renamed(names: Sequence[str], outputs: Sequence[TensorInfo]) -> dict[str, str]:
    """Names of outputs in a file by the network's, where they differ."""
    return {name: output.name for name, output in zip(names, outputs, strict=True) if output.name != name}


def _parts(captured: Captured, found: Sequence[pieces.Pieces]) -> list[verify.Part]:
    """What is judged by itself: each piece of each output."""
    results = captured.plain.graph.output_node().args[0]
    assert isinstance(results, (tuple, list))
    parts = []
    for number, (name, output, node) in enumerate(zip(captured.output_names, found, results, strict=True)):
        is_float = node.meta["val"].dtype.is_floating_point
        labels = output.labels if len(output.names) > 1 else None
        parts += [verify.Part(number, name, piece, labels, i, is_float) for i, piece in enumerate(output.names)]
    return parts
