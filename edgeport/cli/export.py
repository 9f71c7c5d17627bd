"""edgeport export, and the request that other commands export by."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from edgeport import catalog, display, targets
from edgeport.cli import newest
from edgeport.cli.checks import listed, one_of, say
from edgeport.cli.options import (
    CALIBRATION_METHODS,
    Calibration,
    CalibrationMethod,
    InputShape,
    MaxLayersFloat,
    MinSqnr,
    Model,
    Quiet,
    Set,
    Target,
    Weights,
)
from edgeport.errors import UsageError
from edgeport.records import MIN_SQNR_DB


def export(
    model: Model,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The folder to write to. Default: exports/MODEL, or exports/FILE-FACTORY."),
    ] = None,
    set_: Set = [],  # noqa: B006  typer copies it
    weights: Weights = None,
    input_shape: InputShape = [],  # noqa: B006
    formats: Annotated[str, typer.Option(help="Which formats.", metavar="onnx,tflite")] = "onnx,tflite",
    precisions: Annotated[str, typer.Option(help="Which precisions.", metavar="fp32,int8")] = "fp32,int8",
    target: Target = None,
    int8_io: Annotated[bool, typer.Option("--int8-io", help="Integer inputs and outputs for the int8 files.")] = False,
    calibration_data: Calibration = None,
    calibration_method: CalibrationMethod = "min-max",
    max_layers_float: MaxLayersFloat = 0,
    min_sqnr_db: MinSqnr = MIN_SQNR_DB,
    name: Annotated[str | None, typer.Option(help="The files' name. Default: the model's.")] = None,
    optimize: Annotated[
        bool, typer.Option("--optimize/--no-optimize", help="Rewrite the graph for speed, exactly, or leave it be.")
    ] = True,
    explain: Annotated[
        bool, typer.Option("--explain", help="Say what was rewritten, and what int8 costs in each layer.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Convert a PyTorch network to ONNX and TFLite, fp32 and int8, each verified against PyTorch.

    Writes MODEL.fp32.onnx, MODEL.int8.onnx, MODEL.fp32.tflite, MODEL.int8.tflite and manifest.json.

    Example: edgeport export mobilenet_v2 --weights mobilenet_v2.pth --calibration-data photos/ -o build/
    """
    from edgeport.runner import local_runner

    with display.steps(not quiet) as progress:
        request = make_request(
            model,
            name=name,
            assignments=set_,
            weights=weights,
            input_shapes=input_shape,
            target=target,
            calibration_data=calibration_data,
            min_sqnr_db=min_sqnr_db,
            formats=formats,
            precisions=precisions,
            int8_io=int8_io,
            optimize=optimize,
            calibration_method=calibration_method,
            max_layers_float=max_layers_float,
        )
        folder = output or newest.EXPORTS / (name or catalog.series_name(model).replace(":", "-"))
        from edgeport.export import bundle
        from edgeport.export.manifest import MANIFEST

        manifest = bundle.export(request, folder, local_runner(), progress)
        speedups = []
        if explain and request.target == _target(None):  # the other one's int8 is not made for this machine
            from edgeport import speedup

            speedups = speedup.find(manifest, folder, local_runner(), progress)
    for artifact in manifest.artifacts:
        say(f"{folder / artifact.file}  {artifact.size_bytes / 1e6:.2f} MB")
    say(folder / MANIFEST)
    if explain:
        from edgeport.reports import View, explanation

        text = explanation.render(manifest, View(width=display.width(sys.stdout)), speedups)
        say(f"\n{text}", end="")


def make_request(
    model: str,
    *,
    name: str | None = None,
    assignments: Sequence[str] = (),
    weights: str | Path | None = None,
    input_shapes: Sequence[str] = (),
    target: str | None = None,
    calibration_data: str | Path | None = None,
    min_sqnr_db: float = MIN_SQNR_DB,
    formats: str = "onnx,tflite",
    precisions: str = "fp32,int8",
    int8_io: bool = False,
    optimize: bool = True,
    calibration_method: str = "min-max",
    max_layers_float: int = 0,
) -> Any:
    """An export's request. Everything that can be wrong with the flags is said before anything is imported or run."""
    chosen = listed("--formats", formats, ("onnx", "tflite")), listed("--precisions", precisions, ("fp32", "int8"))
    one_of("--calibration-method", calibration_method, CALIBRATION_METHODS)
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
        weights=Path(weights) if weights else None,
        input_shapes=tuple(input_shapes),
        formats=chosen[0],
        precisions=chosen[1],
        target=target,
        int8_io=int8_io,
        calibration_data=Path(calibration_data) if calibration_data else None,
        min_sqnr_db=min_sqnr_db,
        optimize=optimize,
        calibration_method=calibration_method,
        max_layers_float=max_layers_float,
    )


def _target(asked: str | None) -> str:
    if asked in (None, "auto"):
        return targets.of_host()
    assert asked is not None
    one_of("--target", asked, targets.TARGETS)
    return asked
