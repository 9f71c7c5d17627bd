"""What goes wrong on the way to a device and on it, made to happen: what is said, what is kept, what is left behind."""

import contextlib
import json
import os
import re
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Ended, ended, running, until

from edgeport import catalog
from edgeport.errors import LostConnectionError
from edgeport.progress import Silent
from edgeport.sessions import Access, open_runner
from edgeport.transport import open_transport

from .board import Board, board
from .conftest import MODELS, Here, install

MODEL = MODELS / "ones.tflite"
QUICK = ("--no-ops", "--launches=1", "--num-runs=2", "--warmup-runs=0", "--quiet")
# a launch takes a second or so, time enough to break it
SLOW = ("--num-runs=100000", "--warmup-runs=0", "--launches=20", "--no-ops", "--quiet")
LAUNCH = re.compile(r"^\S*python3? .* latency ")
FAKETIME = next(iter(Path("/usr/lib").glob("*/faketime/libfaketime.so.1")), None)


def launches(made: Board) -> set[int]:
    """The agents that time a model now."""
    return {pid for pid, words in made.processes().items() if LAUNCH.match(words)}


def local_launches(group: int) -> set[int]:
    """The agents of this machine that a command started: in its own process group, for Ctrl-C to reach them."""
    found = set()
    for pid in (int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()):
        with contextlib.suppress(OSError):
            if os.getpgid(pid) == group and b"latency" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
                found.add(pid)
    return found


def in_second_launch(made: Board, fault: Callable[[], object], code: int) -> Ended:
    """A long measurement that something happens to once one launch has ended."""
    with running("profile", MODEL, "--device", "board", *SLOW) as process:
        seen: set[int] = set()

        def second() -> bool:
            assert process.poll() is None, process.communicate()
            seen.update(launches(made))
            return len(seen) > 1

        until(second, "a second launch")
        fault()
        return ended(process, code)


def sessions(made: Board) -> list[Path]:
    return list((made.workdir / "sessions").iterdir())


def clean(made: Board) -> bool:
    return not made.processes() and not ((made.workdir / "sessions").is_dir() and sessions(made))


def assert_kept(done: Ended) -> None:
    """What was measured before the fault is shown."""
    assert "ones on board" in done.out
    assert re.search(r"litert +fp32 +\d", done.out)


def works(here: Here) -> None:
    shown = json.loads(here("profile", MODEL, "--device", "board", "--format", "json", *QUICK).out)
    assert shown["device"] == "board"


def test_a_connection_that_breaks_is_told_and_what_was_measured_is_kept(own_board: Board, here: Here) -> None:
    done = in_second_launch(own_board, own_board.cut, 3)
    assert_kept(done)
    assert "latency of ones.tflite with litert on board: the connection was lost" in done.err
    until(lambda: clean(own_board), "the device is clean")
    works(here)


def test_a_device_that_starts_anew_is_told_and_cleaned_the_next_time(own_board: Board, here: Here) -> None:
    done = in_second_launch(own_board, own_board.stop, 3)
    assert_kept(done)
    assert "the connection was lost" in done.err
    assert sessions(own_board)  # nobody was there to remove it
    assert "no answer; is it on" in here("profile", MODEL, "--device", "board", *QUICK, code=3).err
    own_board.start()
    works(here)
    assert clean(own_board)


def test_an_agent_that_the_system_kills_is_told_with_a_guess_why(own_board: Board, here: Here) -> None:
    def kill() -> None:
        for pid in launches(own_board):
            os.kill(pid, signal.SIGKILL)

    done = in_second_launch(own_board, kill, 3)
    assert_kept(done)
    assert "on board: the agent was killed by SIGKILL; was it out of memory?" in done.err
    assert clean(own_board)
    works(here)


@pytest.mark.parametrize("others", [(), ("--device", "local")])
def test_ctrl_c_leaves_nothing_running_on_the_device(own_board: Board, others: tuple[str, ...]) -> None:
    with running("profile", MODEL, "--device", "board", *others, *SLOW) as process:
        until(lambda: launches(own_board) or local_launches(process.pid), "a launch")
        os.killpg(process.pid, signal.SIGINT)
        done = ended(process, 130)
        assert not local_launches(process.pid)
    assert "interrupted" in done.err
    until(lambda: clean(own_board), "the device is clean")


