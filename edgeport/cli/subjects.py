"""What the gate's commands are given: models in any form, and devices; and the options that they share."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from edgeport import catalog
from edgeport.cli.checks import listed
from edgeport.cli.export import make_request
from edgeport.cli.options import complete_device
from edgeport.cli.profile import artifacts_of, formats_of, named_shapes
from edgeport.errors import UsageError

Tolerance = Annotated[str, typer.Option(help="The slowdown that is no regression: 2% or 0.02.", metavar="SHARE")]
Effect = Annotated[
    str | None,
    typer.Option(help="The slowdown that must not pass. Default: 2.5 times the tolerance.", metavar="SHARE"),
]
Alpha = Annotated[
    float, typer.Option(help="The chance that one session calls a slowdown of just the tolerance a regression.")
]
MaxMinutes = Annotated[float, typer.Option(min=0.05, help="For each comparison; its verdict may need less.")]
Precision = Annotated[str, typer.Option(help="Which precisions of a model.", metavar="fp32,int8")]
Runtime = Annotated[str | None, typer.Option(help="Default: all that run the model.", metavar="litert|onnxruntime")]
NumThreads = Annotated[int | None, typer.Option(min=1, help="Default: the device's.")]
Seed = Annotated[int | None, typer.Option(help="Of the order in which the processes take turns. Default: another one.")]
Nice = Annotated[int, typer.Option(min=-20, max=19, help="Priority of the timed processes; below 0 may need root.")]
Emulated = Annotated[bool, typer.Option("--allow-emulated", help="Judge the times of an emulated device, too.")]
Devices = Annotated[
    list[str],
    typer.Option("--device", help="Where to run (edgeport devices). Repeatable.", autocompletion=complete_device),
]
DeviceName = Annotated[str, typer.Option(help="Where to run (edgeport devices).", autocompletion=complete_device)]


def share(flag: str, text: str) -> float:
    """2% or 0.02."""
    try:
        return float(text.removesuffix("%")) / 100 if text.endswith("%") else float(text)
    except ValueError:
        raise UsageError(f"{flag} {text}: give a share, as 2% or 0.02") from None


def find_place(device: str) -> catalog.Device:
    """Raises UsageError for a device whose runner is none that can serve two files by turns."""
    place = catalog.find_device(device)
    if place.runner != "agent":
        raise UsageError(
            f"device {device!r} runs {place.runner}, which cannot time two files by turns; it takes the agent"
        )
    return place


@contextlib.contextmanager
def open_runner(place: catalog.Device, progress: Any) -> Iterator[Any]:
    """A runner on the device, which is kept for it until the block ends."""
    from edgeport.sessions import Access, open_runner

    with open_runner(place, Access(), progress) as runner:
        yield runner


def is_converted(model: str) -> bool:
    return Path(model).is_dir() or catalog.is_artifact(model)


def find_artifacts(
    model: str,
    runtime: str | None,
    precision: str,
    how: dict[str, Any],
    place: catalog.Device,
    progress: Any,
) -> tuple[list[Any], Path]:
    """The files to measure and the folder of their export, which has a manifest unless a file was given. how: options
    of an export by their names in make_request().
    """
    if is_converted(model):
        path = Path(model)
        if not path.exists():
            raise UsageError(f"there is no file {model}")
        return artifacts_of(path, runtime, listed("--precision", precision, ("fp32", "int8"))), path
    from edgeport.export import bundle
    from edgeport.runner import local_runner

    given = {"target": place.target, **{name: value for name, value in how.items() if value}}
    request = make_request(
        model=model,
        name=None,
        assignments=given.get("assignments", ()),
        weights=_path(given.get("weights")),
        input_shapes=given.get("input_shapes", ()),
        target=given["target"],
        calibration_data=_path(given.get("calibration_data")),
        min_sqnr_db=given.get("min_sqnr_db", 10.0),
        formats=formats_of(runtime),
        precisions=precision,
        int8_io=False,
    )
    folder = bundle.export_cached(request, local_runner(), progress)  # which verifies it here
    return artifacts_of(folder, None, request.precisions), folder


def _path(text: str | Path | None) -> Path | None:
    return Path(text) if text else None


def shapes_of(texts: Sequence[str], converted: bool) -> dict[str, tuple[int, ...]]:
    """Shapes of inputs that a file leaves open; a network has been exported with its shapes."""
    return named_shapes(texts) if converted else {}


def kind_of(artifact: Any) -> tuple[str, str]:
    """What must be the same on both sides."""
    return artifact.runtime, artifact.precision
