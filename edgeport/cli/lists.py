"""edgeport models: what there is."""

import sys
import textwrap
from typing import Annotated, Any

import typer

from edgeport import catalog, cleaning, display
from edgeport.cli.checks import one_of, say

UNBROKEN = "\N{NO-BREAK SPACE}"


def models(
    format: Annotated[str, typer.Option(help="table or json.", metavar="FORMAT")] = "table",
) -> None:
    """List the catalogue of networks, with the variants that were published of each.

    Example: edgeport models
    """
    one_of("--format", format, ("table", "json"))
    records = [_model(name) for name in catalog.model_names()]
    if format == "json":
        say(cleaning.as_json(records), end="")
        return
    for record in records:
        rows = {
            "paper": record["paper"],
            "arguments": ", ".join(record["arguments"]),
            "input": _shape(record["input_shape"]),
            "variants": ", ".join(_said(v, record["input_shape"]) for v in record["variants"]),
        }
        say(record["name"])
        for key, text in rows.items():
            say(_wrapped(key, text))


def _model(name: str) -> dict[str, Any]:
    factory = catalog.find_factory(name)
    shape = (factory.input_shapes or ((),))[0]
    variants = [(v.arguments, (1, *v.input_shape) if v.input_shape else shape) for v in catalog.variants(name)]
    return {
        "name": name,
        "paper": factory.paper,
        "arguments": [str(p) for p in catalog.parameters(factory.call).values()],
        "input_shape": shape,
        "variants": [{"arguments": arguments, "input_shape": input_shape} for arguments, input_shape in variants],
    }


def _said(variant: dict[str, Any], usual: tuple[int, ...]) -> str:
    """Its arguments, and its input where that is not the model's."""
    words = [f"{key}={value}" for key, value in variant["arguments"].items()]
    words += [f"input={_shape(variant['input_shape'])}"] if variant["input_shape"] != usual else []
    return UNBROKEN.join(words)


def _shape(sizes: tuple[int, ...]) -> str:
    return "x".join(map(str, sizes))


def _wrapped(key: str, text: str) -> str:
    """A field that fits the terminal: its lines break between variants, not within one."""
    first, width = f"    {key:<11}", display.width(sys.stdout)
    lines = textwrap.wrap(text, width, initial_indent=first, subsequent_indent=" " * len(first), break_on_hyphens=False)
    return "\n".join(lines).replace(UNBROKEN, " ")
