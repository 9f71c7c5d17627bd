"""edgeport profile."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from edgeport import catalog, display
from edgeport.cli.checks import deliver, destination_file, listed, one_of
from edgeport.cli.export import make_request
from edgeport.cli.history import branch_of_ci, check_database, keep
from edgeport.cli.options import (
    Calibration,
    Database,
    InputShape,
    KeepHistory,
    MinSqnr,
    Quiet,
    Set,
    Strings,
    Target,
    Wait,
    Weights,
    Wheels,
    complete_device,
    complete_format,
    complete_model,
)
from edgeport.errors import UsageError
from edgeport.pinning import FORMS


def profile(
    model: Annotated[
        str,
        typer.Argument(
            help="A model as for export (exported first if need be), a .onnx or .tflite file, or an export's folder.",
            autocompletion=complete_model,
        ),
    ],
    device: Annotated[
        Strings,
        typer.Option(help="Where to run (edgeport devices). Repeatable.", autocompletion=complete_device),
    ] = ["local"],  # noqa: B006
    runtime: Annotated[
        str | None, typer.Option(help="Default: all that run the model.", metavar="litert|onnxruntime")
    ] = None,
    precision: Annotated[str, typer.Option(help="Which precisions of a model.", metavar="fp32,int8")] = "fp32,int8",
    num_threads: Annotated[int | None, typer.Option(min=1, help="Default: the device's.")] = None,
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
    target: Target = None,
    calibration_data: Calibration = None,
    min_sqnr_db: MinSqnr = 10.0,
    history: KeepHistory = True,
    database: Database = None,
    quiet: Quiet = False,
) -> None:
    """Measure latency on a device, and break it down by operator, module and class.

    Results are kept in a history: edgeport history.

    Example: edgeport profile shufflenet_v2 --device rpi4 --device local --precision int8
    """
    from edgeport import origin, reports
    from edgeport.fleet import Conditions, Fleet, Job
    from edgeport.measure import Settings
    from edgeport.reports import View
    from edgeport.sessions import Access

    reports.check(format)
    one_of("--by", by, ("class", "op", "module"))
    places = [catalog.find_device(name) for name in dict.fromkeys(device)]
    destination = destination_file(output)
    conditions = Conditions(Access(wait, wheels), pin, allow_unstable)
    if history:
        check_database(database)
    started = origin.here(branch=branch_of_ci(os.environ))
    with display.steps(not quiet) as progress:
        precisions, shapes = listed("--precision", precision, ("fp32", "int8")), {}
        if Path(model).is_dir() or catalog.is_artifact(model):
            found = artifacts_of(Path(model), runtime, precisions)
            shapes, by_target = named_shapes(input_shape), dict.fromkeys((p.target for p in places), found)
        else:
            by_target = {}
            for wanted in dict.fromkeys(p.target for p in places):
                request = make_request(
                    *(model, None, set_, weights, input_shape, target or wanted, calibration_data, min_sqnr_db),
                    *(formats_of(runtime), precision, False),
                )
                by_target[wanted] = exported(request, progress)
        jobs = []
        for place in places:
            settings = Settings(
                num_threads=num_threads or place.threads,
                num_runs=num_runs,
                warmup_runs=warmup_runs,
                launches=launches,
                input_shapes=shapes,
                profile=ops,
                cool_down=cool_down,
            )
            jobs.append(Job(place, tuple(by_target[place.target]), settings))
        fleet = Fleet(jobs, conditions, progress, started)
        try:
            fleet.run()
        finally:  # what was measured before something failed is shown all the same
            results = fleet.results()
            view = View(by=by, depth=depth, top=top, width=display.width(sys.stdout))
            try:
                deliver(reports.render(results, format, view) if results else "", destination)
            finally:
                if history:
                    keep(results, database)


def exported(request: Any, progress: Any) -> list[Any]:
    """Verified on this machine."""
    from edgeport.export import bundle
    from edgeport.runner import local_runner

    folder = bundle.export_cached(request, local_runner(), progress)
    return artifacts_of(folder, None, request.precisions)


def artifacts_of(path: Path, runtime: str | None, precisions: Sequence[str]) -> list[Any]:
    """The files to measure: one, or those of an export's folder that run with the runtime at these precisions."""
    from edgeport import formats
    from edgeport.export.manifest import read_manifest
    from edgeport.kit import RUNTIME_OF, RUNTIMES
    from edgeport.measure import Artifact, precision_of

    if runtime is not None:
        one_of("--runtime", runtime, tuple(RUNTIMES))
    if not path.is_dir():
        own = RUNTIME_OF[path.suffix.lower()]
        if runtime not in (None, own):
            raise UsageError(f"{path} runs with {own}, not {runtime}")
        return [Artifact(path, path.stem, own, precision_of(formats.read(path)))]
    manifest = read_manifest(path)
    found = [
        Artifact(path / a.file, manifest.model.name, RUNTIME_OF[Path(a.file).suffix], a.precision)
        for a in manifest.artifacts
        if a.precision in precisions and runtime in (None, RUNTIME_OF[Path(a.file).suffix])
    ]
    if not found:
        there = ", ".join(a.file for a in manifest.artifacts)
        raise UsageError(f"{path} has no file for that runtime and precision; it has {there}")
    return found


def formats_of(runtime: str | None) -> str:
    from edgeport.kit import RUNTIME_OF, RUNTIMES

    if runtime is None:
        return "onnx,tflite"
    one_of("--runtime", runtime, tuple(RUNTIMES))
    return next(suffix.lstrip(".") for suffix, name in RUNTIME_OF.items() if name == runtime)


def named_shapes(texts: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """NAME=1,3,64,64, or the sizes alone for a model of one input (under the name "")."""
    shapes = {}
    for text in texts:
        name, _, sizes = text.rpartition("=")
        try:
            shape = tuple(int(size) for size in sizes.split(","))
        except ValueError:
            shape = (0,)
        if min(shape) < 1:
            raise UsageError(f"--input-shape {text}: write NAME=1,3,224,224, sizes of at least 1")
        shapes[name] = shape
    return shapes
