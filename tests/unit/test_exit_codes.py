"""What the end of a command says to CI: 1 is a regression and nothing else, 0 is never what was not looked at."""

import subprocess
import sys
from typing import Any

import pytest

from edgeport import catalog, cli
from edgeport.cli.subjects import share
from edgeport.errors import EXIT_FAILURE, EXIT_REGRESSED, UsageError


def test_a_mistake_in_edgeport_is_a_failure_and_no_regression(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def wrong(*_: Any) -> Any:
        raise KeyError("what nobody thought of")

    monkeypatch.setattr(catalog, "model_names", wrong)
    assert cli.run(["models"]) == EXIT_FAILURE
    assert "please report it" in capsys.readouterr().err


def test_a_verdict_that_nobody_reads_is_the_same_verdict() -> None:
    """`edgeport check --format json | head`."""
    program = f"""
import sys
from edgeport.cli.checks import deliver
deliver("x" * 1_000_000, None)
sys.exit({EXIT_REGRESSED})
"""
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    assert process.wait(300) == EXIT_REGRESSED
    assert process.stderr is not None
    assert process.stderr.read() == b""


@pytest.mark.parametrize(("text", "value"), [("2%", 0.02), ("0.02", 0.02), ("0", 0.0), ("150%", 1.5)])
def test_a_share_is_one(text: str, value: float) -> None:
    assert share("--tolerance", text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["2", "1", "nan", "inf%", "-1%", "x", ""])
def test_what_has_lost_its_percent_sign_is_no_share(text: str) -> None:
    with pytest.raises(UsageError, match="give a share, as 2% or"):
        share("--tolerance", text)
