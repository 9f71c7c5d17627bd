"""Checks what was written on the command line, and delivers what was asked for."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import typer

from edgeport import catalog, cleaning, device_files, errors
from edgeport.errors import EdgeportError, UsageError


def complain(text: str) -> None:
    sys.stderr.write(f"edgeport: {cleaning.text(text)}\n")


def say(text: object, end: str = "\n") -> None:
    """To standard output: the only way there, but for deliver()."""
    typer.echo(f"{cleaning.text(str(text))}{end}", nl=False)


def find_device(name: str, folder: Path | None) -> catalog.Device:
    """A device by its name, with a word where its file is not the usual one. folder: that the user named by --devices.
    Raises UsageError and DeviceError.
    """
    device = catalog.find_device(name, folder)
    for note in device_files.notes(name, device_files.find(folder)):
        complain(f"warning: {note}")
    return device


def listed(flag: str, text: str, known: Sequence[str]) -> tuple[str, ...]:
    """A comma-separated list, in the order in which the known ones stand."""
    words = [word.strip() for word in text.split(",") if word.strip()]
    for word in words or [text]:
        one_of(flag, word, known)
    return tuple(word for word in known if word in words)


def one_of(flag: str, word: str, known: Sequence[str]) -> None:
    if word not in known:
        raise UsageError(f"{flag} {word}: choose from {', '.join(known)}{errors.nearest(word, known)}")


def destination_file(output: Path | None, flag: str = "--output") -> Path | None:
    """Checked before hours of measuring, not after."""
    from edgeport import files

    if output is not None:
        files.writable_folder(output.parent)
        if output.is_dir():
            raise UsageError(f"{flag} {output} is a folder; name a file")
        if output.exists() and not output.is_file():
            raise UsageError(f"{flag} {output} is no plain file and would be replaced by one; name another")
    return output


def output_closed() -> None:
    """`edgeport ... | head`: nothing to complain about, and nothing more to say at the end of the process."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def deliver(text: str, destination: Path | None) -> None:
    """To the file, or to standard output; if nobody reads that any more, the exit code says what there is to know."""
    from edgeport import files

    if destination is None or not text:
        try:
            say(text, end="")
            sys.stdout.flush()
        except BrokenPipeError:
            output_closed()
    else:
        try:
            files.write_text(destination, text)
        except EdgeportError as e:
            say(text, end="")  # hours of measuring may be in it
            raise EdgeportError(f"{e}; what it was to hold is on standard output") from e
        say(destination)
