"""Options that several commands have, and what a shell completes them to."""

from pathlib import Path
from typing import Annotated

import typer

from edgeport import catalog, device_files, pinning, targets

Strings = list[str]
CALIBRATION_METHODS = ("auto", "min-max", "percentile", "mse")  # edgeport.export.ranges has them


def complete_model(incomplete: str) -> list[str]:
    return [name for name in catalog.model_names() if name.startswith(incomplete)]


def complete_device(incomplete: str) -> list[str]:
    """Those that count without --devices, which the shell does not tell."""
    return [name for name in catalog.device_names() if name.startswith(incomplete)]


def complete_method(incomplete: str) -> list[str]:
    return [name for name in CALIBRATION_METHODS if name.startswith(incomplete)]


def complete_format(incomplete: str) -> list[str]:
    from edgeport import reports

    return [name for name in reports.format_names() if name.startswith(incomplete)]


Model = Annotated[
    str,
    typer.Argument(
        help="A name of the catalogue (edgeport models), path/to/file.py:factory or package.module:attribute.",
        autocompletion=complete_model,
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
InputData = Annotated[
    Path | None,
    typer.Option(
        "--input-data",
        metavar="FILE.npz",
        help="Values to run with, an array an input, by its name. Default: fractions, indices of 0, masks of 1.",
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
    typer.Option(
        help="Whose kernels int8 is made for: x86-vnni for x86-64 with VNNI, x86 for any. Default: the device's.",
        metavar="|".join(targets.TARGETS),
    ),
]
CalibrationMethod = Annotated[
    str,
    typer.Option(
        help="How int8 ranges are chosen; auto tries all on samples held back, and takes the best.",
        metavar="auto|min-max|percentile|mse",
        autocompletion=complete_method,
    ),
]
MaxLayersFloat = Annotated[
    int,
    typer.Option(min=0, help="Leave at most so many layers in float in int8 files, those that gain most by it."),
]
MinSqnr = Annotated[float, typer.Option("--min-sqnr-db", help="Refuse int8 files with less signal to noise than this.")]
Database = Annotated[
    str | None,
    typer.Option(
        envvar="EDGEPORT_DATABASE",
        metavar="FILE|URL",
        help="Where the history is kept: a file, or postgresql://USER@HOST/NAME. Default: the user's data folder.",
    ),
]
KeepHistory = Annotated[
    bool, typer.Option("--history/--no-history", help="Keep the results in the history (edgeport history).")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show warnings and errors, but no progress.")]
DevicesFolder = Annotated[
    Path | None,
    typer.Option(
        "--devices",
        envvar=device_files.FOLDER,
        metavar="DIR",
        help="A folder of files of devices that you trust. Default: ./devices, as far as you have trusted it.",
    ),
]
Name = Annotated[
    str | None,
    typer.Option("--name", help="What to keep the results under. Default: the model's name.", metavar="NAME"),
]
Pin = Annotated[str, typer.Option(help=f"Cores to run on: {pinning.FORMS}.", metavar="CORES")]
AllowUnstable = Annotated[bool, typer.Option("--allow-unstable", help="Measure on a device whose state will mislead.")]
Wait = Annotated[float, typer.Option(min=0, help="Wait so long where another one is measuring.", metavar="SECONDS")]
Wheels = Annotated[
    Path | None,
    typer.Option(help="A folder of the runtimes' wheels for the device, for a host without network."),
]
