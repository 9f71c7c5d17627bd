"""Ctrl-C and a killed agent: what was complete is kept, nothing else is left, neither files nor processes."""

import json
import os
import re
import resource
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import PATIENCE_S, Edgeport, ended, group, network, running, until

INTERRUPTED, FAILURE = 130, 3
MANY = ("--launches=500", "--num-runs=20", "--format=json")


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the commands keep their temporary files."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


def children(process: subprocess.Popen[str], word: str) -> set[int]:
    """Its living processes of which the command line has this word."""
    return {pid for pid, command in group(process.pid).items() if word in command and pid != process.pid}


def interrupt(process: subprocess.Popen[str]) -> None:
    """What a terminal does on Ctrl-C."""
    os.killpg(process.pid, signal.SIGINT)


def temporary(folder: Path) -> list[str]:
    """Temporary folders and files that edgeport itself makes."""
    return sorted(p.name for p in folder.rglob("*") if re.match(r"\.converting-|\.new-|edgeport-|\..*\.tmp$", p.name))


def test_an_export_that_is_ended_by_a_signal_leaves_no_converter(tmp_path: Path, scratch: Path) -> None:
    with running("export", network("rare"), "-o", tmp_path / "out") as process:
        until(lambda: children(process, "edgeport.export.worker"), "a converter", process)
        process.send_signal(signal.SIGTERM)
        ended(process, 143)
        assert group(process.pid) == {}
    assert temporary(scratch) == []


@pytest.mark.parametrize("moment", ["while it captures", "while litert-torch converts"])
def test_an_interrupted_export_leaves_nothing(moment: str, tmp_path: Path, scratch: Path) -> None:
    out = tmp_path / "out"
    with running("export", network("rare"), "-o", out) as process:
        if moment == "while it captures":
            until(lambda: temporary(out), "a half-written folder", process)
        else:
            until(lambda: children(process, "edgeport.export.worker"), "a converter", process)
        interrupt(process)
        done = ended(process, INTERRUPTED)
        assert "interrupted" in done.err
        assert done.out == ""
        assert group(process.pid) == {}
    assert {p.name for p in out.iterdir()} <= {"export.log"}
    assert temporary(scratch) == []


def test_an_interrupted_export_for_a_profile_leaves_no_half_export_in_the_cache(cache: Path, scratch: Path) -> None:
    def folders() -> set[Path]:
        return {path for path in (cache / "exports").glob("*") if path.is_dir()}

    before = folders()
    with running("profile", network("rare"), "--runtime=litert", "--precision=fp32") as process:
        until(lambda: children(process, "edgeport.export.worker"), "a converter", process)
        interrupt(process)
        ended(process, INTERRUPTED)
        assert group(process.pid) == {}
    assert folders() == before
    assert temporary(scratch) == []


def watch_launches(process: subprocess.Popen[str], how_many: int) -> int:
    """Waits until so many agents have been started, one after another. The living one."""
    seen: set[int] = set()
    living: set[int] = set()

    def enough() -> bool:
        nonlocal living
        living = children(process, " --model=")  # not the one that holds the device's lock, or asks what it is
        seen.update(living)
        return len(seen) >= how_many and bool(living)

    until(enough, "launches enough", process)
    return living.pop()


def results(text: str) -> list[dict[str, Any]]:
    found = json.loads(text)
    return found if isinstance(found, list) else [found]


def test_an_interrupted_profile_shows_the_launches_that_have_ended(small: Path, scratch: Path) -> None:
    with running("profile", small, *MANY) as process:
        watch_launches(process, how_many=6)  # four files take turns: the first one's second launch has ended
        interrupt(process)
        done = ended(process, INTERRUPTED)
        assert "interrupted" in done.err
        assert group(process.pid) == {}
    found = results(done.out)
    assert len(found) == 4
    launches = [len(result["raw"]["launches"]) for result in found]
    assert launches[0] >= 1
    assert launches[0] - launches[-1] in (0, 1)
    assert all(len(samples) == 20 for result in found for samples in result["raw"]["samples_ns"])
    assert temporary(scratch) == []


