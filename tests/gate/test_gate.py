"""The gate as CI runs it: baseline save, then check on what a branch has made of the network."""

import json
import os
import shutil
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgeport import catalog, cli, runner
from edgeport.errors import DeviceError

from .networks import COMMENTED, LONGER, SOURCE

Gate = Callable[..., str]
# Generous, so that a busy machine needs no more blocks than the fewest: the added convolution takes much longer still.
TOLERANCES = ("--tolerance", "25%", "--effect", "100%", "--size-tolerance", "off", "--max-minutes", "3")


@pytest.fixture(scope="module", autouse=True)
def _own_history(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A history of what this file measures alone; and no summary for GitHub."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_DATA_HOME", str(tmp_path_factory.mktemp("data")))
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
        patch.delenv("GITHUB_STEP_SUMMARY", raising=False)
        yield


@pytest.fixture
def gate(capfd: pytest.CaptureFixture[str]) -> Gate:
    """Runs a command that ends with this exit code, without a traceback; gives what it wrote."""

    def run(*arguments: object, code: int = 0) -> str:
        capfd.readouterr()
        ended = cli.run([str(a) for a in arguments])
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        assert ended == code, f"exit code {ended}, not {code}\n{out}\n{err}"
        return out + err

    return run


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the network's file and its baseline. Tests take copies."""
    folder = tmp_path_factory.mktemp("main")
    (folder / "net.py").write_text(SOURCE)
    here = Path.cwd()
    os.chdir(folder)
    try:
        arguments = ("net.py:build", "--runtime", "litert", "--precision", "fp32", "--quiet", "-o", "baseline")
        assert cli.run(["baseline", "save", *arguments]) == 0
    finally:
        os.chdir(here)
    return folder


