"""What is profiled where no model is named, what results are called, and what is refused before anything is made."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from command_line import Ended
from small_exports import export
from small_models import small_onnx
from small_results import launch, result

from edgeport import catalog, cli
from edgeport.cli.check import _called
from edgeport.errors import UsageError
from edgeport.records import BaselineEntry, ExportOptions

Here = Callable[..., Ended]
QUICK = ("--no-ops", "--launches=1", "--num-runs=2", "--warmup-runs=0", "--no-history", "--quiet")
MINUTE = 60


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Here:
    """The command line, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object, code: int = 0) -> Ended:
        capfd.readouterr()
        ended = Ended(cli.run([str(a) for a in arguments]), *capfd.readouterr())
        assert ended.code == code, ended.err
        return ended

    return run


def profiled(done: Ended) -> list[str]:
    """The names under which results stand."""
    found = json.loads(done.out)
    return [result["model"] for result in (found if isinstance(found, list) else [found])]


def older(folder: Path, minutes: int) -> None:
    """Sets back when the export was made."""
    path = folder / "manifest.json"
    then = path.stat().st_mtime - minutes * MINUTE
    os.utime(path, (then, then))


def test_without_a_model_the_newest_export_is_profiled_and_named(here: Here, tmp_path: Path) -> None:
    older(export(tmp_path / "exports" / "first", name="first", source="first"), 2)
    older(export(tmp_path / "exports" / "team" / "second", name="second", source="second"), 1)
    export(tmp_path / "exports" / ".new-x" / "half", name="half", source="half")
    done = here("profile", *QUICK, "--format=json")
    assert profiled(done) == ["second"]
    assert "profiles exports/team/second, the newest export below exports/ (of 2; --all takes every one)" in done.err


def test_all_profiles_every_export_in_one_table(here: Here, tmp_path: Path) -> None:
    for n, name in enumerate(("a", "b", "c")):
        older(export(tmp_path / "exports" / name, name=name, source=name), n)
    assert profiled(here("profile", "--all", *QUICK, "--format=json")) == ["a", "b", "c"]
    header, *rows = [line.split() for line in here("profile", "--all", *QUICK).out.splitlines() if "│" not in line][2:]
    assert header[:2] == ["model", "runtime"]
    assert [row[0] for row in rows[1:4]] == ["a", "b", "c"]


@pytest.mark.parametrize("made", [False, True])
def test_where_there_is_no_export_it_says_what_to_type(here: Here, tmp_path: Path, made: bool) -> None:
    if made:
        (tmp_path / "exports" / "empty").mkdir(parents=True)
    for arguments in ((), ("--all",)):
        said = here("profile", *arguments, "--device=local", code=2).err
        assert "'edgeport profile shufflenet_v2'" in said
        assert "'edgeport export shufflenet_v2'" in said


def test_all_and_a_model_exclude_each_other(here: Here) -> None:
    assert "leave out 'shufflenet_v2', or leave out --all" in here("profile", "shufflenet_v2", "--all", code=2).err


@pytest.mark.parametrize(
    ("source", "name", "called"),
    [
        ("a/net.py:build", "build", "net:build"),
        ("./net.py:build", "build", "net:build"),
        ("../b/other.py:build", "build", "other:build"),
        ("package.module:Net.small", "small", "package.module:Net.small"),
        ("a/net.py:build", "mine", "mine"),
        ("shufflenet_v2", "shufflenet_v2", "shufflenet_v2"),
    ],
)
def test_results_are_kept_under_the_file_and_the_factory_unless_a_name_is_given(
    source: str, name: str, called: str, here: Here, tmp_path: Path
) -> None:
    folder = export(tmp_path / "e", name=name, source=source)
    assert profiled(here("profile", folder, *QUICK, "--format=json")) == [called]
    assert profiled(here("profile", folder, *QUICK, "--format=json", "--name", "given")) == ["given"]


