"""A device measures for one at a time, and its lock ends with its owner, however he ends."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from command_line import until

from edgeport import catalog, kit
from edgeport.agent.hold import lock_folder
from edgeport.errors import DeviceError, LostConnectionError
from edgeport.progress import Silent
from edgeport.runner import Runner
from edgeport.sessions import Access, open_runner

from .board import Board

NAMES = ("board", "local")


def lock_file(made: Board) -> Path:
    return made.home / "tmp" / "edgeport.lock"


@contextmanager
def kept(name: str, wait: float = 0.0) -> Iterator[Runner]:
    with open_runner(catalog.find_device(name), Access(wait=wait), Silent()) as runner:
        yield runner


@pytest.mark.parametrize("name", NAMES)
def test_who_comes_second_is_told_who_holds_it_and_since_when(a_board: Board, name: str) -> None:
    told = rf"{name} is in use by \w+@.* \(process \d+\) since \d\d:\d\d:\d\d \(\d+ s ago\); wait for it with --wait"
    with kept(name), pytest.raises(DeviceError, match=told), kept(name):
        pass
    with kept(name):
        pass


def test_who_waits_gets_it_when_the_first_one_ends(a_board: Board) -> None:
    ended_at: list[float] = []
    began_at: list[float] = []

    def first() -> None:
        with kept("board"):
            holding.set()
            time.sleep(1.5)
            ended_at.append(time.monotonic())

    holding = threading.Event()
    thread = threading.Thread(target=first)
    thread.start()
    assert holding.wait(60)
    with kept("board", wait=30):
        began_at.append(time.monotonic())
    thread.join()
    assert began_at > ended_at


def test_who_waits_in_vain_is_told_so(a_board: Board) -> None:
    with kept("board"), pytest.raises(DeviceError, match=r"after 1\.5 s it still is"), kept("board", wait=1.5):
        pass


def test_a_file_that_a_dead_owner_left_says_nothing(own_board: Board) -> None:
    lock_file(own_board).write_text(json.dumps({"owner": "a ghost", "since": -1e9}))
    with kept("board"):
        assert "ghost" not in lock_file(own_board).read_text()


@pytest.mark.parametrize("content", ["", "no JSON", "[]", '{"owner": 3}'])
def test_whatever_the_file_holds_the_lock_counts(own_board: Board, content: str) -> None:
    with kept("board"):
        lock_file(own_board).write_text(content)
        with pytest.raises(DeviceError, match="board is in use by "), kept("board"):
            pass


def test_a_lock_that_was_lost_is_noticed_before_the_next_launch(own_board: Board) -> None:
    with kept("board") as runner:
        own_board.cut()
        until(lambda: not own_board.processes(), "the lock's process has ended")
        with pytest.raises(LostConnectionError, match="the connection was lost, and its lock with it"):
            runner.run("latency", "litert", Path("model.tflite"))


def test_an_owner_that_falls_silent_loses_it_and_what_he_runs_is_ended(own_board: Board, tmp_path: Path) -> None:
    """As where a cable is pulled: the connection stays, but nothing comes any more. By the agent itself."""
    session = own_board.home / "sessions" / "mine"
    agent = [sys.executable, str(kit.agent_archive()), "hold", "--owner=me", f"--session={session}", "--silence=3"]
    environment = {"TMPDIR": str(own_board.home / "tmp"), "EDGEPORT_LOCK": str(own_board.home / "tmp")}
    with subprocess.Popen(agent, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as holder:
        assert holder.stdout
        assert holder.stdin
        assert [json.loads(holder.stdout.readline())["type"] for _ in range(2)] == ["hello", "held"]
        program = ["sleep", "300", str(session / "model")]
        with subprocess.Popen(["sh", "-c", '"$0" "$1"; true', *program]) as running:  # noqa: S607
            for _ in range(8):  # it lasts longer than its silence while somebody speaks
                time.sleep(0.5)
                holder.stdin.write("\n")
                holder.stdin.flush()
            assert holder.poll() is None
            assert running.poll() is None
            assert holder.wait(60) == 0
            assert running.wait(60) == -signal.SIGKILL
    assert not session.exists()
    with kept("board"):
        pass


def test_the_lock_is_the_machines_whoever_asks_and_wherever_their_temporary_files_are(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("EDGEPORT_LOCK")
    folders = set()
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv("TMPDIR", str(tmp_path / name))
        monkeypatch.setattr(tempfile, "tempdir", None)
        folders.add(lock_folder())
    assert len(folders) == 1
    assert tmp_path not in Path(folders.pop()).parents


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be somebody else")
def test_another_user_is_told_who_holds_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        shared, lock = Path(name), Path(name, "lock")
        shared.chmod(0o755)
        lock.mkdir()
        lock.chmod(0o1777)
        monkeypatch.setenv("EDGEPORT_LOCK", str(lock))
        agent = shutil.copy(kit.agent_archive(), shared / "agent.pyz")
        Path(agent).chmod(0o644)
        python = shutil.which("python3", path="/usr/bin") or sys.executable
        other = ["setpriv", "--reuid=65534", "--clear-groups", python, "-I", "-S", agent, "hold", "--owner=nobody"]
        with kept("local"):
            done = subprocess.run(other, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert [message["type"] for message in told] == ["hello", "busy", "error"], done.stderr
    assert f"process {os.getpid()}" in told[1]["owner"]
