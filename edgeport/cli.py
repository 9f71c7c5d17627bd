"""The command line: the only code that prints results, and that ends the process."""

import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from edgeport import __version__, catalog, display, errors
from edgeport.errors import EdgeportError, UsageError

app = typer.Typer(
    name="edgeport",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    help="Takes a PyTorch network to an edge device and says, honestly, how fast it is there and why.",
)

Strings = list[str]
# What typer raises for a wrong command line. It keeps its copy of click private; BadParameter is the one that it shows.
CommandLineError: Any = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")


def main() -> NoReturn:
    """Runs the command line and exits: 0, or the exit code that the error means (README has the list)."""
    sys.exit(run(sys.argv[1:]))


def run(argv: Sequence[str]) -> int:
    """The exit code. Every error that a user can cause becomes one message."""
    try:
        code = app(list(argv), prog_name="edgeport", standalone_mode=False)
    except SystemExit:
        return _output_closed()  # all that typer ends the process for here: nobody reads our output any more
    except CommandLineError as e:
        e.show()
        return errors.EXIT_USAGE
    except EdgeportError as e:
        _complain(str(e))
        return e.exit_code
    except (KeyboardInterrupt, typer.Abort):
        code = errors.EXIT_INTERRUPTED
    except BrokenPipeError:
        return _output_closed()
    except OSError as e:
        _complain(f"{e.filename or 'the system'}: {(e.strerror or str(e)).lower()}")
        return errors.EXIT_FAILURE
    if code == errors.EXIT_INTERRUPTED:  # typer's own answer to Ctrl-C too
        _complain("interrupted; files already complete were kept, nothing else was written")
        return _leave(code)
    return code if isinstance(code, int) else 0


def _output_closed() -> int:
    """`edgeport ... | head`: nothing to complain about, and nothing more to say at the end of the process."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return 0


def _complain(text: str) -> None:
    sys.stderr.write(f"edgeport: {text}\n")


def _leave(code: int) -> NoReturn:
    """Ends at once: a converter's thread may be deep in a library and need not be waited for."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _models(incomplete: str) -> list[str]:
    return [name for name in catalog.model_names() if name.startswith(incomplete)]


def _devices(incomplete: str) -> list[str]:
    return [name for name in catalog.device_names() if name.startswith(incomplete)]


def _formats(incomplete: str) -> list[str]:
    from edgeport import reports

    return [name for name in reports.format_names() if name.startswith(incomplete)]


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


Model = Annotated[
    str,
    typer.Argument(
        help="A name of the catalogue (edgeport models), path/to/file.py:factory or package.module:attribute.",
        autocompletion=_models,
    ),
]
Set = Annotated[
    Strings,
    typer.Option("--set", metavar="NAME=VALUE", help="An argument of the factory: --set width=0.5. Repeatable."),
]
Weights = Annotated[
    Path | None, typer.Option(help="A state dict to load, raw or under 'state_dict'. Read as data alone.")
]
InputShape = Annotated[
    Strings,
    typer.Option(
        "--input-shape",
        metavar="SIZES",
        help="1,3,160,160, once an input in their order; 1,16:int64 for another type. For a file: NAME=SIZES.",
    ),
]
Calibration = Annotated[
    Path | None,
    typer.Option(
        "--calibration-data", help="A folder of images, or an .npz with an array an input. Default: a few photos."
    ),
]
Target = Annotated[
    str | None,
    typer.Option(help="Whose kernels int8 is made for: x86 or arm. Default: the device's.", metavar="x86|arm"),
]
MinSqnr = Annotated[float, typer.Option("--min-sqnr-db", help="Refuse int8 files with less signal to noise than this.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show warnings and errors, but no progress.")]


