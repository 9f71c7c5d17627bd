"""edgeport history, and how other commands keep their results in it."""

import contextlib
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from edgeport import display, errors
from edgeport.cli.checks import complain, deliver, destination_file, one_of, say
from edgeport.cli.options import Database, Strings, complete_device, complete_format
from edgeport.errors import EdgeportError, UsageError

FILE = "history.db"
MOST_BYTES = 1_000_000_000  # of a file of results
LISTED = 20  # rows in a terminal, unless told otherwise
UNITS = {"h": 3600, "d": 86400, "w": 7 * 86400}
# What a continuous integration says it builds, where git has only a commit checked out: GitHub (of a pull request, of
# anything else), GitLab.
CI_BRANCH = ("GITHUB_HEAD_REF", "GITHUB_REF_NAME", "CI_COMMIT_REF_NAME")

app = typer.Typer(
    rich_markup_mode=None,
    help="What was measured before: list it, show it, plot it, pool it with others'.\n\nExample: edgeport history",
)

Kind = Annotated[str | None, typer.Option(help="Default: both.", metavar="profile|comparison")]
Model = Annotated[str | None, typer.Option(help="Of this model alone.")]
Device = Annotated[str | None, typer.Option(help="Of this device alone.", autocompletion=complete_device)]
Runtime = Annotated[str | None, typer.Option(help="With this runtime alone.", metavar="litert|onnxruntime")]
Precision = Annotated[str | None, typer.Option(help="Of this precision alone.", metavar="fp32|int8")]
Since = Annotated[str | None, typer.Option(help="Since a date or time (2026-11-01, 2026-11-01T15:30), or 12h, 7d, 4w.")]
Branch = Annotated[str | None, typer.Option(help="Measured on this branch alone.")]
Last = Annotated[int | None, typer.Option(min=0, help="The newest so many; 0 is all.")]
Output = Annotated[Path | None, typer.Option("--output", "-o", help="Write to this file.")]
Ids = Annotated[Strings, typer.Argument(metavar="ID...", help="The first digits of an id, as listed.")]


@app.callback(invoke_without_command=True)
def history_(context: typer.Context, database: Database = None) -> None:
    """What was measured before: list it, show it, plot it, pool it with others'. Without a command it is listed.

    Example: edgeport history
    """
    if context.invoked_subcommand is None:
        list_(database=database)
    elif database is not None and database != os.environ.get("EDGEPORT_DATABASE"):
        raise UsageError(f"--database {database}: write it behind '{context.invoked_subcommand}', which it is for")


@app.command("list")
def list_(
    kind: Kind = None,
    model: Model = None,
    device: Device = None,
    runtime: Runtime = None,
    precision: Precision = None,
    branch: Branch = None,
    since: Since = None,
    last: Last = None,
    format: Annotated[str, typer.Option(help="table, json, csv or markdown.", metavar="FORMAT")] = "table",
    output: Output = None,
    database: Database = None,
) -> None:
    """List results and comparisons, the newest last: in a table the last 20, else all.

    Example: edgeport history list --model shufflenet_v2 --since 7d
    """
    from edgeport.history import KINDS
    from edgeport.reports import View, entries

    one_of("--format", format, entries.FORMATS)
    if kind is not None:
        one_of("--kind", kind, tuple(KINDS))
    destination = destination_file(output)
    default = LISTED if format == "table" else 0
    wanted = _filter(model, device, runtime, precision, branch, since, default if last is None else last, kind)
    history = _open(database)
    found = history.entries(wanted)
    if not found:
        complain(_why_nothing(history, wanted))
    if found or format != "table":
        title = f"{len(found)} of {history.count(wanted)} results in {history.name} (--format csv has every column)"
        deliver(entries.render(found, format, View(width=display.width(sys.stdout)), title), destination)


@app.command()
def show(
    ids: Annotated[Strings, typer.Argument(metavar="[ID...]", help="As listed. Default: the newest result.")] = [],  # noqa: B006
    by: Annotated[str, typer.Option(help="What to break it down by.", metavar="class|op|module")] = "class",
    depth: Annotated[int, typer.Option(min=0, help="Of modules, for --by module.")] = 2,
    top: Annotated[int, typer.Option(min=0, help="How many of the slowest operators to list; 0 is all.")] = 10,
    format: Annotated[
        str, typer.Option(help="As of profile.", metavar="FORMAT", autocompletion=complete_format)
    ] = "table",
    output: Output = None,
    database: Database = None,
) -> None:
    """Show results as edgeport profile did, in any of its formats, and comparisons as edgeport compare did.

    Example: edgeport history show 5e9abc32bd --by module
    """
    from edgeport import reports
    from edgeport.history import PROFILE, Filter
    from edgeport.reports import View, entries

    reports.check(format)
    one_of("--by", by, ("class", "op", "module"))
    destination = destination_file(output)
    history = _open(database)
    keys = [history.find(prefix) for prefix in ids]
    keys = keys or [entry.id for entry in history.entries(Filter(kind=PROFILE, last=1))]
    if not keys:
        raise UsageError(_why_nothing(history, Filter(kind=PROFILE)))
    view = View(by=by, depth=depth, top=top, width=display.width(sys.stdout))
    text = _rendered(history.records(keys), format, view)
    if format == "table":
        text = entries.render(history.with_ids(keys), format, view, history.name) + "\n" + text
    deliver(text, destination)


