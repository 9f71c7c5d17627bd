"""edgeport models: what there is."""

import typer

from edgeport import catalog


def models() -> None:
    """List the catalogue of networks.

    Example: edgeport models
    """
    for name in catalog.model_names():
        factory = catalog.find_factory(name)
        arguments = ", ".join(str(p) for p in catalog.parameters(factory.call).values())
        shape = "x".join(map(str, (factory.input_shapes or ((),))[0]))
        typer.echo(f"{name}\n    paper      {factory.paper}\n    arguments  {arguments}\n    input      {shape}")
