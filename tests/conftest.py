"""What all tests have: surroundings of their own, whether one worker runs them or several side by side (pytest -n)."""

import os
import tempfile
from collections.abc import Iterator

import pytest
from hypothesis import settings

from edgeport.runner import Runner, local_runner

FOLDERS = {
    "EDGEPORT_CACHE": "cache",
    "EDGEPORT_LOCK": "lock",
    "XDG_CONFIG_HOME": "config",
    "XDG_DATA_HOME": "data",
    "TMPDIR": "tmp",
}

# No deadline: a busy machine is no failure. The same examples each time: a change fails in its own run, not later.
settings.register_profile("edgeport", deadline=None, derandomize=True, max_examples=40)
settings.load_profile("edgeport")


def pytest_configure(config: pytest.Config) -> None:
    """Leaves a core to each of several workers: threads that wait for each other on the same cores lose time."""
    if hasattr(config, "workerinput"):
        os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says in red what nobody should take for tested, as the tests that were skipped for it say."""
    reasons = {report.longrepr[2].partition(": ")[2] for report in terminalreporter.stats.get("skipped", ())}
    for reason in sorted(reason for reason in reasons if reason.startswith("NOT TESTED: ")):
        terminalreporter.write_sep("!", reason, red=True)


@pytest.fixture(scope="session", autouse=True)
def _surroundings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache, a configuration, a history, a folder for temporary files and one for the lock of this machine, of the
    tests' own, for this process and the commands that it runs: who measures beside the tests is not to stop them.
    """
    with pytest.MonkeyPatch.context() as patch:
        for variable, name in FOLDERS.items():
            patch.setenv(variable, str(tmp_path_factory.mktemp(name)))
        patch.setattr(tempfile, "tempdir", os.environ["TMPDIR"])
        patch.delenv("EDGEPORT_DATABASE", raising=False)
        patch.delenv("EDGEPORT_DEVICES", raising=False)
        yield


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """An empty cache of edgeport for a file of tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEPORT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def runner() -> Runner:
    """This machine, by another name."""
    return local_runner("bench")
