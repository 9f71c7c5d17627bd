"""Signals end a command whenever they come: while it imports, while it cleans up, and where Python raises nothing."""

import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}


def run(program: str) -> subprocess.CompletedProcess[str]:
    """The program, to which no signal is deaf, wherever the tests run."""
    hears = "import signal\nfor n in (1, 2, 15):\n    signal.signal(n, signal.SIG_DFL)\n"
    hears += "signal.signal(2, signal.default_int_handler)\n"
    argv = [sys.executable, "-c", hears + textwrap.dedent(program)]
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.parametrize("number", CODES)
@pytest.mark.parametrize("module", ["typer", "edgeport.cli.export"])
def test_a_signal_while_the_command_line_is_imported_is_no_traceback(number: signal.Signals, module: str) -> None:
    done = run(f"""
        import sys
        class Finder:
            def find_spec(self, name, path, target=None):
                if name == {module!r}:
                    signal.raise_signal({number})
        sys.meta_path.insert(0, Finder())
        sys.argv = ["edgeport", "models"]
        from edgeport.__main__ import main
        main()
    """)
    assert done.returncode == CODES[number]
    assert done.stdout == ""
    assert "nothing was written" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_library_that_turns_the_interrupt_into_an_error_of_its_own_is_no_mistake_of_ours() -> None:
    done = run("""
        import sys
        from edgeport import interrupts, cli
        interrupts.listen()
        def models():
            try:
                signal.raise_signal(15)
            except KeyboardInterrupt:
                raise ImportError("numpy cannot be imported")
        cli.app.command("broken")(models)
        sys.exit(cli.run(["broken"]))
    """)
    assert done.returncode == 143
    assert done.stderr.startswith("edgeport: SIGTERM; ")
    assert len(done.stderr.splitlines()) == 1


def test_a_signal_waits_for_the_end_of_an_import_in_which_a_library_in_c_would_abort(tmp_path: Path) -> None:
    """torch.distributed does: its C++ ends the process where an exception comes out of Python."""
    (tmp_path / "heavy.py").write_text(
        "import signal, time\nsignal.raise_signal(15)\ntime.sleep(0.3)\nprint('whole')\n"
    )
    done = run(f"""
        import sys, time
        sys.path.insert(0, {str(tmp_path)!r})
        from edgeport import cli
        def needs_it():
            import heavy
            time.sleep(100)
        cli.app.command("needs")(needs_it)
        sys.argv = ["edgeport", "needs"]
        cli.main()
    """)
    assert (done.returncode, done.stdout) == (143, "whole\n")
    assert done.stderr.startswith("edgeport: SIGTERM; ")
    assert len(done.stderr.splitlines()) == 1


def test_a_signal_where_python_can_raise_nothing_comes_again() -> None:
    done = run("""
        import time, weakref
        from edgeport import interrupts
        interrupts.listen()
        class Module: ...
        module = Module()
        gone = weakref.ref(module, lambda _: signal.raise_signal(15))
        del module
        try:
            time.sleep(100)
        except KeyboardInterrupt:
            interrupts.leave(interrupts.code())
    """)
    assert (done.returncode, done.stderr) == (143, "")


@pytest.mark.parametrize(("second", "hears"), [(signal.SIGTERM, False), (signal.SIGHUP, False), (signal.SIGINT, True)])
def test_only_ctrl_c_interrupts_what_is_cleaned_up(second: signal.Signals, hears: bool) -> None:
    done = run(f"""
        from edgeport import interrupts
        interrupts.listen()
        try:
            try:
                signal.raise_signal(15)
            finally:
                signal.raise_signal({second})
                print("clean")
        except KeyboardInterrupt:
            interrupts.leave(interrupts.code())
    """)
    assert done.returncode == 143
    assert done.stdout == ("" if hears else "clean\n")


def test_what_is_to_outlive_its_terminal_does() -> None:
    """As nohup starts it."""
    done = run("""
        signal.signal(1, signal.SIG_IGN)
        from edgeport import interrupts
        interrupts.listen()
        signal.raise_signal(1)
        print("lives")
    """)
    assert (done.returncode, done.stdout) == (0, "lives\n")
