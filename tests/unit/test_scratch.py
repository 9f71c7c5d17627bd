"""Temporary files and folders go with their process, and what a killed one leaves goes with the next."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeport import scratch

PROGRAM = """
import sys, time
from pathlib import Path
from edgeport import scratch
with scratch.folder(Path(sys.argv[1])) as folder, scratch.file(Path(sys.argv[1])) as file:
    (folder / "deep").mkdir()
    (folder / "deep" / "model.onnx").touch()
    print(folder, file, sep="\\n", flush=True)
    time.sleep(600)
"""


@contextlib.contextmanager
def using(place: Path) -> Iterator[tuple[subprocess.Popen[str], list[Path]]]:
    """A process with a folder and a file there, and their paths."""
    argv = [sys.executable, "-c", PROGRAM, str(place)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process, [Path(process.stdout.readline().strip()) for _ in range(2)]
        finally:
            process.kill()


@pytest.fixture
def abandoned(tmp_path: Path) -> list[Path]:
    """A folder and a file of a process that was killed."""
    with using(tmp_path) as (process, paths):
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert all(path.exists() for path in paths)
    return paths


def test_a_folder_and_a_file_are_there_for_the_block_alone(tmp_path: Path) -> None:
    with scratch.folder(tmp_path) as folder, scratch.file(tmp_path) as file:
        (folder / "within").touch()
        assert folder.stat().st_mode & 0o077 == 0
        assert sorted(tmp_path.iterdir()) == sorted([folder, file])
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_got_another_name_stays(tmp_path: Path) -> None:
    with scratch.file(tmp_path) as file:
        file.rename(tmp_path / "result.json")
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


def test_what_a_killed_process_left_is_removed_before_the_next_one_makes_its_own(
    abandoned: list[Path], tmp_path: Path
) -> None:
    with scratch.folder(tmp_path) as folder:
        assert list(tmp_path.iterdir()) == [folder]


def test_it_is_looked_for_once_a_process(abandoned: list[Path], tmp_path: Path) -> None:
    for _ in range(2):
        with scratch.file(tmp_path):
            pass
    with using(tmp_path) as (process, later):
        process.kill()
        process.wait()
    with scratch.file(tmp_path):
        assert all(path.exists() for path in later)


def test_what_a_living_process_uses_stays(tmp_path: Path) -> None:
    with using(tmp_path) as (_, paths):
        scratch.remove_abandoned(tmp_path)
        assert all(path.exists() for path in paths)


def test_what_belongs_to_another_user_stays(
    abandoned: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    scratch.remove_abandoned(tmp_path)
    assert all(path.exists() for path in abandoned)


def test_no_link_is_followed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.tex").touch()
    (tmp_path / f".edgeport-{'0' * 16}.tmp").symlink_to(precious)
    with using(tmp_path) as (process, [folder, _]):
        process.kill()
        process.wait()
        (folder / "link").symlink_to(precious)
    scratch.remove_abandoned(tmp_path)
    assert not folder.exists()
    assert (precious / "thesis.tex").exists()


@pytest.mark.parametrize("name", [".edgeport-complete", ".edgeport-0123.tmp", "edgeport-0123456789abcdef.tmp", "a.tmp"])
def test_what_has_another_name_is_the_users(name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    scratch.remove_abandoned(tmp_path)
    assert (tmp_path / name).exists()


def test_what_has_an_ending_of_its_own_is_removed_by_who_asks_for_it_after_it_was_told(tmp_path: Path) -> None:
    told: list[Path] = []
    left = tmp_path / f".edgeport-{'1' * 16}.ssh"
    left.mkdir()
    scratch.remove_abandoned(tmp_path)
    assert left.exists()
    scratch.remove_abandoned(tmp_path, "ssh", before=told.append)
    assert told == [left]
    assert not left.exists()


@pytest.mark.parametrize("make", [scratch.folder, scratch.file])
def test_what_is_taken_for_abandoned_before_it_is_locked_is_made_once_more(
    make: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As another process does that looks at the very moment."""
    lock = scratch._lock
    seen: list[Path] = []

    def look_first(handle: int) -> None:
        if not seen:
            seen.extend(tmp_path.iterdir())
            scratch.remove_abandoned(tmp_path)
        lock(handle)

    monkeypatch.setattr(scratch, "_lock", look_first)
    with make(tmp_path) as path:  # type: ignore[operator]
        assert path.exists()
        assert seen != [path]


def test_a_folder_that_is_not_there_is_an_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), scratch.folder(tmp_path / "absent"):
        pass
