"""edgeport inspect."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from edgeport import catalog, display
from edgeport.cli.checks import complain, deliver, destination_file, one_of
from edgeport.cli.options import InputShape, Set, Strings, complete_model
from edgeport.cli.subjects import is_converted, shapes_of
from edgeport.errors import UsageError


def inspect(
    models: Annotated[
        Strings,
        typer.Argument(
            metavar="MODEL...",
            help="As for export, or a .onnx or .tflite file or an export's folder; several are compared.",
            autocompletion=complete_model,
        ),
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
        one_of("--by", by, inspection.BY)
    one_of("--format", format, inspection.FORMATS)
    if set_ and len(models) > 1:
        raise UsageError("--set is for one model; inspect several without it")
    destination = destination_file(output)
    analyses = [a for model in models for a in _analysed(model, set_, input_shape, count_products)]
    for analysis in analyses:
        for remark in inspection.remarks(analysis) if format in ("json", "csv") else ():  # tables say so themselves
            complain(remark)
    view = View(by=by, depth=depth, top=top, width=display.width(sys.stdout))
    deliver(inspection.render(analyses, format, view), destination)


def _analysed(model: str, assignments: Sequence[str], input_shapes: Sequence[str], count_products: bool) -> list[Any]:
    """Of a network or a file one analysis, of an export's folder one a file."""
    if is_converted(model):
        return _analysed_files(model, assignments, input_shapes, count_products)
    return [_analysed_network(model, assignments, input_shapes, count_products)]


def _analysed_files(
    model: str, assignments: Sequence[str], input_shapes: Sequence[str], count_products: bool
) -> list[Any]:
    if assignments:
        raise UsageError(f"--set is for networks of PyTorch; {model} is converted already")
    from edgeport.export.manifest import read_manifest
    from edgeport.file_analysis import analyse_file

    path, shapes = Path(model), shapes_of(input_shapes, True)
    if not path.exists():
        raise UsageError(f"there is no file {model}")
    paths = [path / a.file for a in read_manifest(path).artifacts] if path.is_dir() else [path]
    return [analyse_file(p, p.name, shapes, count_products=count_products) for p in paths]


def _analysed_network(model: str, assignments: Sequence[str], input_shapes: Sequence[str], count_products: bool) -> Any:
    factory = catalog.find_factory(model)
    arguments = catalog.parse_arguments(factory, assignments)
    from edgeport import analysis, chatter, files
    from edgeport.export import capture

    with chatter.kept_in(files.cache_folder("logs") / "inspect.log"):
        network = capture.make_network(factory, arguments, None)
        captured = capture.capture(network, capture.example_inputs(factory, input_shapes), analysis.PASSES)
    name = " ".join([catalog.series_name(model), *assignments])
    return analysis.analyse(captured, name, count_products=count_products)
