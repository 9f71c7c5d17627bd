"""edgeport check."""

import os
import secrets
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import msgspec
import typer

from edgeport import catalog, display
from edgeport.cli.baseline import preprocessing_of
from edgeport.cli.checks import complain, deliver, destination_file, one_of
from edgeport.cli.history import recorded
from edgeport.cli.options import (
    Database,
    DevicesFolder,
    KeepHistory,
    Pin,
    Quiet,
    Strings,
    Wait,
    Wheels,
    complete_device,
    complete_model,
)
from edgeport.cli.subjects import (
    Alpha,
    Effect,
    Emulated,
    MaxMinutes,
    Nice,
    NumThreads,
    Seed,
    Tolerance,
    find_artifacts,
    find_place,
    is_converted,
    is_factory,
    kind_of,
    open_runner,
    reach,
    shapes_of,
    share,
)
from edgeport.errors import EdgeportError, UsageError

JOB_SUMMARY = "GITHUB_STEP_SUMMARY"  # the file that GitHub shows on a workflow run's page


def check(
    models: Annotated[
        Strings, typer.Argument(metavar="[MODEL...]", help="Default: all.", autocompletion=complete_model)
    ] = [],  # noqa: B006
    baseline: Annotated[Path, typer.Option(help="The folder that edgeport baseline save wrote.")] = Path("baseline"),
    device: Annotated[
        Strings,
        typer.Option(help="Where to run. Default: all of the baseline's. Repeatable.", autocompletion=complete_device),
    ] = [],  # noqa: B006
    devices: DevicesFolder = None,
    trust_baseline: Annotated[
        bool, typer.Option("--trust-baseline", help="Run the factories that it names, whoever saved it.")
    ] = False,
    tolerance: Tolerance = "2%",
    effect: Effect = None,
    alpha: Alpha = 0.005,
    max_minutes: MaxMinutes = 10.0,
    size_tolerance: Annotated[str, typer.Option(help="By how much a file may grow, or 'off'.", metavar="SHARE")] = "5%",
    eval_data: Annotated[
        Path | None,
        typer.Option(help="Labelled samples: a folder of images for each class in a folder, or .npz with 'labels'."),
    ] = None,
    accuracy_tolerance: Annotated[
        str, typer.Option(help="How many more of them may be named wrongly.", metavar="SHARE")
    ] = "1%",
    num_threads: NumThreads = None,
    nice: Nice = 0,
    pin: Pin = "",
    wait: Wait = 0.0,
    wheels: Wheels = None,
    depth: Annotated[int, typer.Option(min=0, help="Of the modules that are named.")] = 2,
    seed: Seed = None,
    format: Annotated[str, typer.Option(help="table, json or markdown.", metavar="FORMAT")] = "table",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write to this file.")] = None,
    summary: Annotated[Path | None, typer.Option(help="Write Markdown for a pull request to this file.")] = None,
    junit: Annotated[Path | None, typer.Option(help="Write JUnit XML to this file.")] = None,
    allow_emulated: Emulated = False,
    history: KeepHistory = True,
    database: Database = None,
    quiet: Quiet = False,
) -> int:
    """Hold the present state of models against a baseline: latency, size and, with labelled samples, accuracy.

    Exports each model as it was exported for the baseline, and measures both sides in one session, as compare does.
    Exit code 0: passed; 1: a regression; 3: something failed; 4: no verdict, or not comparable. Comparisons are kept in
    a history: edgeport history.

    Example: edgeport check --baseline baseline/ --tolerance 2% --summary summary.md
    """
    from edgeport import baseline as store
    from edgeport import compare as rules
    from edgeport import pinning
    from edgeport.reports import verdicts
    from edgeport.sessions import Access

    pinning.check(pin)
    one_of("--format", format, verdicts.FORMATS)
    by = rules.criteria(share("--tolerance", tolerance), None if effect is None else share("--effect", effect), alpha)
    by = msgspec.structs.replace(
        by,
        size_tolerance=None if size_tolerance == "off" else share("--size-tolerance", size_tolerance),
        accuracy_tolerance=share("--accuracy-tolerance", accuracy_tolerance) if eval_data else None,
    )
    flags = {"--output": output, "--summary": summary, "--junit": junit}
    destinations = [destination_file(path, flag) for flag, path in flags.items()]
    where = Where(devices, Access(wait, wheels), pin)
    samples = _labelled(eval_data)
    made: list[Any] = []
    with display.steps(not quiet) as progress, recorded(made, history, database) as started:
        try:
            from edgeport import session

            settings = session.Settings(
                criteria=by,
                max_minutes=max_minutes,
                nice=nice,
                seed=secrets.randbits(32) if seed is None else seed,
                allow_emulated=allow_emulated,
                origin=started,
            )
            entries = store.select(store.load(baseline), models, device)
            if not trust_baseline and not store.is_trusted(baseline):
                _refuse_foreign(entries, models)
            subjects = _subjects(entries, baseline, bool(models), where, progress)
            tasks = [(s, s.settings(settings, num_threads)) for s in subjects]
            for name in dict.fromkeys(s.place.name for s in subjects):
                _compare([t for t in tasks if t[0].place.name == name], len(tasks), where, samples, made, progress)
        finally:  # what was decided before something failed is shown all the same
            _report(made, format, depth, destinations)
    return rules.exit_code([rules.outcome(c) for c in made])


