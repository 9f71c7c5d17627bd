"""The command line: the only code that prints results, and that ends the process."""

import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Annotated, Any, NoReturn

import typer

from edgeport import __version__, errors
from edgeport.cli import baseline, check, compare, devices, export, history, inspect, lists, profile
from edgeport.cli.checks import complain, output_closed
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
    sys.exit(run(sys.argv[1:]))


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
        traceback.print_exc()
        complain("this is a mistake in edgeport, please report it")
        return errors.EXIT_FAILURE
    if code == errors.EXIT_INTERRUPTED:  # typer's own answer to Ctrl-C too
        complain("interrupted; files already complete were kept, nothing else was written")
        return _leave(code)
    return code if isinstance(code, int) else 0


def _leave(code: int) -> NoReturn:
    """Ends at once: a converter's thread may be deep in a library and need not be waited for."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"edgeport {__version__}")
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