@pytest.fixture
def heard() -> Iterator[None]:
    """Signals that the tests themselves may have been started without (nohup), which commands would be deaf to too."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in (signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_profile_that_is_ended_by_a_signal_cleans_up_and_says_so(
    number: signal.Signals, code: int, small: Path, scratch: Path, heard: None
) -> None:
    """Heard by the command alone, as from kill, a service manager or a terminal that was closed."""
    with running("profile", small, *MANY, "--runtime=litert") as process:
        watch_launches(process, how_many=4)
        process.send_signal(number)
        done = ended(process, code)
        assert number.name in done.err
        assert group(process.pid) == {}
    assert len(results(done.out)) == 2
    assert temporary(scratch) == []


def test_an_agent_that_is_killed_is_said_and_what_was_measured_is_shown(small: Path, scratch: Path) -> None:
    with running("profile", small, "--precision=fp32", "--launches=500", "--num-runs=2000", "--format=json") as process:
        os.kill(watch_launches(process, how_many=4), signal.SIGKILL)
        done = ended(process, FAILURE)
        assert group(process.pid) == {}
    assert "the agent was killed by SIGKILL" in done.err
    assert re.search(r"small\.fp32\.(onnx|tflite) with (onnxruntime|litert) on local", done.err)
    assert [result["file"]["name"] for result in results(done.out)] == ["small.fp32.onnx", "small.fp32.tflite"]
    assert temporary(scratch) == []


def test_results_of_an_interrupted_profile_go_to_the_file_that_was_asked_for(small: Path, tmp_path: Path) -> None:
    report = tmp_path / "reports" / "small.json"
    with running("profile", small, *MANY, "--runtime=litert", "-o", report) as process:
        watch_launches(process, how_many=4)
        interrupt(process)
        done = ended(process, INTERRUPTED)
    assert done.out.strip() == str(report)
    assert len(results(report.read_text())) == 2
    assert [p.name for p in report.parent.iterdir()] == ["small.json"]


def test_a_closed_pipe_is_no_error(small: Path) -> None:
    """`edgeport profile ... | head -1`"""
    with running("profile", small, "--by=op", "--launches=1", "--num-runs=1", "--quiet") as process:
        assert process.stdout is not None
        process.stdout.close()
        process.wait(timeout=PATIENCE_S)
        assert process.returncode == 0
        assert process.stderr is not None
        said = process.stderr.read().splitlines()
        assert [line for line in said if not line.startswith("warning: ")] == []  # of whatever else the machine does


def test_what_a_killed_export_leaves_is_removed_by_the_next_one(here: Edgeport, tmp_path: Path, scratch: Path) -> None:
    out = tmp_path / "out"
    with running("export", network("rare"), "-o", out) as process:
        until(lambda: children(process, "edgeport.export.worker"), "a converter", process)
        process.kill()
        process.wait()
        assert temporary(out)
        until(lambda: group(process.pid) == {}, "its converter ends as well")
    here("export", network("small"), "--formats=onnx", "--precisions=fp32", "-q", "-o", out)
    assert {p.name for p in out.iterdir()} == {"export.log", "manifest.json", "small.fp32.onnx"}
    assert temporary(scratch) == []


# Folders and disks that fail meanwhile


@pytest.fixture
def limit(request: pytest.FixtureRequest) -> Iterator[None]:
    """No file may grow beyond so many bytes, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (request.param, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def earlier(small: Path, tmp_path: Path) -> Path:
    """A folder with an export in it, and a file of the user's."""
    folder = tmp_path / "out"
    shutil.copytree(small, folder)
    (folder / "notes.txt").write_text("the user's")
    return folder


def whole(folder: Path) -> dict[str, bytes]:
    """What is in an export's folder, but for the log."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "export.log"}


# the samples do not fit; the samples do, and no converter's file does
@pytest.mark.parametrize("limit", [60_000, 350_000], indirect=True)
def test_a_full_disk_is_told_in_a_line_and_the_earlier_export_stays(
    here: Edgeport, earlier: Path, limit: None, capfd: pytest.CaptureFixture[str]
) -> None:
    before = whole(earlier)
    wide = ("--set", "channels=8", "--set", "classes=20000", "--name", "small")
    done = here("export", network("small"), *wide, "-q", "-o", earlier, code=3)
    [said] = [line for line in done.err.splitlines() if line.startswith("edgeport: ")]
    assert re.search(r"cannot write to .*out: file too large", said)
    assert whole(earlier) == before


def test_a_folder_that_is_removed_meanwhile_is_told_in_a_line(here: Edgeport, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (tmp_path / "net.py").write_text(
        "import shutil\nfrom torch import nn\nINPUT_SHAPE = (3, 16, 16)\n"
        f"def build() -> nn.Module:\n    shutil.rmtree({str(out)!r})\n    return nn.Conv2d(3, 4, 3)\n"
    )
    done = here("export", f"{tmp_path}/net.py:build", "-q", "-o", out, code=3)
    [said] = [line for line in done.err.splitlines() if line.startswith("edgeport: ")]
    assert f"cannot write to {out}: no such file or directory" in said
    assert not out.exists()


def test_a_damaged_export_in_the_cache_is_made_anew(
    here: Edgeport, cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("EDGEPORT_CACHE", str(tmp_path / "cache"))
    words = ("profile", network("small"), "--runtime=onnxruntime", "--precision=fp32", "--launches=1", "--num-runs=1")
    here(*words, "--no-ops", "-q")
    [path] = (tmp_path / "cache" / "exports").glob("*/*.onnx")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])  # as after a power cut
    here(*words, "--no-ops", "-q")
    assert path.read_bytes() == whole


def test_a_report_that_cannot_be_written_is_on_standard_output(here: Edgeport, small: Path, tmp_path: Path) -> None:
    """What was measured is not lost with the folder that was to take it."""
    report = tmp_path / "reports" / "small.json"
    (tmp_path / "net.py").write_text("")
    model = small / "small.fp32.onnx"
    with running("profile", model, *MANY, "--no-history", "-o", report) as process:
        watch_launches(process, how_many=3)
        shutil.rmtree(report.parent)
        interrupt(process)
        out, err = process.communicate(timeout=PATIENCE_S)
    assert len(results(out)) == 1
    assert "Traceback" not in err