class Where(NamedTuple):
    """folder: of --devices. pin: as --pin has it."""

    folder: Path | None
    access: Any
    pin: str


class Subject(msgspec.Struct, frozen=True):
    """One artifact of the baseline and the one that stands in its place now."""

    entry: Any
    pair: Any
    place: Any
    preprocessing: Any

    def settings(self, settings: Any, num_threads: int | None) -> Any:
        shapes = shapes_of(self.entry.options.input_shapes, is_converted(self.entry.model))
        threads = num_threads or self.entry.result.num_threads
        return msgspec.structs.replace(settings, num_threads=threads, input_shapes=shapes)


def _compare(
    tasks: Sequence[tuple[Subject, Any]], total: int, where: Where, samples: Any, made: list[Any], progress: Any
) -> None:
    """Those of one device, which is kept for them alone meanwhile: it may go by another name too."""
    from edgeport import session

    with open_runner(tasks[0][0].place, where.access, where.pin, progress) as (runner, cores):
        # quick, and the samples may not fit the model
        counted = iter([_accuracy(subject, samples, runner, progress) for subject, _ in tasks])
        pairs = [(subject.pair, msgspec.structs.replace(settings, cores=cores)) for subject, settings in tasks]
        session.compare_all(
            *(runner, pairs, total),
            lambda comparison: made.append(msgspec.structs.replace(comparison, accuracy=next(counted))),
            progress,
        )


def _refuse_foreign(entries: Sequence[Any], models: Sequence[str]) -> None:
    """Raises UsageError for a factory that a baseline names and nobody else does: to make its network, it is run."""
    entry = next((e for e in entries if is_factory(e.model) and e.model not in models), None)
    if entry is None:
        return
    arguments = "".join(f" with {assignment}" for assignment in entry.options.assignments)
    raise UsageError(
        f"the baseline names the factory {entry.model}{arguments}, which would be run here, and it was not saved here "
        f"by you as it is; name the factory ('edgeport check {shlex.quote(entry.model)} ...'), or pass --trust-baseline"
    )


