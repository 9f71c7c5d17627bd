"""A device is reached, or refused, before anything is exported for it."""

from pathlib import Path

import pytest

from edgeport.errors import EXIT_FAILURE, EXIT_USAGE

from .board import Board
from .conftest import Here

NETWORK = "net.py:build"
COMMANDS = {
    "profile": ("profile", NETWORK),
    "compare": ("compare", NETWORK, NETWORK),
    "baseline": ("baseline", "save", NETWORK, "-o", "kept"),
}


@pytest.fixture
def network(tmp_path: Path) -> None:
    """A network whose export would be noticed, in the folder that we are in."""
    (tmp_path / "net.py").write_text("raise ValueError('it ran')\n")


@pytest.mark.usefixtures("network")
@pytest.mark.parametrize("command", COMMANDS)
def test_a_device_that_does_not_answer_is_refused_before_the_export(command: str, own_board: Board, here: Here) -> None:
    own_board.stop()
    done = here(*COMMANDS[command], "--device", "board", "--no-history", code=EXIT_FAILURE)
    assert "board: no answer; is it on, in this network" in done.err
    assert "it ran" not in done.err


@pytest.mark.usefixtures("network", "a_board")
@pytest.mark.parametrize("command", COMMANDS)
def test_a_core_that_the_device_has_not_is_refused_before_the_export(command: str, here: Here) -> None:
    done = here(*COMMANDS[command], "--device", "board", "--pin", "4000", code=EXIT_USAGE)
    assert "--pin 4000: the device has the cores 0" in done.err
    assert "it ran" not in done.err


@pytest.mark.usefixtures("network")
def test_what_can_be_reached_is_gone_on_with(own_board: Board, here: Here) -> None:
    own_board.stop()
    done = here("profile", NETWORK, "--device", "board", "--device", "local", code=EXIT_FAILURE)
    assert "board cannot be measured on, as the end tells; goes on without it" in done.err
    assert "it ran" in done.err
