"""Ends a process at each of the steps by which it changes a file system, one after the other."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

STEPS = ("replace", "rename", "unlink", "rmdir", "mkdir")  # of os, which pathlib and shutil call too
KILLED = 77


def each_step(work: Callable[[], object], prepare: Callable[[], object]) -> Iterator[int]:
    """Prepares, does the work in a process that ends right before its n-th step, and gives n, which the caller then
    looks at; n grows until the process ends by itself.
    """
    n, code = 0, KILLED
    while code == KILLED:
        prepare()
        code = _ended(work, n)
        assert code in (0, KILLED), f"the work failed at step {n}"
        yield n
        n += 1


def _ended(work: Callable[[], object], steps: int) -> int:
    child = os.fork()
    if child == 0:
        try:
            with pytest.MonkeyPatch.context() as patch:
                _count(patch, steps)
                work()
            os._exit(0)
        except BaseException:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _count(patch: pytest.MonkeyPatch, steps: int) -> None:
    left = [steps]

    def counted(step: Callable[..., object]) -> Callable[..., object]:
        def run(*args: object, **keys: object) -> object:
            if not left[0]:
                os._exit(KILLED)
            left[0] -= 1
            return step(*args, **keys)

        return run

    for name in STEPS:
        patch.setattr(os, name, counted(getattr(os, name)))


def content(folder: Path) -> dict[str, str]:
    """Texts of the plain files, by name."""
    return {path.name: path.read_text() for path in folder.iterdir() if path.is_file()}
