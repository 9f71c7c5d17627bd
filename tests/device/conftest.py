"""What all device tests share: a board on loopback, and the command line."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from command_line import Ended

from edgeport import catalog, cli, device_files
from edgeport.catalog import Device

from .board import SSHD, Board, board

MISSING = [name for name in ("ssh", "ssh-keygen") if not shutil.which(name)] + ([] if SSHD else ["sshd"])
MODELS = Path(catalog.__file__).parent / "data" / "check"
Here = Callable[..., Ended]


@pytest.fixture(scope="session", autouse=True)
def _needs_ssh() -> None:
    if MISSING:
        packages = "install openssh-client and openssh-server"
        pytest.skip(f"NOT TESTED: devices over SSH, for want of {', '.join(MISSING)}; {packages}")


@pytest.fixture(scope="session")
def shared_board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Board]:
    with board(tmp_path_factory.mktemp("board") / "it") as made:
        yield made


@pytest.fixture
def a_board(shared_board: Board, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Board:
    """One that other tests have used, known as "board" in the folder that we are in."""
    install(shared_board, tmp_path, monkeypatch)
    return shared_board


@pytest.fixture
def own_board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Board]:
    """One that no other test sees, for what cannot be undone."""
    with board(tmp_path / "it") as made:
        install(made, tmp_path, monkeypatch)
        yield made


@pytest.fixture
def device(a_board: Board) -> Device:
    return catalog.find_device("board")


@pytest.fixture
def here(capfd: pytest.CaptureFixture[str]) -> Here:
    """The command line in this process."""

    def run(*arguments: object, code: int = 0) -> Ended:
        capfd.readouterr()
        ended = Ended(cli.run([str(a) for a in arguments]), *capfd.readouterr())
        assert "Traceback" not in ended.err, ended.err
        assert ended.code == code, f"{ended.out}\n{ended.err}"
        return ended

    return run


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of two megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(folder)]
    if os.getuid() or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("cannot mount a small file system here")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)  # noqa: S607


def install(made: Board, folder: Path, monkeypatch: pytest.MonkeyPatch, **keys: object) -> None:
    """Goes to the folder, and writes the board's file there, which counts."""
    monkeypatch.setenv(device_files.FOLDER, str(folder / "devices"))
    (folder / "devices").mkdir(exist_ok=True)
    (folder / "devices" / "board.toml").write_text(made.toml(**keys))
    monkeypatch.chdir(folder)
