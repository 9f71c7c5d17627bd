"""The converters: each turns one captured network into files of one format, precision by precision."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import msgspec
import torch

from edgeport.errors import ExportError
from edgeport.export.job import Job


class ConverterFailure(ExportError):
    """causes: the converter's error and those behind it, the root last."""

    def __init__(self, causes: list[str]) -> None:
        super().__init__(causes[-1])
        self.causes = causes


class Converter(Protocol):
    """format: of the files that it makes."""

    format: str

    def convert(self, job: Job) -> Iterator[tuple[str, Path]]:
        """(precision, file) as each is written, fp32 first. Raises ConverterFailure."""
        ...

    def stop(self) -> None: ...


class Onnx:
    """In this process, whose imports it shares."""

    format = "onnx"

    def __init__(self, program: torch.export.ExportedProgram) -> None:
        self._program = program

    def convert(self, job: Job) -> Iterator[tuple[str, Path]]:
        try:
            from edgeport.export import onnx

            yield from onnx.convert(job, self._program)
        except Exception as e:  # converters raise what they like
            raise ConverterFailure(causes(e)) from e

    def stop(self) -> None:
        pass


class Tflite:
    """In a process of its own: it imports its libraries, which takes seconds, while the network is being captured."""

    format = "tflite"

    def __init__(self, log: Path) -> None:
        self._log = log
        self._process = subprocess.Popen(
            [sys.executable, "-m", "edgeport.export.worker", str(log)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def convert(self, job: Job) -> Iterator[tuple[str, Path]]:
        assert self._process.stdin and self._process.stdout
        try:
            self._process.stdin.write(msgspec.json.encode(job).decode() + "\n")
            self._process.stdin.close()
        except BrokenPipeError:
            pass  # it has ended: what it said, or its exit code, is read below
        for line in self._process.stdout:
            message = msgspec.json.decode(line)
            if "errors" in message:
                raise ConverterFailure(message["errors"])
            yield message["done"], Path(message["path"])
        code = self._process.wait()
        if code:
            raise ConverterFailure([f"its process ended with exit code {code}; the log is {self._log}"])

    def stop(self) -> None:
        """Ends the process, whatever it is doing."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream:
                stream.close()


def causes(error: BaseException) -> list[str]:
    """The error and those behind it, the root last."""
    chain: list[BaseException] = []
    following: BaseException | None = error
    while following is not None and following not in chain:
        chain.append(following)
        following = following.__cause__ or following.__context__
    return [f"{type(e).__name__}: {e}" for e in chain]
