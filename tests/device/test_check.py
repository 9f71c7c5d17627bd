"""`edgeport devices`: one's own ones, and what is said of each thing that can be wrong with them."""

import json
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from edgeport import catalog
from edgeport.progress import Silent
from edgeport.sessions import Access, open_runner

from .board import Board, board
from .conftest import Here, install

Patch = pytest.MonkeyPatch
STEPS = ["reachable", "host key", "login", "system", "Python", "space", "push", "lock", "run"]
STEPS += ["litert", "onnxruntime", "telemetry", "governor", "idle"]
TOOLS = ("sh", "cat", "sha256sum", "mkdir", "mv", "rm", "df", "uname", "getconf", "mktemp", "rmdir", "printf")


def failure(here: Here) -> str:
    """What is said of the one step that fails."""
    steps = json.loads(here("devices", "check", "board", "--format", "json", code=3).out)["steps"]
    failed = [step for step in steps if step["status"] == "FAIL"]
    assert failed == steps[-1:]
    return f"{failed[0]['name']}: {failed[0]['text']}"


def tools(folder: Path, **scripts: str) -> Path:
    """A folder to have as PATH: what every system has, and these scripts."""
    folder.mkdir()
    for name in TOOLS:
        found = shutil.which(name)
        if found and name not in scripts:
            (folder / name).symlink_to(found)
    for name, text in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    return folder


def test_a_device_that_is_fit_passes_every_step(a_board: Board, here: Here) -> None:
    told = json.loads(here("devices", "check", "board", "--format", "json").out)
    assert told["ok"]
    assert [step["name"] for step in told["steps"]] == STEPS
    assert {s["status"] for s in told["steps"]} <= {"PASS", "WARN"}
    assert not list((a_board.workdir / "sessions").iterdir())


def test_a_check_says_each_step_on_a_line(a_board: Board, here: Here) -> None:
    lines = here("devices", "check", "board").out.splitlines()
    assert [line[6:19].strip() for line in lines] == STEPS


def test_this_machine_is_fit(here: Here) -> None:
    assert json.loads(here("devices", "check", "local", "--format", "json").out)["ok"]


def test_a_device_that_does_not_answer_is_unreachable(own_board: Board, here: Here) -> None:
    own_board.stop()
    text = failure(here)
    assert text.startswith("reachable: no answer; is it on")
    assert "Connection refused" in text


def test_a_name_that_nobody_knows_is_told(a_board: Board, tmp_path: Path, here: Here, monkeypatch: Patch) -> None:
    install(a_board, tmp_path, monkeypatch, address="no-such-host.invalid")
    assert "its name is not known here; is the address" in failure(here)


def test_an_unknown_host_key_is_refused_and_told(own_board: Board, here: Here) -> None:
    (own_board.home / "known_hosts").write_text("")
    text = failure(here)
    assert text.startswith("host key: its host key is not known here; run 'ssh ")
    assert (own_board.home / "known_hosts").read_text() == ""


def test_a_host_key_that_has_changed_is_refused_and_told(own_board: Board, here: Here) -> None:
    known = own_board.home / "known_hosts"
    known.write_text(f"[127.0.0.1]:{own_board.port} {(own_board.home / 'user.pub').read_text()}")
    text = failure(here)
    assert text.startswith("host key: its host key is not the one that was known")
    command = shlex.split(text.partition("forget the old one (")[2].partition("), run")[0])
    subprocess.run(command, check=True, capture_output=True)  # as a user would, who knows why
    assert failure(here).startswith("host key: its host key is not known here")


def test_a_login_that_is_refused_is_told(own_board: Board, here: Here) -> None:
    (own_board.home / "user.pub").write_text("")
    text = failure(here)
    assert text.startswith("login: it does not let you in; run 'ssh-copy-id ")
    assert "Permission denied" in text


def test_a_device_without_python_is_told_how_to_get_it(tmp_path: Path, here: Here, monkeypatch: Patch) -> None:
    with board(tmp_path / "it", {"PATH": str(tools(tmp_path / "bin"))}) as made:
        install(made, tmp_path, monkeypatch)
        text = failure(here)
    assert text.startswith("Python: 'python3' does not run there")
    assert "sudo apt-get install python3" in text


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ('case "$*" in *version_info*) echo 3.7.3 ;; *) echo all ;; esac', "its Python is 3.7.3, the agent needs 3.8"),
        ('case "$*" in *version_info*) echo 3.11.2 ;; *) exit 1 ;; esac', "lacks parts of the standard library"),
    ],
)
def test_a_python_that_will_not_do_is_told(
    tmp_path: Path, here: Here, monkeypatch: Patch, script: str, told: str
) -> None:
    with board(tmp_path / "it", {"PATH": str(tools(tmp_path / "bin", python3=script))}) as made:
        install(made, tmp_path, monkeypatch)
        assert told in failure(here)


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ('case "$1" in LONG_BIT) echo 32 ;; *) echo glibc 2.36 ;; esac', "its system is a 32-bit one"),
        ('case "$1" in LONG_BIT) echo 64 ;; *) exit 1 ;; esac', "it has no glibc"),
    ],
)
def test_a_system_without_runtimes_for_it_is_refused(
    tmp_path: Path, here: Here, monkeypatch: Patch, script: str, told: str
) -> None:
    with board(tmp_path / "it", {"PATH": str(tools(tmp_path / "bin", getconf=script))}) as made:
        install(made, tmp_path, monkeypatch)
        text = failure(here)
    assert text.startswith("system: ")
    assert told in text


