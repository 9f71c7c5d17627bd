"""The command line: the only code that prints results, and that ends the process."""

import contextlib
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Annotated, Any, NoReturn

import typer

from edgeport import __version__, cleaning, errors, interrupts
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


def main() -> NoReturn:
    """Runs the command line and exits: 0, or the exit code that the error means (README has the list)."""
    interrupts.listen()
    interrupts.spare_imports()
    try:
        interrupts.leave(run(sys.argv[1:]))
    except KeyboardInterrupt:  # another one, while the first one was told of
        interrupts.leave(interrupts.code())


def run(argv: Sequence[str]) -> int:
    """The exit code. Every error that a user can cause becomes one message."""
    try:
        code = app(list(argv), prog_name="edgeport", standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        _leave_interrupted()
    except BaseException as e:
        if interrupts.heard():  # libraries turn it into errors of their own, and what it ended here fails
            _leave_interrupted()
        return _told(e)
    if interrupts.heard() or code == errors.EXIT_INTERRUPTED:  # typer's own answer to Ctrl-C too
        _leave_interrupted()
    return code if isinstance(code, int) else 0


def _told(error: BaseException) -> int:
    """Says what is wrong. The exit code that it means."""
    match error:
        case SystemExit() | BrokenPipeError():  # all that typer ends the process for: nobody reads our output any more
            output_closed()
            return 0
        case EdgeportError():
            complain(str(error))
            return error.exit_code
        case OSError():
            complain(f"{error.filename or 'the system'}: {(error.strerror or str(error)).lower()}")
            return errors.EXIT_FAILURE
    if isinstance(error, CommandLineError):
        error.show()
        return errors.EXIT_USAGE
    # Python's own exit code, 1, would say that a network has become slower
    sys.stderr.write(cleaning.text("".join(traceback.format_exception(error))))
    complain("this is a mistake in edgeport, please report it")
    return errors.EXIT_FAILURE


def _leave_interrupted() -> NoReturn:
    with contextlib.suppress(OSError):  # a terminal that has gone takes no words
        complain(f"{interrupts.name()}; files already complete were kept, nothing else was written")
    interrupts.leave(interrupts.code())


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
