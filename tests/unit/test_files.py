"""Files are whole or absent, and the agent's one file is the same for the same sources."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgeport import __version__, files, kit
from edgeport.agent import PROTOCOL
from edgeport.errors import DeviceError, EdgeportError, UsageError


def interrupted(path: Path, error: BaseException) -> None:
    """Writes half of a file, then raises."""
    with files.whole_file(path) as beside:
        beside.write_text("half of")
        raise error


def agent_archive(cache: Path) -> Path:
    """As a fresh process of edgeport makes it in this cache."""
    program = "from edgeport import kit; print(kit.agent_archive())"
    environment = {**os.environ, "EDGEPORT_CACHE": str(cache)}
    argv = [sys.executable, "-c", program]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, env=environment)
    return Path(done.stdout.strip())


def test_a_file_is_there_when_its_block_has_ended_and_not_before(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    with files.whole_file(path) as beside:
        beside.write_text("all of it")
        assert not path.exists()
        assert beside.parent == tmp_path
    assert path.read_text() == "all of it"
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError):
        interrupted(path, ZeroDivisionError())
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_interruption_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        interrupted(tmp_path / "result.json", KeyboardInterrupt())
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_written_is_named_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(EdgeportError, match=r"cannot write .*absent.result\.json: no such file or directory"):
        files.write_text(tmp_path / "absent" / "result.json", "text")


def test_text_is_written_as_utf_8(tmp_path: Path) -> None:
    files.write_text(tmp_path / "t", "± 3 µs")
    assert (tmp_path / "t").read_bytes() == "± 3 µs".encode()


def test_a_folder_is_made_with_those_above_it(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b"
    assert files.writable_folder(path) == path
    assert list(path.iterdir()) == []


def test_a_folder_that_is_a_file_is_refused_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "taken").touch()
    with pytest.raises(UsageError, match=r"cannot write to the folder .*taken: file exists"):
        files.writable_folder(tmp_path / "taken")


def test_the_cache_lies_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDGEPORT_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert files.cache_folder("kit") == tmp_path / ".cache" / "edgeport" / "kit"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert files.cache_folder("kit") == tmp_path / "xdg" / "edgeport" / "kit"
    monkeypatch.setenv("EDGEPORT_CACHE", str(tmp_path / "own"))
    assert files.cache_folder("kit") == tmp_path / "own" / "kit"


def test_a_hash_is_that_of_the_content(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc")
    assert files.sha256(tmp_path / "f").startswith("ba7816bf8f01cfea")


# What a device is handed


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return agent_archive(tmp_path_factory.mktemp("cache"))


def test_the_agents_file_is_the_same_bytes_under_the_same_name_each_time(archive: Path, tmp_path: Path) -> None:
    again = agent_archive(tmp_path)
    assert again != archive
    assert again.name == archive.name
    assert again.read_bytes() == archive.read_bytes()


def test_an_agent_that_is_cached_is_not_written_again(archive: Path) -> None:
    before = archive.stat()
    assert agent_archive(archive.parents[1]) == archive
    assert (archive.stat().st_mtime_ns, archive.stat().st_ino) == (before.st_mtime_ns, before.st_ino)


def test_the_agent_runs_alone_and_tells_what_the_device_is(archive: Path, tmp_path: Path) -> None:
    """With an interpreter that sees neither edgeport nor anything installed, from any folder."""
    argv = [sys.executable, "-I", "-S", str(archive), "facts"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, cwd=tmp_path)
    hello, bye = map(json.loads, done.stdout.splitlines())
    assert (hello["type"], bye["type"]) == ("hello", "bye")
    assert hello["protocol"] == PROTOCOL
    assert hello["facts"]["cpus"] == os.cpu_count()
    assert hello["facts"]["machine"] == os.uname().machine
    assert bye["telemetry"]["unix_time"] > 0
    assert done.stderr == ""


def test_the_agent_without_a_command_says_which_there_are(archive: Path) -> None:
    done = subprocess.run([sys.executable, "-I", str(archive)], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "COMMAND" in done.stderr


@pytest.mark.parametrize("runtime", sorted(kit.RUNTIMES))
def test_the_runtimes_libraries_are_found_without_importing_them(runtime: str) -> None:
    library = kit.library(runtime)
    assert library.path.is_file()
    assert library.version[0].isdigit()
    package = kit.RUNTIMES[runtime][1]
    program = f"import sys; from edgeport import kit; kit.library({runtime!r}); print({package!r} in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_runtime_that_is_not_installed_is_told_how_to_get(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(kit.RUNTIMES, "absent", ("absent-dist", "absent_package", "lib.so"))
    with pytest.raises(DeviceError, match="pip install absent-dist"):
        kit.library("absent")


def test_edgeport_has_a_version() -> None:
    assert __version__.count(".") == 2


# What others can see, foresee and leave there


def test_a_file_that_is_being_written_has_a_name_that_nobody_foresees(tmp_path: Path) -> None:
    names = set()
    for _ in range(2):
        with files.whole_file(tmp_path / "result.json") as beside:
            names.add(beside.name)
    assert len(names) == 2


@pytest.mark.parametrize("private", [True, False])
def test_a_file_is_as_open_as_the_user_has_it_or_theirs_alone(tmp_path: Path, private: bool) -> None:
    before = os.umask(0o022)
    try:
        files.write_text(tmp_path / "f", "text", private)
    finally:
        os.umask(before)
    assert (tmp_path / "f").stat().st_mode & 0o777 == (0o600 if private else 0o644)


def test_a_link_in_the_place_of_a_file_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("x")
    (tmp_path / "out").symlink_to(tmp_path / "precious")
    files.write_text(tmp_path / "out", "new")
    assert (tmp_path / "precious").read_text() == "x"
    (tmp_path / "log").symlink_to(tmp_path / "precious")
    with pytest.raises(EdgeportError, match="must be a plain file or absent"):
        files.append_only(tmp_path / "log")


def test_cache_and_history_are_the_users_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgeport.history import History

    monkeypatch.setenv("EDGEPORT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    (tmp_path / "cache" / "kit").mkdir(parents=True)  # of an earlier edgeport
    database = files.data_folder() / "history.db"
    History(str(database), create=True)
    for path in (files.cache_folder("kit"), files.cache_folder("logs"), files.data_folder(), database):
        assert path.stat().st_mode & 0o077 == 0, path


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to somebody else")
def test_a_cache_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.chown(tmp_path, 1234, 1234)
    monkeypatch.setattr(os, "geteuid", lambda: 4321)
    with pytest.raises(UsageError, match="belongs to another user"):
        files.private_folder(tmp_path)


def test_an_agent_in_the_cache_that_is_not_edgeports_is_not_run(tmp_path: Path) -> None:
    path = agent_archive(tmp_path)
    right = path.read_bytes()
    path.write_bytes(b"import os; os.mkdir('pwned')")
    assert agent_archive(tmp_path) == path
    assert path.read_bytes() == right


def test_what_is_no_plain_file_or_too_large_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large").write_bytes(b"12345")
    assert files.content(tmp_path / "large", 5) == b"12345"
    for path, limit in ((tmp_path / "pipe", 5), (Path("/dev/zero"), 5), (tmp_path / "large", 4)):
        with pytest.raises(OSError, match=r"no plain file|more than"):
            files.content(path, limit)


def test_a_device_file_is_not_replaced_by_a_report(capsys: pytest.CaptureFixture[str]) -> None:
    from edgeport import cli

    assert cli.run(["inspect", "mobilenet_v2", "-o", "/dev/null"]) == 2
    assert "no plain file" in capsys.readouterr().err


def test_a_cache_that_cannot_be_written_to_says_what_names_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("EDGEPORT_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(UsageError, match=r"cannot write to the folder .*edgeport's cache by \$EDGEPORT_CACHE"):
        files.cache_folder("exports")