def test_a_shell_that_talks_is_told(tmp_path: Path, here: Here, monkeypatch: Patch) -> None:
    """As one whose .bashrc prints a greeting to whoever comes."""
    talks = 'ForceCommand echo Welcome to my Pi; exec sh -c "$SSH_ORIGINAL_COMMAND"'
    with board(tmp_path / "it", options=talks) as made:
        install(made, tmp_path, monkeypatch)
        assert "its shell prints 'Welcome to my Pi' before every command" in failure(here)


def test_a_full_disk_is_told_with_what_is_free(
    a_board: Board, small_disk: Path, tmp_path: Path, here: Here, monkeypatch: Patch
) -> None:
    install(a_board, tmp_path, monkeypatch, workdir=str(small_disk / "edgeport"))
    text = failure(here)
    assert text.startswith("space: the disk is full: 2 MB free in ")
    assert "set another workdir" in text


def test_a_device_that_is_in_use_is_told_with_its_owner(a_board: Board, here: Here, monkeypatch: Patch) -> None:
    monkeypatch.setenv("LOGNAME", "anna")
    with open_runner(catalog.find_device("board"), Access(), Silent()):
        text = failure(here)
    assert text.startswith("lock: board is in use by anna@")
    assert "--wait" in text


def test_a_device_is_set_up_once_and_removed_without_a_trace(own_board: Board, here: Here) -> None:
    assert "MB were pushed" in here("devices", "setup", "board").out
    assert "0.0 MB were pushed" in here("devices", "setup", "board").out
    here("devices", "remove", "board")
    assert not own_board.workdir.exists()


def test_a_folder_of_the_users_is_not_removed(own_board: Board, here: Here) -> None:
    own_board.workdir.mkdir()
    (own_board.workdir / "thesis.tex").touch()
    here("devices", "setup", "board", "--quiet")
    here("devices", "remove", "board")
    assert list(own_board.workdir.iterdir()) == [own_board.workdir / "thesis.tex"]


# One's own devices


def test_a_device_that_was_added_is_like_another_but_for_its_address(
    here: Here, tmp_path: Path, monkeypatch: Patch
) -> None:
    monkeypatch.chdir(tmp_path)
    here("devices", "add", "mypi", "--like", "rpi4", "--address", "pi@10.0.0.5", "--port", "2222")
    found, like = catalog.find_device("mypi"), catalog.find_device("rpi4")
    assert (found.address, found.port) == ("pi@10.0.0.5", 2222)
    assert (found.sensors, found.expect, found.target) == (like.sensors, like.expect, like.target)
    assert "pi@10.0.0.5" in here("devices", "show", "mypi").out
    assert "mypi" in here("devices").out
    assert "--force" in here("devices", "add", "mypi", "--like", "rpi4", code=2).err


def test_a_device_that_was_added_says_of_itself_what_it_was_told_to(
    here: Here, tmp_path: Path, monkeypatch: Patch
) -> None:
    monkeypatch.chdir(tmp_path)
    told = ("--target", "x86", "--description", 'the "old"\tbox')
    here("devices", "add", "box", "--like", "rpi4", "--address", "a", *told)
    assert catalog.find_device("box").target == "x86"
    assert catalog.find_device("box").description == 'the "old"\tbox'
    assert "did you mean x86" in here("devices", "add", "b", "--like", "rpi4", "--target", "x68", code=2).err


def test_a_device_that_was_added_can_be_forgotten(here: Here, tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.chdir(tmp_path)
    here("devices", "add", "box1", "--like", "rpi4", "--address", "a")
    here("devices", "add", "box2", "--like", "rpi4", "--address", "a", "--here")
    assert "pass --here to delete it" in here("devices", "forget", "box2", code=2).err
    for arguments in (("box1",), ("box2", "--here")):
        here("devices", "forget", *arguments)
        assert not {arguments[0]} & set(catalog.device_names())
    assert "is edgeport's own" in here("devices", "forget", "rpi4", code=2).err
    for nobody in ("box1", "../box1"):
        assert f"there is no device {nobody!r} of yours" in here("devices", "forget", nobody, code=2).err
    assert catalog.find_device("rpi4")


def test_a_file_beside_us_takes_the_place_of_the_users_and_of_edgeports(
    here: Here, tmp_path: Path, monkeypatch: Patch
) -> None:
    monkeypatch.chdir(tmp_path)
    here("devices", "add", "rpi3", "--like", "rpi3", "--address", "users")
    assert catalog.find_device("rpi3").address == "users"
    here("devices", "add", "rpi3", "--like", "rpi3", "--address", "here", "--here")
    assert catalog.find_device("rpi3").address == "here"
    listed = json.loads(here("devices", "--format", "json").out)
    assert [d["address"] for d in listed if d["name"] == "rpi3"] == ["here"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("../evil", "--address", "a"),
        ("-x", "--address", "a"),
        ("a", "--address=-oProxyCommand=x"),
        ("a", "--address=a b"),
    ],
)
def test_a_name_or_address_that_is_none_is_refused(here: Here, arguments: tuple[str, ...]) -> None:
    here("devices", "add", *arguments, "--like", "rpi4", code=2)


def test_a_broken_file_is_named_and_the_others_are_listed(here: Here, tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "devices").mkdir()
    wrong = 'description = "d"\ntransport = "ssh"\ntarget = "arm"\nport = "x"\n'
    (tmp_path / "devices" / "odd.toml").write_text(wrong)
    listed = here("devices")
    assert "odd.toml" in listed.err
    assert "port" in listed.err
    assert "rpi4" in listed.out
