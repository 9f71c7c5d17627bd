"""What the GitHub Action runs, with a command in edgeport's place that notes its arguments."""

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FAKE = """#!/bin/bash
printf '%s\\n' "$@" > "$NOTES"
while [[ $# -gt 0 ]]; do [[ $1 != -o || -z $MEASURED ]] || echo '{}' >"$2"; shift; done
exit "$CODE"
"""


def act(tmp_path: Path, code: int, measured: bool = True, **inputs: str) -> tuple[int, dict[str, str], list[str], str]:
    """(exit code, outputs, arguments of edgeport, what was written)."""
    (tmp_path / "bin").mkdir()
    fake = tmp_path / "bin" / "edgeport"
    fake.write_text(FAKE)
    fake.chmod(0o755)
    environment = {
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "RUNNER_TEMP": str(tmp_path),
        "GITHUB_OUTPUT": str(tmp_path / "outputs"),
        "NOTES": str(tmp_path / "notes"),
        "CODE": str(code),
        "MEASURED": "yes" if measured else "",
        **{f"INPUT_{name.upper()}": value for name, value in inputs.items()},
    }
    done = subprocess.run(
        [ROOT / "scripts" / "action"], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    read = [
        path.read_text().splitlines() if path.exists() else [] for path in (tmp_path / "outputs", tmp_path / "notes")
    ]
    outputs = dict(line.split("=", 1) for line in read[0])
    return done.returncode, outputs, read[1], done.stdout


@pytest.mark.parametrize(
    ("code", "outcome"), [(0, "pass"), (1, "regression"), (2, "failure"), (3, "failure"), (4, "inconclusive")]
)
def test_the_job_ends_as_the_check_does_and_says_how(tmp_path: Path, code: int, outcome: str) -> None:
    ended, outputs, _, said = act(tmp_path, code)
    assert ended == code
    assert outputs["outcome"] == outcome
    assert ("::error" in said) == (code != 0)


def test_no_verdict_may_be_a_warning_and_a_regression_never_is(tmp_path: Path) -> None:
    ended, outputs, _, said = act(tmp_path, 4, inconclusive="warn")
    assert (ended, outputs["outcome"]) == (0, "inconclusive")
    assert "::warning" in said
    (tmp_path / "again").mkdir()
    assert act(tmp_path / "again", 1, inconclusive="warn")[0] == 1


@pytest.mark.parametrize("baseline", ["nowhere", ""])
def test_a_baseline_with_which_nothing_was_compared_never_passes(tmp_path: Path, baseline: str) -> None:
    """As where its path is wrong."""
    ended, outputs, _, said = act(tmp_path, 4, measured=False, inconclusive="warn", baseline=baseline)
    assert (ended, outputs["outcome"]) == (4, "failure")
    assert "::error" in said


@pytest.mark.parametrize(("given", "passed"), [("true", True), ("false", False)])
def test_a_baselines_factories_are_trusted_only_where_the_workflow_says_so(
    tmp_path: Path, given: str, passed: bool
) -> None:
    assert ("--trust-baseline" in act(tmp_path, 0, trust_baseline=given)[2]) == passed


def test_inputs_are_passed_on_as_they_are(tmp_path: Path) -> None:
    hostile = "$(touch owned); `touch owned`"
    _, _, arguments, _ = act(tmp_path, 0, baseline=hostile, models="a.py:net b.tflite", devices="rpi4 local", effect="")
    assert arguments[arguments.index("--baseline") + 1] == hostile
    assert arguments[-3:] == ["--", "a.py:net", "b.tflite"]
    assert [arguments[n + 1] for n, word in enumerate(arguments) if word == "--device"] == ["rpi4", "local"]
    assert "--effect" not in arguments
    assert not list(tmp_path.rglob("owned"))


def test_a_wrong_input_is_an_error(tmp_path: Path) -> None:
    ended, _, arguments, said = act(tmp_path, 0, inconclusive="ignore")
    assert ended == 2
    assert "fail or warn" in said
    assert not arguments


def test_every_input_that_the_script_reads_is_one_of_the_actions_and_the_other_way_round() -> None:
    text = (ROOT / "action.yml").read_text(encoding="utf-8")
    declared = set(re.findall(r"^  ([a-z-]+):$", text.partition("inputs:\n")[2].partition("\noutputs:")[0], re.M))
    passed = {name.lower().replace("_", "-") for name in re.findall(r"INPUT_([A-Z_]+): ", text)}
    read = {n.lower().replace("_", "-") for n in re.findall(r"INPUT_([A-Z_]+)", (ROOT / "scripts/action").read_text())}
    assert passed == read == declared - {"working-directory", "install"}
    assert not re.search(r"run:.*\$\{\{", text)