@app.command()
def export(
    model: Model,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The folder to write to. Default: exports/MODEL.")
    ] = None,
    set_: Set = [],  # noqa: B006  typer copies it
    weights: Weights = None,
    input_shape: InputShape = [],  # noqa: B006
    formats: Annotated[str, typer.Option(help="Which formats.", metavar="onnx,tflite")] = "onnx,tflite",
    precisions: Annotated[str, typer.Option(help="Which precisions.", metavar="fp32,int8")] = "fp32,int8",
    target: Target = None,
    int8_io: Annotated[bool, typer.Option("--int8-io", help="Integer inputs and outputs for the int8 files.")] = False,
    calibration_data: Calibration = None,
    min_sqnr_db: MinSqnr = 10.0,
    name: Annotated[str | None, typer.Option(help="The files' name. Default: the model's.")] = None,
    optimize: Annotated[
        bool, typer.Option("--optimize/--no-optimize", help="Rewrite the graph for speed, exactly, or leave it be.")
    ] = True,
    explain: Annotated[bool, typer.Option("--explain", help="Say what was rewritten and what int8 costs.")] = False,
    quiet: Quiet = False,
) -> None:
    """Convert a PyTorch network to ONNX and TFLite, fp32 and int8, each verified against PyTorch.

    Writes MODEL.fp32.onnx, MODEL.int8.onnx, MODEL.fp32.tflite, MODEL.int8.tflite and manifest.json.

    Example: edgeport export mobilenet_v2 --weights mobilenet_v2.pth --calibration-data photos/ -o build/
    """
    from edgeport.runner import local_runner

    with display.steps(not quiet) as progress:
        request = _request(
            *(model, name, set_, weights, input_shape, target, calibration_data, min_sqnr_db),
            *(formats, precisions, int8_io, optimize),
        )
        folder = output or Path("exports") / request.name
        from edgeport.export import bundle
        from edgeport.export.manifest import MANIFEST

        manifest = bundle.export(request, folder, local_runner(), progress)
    for artifact in manifest.artifacts:
        typer.echo(f"{folder / artifact.file}  {artifact.size_bytes / 1e6:.2f} MB")
    typer.echo(folder / MANIFEST)
    if explain:
        from edgeport.reports import View, explanation

        typer.echo("\n" + explanation.render(manifest, View(width=display.width(sys.stdout))), nl=False)


@app.command()
def profile(
    model: Annotated[
        str,
        typer.Argument(
            help="A model as for export (exported first if need be), a .onnx or .tflite file, or an export's folder.",
            autocompletion=_models,
        ),
    ],
    device: Annotated[str, typer.Option(help="Where to run (edgeport devices).", autocompletion=_devices)] = "local",
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
        str, typer.Option(help="table, json, csv, markdown or svg.", metavar="FORMAT", autocompletion=_formats)
    ] = "table",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write to this file.")] = None,
    set_: Set = [],  # noqa: B006
    weights: Weights = None,
    input_shape: InputShape = [],  # noqa: B006
    target: Target = None,
    calibration_data: Calibration = None,
    min_sqnr_db: MinSqnr = 10.0,
    quiet: Quiet = False,
) -> None:
    """Measure latency on a device, and break it down by operator, module and class.

    Example: edgeport profile shufflenet_v2 --precision int8 --by module --depth 1
    """
    from edgeport import reports
    from edgeport.measure import Measurement, Settings
    from edgeport.reports import View
    from edgeport.runner import local_runner

    reports.check(format)
    _one_of("--by", by, ("class", "op", "module"))
    place = catalog.find_device(device)
    if place.transport != "local":
        raise UsageError(f"device {device!r} is reached by {place.transport}, which this version does not speak")
    runner = local_runner(place.name)
    destination = _destination(output)
    with display.steps(not quiet) as progress:
        precisions = _listed("--precision", precision, ("fp32", "int8"))
        if Path(model).is_dir() or catalog.is_artifact(model):
            found = _files(Path(model), runtime, precisions)
            shapes = _named_shapes(input_shape)
        else:
            request = _request(
                *(model, None, set_, weights, input_shape, target or place.target, calibration_data, min_sqnr_db),
                *(_formats_of(runtime), precision, False),
            )
            found, shapes = _exported(request, runner, progress), {}
        settings = Settings(
            num_threads=num_threads or place.threads,
            num_runs=num_runs,
            warmup_runs=warmup_runs,
            launches=launches,
            cores=place.cores,
            input_shapes=shapes,
            profile=ops,
        )
        measurement = Measurement(found, runner, settings, progress)
        try:
            measurement.run()
        finally:  # what was measured before something failed is shown all the same
            results = measurement.results()
            view = View(by=by, depth=depth, top=top, width=display.width(sys.stdout))
            text = reports.render(results, format, view) if results else ""
            _deliver(text, destination)


