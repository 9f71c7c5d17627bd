"""edgeport inspect."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from edgeport import catalog, display
from edgeport.cli.checks import complain, deliver, destination_file, one_of
from edgeport.cli.options import InputShape, Set, Strings, complete_model
from edgeport.errors import UsageError


def inspect(
    models: Annotated[
        Strings,
        typer.Argument(metavar="MODEL...", help="As for export; several are compared.", autocompletion=complete_model),
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
    analyses = [_analysed(model, set_, input_shape, count_products) for model in models]
    for analysis in analyses:
        if analysis.unknown and format in ("json", "csv"):  # tables say so themselves
            complain(f"{analysis.model}: not counted: {inspection.unknown(analysis)}")
    view = View(by=by, depth=depth, top=top, width=display.width(sys.stdout))
    deliver(inspection.render(analyses, format, view), destination)


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