@pytest.mark.parametrize("place", ["./net.py", "../{}/net.py", "./.hidden/../net.py", "a.b/net.v2.py"])
def test_a_path_with_dots_is_a_path(place: str, here: Here, tmp_path: Path) -> None:
    path = Path(place.format(tmp_path.name))
    (tmp_path / ".hidden").mkdir()
    path.parent.mkdir(exist_ok=True)
    path.write_text("def build(): return 'a network'\n")
    assert catalog.find_factory(f"{path.parent}/{path.name}:build").call() == "a network"
    assert catalog.find_factory(f"{place.format(tmp_path.name)}:build").call() == "a network"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--pin=fast",), "--pin fast: write big, little"),
        (("--pin=0-99999999999",), "--pin 0-99999999999: write"),
        (("--pin=9999",), "--pin 9999: write"),
        (("--num-threads=0",), "--num-threads"),
        (("--num-threads=99999",), "--num-threads"),
        (("--device=lokal",), "unknown device 'lokal'"),
        (("--precision=int4",), "--precision int4"),
        (("--name= ",), "--name is empty"),
    ],
)
@pytest.mark.parametrize("command", ["profile", "compare", "baseline"])
def test_what_is_wrong_is_refused_before_anybodys_python_runs(
    command: str, arguments: tuple[str, ...], words: str, here: Here, tmp_path: Path
) -> None:
    _ = (tmp_path / "net.py").write_text("raise SystemExit('it ran')\n")
    models = {"profile": ("net.py:build",), "compare": ("net.py:build",) * 2, "baseline": ("net.py:build", "-o=b")}
    told = (command, "save") if command == "baseline" else (command,)
    said = here(*told, *models[command], *arguments, code=2).err
    assert words in said
    assert "it ran" not in said


@pytest.mark.parametrize(
    ("flag", "commands"),
    [
        ("--output", ("profile", "compare", "check")),
        ("--summary", ("check",)),
        ("--junit", ("check",)),
    ],
)
def test_a_place_that_cannot_be_written_to_is_refused_by_the_flags_name(
    flag: str, commands: tuple[str, ...], here: Here, tmp_path: Path
) -> None:
    models = {"profile": ("shufflenet_v2",), "compare": ("shufflenet_v2",) * 2, "check": ()}
    for command in commands:
        assert f"{flag} {tmp_path} is a folder" in here(command, *models[command], flag, tmp_path, code=2).err


def test_options_of_an_export_are_refused_where_nothing_is_exported(here: Here, tmp_path: Path) -> None:
    model = small_onnx(tmp_path / "a.onnx")
    assert f"{model} has been; leave out --set" in here("profile", model, "--set=width=2", code=2).err


def test_one_name_is_for_one_model(here: Here, tmp_path: Path) -> None:
    models = [small_onnx(tmp_path / f"{n}.onnx") for n in "ab"]
    assert "cannot have one name" in here("baseline", "save", *models, "--name=x", "-o=b", code=2).err


def test_a_file_that_is_not_there_is_told_with_one_that_it_may_be(here: Here, tmp_path: Path) -> None:
    (tmp_path / "network.py").touch()
    with pytest.raises(UsageError, match=r"there is no file netwrok\.py; did you mean network\.py"):
        catalog.find_factory("netwrok.py:build")


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command with the words that name it."""
    if path:
        yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, (*path, name))


@pytest.mark.parametrize("path", [path for path, _ in commands(typer.main.get_command(cli.app))], ids=" ".join)
def test_the_help_of_every_command_has_an_example_and_fits(
    path: tuple[str, ...], here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    told = here(*path, "--help").out
    assert f"Example: edgeport {' '.join(path)}" in told
    assert max(map(len, told.splitlines())) <= 80


@pytest.mark.parametrize(
    ("model", "kept", "called"),
    [
        ("a/net.py:build", "net:build", "a/net.py:build"),
        ("a/net.py:build", "build", "a/net.py:build"),
        ("a/net.py:build", "mine", "mine"),
        ("a.onnx", "a", "a.onnx"),
        ("a.onnx", "mine", "mine"),
        ("shufflenet_v2", "shufflenet_v2", "shufflenet_v2"),
    ],
)
def test_check_calls_a_network_as_it_was_called_when_its_baseline_was_saved(model: str, kept: str, called: str) -> None:
    entry = BaselineEntry(model=model, options=ExportOptions(), result=result([launch(1)], None, model=kept))
    assert _called(entry) == called
