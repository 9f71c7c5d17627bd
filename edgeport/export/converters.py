"""The converters: each turns one captured network into files of one format, precision by precision."""

import copy
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Protocol

import msgspec
import torch

from edgeport import graph, lifeline, targets
from edgeport.errors import ExportError, causes
from edgeport.export import as_written, capture, crash
from edgeport.export.capture import Captured
from edgeport.export.job import SAMPLES, Converted, Job
from edgeport.export.lowering import Lowering, UnsupportedError, unknown_nodes
from edgeport.records import Quantized, Rewrite


class ConverterError(ExportError):
    """causes: the converter's error and those behind it, the root last. suspects: the operators one of which it may be
    about, where its text names none.
    """

    def __init__(self, causes: list[str], suspects: Sequence[torch.fx.Node] = ()) -> None:
        super().__init__(causes[-1])
        self.causes, self.suspects = causes, tuple(suspects)


class Converter(Protocol):
    """format: of the files that it makes. passes: what it rewrote for them alone, once they are converted."""

    format: str
    passes: tuple[Rewrite, ...]

    def convert(self, job: Job) -> Iterator[Converted]:
        """Each file as it is written, fp32 first. Raises ConverterError."""
        ...

    def stop(self) -> None:
        """Ends what it started, whatever that is doing."""
        ...


class Onnx:
    """torch.onnx and ONNX Runtime's quantizer, in this process."""

    format = "onnx"

    def __init__(self, program: torch.export.ExportedProgram, captured: Captured) -> None:
        self._program, self._captured = program, captured
        self.passes: tuple[Rewrite, ...] = ()

    def convert(self, job: Job) -> Iterator[Converted]:
        try:
            from edgeport.export import onnx

            yield from onnx.convert(job, self._program, self._int8_program, self._written_program, self._told)
        except Exception as e:  # converters raise what they like
            raise ConverterError(causes(e)) from e

    def stop(self) -> None:
        pass

    def _told(self, rewrite: Rewrite) -> None:
        self.passes = (*self.passes, rewrite)

    def _written_program(self) -> torch.export.ExportedProgram:
        return as_written.program_of(self._captured)

    def _int8_program(self, job: Job) -> torch.export.ExportedProgram | None:
        """Of the graph for int8, where that is another one than for floats."""
        if not job.optimize or not targets.is_x86(job.target):
            return None
        alone = graph.run_passes(copy.deepcopy(self._captured.graph), graph.INT8_ONNX_X86)
        if not any(p.changes for p in alone):
            self.passes = (*self.passes, *alone)
            return None
        gm = copy.deepcopy(self._captured.plain)  # from the start: what merged groups let others do is the greater part
        passes = graph.run_passes(gm, graph.FORMATS, graph.INT8_ONNX_X86)
        self.passes = (*self.passes, *(p for p in passes if p.formats == graph.INT8_ONNX_X86))
        return capture.program(gm, self._captured.inputs)


class Tflite:
    """edgeport's own lowering, in this process, which takes a fraction of a second; litert-torch, which takes ten or
    more, for what that does not know. litert-torch and the quantizer run in processes of their own.
    """

    format = "tflite"

    def __init__(self, program: torch.export.ExportedProgram, captured: Captured, log: Path) -> None:
        self._program, self._captured, self._log = program, captured, log
        self._workers: list[subprocess.Popen[str]] = []
        self._starting, self._stopped = threading.Lock(), False  # no worker begins once it is stopped
        self.passes: tuple[Rewrite, ...] = ()

    def convert(self, job: Job) -> Iterator[Converted]:
        if not self._lower(job):
            try:
                self.passes = self._converted(job, self._program)
            except ConverterError as e:
                raise ConverterError(e.causes, unknown_nodes(self._captured.graph)) from e
        yield Converted("fp32", job.folder / "fp32.tflite")
        if "int8" in job.precisions:
            path, done = job.folder / "int8.tflite", self._quantized(job)
            if as_written.is_worth_a_try(job, done):
                done = self._better(job, path, done)
            yield Converted("int8", path, done)

    def stop(self) -> None:
        with self._starting:
            self._stopped = True
        for worker in self._workers:
            worker.kill()
            worker.wait()

    def _better(self, job: Job, path: Path, done: Quantized) -> Quantized:
        """Holds the int8 file against one of the graph as it was written, and leaves the better one."""
        gm, plain = as_written.graph_of(self._captured), as_written.job_for(job)
        try:
            _write_lowered(gm, plain)
        except Exception:  # what the lowering does not take is litert-torch's
            self._converted(plain, capture.program(gm, self._captured.inputs))
        other = self._quantized(plain)
        if as_written.is_better(other, done):
            (plain.folder / path.name).replace(path)
        return as_written.told(other, done)

    def _converted(self, job: Job, program: torch.export.ExportedProgram) -> tuple[Rewrite, ...]:
        archive = BytesIO()  # torch's own writer of files ends the process where the disk is full
        torch.export.save(program, archive)
        job.graph.write_bytes(archive.getbuffer())
        return msgspec.json.decode(self._work("convert", job), type=tuple[Rewrite, ...])

    def _quantized(self, job: Job) -> Quantized:
        return msgspec.json.decode(self._work("quantize", job), type=Quantized)

    def _lower(self, job: Job) -> bool:
        """Whether edgeport's own lowering knew every operator; the log says which one it did not."""
        try:
            gm = copy.deepcopy(self._captured.graph)  # the passes for TFLite are not for others
            passes = graph.run_passes(gm, ("tflite",), only=None if job.optimize else ())
            _write_lowered(gm, job)
        except UnsupportedError as e:
            self._note(f"converted by litert-torch, because edgeport's own lowering does not know {e}")
            return False
        except Exception:  # a form of an operator that its rule was not written for
            self._note(f"converted by litert-torch, because edgeport's own lowering failed:\n{traceback.format_exc()}")
            return False
        self.passes = passes
        return True

    def _note(self, text: str) -> None:
        with self._log.open("a", encoding="utf-8") as log:
            log.write(f"{text}\n")

    def _work(self, task: str, job: Job) -> str:
        """Runs one task of edgeport.export.worker: its answer. Raises ConverterError."""
        words = [task, msgspec.json.encode(job).decode(), str(self._log)]
        with lifeline.held() as line:
            worker = self._start([sys.executable, "-m", "edgeport.export.worker", *words], line)
            said, _ = worker.communicate()
        if worker.returncode:
            raise ConverterError(msgspec.json.decode(said) if said else [_ending(worker.returncode, job)])
        return said

    def _start(self, argv: Sequence[str], line: int) -> subprocess.Popen[str]:
        with self._starting:
            if self._stopped:
                raise ConverterError(["the export was ended"])
            worker = subprocess.Popen(argv, stdin=line, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            self._workers.append(worker)
        return worker


def _write_lowered(gm: torch.fx.GraphModule, job: Job) -> None:
    data = Lowering(gm).run(job.input_names, job.output_names)
    (job.folder / "fp32.tflite").write_bytes(data)


def _ending(code: int, job: Job) -> str:
    """How a worker ended that said nothing; after a crash, at which operator of the file that it ran last."""
    if not crash.is_crash(code):
        return crash.told(code)
    files = [job.folder / f"{precision}.tflite" for precision in ("int8", "fp32")]
    ran = next((path for path in files if path.is_file()), None)
    culprit = crash.operator(ran, job.folder / SAMPLES) if ran else None
    return f"{crash.told(code)} at {culprit}" if culprit else crash.told(code)
