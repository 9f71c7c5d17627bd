"""Runs what may need any amount of memory or time, or crash, on what others made: in a child process with limits on
both, which takes nothing with it when it ends.
"""

import faulthandler
import math
import os
import resource
import select
import signal
import time
from collections.abc import Callable
from typing import NoReturn

import msgspec

OUT_OF_MEMORY, FAILED = 71, 70  # exit codes of the child
WAITING = 6  # times its processor time, on a busy machine
CHUNK_BYTES = 1 << 20
OWN_ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE, signal.SIGXCPU)


class Limits(msgspec.Struct, frozen=True):
    """seconds: of processor time. memory: bytes beyond those of this process. answer: bytes that may come back."""

    seconds: float
    memory: int
    answer: int


class ConfinedError(Exception):
    """A child that did not answer. Its text says which limit it reached, or how it crashed."""


def call(function: Callable[[], bytes], limits: Limits) -> bytes:
    """What the function returns in a child forked from this process. Raises ConfinedError.

    The child sees all that this process has in memory, changes nothing of it, and writes nowhere. What the function
    raises is not told: it answers with its own errors.
    """
    answer_end, child_end = os.pipe()
    child = os.fork()
    if not child:
        os.close(answer_end)
        _answer(function, limits, child_end)
    os.close(child_end)
    status = None
    try:
        answer = _received(answer_end, limits)
        status = os.waitpid(child, 0)[1]
    finally:
        os.close(answer_end)
        if status is None:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    if code:
        raise ConfinedError(_reason(code, limits))
    return answer


def _received(handle: int, limits: Limits) -> bytes:
    """All that the child writes."""
    deadline, received = time.monotonic() + WAITING * limits.seconds, bytearray()
    while True:
        if not select.select([handle], [], [], max(0.0, deadline - time.monotonic()))[0]:
            raise ConfinedError(_slow(limits))
        data = os.read(handle, CHUNK_BYTES)
        if not data:
            return bytes(received)
        received += data
        if len(received) > limits.answer:
            raise ConfinedError(f"it became more than the limit of {limits.answer / 1e6:.0f} MB")


def _reason(code: int, limits: Limits) -> str:
    if code == OUT_OF_MEMORY:
        return f"it took more than its limit of {limits.memory / 1e6:.0f} MB of memory"
    if code == -signal.SIGXCPU:
        return _slow(limits)
    how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
    return f"it ended {how}, within limits of {limits.memory / 1e6:.0f} MB of memory and {limits.seconds:.0f} s"


def _slow(limits: Limits) -> str:
    return f"it took longer than its time limit of {limits.seconds:.0f} s"


def _answer(function: Callable[[], bytes], limits: Limits, handle: int) -> NoReturn:
    """The child's whole life."""
    code = FAILED
    try:
        _confine(limits)
        answer = memoryview(function())
        while answer:
            answer = answer[os.write(handle, answer) :]
        code = 0
    except MemoryError:
        code = OUT_OF_MEMORY
    finally:
        os._exit(code)  # nothing of the parent's is flushed, closed or cleaned up by its copy


def _confine(limits: Limits) -> None:
    faulthandler.disable()
    for number in OWN_ENDS:
        signal.signal(number, signal.SIG_DFL)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):  # libraries that abort say so
        os.dup2(nowhere, stream)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _lower(resource.RLIMIT_CPU, math.ceil(limits.seconds))
    with open("/proc/self/statm", encoding="ascii") as statm:
        taken = int(statm.read().split()[0]) * resource.getpagesize()
    _lower(resource.RLIMIT_AS, taken + limits.memory)


def _lower(which: int, wanted: int) -> None:
    soft, hard = resource.getrlimit(which)
    bounds = [wanted, *(limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY)]
    resource.setrlimit(which, (min(bounds), hard))
