"""edgeport devices: lists them, adds one's own, checks and sets them up."""

import json
import re
from pathlib import Path
from typing import Annotated, Any

import typer

from edgeport import catalog, cleaning, device_files, display, targets
from edgeport.cli import emulate
from edgeport.cli.checks import complain, find_device, one_of, say
from edgeport.cli.options import DevicesFolder, Quiet, Strings, Wait, Wheels, complete_device
from edgeport.errors import EXIT_FAILURE, DeviceError, EdgeportError, UsageError

app = typer.Typer(
    rich_markup_mode=None,
    help="List, add, check and set up the devices to measure on.\n\nExample: edgeport devices --format json",
)
Name = Annotated[str, typer.Argument(help="A device (edgeport devices).", autocompletion=complete_device)]
Format = Annotated[str, typer.Option(help="table or json.", metavar="FORMAT")]
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
AUTO = "auto"  # the target of a device that is this machine
HEAD = ("description", "transport", "target")  # written in any case


@app.callback(invoke_without_command=True)
def devices_(context: typer.Context, format: Format = "table", devices: DevicesFolder = None) -> None:
    """List the devices that can be measured on.

    Example: edgeport devices --format json
    """
    if context.invoked_subcommand:
        return
    one_of("--format", format, ("table", "json"))
    found, wrong = [], []
    for name in catalog.device_names(devices):
        try:
            found.append(catalog.find_device(name, devices))
        except EdgeportError as e:
            wrong.append(str(e))
    if format == "json":
        import msgspec

        say(cleaning.as_json(msgspec.to_builtins(found)), end="")
    else:
        for device in found:
            where = f"{device.address}{f':{device.port}' if device.port else ''}"
            row = f"{device.name:<12} {device.transport:<6} {where:<24} {device.description}"
            say(cleaning.line(row.rstrip()))
    for text in wrong:
        complain(text)
    for name, path in device_files.find(devices).untrusted.items():
        complain(f"warning: {path} is not used: {device_files.how_to_trust(name)}")


@app.command()
def show(name: Name, devices: DevicesFolder = None) -> None:
    """Print a device's file, what it names beside it, and where they lie; also of one that is not trusted.

    Example: edgeport devices show rpi4
    """
    found = device_files.find(devices)
    if name not in found.untrusted:
        find_device(name, devices)
    if name in found.counted:
        _print_files(found.counted[name], "")
    if name in found.untrusted:
        _print_files(found.untrusted[name], " (not trusted, not used)")


@app.command()
def trust(
    names: Annotated[Strings, typer.Argument(metavar="NAME...", help="Devices of ./devices.")],
    revoke: Annotated[bool, typer.Option("--revoke", help="Trust them no longer.")] = False,
) -> None:
    """Use devices of the current folder's ./devices from now on, as long as their files stay as they are. Prints them.

    Their files may name commands and an ssh_config, which are run: read them first (edgeport devices show NAME).

    Example: edgeport devices trust board
    """
    from edgeport import trust as store

    for name in names:
        path = device_files.HERE / f"{name}.toml"
        if not NAME.fullmatch(name) or not path.is_file():
            raise UsageError(f"there is no device {name!r} in {device_files.HERE}{_others_here()}")
        if revoke:
            store.distrust(path)
        else:
            catalog.read_device(path)  # what is no device is not to be trusted
            _print_files(path, "")
            store.trust(path, device_files.fingerprint(path))
        say(f"{path} {'is no longer trusted' if revoke else 'is trusted as it is now'}")


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
    target: Annotated[
        str, typer.Option(help="Whose kernels int8 is made for there.", metavar="|".join((AUTO, *targets.TARGETS)))
    ] = "",
    description: Annotated[str, typer.Option(help="What 'edgeport devices' says of it.", metavar="TEXT")] = "",
    here: Annotated[bool, typer.Option("--here", help="Write ./devices/NAME.toml, for this folder alone.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a device of that name.")] = False,
    devices: DevicesFolder = None,
) -> None:
    """Add a device of your own: a file in your configuration, which takes the place of any other of that name.

    Example: edgeport devices add mypi --like rpi4 --address pi@10.0.0.5
    """
    import msgspec

    from edgeport import files
    from edgeport import trust as store

    if not NAME.fullmatch(name):
        raise UsageError(f"{name!r} cannot be a device's name; use letters, digits, - and _")
    if address.startswith("-") or len(address.split()) > 1:
        raise UsageError(f"--address {address}: write USER@HOST")
    config = str(ssh_config.resolve()) if ssh_config else ""
    if target:
        one_of("--target", target, (AUTO, *targets.TARGETS))
    given = {"address": address, "port": port, "ssh_config": config, "workdir": workdir, "python": python}
    given |= {"target": target, "description": description}
    changes = {key: value for key, value in given.items() if value}
    device = msgspec.structs.replace(find_device(like, devices), name=name, **changes)
    if device.transport == "local" and (address or port):
        raise UsageError(
            f"--address {address}: {like} is the machine that edgeport runs on, which would be measured under the name "
            f"{name}; pass --like with a device that is reached by ssh or adb ('edgeport devices' lists them)"
        )
    path = (device_files.HERE if here else device_files.own_folder()) / f"{name}.toml"
    if path.exists() and not force:
        raise UsageError(f"{path} exists; pass --force to replace it")
    files.writable_folder(path.parent)
    files.write_text(path, _toml(device))
    if here:
        store.trust(path, device_files.fingerprint(path))
    say(path)
    say(f"next: edgeport devices check {name}")