@app.command()
def inspect(
    models: Annotated[
        Strings,
        typer.Argument(metavar="MODEL...", help="As for export; several are compared.", autocompletion=_models),
    ],
    set_: Set = [],  # noqa: B006
    input_shape: InputShape = [],  # noqa: B006
    count_products: Annotated[
        bool,
        typer.Option("--count-products", help="Count products of two maps as MAdds too, as MicroNet's paper does."),
    ] = False,
    by: Annotated[
        str,
        typer.Option(help="What to add up by. Default: type; several are only compared.", metavar="type|layer|module"),
    ] = "",
    depth: Annotated[int, typer.Option(min=0, help="Of modules, for --by module.")] = 2,
    top: Annotated[int, typer.Option(min=0, help="How many departures from the guidelines to list; 0 is all.")] = 10,
    format: Annotated[str, typer.Option(help="table, json, csv or markdown.", metavar="FORMAT")] = "table",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write to this file.")] = None,
) -> None:
    """Count what a network costs before it runs: parameters, MAdds, memory access, and ShuffleNetV2's guidelines.

    Example: edgeport inspect mobilenet_v2 --by module --depth 2
    """
    from edgeport.reports import View, inspection

    if by:
        _one_of("--by", by, inspection.BY)
    _one_of("--format", format, inspection.FORMATS)
    if set_ and len(models) > 1:
        raise UsageError("--set is for one model; inspect several without it")
    destination = _destination(output)
    analyses = [_analysed(model, set_, input_shape, count_products) for model in models]
    for analysis in analyses:
        if analysis.unknown and format in ("json", "csv"):  # tables say so themselves
            _complain(f"{analysis.model}: not counted: {inspection.unknown(analysis)}")
    view = View(by=by, depth=depth, top=top, width=display.width(sys.stdout))
    _deliver(inspection.render(analyses, format, view), destination)


@app.command()
def models() -> None:
    """List the catalogue of networks.

    Example: edgeport models
    """
    for name in catalog.model_names():
        factory = catalog.find_factory(name)
        arguments = ", ".join(str(p) for p in catalog.parameters(factory.call).values())
        shape = "x".join(map(str, (factory.input_shapes or ((),))[0]))
        typer.echo(f"{name}\n    paper      {factory.paper}\n    arguments  {arguments}\n    input      {shape}")


@app.command()
def devices() -> None:
    """List the devices that can be measured on.

    Example: edgeport devices
    """
    for name in catalog.device_names():
        device = catalog.find_device(name)
        typer.echo(f"{name:<12} {device.transport:<8} {device.description}")


def _request(
    model: str,
    name: str | None,
    assignments: Sequence[str],
    weights: Path | None,
    input_shapes: Sequence[str],
    target: str | None,
    calibration_data: Path | None,
    min_sqnr_db: float,
    formats: str,
    precisions: str,
    int8_io: bool,
    optimize: bool = True,
) -> Any:
    """An export's request. Everything that can be wrong with the flags is said before anything is imported or run."""
    chosen = _listed("--formats", formats, ("onnx", "tflite")), _listed("--precisions", precisions, ("fp32", "int8"))
    target = _target(target)
    if catalog.is_artifact(model):
        raise UsageError(f"{model} is already converted; give the PyTorch network that it came from")
    factory = catalog.find_factory(model)
    arguments = catalog.parse_arguments(factory, assignments)
    from edgeport.export.bundle import Request

    return Request(
        factory=factory,
        name=name or factory.name,
        arguments=arguments,
        weights=weights,
        input_shapes=tuple(input_shapes),
        formats=chosen[0],
        precisions=chosen[1],
        target=target,
        int8_io=int8_io,
        calibration_data=calibration_data,
        min_sqnr_db=min_sqnr_db,
        optimize=optimize,
    )


