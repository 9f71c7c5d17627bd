"""What is shown while work goes on."""

from io import StringIO

import pytest

from edgeport.display import Steps


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    return Terminal()


def test_those_who_want_no_progress_see_on_a_terminal_what_is_waited_for(terminal: Terminal) -> None:
    with Steps(terminal, verbose=False) as steps:
        steps.started("export")
        steps.advanced("export", "goes on")
        assert terminal.getvalue() == ""
        steps.started("pi cools down")
        steps.waited("pi cools down", "61.0 C")
        assert steps._live is not None
        steps._live.refresh()
        steps.finished("pi cools down")
        steps.finished("export")
    shown = terminal.getvalue()
    assert "pi cools down" in shown
    assert "61.0 C" in shown
    assert "goes on" not in shown
    assert "✓" not in shown


def test_a_file_is_told_no_waits() -> None:
    file = StringIO()
    with Steps(file, verbose=False) as steps:
        steps.waited("pi cools down", "61.0 C")
    assert file.getvalue() == ""


def test_a_warning_is_said_once() -> None:
    file = StringIO()
    with Steps(file, verbose=False) as steps:
        for text in ("a", "b", "a"):
            steps.warned(text)
    assert file.getvalue() == "warning: a\nwarning: b\n"
