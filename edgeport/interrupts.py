"""The signals that end a command: Ctrl-C, a plain kill, and a terminal that is closed. Each ends it as Ctrl-C does."""

import os
import signal
import sys
import threading
import time
from types import FrameType
from typing import NoReturn

HEARD = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
AGAIN_SECONDS = 0.05

IMPORTING = "<frozen importlib._bootstrap>"
IMPORT_SECONDS = 10.0  # that a signal waits for at most: a user's own file may do anything while it is imported

_by: list[int] = []  # the signals that end this process, the first one first
_waiting: list[float] = []  # since when a signal waits for an import


def listen() -> None:
    """From now on they raise KeyboardInterrupt. What is to be deaf to one, as nohup's processes are, stays so."""
    for number in HEARD:
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, _end)
    sys.unraisablehook = _lost


def spare_imports() -> None:
    """From now on a signal waits until what is being imported has been: libraries in C++ abort where it is raised."""
    for number in HEARD:
        if signal.getsignal(number) == _end:
            signal.signal(number, _end_once_imported)


def heard() -> bool:
    """Whether this process was asked to end."""
    return bool(_by)


def name() -> str:
    """Of the signal, as a user knows it."""
    return "interrupted" if not _by or _by[0] == signal.SIGINT else signal.Signals(_by[0]).name


def code() -> int:
    """What to exit with, as shells say it."""
    return 128 + (_by[0] if _by else signal.SIGINT)


def leave(exit_code: int) -> NoReturn:
    """Ends this process at once: no library's thread is waited for, and no signal meets a Python that is half gone."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:  # nobody reads it any more
            continue
    os._exit(exit_code)


def _end(number: int, frame: FrameType | None) -> None:
    """A second Ctrl-C interrupts what the first one has begun to clean up; other signals are heard once."""
    if not _by or number == signal.SIGINT:
        _by.append(number)
        raise KeyboardInterrupt


def _end_once_imported(number: int, frame: FrameType | None) -> None:
    if not _is_importing(frame):
        _end(number, frame)
        return
    _waiting.append(time.monotonic())
    if time.monotonic() - _waiting[0] > IMPORT_SECONDS:
        _end(number, frame)
    else:
        _send_again(number)


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None and frame.f_code.co_filename != IMPORTING:
        frame = frame.f_back
    return frame is not None


def _lost(what: "sys.UnraisableHookArgs") -> None:
    """Where Python can raise nothing, as in a weak reference's callback while it imports, a signal is sent again."""
    if not isinstance(what.exc_value, KeyboardInterrupt) or not _by:
        sys.__unraisablehook__(what)
        return
    _send_again(_by.pop())


def _send_again(number: int) -> None:
    main = threading.main_thread().ident
    again = threading.Timer(AGAIN_SECONDS, lambda: signal.pthread_kill(main or 0, number))
    again.daemon = True
    again.start()
