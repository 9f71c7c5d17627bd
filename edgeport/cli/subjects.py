"""What commands that measure are given: models in any form, and devices; and the options that they share."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from edgeport import catalog
from edgeport.cli.checks import find_device, listed, one_of
from edgeport.cli.export import make_request
from edgeport.cli.options import complete_device
from edgeport.errors import UsageError
from edgeport.records import MOST_THREADS, ExportOptions

PRECISIONS = ("fp32", "int8")

Tolerance = Annotated[str, typer.Option(help="The slowdown that is no regression: 2% or 0.02.", metavar="SHARE")]
Effect = Annotated[
    str | None,
    typer.Option(help="The slowdown that must not pass. Default: 2.5 times the tolerance.", metavar="SHARE"),
]
Alpha = Annotated[
    float, typer.Option(help="The chance that one session calls a slowdown of just the tolerance a regression.")
]
MaxMinutes = Annotated[float, typer.Option(min=0.05, max=1e4, help="For each comparison; its verdict may need less.")]
Precision = Annotated[str, typer.Option(help="Which precisions of a model.", metavar="fp32,int8")]
Runtime = Annotated[str | None, typer.Option(help="Default: all that run the model.", metavar="litert|onnxruntime")]
NumThreads = Annotated[int | None, typer.Option(min=1, max=MOST_THREADS, help="Default: the device's.")]
Seed = Annotated[int | None, typer.Option(help="Of the order in which the processes take turns. Default: another one.")]
Nice = Annotated[int, typer.Option(min=-20, max=19, help="Priority of the timed processes; below 0 may need root.")]
Emulated = Annotated[bool, typer.Option("--allow-emulated", help="Judge the times of an emulated device, too.")]
Devices = Annotated[
    list[str],
    typer.Option("--device", help="Where to run (edgeport devices). Repeatable.", autocompletion=complete_device),
]
DeviceName = Annotated[str, typer.Option(help="Where to run (edgeport devices).", autocompletion=complete_device)]


def share(flag: str, text: str) -> float:
    """2% or 0.02. One of 1 or more has lost its percent sign, unless it has one."""
    try:
        found = float(text.removesuffix("%")) / 100 if text.endswith("%") else float(text)
    except ValueError:
        found = -1.0
    if not 0 <= found < (10 if text.endswith("%") else 1):
        raise UsageError(f"{flag} {text}: give a share, as 2% or 0.02")
    return found


def find_place(device: str, folder: Path | None = None) -> catalog.Device:
    """Raises UsageError for a device whose runner is none that can serve two files by turns. folder: of --devices."""
    place = find_device(device, folder)
    if place.runner != "agent":
        raise UsageError(
            f"device {device!r} runs {place.runner}, which cannot time two files by turns; it takes the agent"
        )
    return place


@contextlib.contextmanager
def open_runner(place: catalog.Device, access: Any, pin: str, progress: Any) -> Iterator[tuple[Any, tuple[int, ...]]]:
    """A runner on the device, which is kept for it until the block ends, and the cores to run on: the device's own
    unless they are pinned.
    """
    from edgeport import pinning
    from edgeport.sessions import open_runner

    with open_runner(place, access, progress) as runner:
        yield runner, pinning.cores(pin, runner.facts()) if pin else place.cores


def reach(places: Sequence[catalog.Device], models: Sequence[str], access: Any, pin: str, progress: Any) -> None:
    """Raises the first device's error of those that cannot be measured on, before any of the models is exported."""
    if all(is_converted(model) for model in models):
        return
    from edgeport import reach

    for error in reach.refusals(places, access, pin, True, progress).values():
        raise error


def is_converted(model: str) -> bool:
    return Path(model).is_dir() or catalog.is_artifact(model)


def is_factory(model: str) -> bool:
    """Whether it names Python of somebody's, which is run to make the network."""
    return not is_converted(model) and ":" in model


def how_exported(
    set_: Sequence[str],
    weights: Path | None,
    input_shape: Sequence[str],
    target: str | None,
    calibration_data: Path | None,
    min_sqnr_db: float,
) -> ExportOptions:
    return ExportOptions(
        assignments=tuple(set_),
        weights=str(weights) if weights else None,
        input_shapes=tuple(input_shape),
        target=target,
        calibration_data=str(calibration_data) if calibration_data else None,
        min_sqnr_db=min_sqnr_db,
    )