def connections(made: Board) -> dict[int, Path]:
    """The ssh processes of this machine that have a connection to the board open, and the folders of their sockets."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it may end while it is looked at
            words = path.read_text(errors="replace")
            control = re.search(r"(?:ControlPath=|^ssh: )(\S+?)/s[\0 ]", words)
            if control and (str(made.ssh_config) in words or words.startswith("ssh: ")):
                found[int(path.parent.name)] = Path(control[1])
    return found


def test_a_killed_host_leaves_nothing_running_on_the_device_and_the_next_one_removes_the_rest(
    own_board: Board, here: Here
) -> None:
    with running("profile", MODEL, "--device", "board", *SLOW) as process:
        until(lambda: launches(own_board), "a launch")
        folders = {folder for folder in connections(own_board).values() if folder.is_dir()}
        process.kill()
        until(lambda: clean(own_board), "the device is clean")
    assert folders
    works(here)
    assert not [folder for folder in folders if folder.exists()]
    until(lambda: not folders & set(connections(own_board).values()), "the connection is closed")


def test_a_wedged_agent_is_ended_with_the_session(own_board: Board) -> None:
    """One that does not notice that its host has gone."""

    def wedge() -> None:
        for pid in launches(own_board):
            os.kill(pid, signal.SIGSTOP)
        own_board.cut()

    in_second_launch(own_board, wedge, 3)
    until(lambda: clean(own_board), "the device is clean")


def test_a_disk_that_is_full_is_told_and_left_as_it_was(
    a_board: Board, small_disk: Path, tmp_path: Path, here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(a_board, tmp_path, monkeypatch, workdir=str(small_disk / "edgeport"))
    text = here("profile", MODEL, "--device", "board", *QUICK, code=3).err
    assert "board: pushing libLiteRt.so" in text
    assert "No space left on device" in text
    assert "set another workdir" in text
    assert [p.suffix for p in (small_disk / "edgeport").rglob("*") if p.is_file()] == [".pyz"]


@pytest.mark.parametrize("which", ["*.so", "*.pyz"])
def test_a_kit_with_a_flipped_bit_is_found_and_pushed_anew(own_board: Board, here: Here, which: str) -> None:
    works(here)
    damaged = next((own_board.workdir / "kit").glob(which))
    whole = damaged.read_bytes()
    middle = len(whole) // 2
    damaged.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
    works(here)
    assert damaged.read_bytes() == whole


def test_a_kit_that_was_half_pushed_is_never_used_and_removed(own_board: Board, here: Here) -> None:
    works(here)
    kit = own_board.workdir / "kit"
    whole = next(kit.glob("*.so"))
    data = whole.read_bytes()
    whole.write_bytes(data[:1000])  # as after a power cut
    (kit / f"{whole.name}.0123abcd.part").write_bytes(data[:1000])
    works(here)
    assert whole.read_bytes() == data
    assert not list(kit.glob("*.part"))


def test_a_push_that_breaks_is_told_and_leaves_nothing(own_board: Board, tmp_path: Path) -> None:
    large = tmp_path / "large.so"
    with large.open("wb") as file:
        file.truncate(400_000_000)
    kit = own_board.workdir / "kit"

    def cut() -> None:
        until(lambda: list(kit.glob("*.part")), "a push")
        own_board.cut()

    with open_transport(catalog.find_device("board")) as transport:
        thread = threading.Thread(target=cut)
        thread.start()
        with pytest.raises(LostConnectionError, match="board: the connection was lost"):
            transport.put(large, keep=True)
        thread.join()
    until(lambda: not list(kit.iterdir()), "nothing is left")


def test_a_second_profile_pushes_the_model_alone(own_board: Board, here: Here) -> None:
    works(here)
    before = {path: path.stat().st_ino for path in (own_board.workdir / "kit").iterdir()}
    with open_runner(catalog.find_device("board"), Access(), Silent()) as runner:
        runner.run("latency", "litert", MODEL, ("--num-runs=1", "--warmup-runs=0"))
        assert getattr(runner.transport, "pushed_bytes") == MODEL.stat().st_size  # noqa: B009  Ssh's alone
    assert {path: path.stat().st_ino for path in (own_board.workdir / "kit").iterdir()} == before


@pytest.mark.skipif(FAKETIME is None, reason="needs libfaketime")
def test_a_device_whose_clock_is_years_behind_is_measured_and_told(
    tmp_path: Path, here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = {"LD_PRELOAD": str(FAKETIME), "FAKETIME": "-4000d"}
    with board(tmp_path / "it", late) as made:
        install(made, tmp_path, monkeypatch)
        done = here("profile", MODEL, "--device", "board", "--format", "json", *QUICK)
    assert "board: its clock is 4000 days behind" in done.err
    shown = json.loads(done.out)
    assert shown["raw"]["launches"][0]["before"]["unix_time"] < 1.6e9
    assert 0 < shown["latency_ms"]["median"] < 1000


def test_a_device_that_fails_does_not_lose_what_the_others_measured(own_board: Board, here: Here) -> None:
    own_board.stop()
    done = here("profile", MODEL, "--device", "board", "--device", "local", "--format", "json", *QUICK, code=3)
    assert "board: no answer; is it on" in done.err
    assert json.loads(done.out)["device"] == "local"


def test_devices_stand_in_one_table(a_board: Board, here: Here) -> None:
    options = ("--device", "board", "--device", "local", *QUICK)
    found = json.loads(here("profile", MODEL, *options, "--format", "json").out)
    assert [p["device"] for p in found] == ["board", "local"]
    lines = here("profile", MODEL, *options).out.splitlines()
    assert lines[0].startswith("ones on board (")
    assert "; local (" in lines[0]
    assert [line.split()[:2] for line in lines[2:6] if "─" not in line] == [
        ["device", "runtime"],
        ["board", "litert"],
        ["local", "litert"],
    ]


@pytest.mark.parametrize("model", ["ones.tflite", "ones.onnx"])
def test_a_breakdown_over_ssh_has_every_operator(a_board: Board, here: Here, model: str) -> None:
    options = ("--device", "board", "--format", "json", *QUICK[1:])
    shown = json.loads(here("profile", MODELS / model, *options).out)
    assert {op["class"] for op in shown["ops"]} >= {"conv"}
    assert shown["facts"]["machine"] == os.uname().machine
    assert clean(a_board)
