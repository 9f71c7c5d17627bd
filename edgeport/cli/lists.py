"""edgeport models and edgeport devices: what there is."""

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


def devices() -> None:
    """List the devices that can be measured on.

    Example: edgeport devices
    """
    for name in catalog.device_names():
        device = catalog.find_device(name)
        typer.echo(f"{name:<12} {device.transport:<8} {device.description}")