def _subjects(entries: Sequence[Any], folder: Path, named: bool, where: Where, progress: Any) -> list[Subject]:
    """Everything is exported before anything is measured, and nothing before every device was reached."""
    from edgeport import baseline as store

    together: dict[bytes, list[Any]] = {}  # what one export makes
    for entry in entries:
        key = msgspec.json.encode((entry.model, entry.options, entry.result.device), order="sorted")
        together.setdefault(key, []).append(entry)
    places = {name: find_place(name, where.folder) for name in dict.fromkeys(e.result.device for e in entries)}
    reach(list(places.values()), [e.model for e in entries], where.access, where.pin, progress)
    found = []
    for group in together.values():
        place = places[group[0].result.device]
        kept = [store.artifact(folder, entry) for entry in group]
        candidates, export = _now(group[0], kept, place, named, progress)
        preprocessing = preprocessing_of(export)
        for entry, before in zip(group, kept, strict=True):
            pair = _pair(entry, before, candidates)
            found.append(Subject(entry, pair, place, preprocessing or entry.preprocessing))
    return found


def _now(entry: Any, kept: Sequence[Any], place: Any, named: bool, progress: Any) -> tuple[Any, Path]:
    """The artifacts that stand in the place of those kept, and the folder of their export."""
    runtimes, precisions = {a.runtime for a in kept}, {a.precision for a in kept}
    runtime = None if len(runtimes) > 1 else runtimes.pop()
    chosen = ",".join(sorted(precisions))
    name = None if _called(entry) == entry.model else _called(entry)
    try:
        return find_artifacts(entry.model, runtime, chosen, entry.options, place.target, progress, name)
    except UsageError as e:  # it is the baseline that named the model: nobody wrote a wrong command line
        raise e if named else EdgeportError(f"{entry.model} of the baseline: {e}") from e


def _pair(entry: Any, before: Any, candidates: Sequence[Any]) -> Any:
    from edgeport.session import Pair

    after = next((a for a in candidates if kind_of(a) == kind_of(before)), None)
    if after is None:
        there = ", ".join(" ".join(kind_of(a)) for a in candidates)
        raise EdgeportError(f"{entry.model}: the baseline has {' '.join(kind_of(before))}, now there is {there}")
    name = " ".join([_called(entry), *entry.options.assignments, before.precision, before.runtime])
    return Pair(name, before, after, entry.result)


def _called(entry: Any) -> str:
    """The model as it was given, unless the user gave it a name."""
    kept = entry.result.model
    unnamed = (catalog.series_name(entry.model), entry.model.rpartition(":")[2], Path(entry.model).stem)
    return entry.model if Path(entry.model).is_dir() or kept in unnamed else str(kept)


def _labelled(data: Path | None) -> Any:
    if data is None:
        return None
    from edgeport.export import evaluate

    return evaluate.load(data)


def _accuracy(subject: Subject, samples: Any, runner: Any, progress: Any) -> Any:
    if samples is None:
        return None
    from edgeport.export import evaluate
    from edgeport.records import Accuracy

    step = f"accuracy of {subject.pair.name}"
    progress.started(step)
    sides = (subject.pair.baseline, subject.entry.preprocessing), (subject.pair.candidate, subject.preprocessing)
    right = [evaluate.count_right(runner, a.path, samples, preprocessing) for a, preprocessing in sides]
    progress.finished(step, f"{right[0]} and {right[1]} of {len(samples.labels)} named rightly")
    return Accuracy(samples.source, len(samples.labels), *right)


def _report(made: Sequence[Any], format: str, depth: int, destinations: Sequence[Path | None]) -> None:
    """A summary is written even of nothing, and says why."""
    from edgeport import files
    from edgeport.reports import View, verdicts

    output, summary, junit = destinations
    view = View(depth=depth, width=display.width(sys.stdout))
    error = sys.exception()  # that is on its way out
    failure = "" if error is None else str(error) or type(error).__name__
    told = verdicts.summary(made, view, failure)
    if made:
        deliver(verdicts.render(made, format, view), output)
    if junit:
        files.write_text(junit, verdicts.junit(made, failure))
    if summary:
        files.write_text(summary, told)
    if os.environ.get(JOB_SUMMARY):
        try:
            with Path(os.environ[JOB_SUMMARY]).open("a", encoding="utf-8") as file:
                file.write(told + "\n")
        except OSError as e:  # the verdict is not the worse for it
            complain(f"warning: {JOB_SUMMARY} cannot be written: {files.reason(e)}")