def _analysed(model: str, assignments: Sequence[str], input_shapes: Sequence[str], count_products: bool) -> Any:
    if catalog.is_artifact(model):
        raise UsageError(
            f"{model} is already converted; inspect the PyTorch network that it came from, or see each operator's "
            f"multiply-adds with edgeport profile {model} --by op"
        )
    factory = catalog.find_factory(model)
    arguments = catalog.parse_arguments(factory, assignments)
    from edgeport import analysis, chatter, files
    from edgeport.export import capture

    with chatter.kept_in(files.cache_folder("logs") / "inspect.log"):
        network = capture.make_network(factory, arguments, None)
        captured = capture.capture(network, capture.example_inputs(factory, input_shapes), analysis.PASSES)
    name = " ".join([factory.name, *assignments])
    return analysis.analyse(captured, name, count_products=count_products)


def _target(asked: str | None) -> str:
    if asked in (None, "auto"):
        return "x86" if platform.machine().lower() in ("x86_64", "amd64", "i686") else "arm"
    assert asked is not None
    _one_of("--target", asked, ("x86", "arm"))
    return asked


def _exported(request: Any, runner: Any, progress: Any) -> list[Any]:
    from edgeport.export import bundle

    folder = bundle.export_cached(request, runner, progress)
    return _files(folder, None, request.precisions)


def _files(path: Path, runtime: str | None, precisions: Sequence[str]) -> list[Any]:
    """The files to measure: one, or those of an export's folder that run with the runtime at these precisions."""
    from edgeport import formats
    from edgeport.export.manifest import read_manifest
    from edgeport.kit import RUNTIME_OF, RUNTIMES
    from edgeport.measure import Artifact, precision_of

    if runtime is not None:
        _one_of("--runtime", runtime, tuple(RUNTIMES))
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


def _formats_of(runtime: str | None) -> str:
    from edgeport.kit import RUNTIME_OF, RUNTIMES

    if runtime is None:
        return "onnx,tflite"
    _one_of("--runtime", runtime, tuple(RUNTIMES))
    return next(suffix.lstrip(".") for suffix, name in RUNTIME_OF.items() if name == runtime)


def _named_shapes(texts: Sequence[str]) -> dict[str, tuple[int, ...]]:
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


def _listed(flag: str, text: str, known: Sequence[str]) -> tuple[str, ...]:
    """A comma-separated list, in the order in which the known ones stand."""
    words = [word.strip() for word in text.split(",") if word.strip()]
    for word in words or [text]:
        _one_of(flag, word, known)
    return tuple(word for word in known if word in words)


def _one_of(flag: str, word: str, known: Sequence[str]) -> None:
    if word not in known:
        raise UsageError(f"{flag} {word}: choose from {', '.join(known)}{errors.nearest(word, known)}")


def _destination(output: Path | None) -> Path | None:
    """Checked before hours of measuring, not after."""
    from edgeport import files

    if output is not None:
        files.writable_folder(output.parent)
        if output.is_dir():
            raise UsageError(f"--output {output} is a folder; name a file")
    return output


def _deliver(text: str, destination: Path | None) -> None:
    from edgeport import files

    if destination is None or not text:
        typer.echo(text, nl=False)
    else:
        files.write_text(destination, text)
        typer.echo(destination)


if __name__ == "__main__":
    main()
