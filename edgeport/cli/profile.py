"""edgeport profile."""

import sys
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from edgeport import display
from edgeport.cli.checks import deliver, destination_file, find_device, one_of
from edgeport.cli.history import recorded
from edgeport.cli.options import (
    Calibration,
    Database,
    DevicesFolder,
    InputData,
    InputShape,
    KeepHistory,
    MinSqnr,
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
    Devices,
    NumThreads,
    Precision,
    Runtime,
    find_artifacts,
    how_exported,
    is_converted,
    shapes_of,
)
from edgeport.pinning import FORMS
from edgeport.records import MIN_SQNR_DB


def profile(
    model: Annotated[
        str,
        typer.Argument(
            help="A model as for export (exported first if need be), a .onnx or .tflite file, or an export's folder.",
            autocompletion=complete_model,
        ),
    ],
    device: Devices = ["local"],  # noqa: B006
    devices: DevicesFolder = None,
    runtime: Runtime = None,
    precision: Precision = "fp32,int8",
    num_threads: NumThreads = None,
    num_runs: Annotated[int, typer.Option(min=1, help="Timed runs a launch.")] = 16,
    warmup_runs: Annotated[int, typer.Option(min=0, help="Runs before them, not timed.")] = 4,
    launches: Annotated[int, typer.Option(min=1, help="Fresh processes; the models take turns.")] = 4,
    pin: Annotated[str, typer.Option(help=f"Cores to run on: {FORMS}.", metavar="CORES")] = "",
    cool_down: Annotated[
        float | None, typer.Option(help="Before each launch, wait until the device is cooler.", metavar="CELSIUS")
    ] = None,
    wait: Wait = 0.0,
    wheels: Wheels = None,
    allow_unstable: Annotated[
        bool, typer.Option("--allow-unstable", help="Measure on a device whose state will mislead.")
    ] = False,
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
    history: KeepHistory = True,
    database: Database = None,
    quiet: Quiet = False,
) -> None:
    """Measure latency on a device, and break it down by operator, module and class.

    Results are kept in a history: edgeport history.

    Example: edgeport profile shufflenet_v2 --device rpi4 --device local --precision int8
    """
    from edgeport import inputs, reports
    from edgeport.fleet import Conditions, Fleet, Job
    from edgeport.measure import Settings
    from edgeport.reports import View
    from edgeport.sessions import Access

    reports.check(format)
    one_of("--by", by, ("class", "op", "module"))
    places = [find_device(name, devices) for name in dict.fromkeys(device)]
    destination = destination_file(output)
    conditions = Conditions(Access(wait, wheels), pin, allow_unstable)
    how = how_exported(set_, weights, input_shape, target, calibration_data, min_sqnr_db)
    settings = Settings(
        num_runs=num_runs,
        warmup_runs=warmup_runs,
        launches=launches,
        input_shapes=shapes_of(input_shape, is_converted(model)),
        values=inputs.load(input_data) if input_data else None,
        profile=ops,
        cool_down=cool_down,
    )
    results: list[Any] = []
    with display.steps(not quiet) as progress, recorded(results, history, database) as started:
        targets = dict.fromkeys(place.target for place in places)
        found = {t: tuple(find_artifacts(model, runtime, precision, how, t, progress)[0]) for t in targets}
        jobs = [
            Job(p, found[p.target], msgspec.structs.replace(settings, num_threads=num_threads or p.threads))
            for p in places
        ]
        fleet = Fleet(jobs, conditions, progress, started)
        try:
            fleet.run()
        finally:  # what was measured before something failed is shown all the same
            results += fleet.results()
            view = View(by=by, depth=depth, top=top, width=display.width(sys.stdout))
            deliver(reports.render(results, format, view) if results else "", destination)