@app.command()
def forget(
    name: Name,
    here: Annotated[bool, typer.Option("--here", help="Delete ./devices/NAME.toml, not yours.")] = False,
) -> None:
    """Delete the file of a device that you added. What edgeport keeps on the device stays: see edgeport devices remove.

    Example: edgeport devices forget mypi
    """
    from edgeport import trust as store

    path = (device_files.HERE if here else device_files.own_folder()) / f"{name}.toml"
    if not NAME.fullmatch(name) or not path.is_file():
        raise UsageError(f"there is no device {name!r} of yours{_where_else(name, path, here)}")
    if here:
        store.distrust(path)
    try:
        path.unlink()
    except OSError as e:
        raise DeviceError(f"cannot delete {path}: {(e.strerror or str(e)).lower()}") from e
    say(f"{path} is deleted")


def _where_else(name: str, path: Path, here: bool) -> str:
    """Of a device that is not in the folder that was looked into: where it is, or which ones are there."""
    files = device_files.find()
    found = (files.counted | files.untrusted).get(name)
    if found == device_files.HERE / f"{name}.toml" and not here:
        return f": {found} is this folder's; pass --here to delete it"
    if found is not None:
        return f": {found} is edgeport's own, or lies in another folder, and stays"
    there = ", ".join(sorted(p.stem for p in path.parent.glob("*.toml")))
    return f" in {path.parent}; " + (f"there is {there}" if there else "it has none")


@app.command()
def check(
    name: Name, format: Format = "table", wait: Wait = 0.0, wheels: Wheels = None, devices: DevicesFolder = None
) -> None:
    """Prove step by step that a device can be measured on. Exits with 3 where a step fails.

    Example: edgeport devices check rpi4
    """
    from edgeport import checkup
    from edgeport.sessions import Access

    one_of("--format", format, ("table", "json"))
    device, steps = find_device(name, devices), []
    for step in checkup.check(device, Access(wait, wheels)):
        steps.append(step)
        if format == "table":
            say(f"{step.status}  {step.name:<12} {step.text}".rstrip())
    failed = any(step.status == checkup.FAIL for step in steps)
    if format == "json":
        import msgspec

        say(cleaning.as_json({"device": name, "ok": not failed, "steps": msgspec.to_builtins(steps)}), end="")
    if failed:
        raise typer.Exit(EXIT_FAILURE)


@app.command()
def setup(
    name: Name, wait: Wait = 0.0, wheels: Wheels = None, quiet: Quiet = False, devices: DevicesFolder = None
) -> None:
    """Push what edgeport needs on a device: its agent and the runtimes, 31 MB, once.

    profile does so by itself when it first runs.

    Example: edgeport devices setup rpi4
    """
    from edgeport import kit
    from edgeport.sessions import Access, open_runner, push_kit

    device = find_device(name, devices)
    with display.steps(not quiet) as progress, open_runner(device, Access(wait, wheels), progress) as runner:
        pushed = push_kit(runner, list(kit.RUNTIMES), progress)
    say(f"{name} is ready; {pushed / 1e6:.1f} MB were pushed")


@app.command()
def remove(name: Name, wait: Wait = 0.0, devices: DevicesFolder = None) -> None:
    """Remove all that edgeport keeps on a device. Its file stays: edgeport devices forget deletes that.

    Example: edgeport devices remove rpi4
    """
    from edgeport.progress import Silent
    from edgeport.sessions import Access, clean

    device = find_device(name, devices)
    where = clean(device, Access(wait), Silent())
    say(f"{name}: {f'removed from {where}' if where else 'edgeport keeps nothing there'}")


app.command("android-kit")(emulate.android_kit)
app.command()(emulate.emulate)


def _print_files(path: Path, remark: str) -> None:
    """A device's file, then those that it names, as far as they are text."""
    from edgeport import files

    try:
        say(f"# {path}{remark}\n{files.content(path, device_files.MOST_BYTES).decode(errors='replace').rstrip()}")
        for named in device_files.files_beside(path):
            if named.is_file() and named.stat().st_size <= device_files.MOST_BYTES:
                say(f"\n# {named}\n{files.content(named).decode(errors='replace').rstrip()}")
    except OSError as e:
        raise DeviceError(f"{path}: {files.reason(e)}") from e


def _others_here() -> str:
    """The devices that ./devices has, for an error."""
    there = ", ".join(sorted(path.stem for path in device_files.HERE.glob("*.toml")))
    return f"; it has {there}" if there else " of this folder, and no other; go to the folder that has them"


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
