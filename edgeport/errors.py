"""Every error that edgeport raises on purpose. Its text says what was asked, what was found and what to do."""

import difflib
from collections.abc import Iterable

EXIT_PASS, EXIT_REGRESSED, EXIT_USAGE, EXIT_FAILURE, EXIT_INCONCLUSIVE, EXIT_INTERRUPTED = 0, 1, 2, 3, 4, 130


class EdgeportError(Exception):
    """Base of all; exit_code is what the command line exits with."""

    exit_code = EXIT_FAILURE


class UsageError(EdgeportError):
    """A wrong flag, an unknown model or device: nothing was started."""

    exit_code = EXIT_USAGE


class ExportError(EdgeportError):
    """A network that cannot be captured, converted or verified."""


class DeviceError(EdgeportError):
    """A device, a runtime on it, or the agent failed."""


class ConnectError(DeviceError):
    """No way to a device. step: what failed, as `edgeport devices check` calls it: reachable, host key or login."""

    def __init__(self, step: str, text: str) -> None:
        super().__init__(text)
        self.step = step


class LostConnectionError(DeviceError):
    """The way to a device broke: what ran there may be run again once it is back."""


class NothingComparedError(EdgeportError):
    """There is nothing to compare with, so there is no verdict: neither a pass nor a regression."""

    exit_code = EXIT_INCONCLUSIVE


class ModelFileError(EdgeportError):
    """A file that is not the model that its name promises, or is damaged."""


class ResultFileError(EdgeportError):
    """A file that should hold results and does not."""


class HistoryError(EdgeportError):
    """A database of results that cannot be read or written."""


def nearest(word: str, known: Iterable[str]) -> str:
    """'; did you mean X or Y?' for a misspelt word, else '' ."""
    close = difflib.get_close_matches(word, list(known), n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(close)}?" if close else ""


def causes(error: BaseException) -> list[str]:
    """The error and those behind it, the root last."""
    chain: list[BaseException] = []
    following: BaseException | None = error
    while following is not None and following not in chain:
        chain.append(following)
        following = following.__cause__ or following.__context__
    # a KeyError's text is the repr of what it holds, line breaks and all
    return [f"{type(e).__name__}: {e.args[0] if isinstance(e, KeyError) and e.args else e}" for e in chain]
