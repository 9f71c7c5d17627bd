"""edgeport devices: lists them, adds one's own, checks and sets them up."""

import json
import re
from pathlib import Path
from typing import Annotated, Any

import typer

from edgeport import catalog, display
from edgeport.cli.checks import complain, one_of
from edgeport.cli.options import Quiet, Wait, Wheels, complete_device
from edgeport.errors import EXIT_FAILURE, EdgeportError, UsageError

app = typer.Typer(rich_markup_mode=None, help="List, add, check and set up the devices to measure on.")
Name = Annotated[str, typer.Argument(help="A device (edgeport devices).", autocompletion=complete_device)]
Format = Annotated[str, typer.Option(help="table or json.", metavar="FORMAT")]
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
HEAD = ("description", "transport", "target")  # written in any case


@app.callback(invoke_without_command=True)
def devices(context: typer.Context, format: Format = "table") -> None:
    """List the devices that can be measured on.

    Example: edgeport devices --format json
    """
    if context.invoked_subcommand:
        return
    one_of("--format", format, ("table", "json"))
    found, wrong = [], []
    for name in catalog.device_names():
        try:
            found.append(catalog.find_device(name))
        except EdgeportError as e:
            wrong.append(str(e))
    if format == "json":
        import msgspec

        typer.echo(json.dumps([msgspec.to_builtins(d) for d in found], indent=1))
    else:
        for device in found:
            where = f"{device.address}{f':{device.port}' if device.port else ''}"
            typer.echo(f"{device.name:<12} {device.transport:<6} {where:<24} {device.description}".rstrip())
    for text in wrong:
        complain(text)


@app.command()
def show(name: Name) -> None:
    """Print a device's file, and where it lies.

    Example: edgeport devices show rpi4
    """
    catalog.find_device(name)
    path = catalog.device_file(name)
    typer.echo(f"# {path}\n{path.read_text(encoding='utf-8').rstrip()}")


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="What to call it.")],
    like: Annotated[
        str, typer.Option(help="The device that it is like.", autocompletion=complete_device, show_default=False)
    ],
    address: Annotated[str, typer.Option(help="USER@HOST as ssh takes it, or the serial number of adb devices.")] = "",
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Of its SSH server.")] = None,
    ssh_config: Annotated[Path | None, typer.Option(help="Read in place of your own (ssh -F).")] = None,
    workdir: Annotated[str, typer.Option(help="Its folder for what edgeport keeps there.")] = "",
    python: Annotated[str, typer.Option(help="Its Python interpreter.")] = "",
    here: Annotated[bool, typer.Option("--here", help="Write ./devices/NAME.toml, for this folder alone.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a device of that name.")] = False,
) -> None:
    """Add a device of your own: a file in your configuration, which takes the place of any other of that name.

    Example: edgeport devices add mypi --like rpi4 --address pi@10.0.0.5
    """
    import msgspec

    from edgeport import files

    if not NAME.fullmatch(name):
        raise UsageError(f"{name!r} cannot be a device's name; use letters, digits, - and _")
    if address.startswith("-") or len(address.split()) > 1:
        raise UsageError(f"--address {address}: write USER@HOST")
    config = str(ssh_config.resolve()) if ssh_config else ""
    given = {"address": address, "port": port, "ssh_config": config, "workdir": workdir, "python": python}
    changes = {key: value for key, value in given.items() if value}
    device = msgspec.structs.replace(catalog.find_device(like), name=name, **changes)
    path = (Path("devices") if here else catalog.own_devices_folder()) / f"{name}.toml"
    if path.exists() and not force:
        raise UsageError(f"{path} exists; pass --force to replace it")
    files.writable_folder(path.parent)
    files.write_text(path, _toml(device))
    typer.echo(path)
    typer.echo(f"next: edgeport devices check {name}")


@app.command()
def check(name: Name, format: Format = "table", wait: Wait = 0.0, wheels: Wheels = None) -> None:
    """Prove step by step that a device can be measured on. Exits with 3 where a step fails.

    Example: edgeport devices check rpi4
    """
    from edgeport import checkup
    from edgeport.sessions import Access

    one_of("--format", format, ("table", "json"))
    device, steps = catalog.find_device(name), []
    for step in checkup.check(device, Access(wait, wheels)):
        steps.append(step)
        if format == "table":
            typer.echo(f"{step.status}  {step.name:<12} {step.text}".rstrip())
    failed = any(step.status == checkup.FAIL for step in steps)
    if format == "json":
        import msgspec

        typer.echo(json.dumps({"device": name, "ok": not failed, "steps": msgspec.to_builtins(steps)}, indent=1))
    if failed:
        raise typer.Exit(EXIT_FAILURE)


@app.command()
def setup(name: Name, wait: Wait = 0.0, wheels: Wheels = None, quiet: Quiet = False) -> None:
    """Push what edgeport needs on a device: its agent and the runtimes, some 40 MB, once.

    profile does so by itself when it first runs.

    Example: edgeport devices setup rpi4
    """
    from edgeport import kit
    from edgeport.sessions import Access, open_runner, push_kit

    device = catalog.find_device(name)
    with display.steps(not quiet) as progress, open_runner(device, Access(wait, wheels), progress) as runner:
        pushed = push_kit(runner, list(kit.RUNTIMES), progress)
    typer.echo(f"{name} is ready; {pushed / 1e6:.1f} MB were pushed")


@app.command()
def remove(name: Name, wait: Wait = 0.0) -> None:
    """Remove all that edgeport keeps on a device. Its file stays: delete that by hand.

    Example: edgeport devices remove rpi4
    """
    from edgeport.progress import Silent
    from edgeport.sessions import Access, clean

    device = catalog.find_device(name)
    where = clean(device, Access(wait), Silent())
    typer.echo(f"{name}: {f'removed from {where}' if where else 'edgeport keeps nothing there'}")


def _toml(device: catalog.Device) -> str:
    """Its file: what differs from the defaults. JSON's strings, numbers and lists are TOML's."""
    import msgspec

    plain = {f.name: f.default for f in msgspec.structs.fields(device)}
    fields: dict[str, Any] = msgspec.to_builtins(device)
    tables, lines = [], []
    for key, value in fields.items():
        if key == "name" or (getattr(device, key) == plain[key] and key not in HEAD):
            continue
        if isinstance(value, dict):
            tables += ["", f"[{key}]", *(f"{k} = {_value(v)}" for k, v in value.items() if v)]
        else:
            lines.append(f"{key} = {_value(value)}")
    return "\n".join([*lines, *tables, ""])


def _value(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