@app.command()
def plot(
    model: Model = None,
    device: Device = None,
    runtime: Runtime = None,
    precision: Precision = None,
    branch: Branch = None,
    since: Since = None,
    last: Last = None,
    over: Annotated[str, typer.Option(help="Default: commit, if all results have one.", metavar="commit|time")] = "",
    output: Annotated[Path, typer.Option("--output", "-o", help="A .svg or .png file.")] = Path("history.svg"),
    database: Database = None,
) -> None:
    """Plot latencies over commits or time, with intervals, by model, device, runtime and precision.

    Needs matplotlib: pip install 'edgeport[plot]'.

    Example: edgeport history plot --model shufflenet_v2 --branch main -o latency.png
    """
    from edgeport import files
    from edgeport.history import PROFILE
    from edgeport.reports import trend

    format = output.suffix.lstrip(".").lower()
    if format not in trend.FORMATS:
        raise UsageError(f"--output {output}: name a .svg or .png file")
    if over:
        one_of("--over", over, trend.OVER)
    destination_file(output)
    wanted = _filter(model, device, runtime, precision, branch, since, last or 0, PROFILE)
    history = _open(database)
    found = history.entries(wanted)
    if not found:
        raise UsageError(_why_nothing(history, wanted))
    drawn = trend.render(found, format, over)
    with files.whole_file(output) as beside:
        beside.write_bytes(drawn)
    say(output)


@app.command()
def export(
    model: Model = None,
    device: Device = None,
    runtime: Runtime = None,
    precision: Precision = None,
    branch: Branch = None,
    since: Since = None,
    last: Last = None,
    format: Annotated[
        str, typer.Option(help="As of profile.", metavar="FORMAT", autocompletion=complete_format)
    ] = "json",
    output: Output = None,
    database: Database = None,
) -> None:
    """Write whole results, raw samples and all, as edgeport profile would: for edgeport history add, or other tools.

    Example: edgeport history export --device rpi4 -o rpi4.json
    """
    from edgeport import reports
    from edgeport.history import PROFILE
    from edgeport.reports import View

    reports.check(format)
    destination = destination_file(output)
    wanted = _filter(model, device, runtime, precision, branch, since, last or 0, PROFILE)
    history = _open(database)
    found = history.results([entry.id for entry in history.entries(wanted)])
    if not found:
        raise UsageError(_why_nothing(history, wanted))
    deliver(reports.render(found, format, View(by="op", top=0, width=display.width(sys.stdout))), destination)


@app.command()
def add(
    results: Annotated[
        list[Path],
        typer.Argument(metavar="FILE...", help="What profile, compare, check or history export wrote as JSON."),
    ],
    database: Database = None,
) -> None:
    """Add results and comparisons that were measured elsewhere, all or none. What is there already is left as it is.

    Example: edgeport history add rpi4.json pixel8.json
    """
    from edgeport.reports import as_json

    found = [result for path in results for result in as_json.read(_content(path), str(path))]
    history = _open(database, create=True)
    new = history.add(found)
    there = f"; {len(found) - len(new)} were there already" if len(new) < len(found) else ""
    say(f"added {len(new)} results to {history.name}{there}")


def _content(path: Path) -> bytes:
    """Raises ResultFileError where there is no plain file to read."""
    from edgeport import files

    try:
        return files.content(path, MOST_BYTES)
    except OSError as e:
        raise errors.ResultFileError(f"{path}: {files.reason(e)}; give a file that --format json wrote") from e


@app.command()
def remove(
    ids: Ids,
    yes: Annotated[bool, typer.Option("--yes", help="Remove them. Without it they are listed, nothing more.")] = False,
    database: Database = None,
) -> None:
    """Remove results for good.

    Example: edgeport history remove 5e9abc32bd --yes
    """
    from edgeport.reports import View, entries

    history = _open(database)
    keys = [history.find(prefix) for prefix in ids]
    title = f"{'removed from' if yes else 'to be removed with --yes from'} {history.name}"
    text = entries.render(history.with_ids(keys), "table", View(width=display.width(sys.stdout)), title)
    if yes:
        history.remove(keys)
    deliver(text, None)


