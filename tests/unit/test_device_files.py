"""Devices of the current folder: their files name commands, so they count only where the user said so."""

import os
from pathlib import Path

import pytest

from edgeport import catalog, cli, device_files, trust
from edgeport.errors import DeviceError, EdgeportError, UsageError

EVIL = 'description = "innocent"\ntransport = "local"\ntarget = "auto"\n[sensors]\ntemperature = ["touch", "pwned"]\n'
BOARD = 'description = "a board"\ntransport = "ssh"\ntarget = "arm"\naddress = "pi@board"\nssh_config = "config"\n'


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """devices/ of the current folder: a local that is not edgeport's, and a board with its ssh_config."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv(device_files.FOLDER, raising=False)
    devices = tmp_path / "work" / "devices"
    devices.mkdir(parents=True)
    (devices / "local.toml").write_text(EVIL)
    (devices / "board.toml").write_text(BOARD)
    (devices / "config").write_text("Host *\n")
    monkeypatch.chdir(devices.parent)
    return devices


def run(*arguments: object, code: int = 0) -> None:
    assert cli.run([str(a) for a in arguments]) == code


def test_edgeports_own_device_is_used_and_the_other_one_is_told_of(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert catalog.find_device("local").sensors == catalog.Sensors()
    run("profile", "nowhere.onnx", "--no-history", code=2)
    told = capsys.readouterr().err
    assert "devices/local.toml is not used" in told
    assert "run 'edgeport devices trust local'" in told
    assert "--devices devices" in told


def test_a_device_that_is_only_there_says_what_to_do(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"edgeport devices show board.*edgeport devices trust board.*--devices"):
        catalog.find_device("board")
    assert "board" not in catalog.device_names()


def test_one_that_is_not_trusted_can_be_read_with_what_it_names(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "config").write_text("ProxyCommand touch pwned\x1b[2J\n")
    run("devices", "show", "board")
    told = capsys.readouterr().out
    assert "not trusted, not used" in told
    assert "pi@board" in told
    assert "ProxyCommand touch pwned\\x1b[2J" in told
    run("devices")
    assert "devices/board.toml is not used" in capsys.readouterr().err


def test_what_is_trusted_counts_and_takes_a_usual_devices_place_not_without_a_word(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("devices", "trust", "local", "board")
    assert "touch" in capsys.readouterr().out
    assert catalog.find_device("board").address == "pi@board"
    run("profile", "nowhere.onnx", "--no-history", code=2)
    assert "the device local is that of devices/local.toml, in place of the usual one" in capsys.readouterr().err
    run("devices", "trust", "board", "--revoke")
    with pytest.raises(UsageError):
        catalog.find_device("board")


@pytest.mark.parametrize("changed", ["board.toml", "config"])
def test_a_change_of_the_file_or_of_what_it_names_ends_the_trust(folder: Path, changed: str) -> None:
    run("devices", "trust", "board")
    (folder / changed).write_text((folder / changed).read_text() + "# more\n")
    with pytest.raises(UsageError, match="trust board"):
        catalog.find_device("board")


def test_the_same_content_elsewhere_is_not_trusted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run("devices", "trust", "board")
    elsewhere = folder.parent.parent / "elsewhere"
    elsewhere.mkdir()
    os.rename(folder, elsewhere / "devices")
    monkeypatch.chdir(elsewhere)
    with pytest.raises(UsageError):
        catalog.find_device("board")


def test_a_folder_that_is_named_counts_and_the_current_one_does_not(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert catalog.find_device("board", folder).ssh_config == str(folder / "config")
    monkeypatch.setenv(device_files.FOLDER, str(folder))
    assert catalog.find_device("board").address == "pi@board"
    monkeypatch.chdir(tmp_path)
    assert catalog.find_device("board").address == "pi@board"
    run("profile", "nowhere.onnx", "--devices", tmp_path / "absent", "--no-history", code=2)


def test_a_device_that_was_added_here_is_trusted(folder: Path) -> None:
    run("devices", "add", "mine", "--like", "rpi4", "--address", "pi@mine", "--here")
    assert catalog.find_device("mine").address == "pi@mine"


def test_a_copy_of_edgeports_own_file_is_no_other_device(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As in a clone of edgeport."""
    (folder / "local.toml").write_bytes((device_files.shipped_folder() / "local.toml").read_bytes())
    assert "local" not in device_files.find().untrusted
    assert not device_files.notes("local", device_files.find())


def test_what_is_no_plain_file_keeps_nobody_waiting(folder: Path) -> None:
    os.mkfifo(folder / "pipe.toml")
    (folder / "huge.toml").write_bytes(b"#" * (device_files.MOST_BYTES + 1))
    (folder / "rpi4.toml").symlink_to(folder / "absent")
    assert catalog.find_device("local").transport == "local"
    run("devices")
    with pytest.raises(DeviceError, match="no plain file"):
        catalog.find_device("pipe", folder)
    run("devices", "trust", "huge", code=3)
    run("devices", "trust", "../local", code=2)


def test_a_file_does_not_choose_another_name(folder: Path) -> None:
    (folder / "board.toml").write_text(f'name = "local"\n{BOARD}')
    with pytest.raises(DeviceError, match="name"):
        catalog.find_device("board", folder)


def test_the_record_of_what_is_trusted_is_the_users_alone_and_damaged_says_so(folder: Path) -> None:
    run("devices", "trust", "board")
    store = trust.config_folder() / trust.STORE
    assert store.stat().st_mode & 0o077 == 0
    store.write_text("{")
    with pytest.raises(EdgeportError, match="remove it, and trust anew"):
        catalog.find_device("local")


@pytest.mark.parametrize("line", ['address = "pi@10.0.0.5"', "port = 22"])
def test_this_machine_has_no_address_to_be_measured_under_anothers_name(tmp_path: Path, line: str) -> None:
    path = tmp_path / "board.toml"
    path.write_text(f'description = ""\ntransport = "local"\ntarget = "auto"\n{line}\n')
    with pytest.raises(DeviceError, match=r'board\.toml: .*write transport = "ssh"'):
        catalog.read_device(path)