@pytest.fixture
def branch(kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """What a branch has made of the network; the current folder is that of the branch."""
    shutil.copytree(kept, tmp_path / "branch")
    monkeypatch.chdir(tmp_path / "branch")

    def change(source: str) -> Path:
        Path("net.py").write_text(source)
        sys.modules.pop("edgeport_user_net", None)
        return Path.cwd()

    return change


def test_a_branch_that_adds_a_convolution_fails_and_its_block_is_named_first(
    gate: Gate, branch: Callable[[str], Path]
) -> None:
    branch(LONGER)
    out = gate(
        *(
            "check",
            "--trust-baseline",
            "--baseline",
            "baseline",
            *TOLERANCES,
            "--format",
            "json",
            "-o",
            "result.json",
            "--quiet",
        ),
        *("--summary", "summary.md", "--junit", "junit.xml"),
        code=1,
    )
    assert "result.json" in out
    document = json.loads(Path("result.json").read_text())
    assert document["outcome"] == "REGRESSED"
    assert document["modules"][0]["module"] == "stage2.1"
    assert next((o["module"], o["op"]) for o in document["ops"]) == ("stage2.1", "CONV_2D")
    assert len(document["raw"]["sessions"]) == 2
    rows = json.loads(gate("history", "list", "--format", "json"))
    assert rows[0]["kind"] == "profile"  # of the baseline
    assert (rows[-1]["kind"], rows[-1]["verdict"]) == ("comparison", "REGRESSED")
    summary = Path("summary.md").read_text()
    assert summary.startswith("### ❌ edgeport: 1 REGRESSED")
    assert "most of it in stage2.1" in summary
    failure = ET.parse("junit.xml").find(".//failure")  # noqa: S314  our own
    assert failure is not None
    assert "stage2.1" in (failure.text or "")


def test_a_branch_that_changes_comments_passes(
    gate: Gate, branch: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And says so where GitHub shows it, after what others wrote there; labelled samples are counted on both sides."""
    folder = branch(COMMENTED)
    for name, shade in (("dark", 0), ("light", 255)):
        (folder / "photos" / name).mkdir(parents=True)
        Image.new("RGB", (40, 30), (shade,) * 3).save(folder / "photos" / name / "a.png")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(folder / "job.md"))
    Path("job.md").write_text("earlier\n")
    text = gate("check", "--trust-baseline", *TOLERANCES, "--eval-data", "photos", "--seed", "1")
    assert "PASS" in text
    assert "accuracy" in text
    assert Path("job.md").read_text().startswith("earlier\n### ✅ edgeport: 1 PASS")


@pytest.mark.parametrize("remains", ["nothing", "an empty baseline"])
def test_with_nothing_to_compare_with_there_is_no_verdict(
    gate: Gate, branch: Callable[[str], Path], remains: str
) -> None:
    folder = branch(SOURCE)
    if remains == "nothing":
        shutil.rmtree(folder / "baseline")
    else:
        index = folder / "baseline" / "baseline.json"
        index.write_text(json.dumps({**json.loads(index.read_text()), "entries": []}))
    text = gate("check", "--trust-baseline", "--summary", "summary.md", "--junit", "junit.xml", code=4)
    assert "edgeport baseline save" in text
    summary = Path("summary.md").read_text()
    assert summary.startswith("### ❔ edgeport: nothing was measured")
    assert "edgeport baseline save" in summary


def test_a_factory_that_only_the_baseline_names_is_run_where_the_user_saved_it_and_as_it_was(
    gate: Gate, branch: Callable[[str], Path], kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy of it, or one that was changed, has to be trusted; or the factory is named."""
    branch(SOURCE.replace("return Net()", "raise RuntimeError('this ran')"))
    refused = gate("check", code=2)
    assert "the baseline names the factory net.py:build" in refused
    assert "--trust-baseline" in refused
    assert "this ran" in gate("check", "net.py:build", code=3)
    assert "net.py:build" in gate("check", "build", code=2)  # a name, but not the factory's
    gate("baseline", "save", next(Path("baseline", "objects").iterdir()), "-o", "baseline", "--quiet")
    assert "--trust-baseline" in gate("check", code=2)  # what others left in it is not the user's now
    monkeypatch.chdir(kept)
    monkeypatch.setattr(catalog, "find_factory", lambda model: catalog.build(refusing(model), {}))
    assert "this ran" in gate("check", code=3)


def refusing(model: str) -> catalog.Factory:
    """A factory that says that it was called."""

    def call() -> None:
        raise RuntimeError("this ran")

    return catalog.Factory(model, model, call, None, None, None)


def test_a_network_that_cannot_be_built_is_a_failure_and_no_regression(
    gate: Gate, branch: Callable[[str], Path]
) -> None:
    branch(SOURCE.replace("return Net()", "raise RuntimeError('out of coffee')"))
    assert "out of coffee" in gate("check", "--trust-baseline", code=3)


def test_a_network_that_is_gone_is_a_failure_and_no_regression(gate: Gate, branch: Callable[[str], Path]) -> None:
    (branch(SOURCE) / "net.py").unlink()
    assert "net.py" in gate("check", "--trust-baseline", code=3)


def test_a_device_that_fails_is_a_failure_and_no_regression(
    gate: Gate, branch: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    branch(SOURCE)

    def lost(*_: object, **__: object) -> Any:
        raise DeviceError("the board is gone")

    monkeypatch.setattr(runner.Runner, "serve", lost)
    assert "the board is gone" in gate("check", "--trust-baseline", "--junit", "junit.xml", code=3)
    assert "the board is gone" in Path("junit.xml").read_text()


@pytest.mark.parametrize(
    ("arguments", "environment", "words"),
    [
        (["--num-threads", "2"], {}, "number of threads: 1 (as stored), 2 (now)"),
        ([], {"QEMU_CPU": "max"}, "real (as stored), emulated (now)"),
    ],
)
def test_other_circumstances_are_not_comparable(
    gate: Gate,
    branch: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    environment: dict[str, str],
    words: str,
) -> None:
    branch(SOURCE)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    text = gate("check", "--trust-baseline", *arguments, code=4)
    assert words in " ".join(text.split())
    assert "REGRESSED" not in text


def test_another_input_shape_is_not_comparable(gate: Gate, branch: Callable[[str], Path]) -> None:
    branch(SOURCE.replace("INPUT_SHAPE = (3, 32, 32)", "INPUT_SHAPE = (3, 48, 48)"))
    text = " ".join(gate("check", "--trust-baseline", code=4).split())
    assert "inputs: float32 1x32x32x3 (baseline), float32 1x48x48x3 (candidate)" in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--tolerance", "lots"], "--tolerance lots"),
        (["--tolerance", "5%", "--effect", "3%"], "0 < tolerance < effect"),
        (["--format", "xml"], "choose from table, json, markdown"),
        (["--eval-data", "nowhere"], "--eval-data nowhere"),
        (["other.py:build"], "the baseline has net.py:build"),
        (["--device", "lokal"], "did you mean local"),
    ],
)
def test_a_wrong_command_line_is_said_before_anything_runs(
    gate: Gate, branch: Callable[[str], Path], arguments: list[str], words: str
) -> None:
    branch(SOURCE)
    assert words in gate("check", "--trust-baseline", *arguments, code=2)


def test_when_there_is_no_time_there_is_no_verdict(gate: Gate, branch: Callable[[str], Path]) -> None:
    stored = next((branch(SOURCE) / "baseline" / "objects").iterdir())
    text = gate("compare", stored, stored, "--max-minutes", "0.05", "--no-ops", code=4)
    assert "10 are the least" in " ".join(text.split())


def test_what_compare_is_given_has_to_be_there(gate: Gate, branch: Callable[[str], Path]) -> None:
    stored = next((branch(SOURCE) / "baseline" / "objects").iterdir())
    assert "there is no file nowhere.tflite" in gate("compare", stored, "nowhere.tflite", code=2)
    assert "runs with litert, not onnxruntime" in gate("compare", stored, stored, "--runtime", "onnxruntime", code=2)


def test_labelled_arrays_are_counted_as_the_network_names_them(branch: Callable[[str], Path]) -> None:
    from edgeport.export import evaluate
    from edgeport.runner import local_runner

    stored = next((branch(SOURCE) / "baseline" / "objects").iterdir())
    samples = np.random.default_rng(0).random((20, 3, 32, 32), np.float32)
    right = []
    for label in range(4):
        np.savez("data.npz", x=samples, labels=np.full(20, label))
        right.append(evaluate.count_right(local_runner(), stored, evaluate.load(Path("data.npz")), None))
    assert sum(right) == 20
