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
    Target,
    Weights,
    complete_device,
    complete_format,
    complete_model,
)
from edgeport.errors import UsageError


def profile(
    model: Annotated[
        str,
        typer.Argument(
            help="A model as for export (exported first if need be), a .onnx or .tflite file, or an export's folder.",
            autocompletion=complete_model,
        ),
    ],
    device: Annotated[
        str, typer.Option(help="Where to run (edgeport devices).", autocompletion=complete_device)
    ] = "local",
    runtime: Annotated[
        str | None, typer.Option(help="Default: all that run the model.", metavar="litert|onnxruntime")
    ] = None,
    precision: Annotated[str, typer.Option(help="Which precisions of a model.", metavar="fp32,int8")] = "fp32,int8",
    num_threads: Annotated[int | None, typer.Option(min=1, help="Default: the device's.")] = None,
    num_runs: Annotated[int, typer.Option(min=1, help="Timed runs a launch.")] = 16,
    warmup_runs: Annotated[int, typer.Option(min=0, help="Runs before them, not timed.")] = 4,
    launches: Annotated[int, typer.Option(min=1, help="Fresh processes; the models take turns.")] = 4,
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

    Example: edgeport profile shufflenet_v2 --precision int8 --by module --depth 1
    """
    from edgeport import origin, reports
    from edgeport.measure import Measurement, Settings
    from edgeport.reports import View
    from edgeport.runner import local_runner

    reports.check(format)
    one_of("--by", by, ("class", "op", "module"))
    place = catalog.find_device(device)
    if place.transport != "local":
        raise UsageError(f"device {device!r} is reached by {place.transport}, which this version does not speak")
    runner = local_runner(place.name)
    destination = destination_file(output)
    if history:
        check_database(database)
    started = origin.here(branch=branch_of_ci(os.environ))
    with display.steps(not quiet) as progress:
        precisions = listed("--precision", precision, ("fp32", "int8"))
        if Path(model).is_dir() or catalog.is_artifact(model):
            found = artifacts_of(Path(model), runtime, precisions)
            shapes = named_shapes(input_shape)
        else:
            request = make_request(
                *(model, None, set_, weights, input_shape, target or place.target, calibration_data, min_sqnr_db),
                *(formats_of(runtime), precision, False),
            )
            found, shapes = exported(request, runner, progress), {}
        settings = Settings(
            num_threads=num_threads or place.threads,
            num_runs=num_runs,
            warmup_runs=warmup_runs,
            launches=launches,
            cores=place.cores,
            input_shapes=shapes,
            profile=ops,
        )
        measurement = Measurement(found, runner, settings, progress, started)
        try:
            measurement.run()
        finally:  # what was measured before something failed is shown all the same
            results = measurement.results()
            view = View(by=by, depth=depth, top=top, width=display.width(sys.stdout))
            try:
                deliver(reports.render(results, format, view) if results else "", destination)
            finally:
                if history:
                    keep(results, database)


def exported(request: Any, runner: Any, progress: Any) -> list[Any]:
    from edgeport.export import bundle

    folder = bundle.export_cached(request, runner, progress)
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