def find_artifacts(
    model: str,
    runtime: str | None,
    precision: str,
    how: ExportOptions,
    target: str,
    progress: Any,
    name: str | None = None,
) -> tuple[list[Any], Path]:
    """The files to measure and the folder of their export, which has a manifest unless a file was given. target: of the
    device, for a model that is exported for it and names no other. name: to keep their results under.
    """
    precisions = listed("--precision", precision, PRECISIONS)
    if is_converted(model):
        check_models([model])
        path = Path(model)
        return _artifacts(path, runtime, precisions, name), path
    from edgeport.export import bundle
    from edgeport.runner import local_runner

    given = msgspec.structs.asdict(how) | {"target": how.target or target}
    request = make_request(model, **given, formats=_formats(runtime), precisions=precision)
    folder = bundle.export_cached(request, local_runner(), progress)  # which verifies it here
    return _artifacts(folder, None, precisions, name), folder


def _artifacts(path: Path, runtime: str | None, precisions: Sequence[str], name: str | None = None) -> list[Any]:
    """The files to measure: one, or those of an export's folder that run with the runtime at these precisions."""
    from edgeport import formats
    from edgeport.export.manifest import read_manifest, whole_artifact
    from edgeport.kit import RUNTIMES, runtime_of
    from edgeport.measure import Artifact, precision_of

    if runtime is not None:
        one_of("--runtime", runtime, tuple(RUNTIMES))
    if not path.is_dir():
        own = runtime_of(path)
        if runtime not in (None, own):
            raise UsageError(f"{path} runs with {own}, not {runtime}")
        return [Artifact(path, name or path.stem, own, precision_of(formats.read(path)))]
    manifest = read_manifest(path)
    found = [
        Artifact(whole_artifact(path, a), name or _series(manifest.model), runtime_of(Path(a.file)), a.precision)
        for a in manifest.artifacts
        if a.precision in precisions and runtime in (None, runtime_of(Path(a.file)))
    ]
    if not found:
        there = ", ".join(a.file for a in manifest.artifacts)
        raise UsageError(f"{path} has no file for that runtime and precision; it has {there}")
    return found


def _series(model: Any) -> str:
    """What an export's results are kept under: the name that it was given, if it was given one."""
    default = model.source.rpartition(":")[2].rpartition(".")[2]
    return catalog.series_name(model.source) if model.name == default else str(model.name)


def check_name(name: str | None, models: Sequence[str]) -> None:
    """Raises UsageError for one that says nothing, or where several models would have it."""
    if name is not None and not name.strip():
        raise UsageError("--name is empty; give the name to keep the results under")
    if name is not None and len(dict.fromkeys(models)) > 1:
        raise UsageError(f"--name {name}: there are {len(models)} models, which cannot have one name; name one model")


def check_models(models: Sequence[str]) -> None:
    """Raises UsageError for names of nothing, as far as that can be told without running anybody's Python."""
    for model in models:
        if not is_converted(model):
            catalog.check_model(model)
        elif not Path(model).exists():
            raise UsageError(f"there is no file {model}")


def check_unused(models: Sequence[str], how: ExportOptions) -> None:
    """Raises UsageError for options of an export where every model has been exported, which could not count."""
    given = {"--set": how.assignments, "--weights": how.weights, "--calibration-data": how.calibration_data}
    flag = next((flag for flag, value in given.items() if value), None)
    if flag and all(is_converted(model) for model in models):
        raise UsageError(f"{flag} says how a network is exported, and {models[0]} has been; leave out {flag}")


def _formats(runtime: str | None) -> str:
    from edgeport.kit import RUNTIME_OF, RUNTIMES

    if runtime is None:
        return "onnx,tflite"
    one_of("--runtime", runtime, tuple(RUNTIMES))
    return next(suffix.lstrip(".") for suffix, name in RUNTIME_OF.items() if name == runtime)


def shapes_of(texts: Sequence[str], converted: bool) -> dict[str, tuple[int, ...]]:
    """Shapes of inputs that a file leaves open; a network has been exported with its shapes."""
    return _named_shapes(texts) if converted else {}


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


def kind_of(artifact: Any) -> tuple[str, str]:
    """What must be the same on both sides."""
    return artifact.runtime, artifact.precision
