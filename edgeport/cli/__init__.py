"""The command line: the only code that prints results, and that ends the process."""

import contextlib
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Annotated, Any, NoReturn

import typer

from edgeport import __version__, cleaning, errors
from edgeport.cli import baseline, check, compare, devices, export, history, inspect, lists, profile
from edgeport.cli.checks import complain, output_closed, say
from edgeport.errors import EdgeportError

app = typer.Typer(
    name="edgeport",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    help="Takes a PyTorch network to an edge device and says, honestly, how fast it is there and why.",
)

# What typer raises for a wrong command line. It keeps its copy of click private; BadParameter is the one that it shows.
CommandLineError: Any = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")


_ended_by: list[int] = []  # the signal that ends this process, if one does


def main() -> NoReturn:
    """Runs the command line and exits: 0, or the exit code that the error means (README has the list)."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_DFL:  # nohup's processes are to outlive their terminal
            signal.signal(number, _end_as_interrupted)
    sys.exit(run(sys.argv[1:]))


def _end_as_interrupted(number: int, frame: object) -> NoReturn:
    """Cleans up as Ctrl-C does. It is heard once: what comes while it cleans up would leave the rest."""
    for other in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(other, signal.SIG_IGN)
    _ended_by.append(number)
    raise KeyboardInterrupt


def run(argv: Sequence[str]) -> int:
    """The exit code. Every error that a user can cause becomes one message."""
    try:
        code = app(list(argv), prog_name="edgeport", standalone_mode=False)
    except (SystemExit, BrokenPipeError):  # all that typer ends the process for here: nobody reads our output any more
        output_closed()
        return 0
    except CommandLineError as e:
        e.show()
        return errors.EXIT_USAGE
    except EdgeportError as e:
        complain(str(e))
        return e.exit_code
    except (KeyboardInterrupt, typer.Abort):
        code = errors.EXIT_INTERRUPTED
    except OSError as e:
        complain(f"{e.filename or 'the system'}: {(e.strerror or str(e)).lower()}")
        return errors.EXIT_FAILURE
    except Exception:  # Python's own exit code, 1, would say that a network has become slower
        sys.stderr.write(cleaning.text(traceback.format_exc()))
        complain("this is a mistake in edgeport, please report it")
        return errors.EXIT_FAILURE
    if code == errors.EXIT_INTERRUPTED:  # typer's own answer to Ctrl-C too
        how = signal.Signals(_ended_by[0]).name if _ended_by else "interrupted"
        with contextlib.suppress(OSError):  # a terminal that has gone takes no words
            complain(f"{how}; files already complete were kept, nothing else was written")
        return _leave(errors.EXIT_SIGNAL + _ended_by[0] if _ended_by else code)
    return code if isinstance(code, int) else 0


def _leave(code: int) -> NoReturn:
    """Ends at once: a converter's thread may be deep in a library and need not be waited for."""
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def _version(wanted: bool) -> None:
    if wanted:
        say(f"edgeport {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


COMMANDS: tuple[Callable[..., Any], ...] = (
    *(export.export, profile.profile, inspect.inspect, compare.compare, check.check),
    lists.models,
)
for command in COMMANDS:
    app.command()(command)
app.add_typer(devices.app, name="devices")
app.add_typer(history.app, name="history")
app.add_typer(baseline.app)