def _rendered(records: Sequence[Any], format: str, view: Any) -> str:
    """Raises UsageError for a format that comparisons do not have."""
    from edgeport import reports
    from edgeport.records import Comparison
    from edgeport.reports import verdicts

    comparisons = [record for record in records if isinstance(record, Comparison)]
    results = [record for record in records if not isinstance(record, Comparison)]
    if comparisons:
        one_of("--format", format, verdicts.FORMATS)
    if comparisons and results and format == "json":
        raise UsageError("--format json: results and comparisons differ in their form; show the ones or the others")
    parts = [verdicts.render(comparisons, format, view)] if comparisons else []
    return "\n".join([reports.render(results, format, view), *parts] if results else parts)


# For other commands


@contextlib.contextmanager
def recorded(records: Sequence[Any], wanted: bool, database: str | None) -> Iterator[Any]:
    """When and on which commit the block began. What results, or comparisons, there are when it ends, however that
    comes, are added to the history, if it is wanted. Raises UsageError for what can be no database, before the block.
    """
    from edgeport import history, origin

    if wanted:
        history.parse(_place(database))
    try:
        yield origin.here(branch=branch_of_ci(os.environ))
    finally:
        if wanted and records:
            _keep(records, database)


def _keep(records: Sequence[Any], database: str | None) -> None:
    """Where that fails it says so, and writes them where they can be added from later."""
    from edgeport.history import History

    try:
        History(_place(database), create=True).add(records)
    except (EdgeportError, OSError) as e:
        complain(f"warning: not kept in the history: {e}{_put_aside(records)}")


def branch_of_ci(environment: Mapping[str, str]) -> str | None:
    """The branch that is being built, if a service says so."""
    return next((environment[name] for name in CI_BRANCH if environment.get(name)), None)


def _put_aside(records: Sequence[Any]) -> str:
    """What to tell of it."""
    from edgeport import files
    from edgeport.reports import View

    text = _rendered(records, "json", View())
    for folder in _last_resorts():
        path = folder / time.strftime(f"edgeport-results-%Y%m%d-%H%M%S-{os.getpid()}.json")
        try:
            files.writable_folder(folder)
            files.write_text(path, text, private=True)
        except (EdgeportError, OSError):
            continue  # the next one
        return f"\n  the results are in {path}; add them with: edgeport history add {path}"
    return "\n  and there is no folder to write them to"


def _last_resorts() -> Iterator[Path]:
    from edgeport import files

    yield files.data_folder()
    yield Path.cwd()
    yield Path(tempfile.gettempdir())


def _place(database: str | None) -> str:
    from edgeport import files

    return database or str(files.data_folder() / FILE)


def _open(database: str | None, create: bool = False) -> Any:
    from edgeport.history import History

    return History(_place(database), create)


def _filter(
    model: str | None,
    device: str | None,
    runtime: str | None,
    precision: str | None,
    branch: str | None,
    since: str | None,
    last: int,
    kind: str | None = None,
) -> Any:
    from edgeport.history import Filter

    return Filter(kind, model, device, runtime, precision, branch, _since(since) if since else None, last)


def _since(text: str) -> float:
    """Unix time of a date or time, in the user's zone unless it names another, or of so long ago."""
    ago = re.fullmatch(r"(\d{1,6})([hdw])", text)
    if ago:
        return time.time() - int(ago[1]) * UNITS[ago[2]]
    try:
        return datetime.fromisoformat(text).astimezone().timestamp()
    except (ValueError, OverflowError, OSError):
        raise UsageError(
            f"--since {text}: write 2026-11-01, 2026-11-01T15:30, or 12h, 7d, 4w for so long ago"
        ) from None


def _why_nothing(history: Any, wanted: Any) -> str:
    """The filter that nothing has, with what there is."""
    from edgeport.history import Filter

    if not history.count():
        return f"nothing is in the history {history.name} yet; edgeport profile keeps its results there"
    if not history.count(Filter(kind=wanted.kind)):
        return f"no {wanted.kind} is in the history {history.name} yet"
    for column in ("model", "device", "runtime", "precision", "git_branch"):
        word, known = getattr(wanted, column), history.values(column)
        if word is not None and word not in known:
            flag = column.removeprefix("git_")
            there = ", ".join(known) or "none"
            return f"nothing in {history.name} has --{flag} {word}; there is {there}{errors.nearest(word, known)}"
    return f"nothing in {history.name} is all that was asked for; leave out some of the filters"
