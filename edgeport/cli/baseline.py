"""edgeport baseline save."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from edgeport import display
from edgeport.cli.checks import complain, listed, say
from edgeport.cli.history import recorded
from edgeport.cli.options import (
    Calibration,
    Database,
    DevicesFolder,
    InputShape,
    KeepHistory,
    MinSqnr,
    Name,
    Pin,
    Quiet,
    Set,
    Strings,
    Target,
    Wait,
    Weights,
    Wheels,
    complete_model,
)
from edgeport.cli.subjects import (
    PRECISIONS,
    Devices,
    NumThreads,
    Precision,
    Runtime,
    check_models,
    check_name,
    check_unused,
    find_artifacts,
    find_place,
    how_exported,
    is_converted,
    is_factory,
    open_runner,
    reach,
    shapes_of,
)
from edgeport.errors import EdgeportError
from edgeport.records import MIN_SQNR_DB

app = typer.Typer(
    name="baseline",
    help="Keep what later states are held against (edgeport check).\n\n"
    "Example: edgeport baseline save net.py:build -o baseline/",
)


@app.callback()
def _group() -> None:
    """So that save stays a command of its own."""


@app.command()
def save(
    models: Annotated[
        Strings,
        typer.Argument(metavar="MODEL...", help="Each as for compare.", autocompletion=complete_model),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The baseline's folder; what it holds is kept.")],
    device: Devices = ["local"],  # noqa: B006
    devices: DevicesFolder = None,
    runtime: Runtime = None,
    precision: Precision = "fp32,int8",
    num_threads: NumThreads = None,
    pin: Pin = "",
    wait: Wait = 0.0,
    wheels: Wheels = None,
    set_: Set = [],  # noqa: B006
    weights: Weights = None,
    input_shape: InputShape = [],  # noqa: B006
    target: Target = None,
    calibration_data: Calibration = None,
    min_sqnr_db: MinSqnr = MIN_SQNR_DB,
    name: Name = None,
    history: KeepHistory = True,
    database: Database = None,
    quiet: Quiet = False,
) -> None:
    """Keep the present state of some models: their files, named by their content, with their results on the devices,
    which the history keeps, too.

    Example: edgeport baseline save shufflenet_v2 net.py:build --device local -o baseline/
    """
    from edgeport import baseline, files, pinning
    from edgeport.measure import Settings
    from edgeport.sessions import Access

    pinning.check(pin)
    listed("--precision", precision, PRECISIONS)
    check_models(models)
    check_name(name, models)
    places = [find_place(word, devices) for word in dict.fromkeys(device)]
    files.writable_folder(output)
    foreign = [e for e in baseline.kept(output) if is_factory(e.model) and e.model not in models]
    is_own = not foreign or baseline.is_trusted(output)
    how = how_exported(set_, weights, input_shape, target, calibration_data, min_sqnr_db)
    check_unused(models, how)
    access = Access(wait, wheels)
    made: list[Any] = []
    measured: list[Any] = []
    with display.steps(not quiet) as progress, recorded(measured, history, database) as started:
        reach(places, models, access, pin, progress)
        for place in places:
            for model in dict.fromkeys(models):
                artifacts, folder = find_artifacts(model, runtime, precision, how, place.target, progress, name)
                shapes = shapes_of(input_shape, is_converted(model))
                settings = Settings(num_threads=num_threads or place.threads, input_shapes=shapes)
                with open_runner(place, access, pin, progress) as (runner, cores):
                    settings = msgspec.structs.replace(settings, cores=cores)
                    results = _measured(artifacts, settings, runner, progress, started)
                measured += results
                made += [(_entry(model, how, folder, r), a.path) for r, a in zip(results, artifacts, strict=True)]
        baseline.save(output, made)
    if is_own:
        _note_as_own(output)
    for entry, _ in made:
        say(f"{entry.result.file}  {entry.result.runtime} on {entry.result.device}  {entry.result.sha256[:16]}")
    say(output / baseline.INDEX)


def _note_as_own(folder: Path) -> None:
    """So that check runs the factories that it names, as it is and where it is."""
    from edgeport import baseline

    try:
        baseline.trust_saved(folder)
    except EdgeportError as e:
        complain(f"warning: {e}; edgeport check will ask for --trust-baseline")


def _measured(artifacts: Sequence[Any], settings: Any, runner: Any, progress: Any, started: Any) -> list[Any]:
    from edgeport.measure import Measurement

    measurement = Measurement(artifacts, runner, settings, progress, started)
    measurement.run()
    return measurement.results()


def _entry(model: str, how: Any, folder: Path, result: Any) -> Any:
    from edgeport.records import BaselineEntry

    return BaselineEntry(model=model, options=how, result=result, preprocessing=preprocessing_of(folder))


def preprocessing_of(folder: Path) -> Any:
    """As the export says it; None for a file that no export stands beside."""
    from edgeport.export.manifest import read_manifest

    return read_manifest(folder).preprocessing if folder.is_dir() else None
