"""Files and commands over a real SSH connection."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from command_line import until

from edgeport import catalog
from edgeport.catalog import Device
from edgeport.errors import DeviceError, LostConnectionError, UsageError
from edgeport.transport import Transport, open_transport

from .board import Board

WORDS = ["", "a b", "-rf", "'", '"', "$(id)", "`id`", "a\nb", "\\", "ünïcödé 画像", "*", "!!"]
WAITS = ("sh", "-c", "echo here; exec sleep 300")


@pytest.fixture
def ssh(device: Device) -> Iterator[Transport]:
    with open_transport(device) as transport:
        yield transport


def kit_files(board: Board) -> list[Path]:
    return sorted((board.workdir / "kit").glob("*"))


def test_words_reach_a_command_as_they_are(ssh: Transport) -> None:
    assert ssh.run(["printf", "%s|", *WORDS]).out == "".join(f"{word}|" for word in WORDS)


@pytest.mark.parametrize(("command", "code"), [("exit 7", 7), ("kill -9 $$", -9)])
def test_a_command_tells_how_it_ended(ssh: Transport, command: str, code: int) -> None:
    assert ssh.run(["sh", "-c", command]).exit_code == code


def test_a_command_that_takes_too_long_is_an_error(ssh: Transport) -> None:
    with pytest.raises(DeviceError, match="did not end within"):
        ssh.run(["sleep", "2"], timeout=0.3)


@pytest.mark.parametrize("name", ["plain.onnx", "-rf $(id) 'x'\n\".tflite", "ünïcödé"])
def test_a_file_is_there_as_it_was_whatever_its_name(ssh: Transport, tmp_path: Path, name: str) -> None:
    path, back = tmp_path / name, tmp_path / "back"
    path.write_bytes(os.urandom(100_000))
    there = ssh.put(path)
    ssh.get(there, back)
    assert back.read_bytes() == path.read_bytes()


def test_a_file_to_keep_is_pushed_once_and_found_again(device: Device, a_board: Board, tmp_path: Path) -> None:
    path = tmp_path / "library.so"
    path.write_bytes(os.urandom(100_000))
    with open_transport(device) as first:
        there = first.put(path, keep=True)
    inode = os.stat(there).st_ino
    with open_transport(device) as second:
        assert second.put(path, keep=True) == there
    assert os.stat(there).st_ino == inode


def test_copies_are_files_of_their_own_and_go_again(ssh: Transport, tmp_path: Path) -> None:
    path = tmp_path / "net.tflite"
    path.write_bytes(os.urandom(100_000))
    with ssh.copied(path) as first, ssh.copied(path) as second:
        places = [Path(ssh.put(path)), Path(first), Path(second)]
        assert len({place.stat().st_ino for place in places}) == 3
        assert len(first) == len(second)
        assert all(place.read_bytes() == path.read_bytes() for place in places)
    assert [place.exists() for place in places] == [True, False, False]


@pytest.mark.parametrize("damage", [lambda data: data[:5] + bytes([data[5] ^ 1]) + data[6:], lambda data: data[:50]])
def test_a_damaged_file_is_found_and_pushed_anew(device: Device, tmp_path: Path, damage: object) -> None:
    assert callable(damage)
    path = tmp_path / "library.so"
    path.write_bytes(os.urandom(100_000))
    with open_transport(device) as transport:
        there = Path(transport.put(path, keep=True))
    there.write_bytes(damage(path.read_bytes()))
    with open_transport(device) as transport:
        transport.put(path, keep=True)
    assert there.read_bytes() == path.read_bytes()


def test_what_is_not_kept_is_gone_with_the_connection(device: Device, a_board: Board, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"model")
    with open_transport(device) as transport, transport.folder() as folder:
        there = transport.put(path)
        assert Path(folder).is_dir()
    assert not Path(there).exists()
    assert not list((a_board.workdir / "sessions").iterdir())


def test_a_file_that_is_not_there_is_named(ssh: Transport, tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=r"board: cannot read /absent: .*No such file"):
        ssh.get("/absent", tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_a_killed_command_runs_no_more_on_the_device(ssh: Transport, a_board: Board) -> None:
    process = ssh.start(["cat"], listens=True)
    process.write_line("hello")
    assert process.line(60) == "hello"
    process.kill()
    until(lambda: not a_board.processes(), "the command has ended")


def test_a_broken_connection_is_told_apart_from_a_command_that_failed(device: Device, own_board: Board) -> None:
    with open_transport(catalog.find_device("board")) as transport:
        process = transport.start(WAITS)
        assert process.line(60) == "here"
        own_board.cut()
        assert process.line(60) is None
        process.kill()
        assert process.lost
        own_board.stop()
        with pytest.raises(LostConnectionError, match="board: the connection was lost"):
            transport.run(["true"])


def test_one_connection_carries_everything_and_is_closed(device: Device, a_board: Board) -> None:
    log = a_board.home / "sshd.log"
    before = log.read_text().count("Accepted publickey")
    with open_transport(device) as transport:
        for _ in range(3):
            transport.run(["true"])
    assert log.read_text().count("Accepted publickey") == before + 1


def test_a_jump_host_of_the_users_configuration_is_used(a_board: Board, tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text(
        f"Host inner\n HostName 127.0.0.1\n Port {a_board.port}\n ProxyJump outer\n"
        f"Host outer\n HostName 127.0.0.1\n Port {a_board.port}\n{a_board.ssh_config.read_text()}"
    )
    text = a_board.toml(address="inner", ssh_config="../config").replace(f"port = {a_board.port}\n", "")
    (tmp_path / "devices" / "inner.toml").write_text(text)
    with open_transport(catalog.find_device("inner")) as transport:
        assert transport.run(["echo", "through"]).out == "through\n"


@pytest.mark.parametrize("address", ["", "-oProxyCommand=touch /tmp/owned"])
def test_an_address_that_is_none_is_a_usage_error(device: Device, address: str) -> None:
    wrong = msgspec.structs.replace(device, address=address)
    with pytest.raises(UsageError, match="edgeport devices add NAME --like board --address"), open_transport(wrong):
        pass


def test_nothing_is_left_on_the_device_when_the_host_is_killed(device: Device, a_board: Board) -> None:
    program = (
        "from edgeport import catalog\nfrom edgeport.transport import open_transport\nimport time\n"
        "with open_transport(catalog.find_device('board')) as t:\n"
        "    p = t.start(['cat'], listens=True); p.write_line('x'); print(p.line(60), flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as host:
        assert host.stdout
        assert host.stdout.readline() == "x\n"
        assert a_board.processes()
        host.send_signal(signal.SIGKILL)
    until(lambda: not a_board.processes(), "the command has ended")
