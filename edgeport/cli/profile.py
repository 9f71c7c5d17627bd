"""edgeport profile."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import msgspec
import typer

from edgeport import display, pinning
from edgeport.cli import newest
from edgeport.cli.checks import deliver, destination_file, find_device, listed, one_of
from edgeport.cli.history import recorded
from edgeport.cli.options import (
    AllowUnstable,
    Calibration,
    Database,
    DevicesFolder,
    InputData,
    InputShape,
    KeepHistory,
    MinSqnr,
    Name,
    Pin,
    Quiet,
    Set,
    Target,
    Wait,
    Weights,
    Wheels,
    complete_format,
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
    how_exported,
    is_converted,
    shapes_of,
)
from edgeport.records import MIN_SQNR_DB, ExportOptions

RUNS, LAUNCHES = 16, 4


def profile(
    model: Annotated[
        str | None,
        typer.Argument(
            help="A model as for export (exported first if need be), a .onnx or .tflite file, or an export's folder. "
            "Default: the newest export below ./exports.",
            autocompletion=complete_model,
            show_default=False,
        ),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Every export below ./exports.")] = False,
    device: Devices = ["local"],  # noqa: B006
    devices: DevicesFolder = None,
    runtime: Runtime = None,
    precision: Precision = "fp32,int8",
    num_threads: NumThreads = None,
    num_runs: Annotated[
        int | None,
        typer.Option(
            min=1, help=f"Timed runs a launch. Default: {RUNS}, fewer where a run is slow.", show_default=False
        ),
    ] = None,
    warmup_runs: Annotated[int, typer.Option(min=0, help="Runs before them, not timed.")] = 4,
    launches: Annotated[
        int | None,
        typer.Option(
            min=1,
            help=f"Fresh processes; the models take turns. Default: {LAUNCHES}, fewer where that takes minutes.",
            show_default=False,
        ),
    ] = None,
    pin: Pin = "",
    cool_down: Annotated[
        float | None, typer.Option(help="Before each launch, wait until the device is cooler.", metavar="CELSIUS")
    ] = None,
    cool_down_minutes: Annotated[
        float, typer.Option(min=0, help="How long --cool-down may wait before each launch.", metavar="MINUTES")
    ] = 5.0,
    wait: Wait = 0.0,
    wheels: Wheels = None,
    allow_unstable: AllowUnstable = False,
    ops: Annotated[bool, typer.Option("--ops/--no-ops", help="Break the time down by operator.")] = True,
    by: Annotated[str, typer.Option(help="What to break it down by.", metavar="class|op|module")] = "class",
    depth: Annotated[int, typer.Option(min=0, help="Of modules, for --by module.")] = 2,
    top: Annotated[int, typer.Option(min=0, help="How many of the slowest operators to list; 0 is all.")] = 10,
    format: Annotated[
        str,
        typer.Option(
            help="table, json, csv, markdown, svg, bencher or github-action-benchmark.",
            metavar="FORMAT",
            autocompletion=complete_format,
        ),
    ] = "table",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write to this file.")] = None,
    set_: Set = [],  # noqa: B006
    weights: Weights = None,
    input_shape: InputShape = [],  # noqa: B006
    input_data: InputData = None,
    target: Target = None,
    calibration_data: Calibration = None,
    min_sqnr_db: MinSqnr = MIN_SQNR_DB,
    name: Name = None,
    history: KeepHistory = True,
    database: Database = None,
    quiet: Quiet = False,
) -> None:
    """Measure latency on a device, and break it down by operator, module and class.

    Results are kept in a history: edgeport history.

    Example: edgeport profile shufflenet_v2 --device rpi4 --device local --precision int8
    """
    from edgeport import inputs, reports
    from edgeport.fleet import Conditions, Fleet
    from edgeport.measure import Settings
    from edgeport.reports import View
    from edgeport.sessions import Access

    reports.check(format)
    one_of("--by", by, ("class", "op", "module"))
    pinning.check(pin)
    listed("--precision", precision, PRECISIONS)
    destination = destination_file(output)
    places = [find_device(word, devices) for word in dict.fromkeys(device)]
    models = newest.chosen(model, every)
    check_models(models)
    check_name(name, models)
    conditions = Conditions(Access(wait, wheels), pin, allow_unstable)
    how = how_exported(set_, weights, input_shape, target, calibration_data, min_sqnr_db)
    check_unused(models, how)
    settings = Settings(
        num_runs=num_runs or RUNS,
        warmup_runs=warmup_runs,
        launches=launches or LAUNCHES,
        plans=frozenset(k for k, v in {"num_runs": num_runs, "launches": launches}.items() if v is None),
        input_shapes=shapes_of(input_shape, is_converted(models[0])),
        values=inputs.load(input_data) if input_data else None,
        profile=ops,
        cool_down=cool_down,
        cool_down_minutes=cool_down_minutes,
    )
    view = View(by=by, depth=depth, top=top, width=display.width(sys.stdout))
    results: list[Any] = []
    with display.steps(not quiet) as progress, recorded(results, history, database) as started:
        refused = _refused(places, models, conditions, progress)
        asked = Asked(models, runtime, precision, how, name)
        jobs = _jobs([p for p in places if p.name not in refused], asked, num_threads, settings, progress)
        fleet = Fleet(jobs, conditions, progress, started, refused)
        try:
            fleet.run()
        finally:  # what was measured before something failed is shown all the same
            results += fleet.results()
            deliver(reports.render(results, format, view) if results else "", destination)


class Asked(NamedTuple):
    """The files to measure, as the command line asks for them."""

    models: Sequence[str]
    runtime: str | None
    precision: str
    how: ExportOptions
    name: str | None

    def artifacts(self, target: str, progress: Any) -> tuple[Any, ...]:
        """For devices of this target, exported if need be."""
        found = [find_artifacts(m, *self[1:4], target, progress, self.name)[0] for m in self.models]
        return tuple(artifact for artifacts in found for artifact in artifacts)


def _refused(places: Sequence[Any], models: Sequence[str], conditions: Any, progress: Any) -> Mapping[str, Any]:
    """The devices that cannot be measured on. Nothing is exported for them; raises their error where there are none
    beside them.
    """
    if all(is_converted(model) for model in models):
        return {}
    from edgeport import fleet, reach

    refused = reach.refusals(places, conditions.access, conditions.pin, conditions.allow_unstable, progress)
    if len(refused) == len(places):
        raise fleet.together(list(refused.values()))
    for name in refused:
        progress.warned(f"{name} cannot be measured on, as the end tells; goes on without it")
    return refused


def _jobs(places: Sequence[Any], asked: Asked, num_threads: int | None, settings: Any, progress: Any) -> list[Any]:
    """One a device. What several devices need alike is exported once."""
    from edgeport.fleet import Job

    artifacts = {target: asked.artifacts(target, progress) for target in dict.fromkeys(p.target for p in places)}
    return [
        Job(p, artifacts[p.target], msgspec.structs.replace(settings, num_threads=num_threads or p.threads))
        for p in places
    ]
