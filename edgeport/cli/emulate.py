"""edgeport devices android-kit and edgeport devices emulate: what phones need, and devices to try edgeport on."""

from pathlib import Path
from typing import Annotated

import typer

from edgeport import device_files, display
from edgeport.cli.checks import destination_file, one_of, say
from edgeport.cli.options import Quiet
from edgeport.errors import UsageError

KINDS = ("pi", "android")  # edgeport.emulated.kinds has them


def android_kit(
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="The tar file. Default: in edgeport's cache, where every phone's device finds it."
        ),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Make what a phone needs to be measured on: a small Python for ARM, of Debian's packages. Experimental.

    Needs a Debian system, or a container of one, with access to its packages, and no root. On another computer name the
    file in the device's file: android_kit = "android-arm64.tar".

    Example: edgeport devices android-kit
    """
    from edgeport import android_kit as kit
    from edgeport.transport.adb import default_kit

    path = destination_file(output) or default_kit()
    with display.steps(not quiet) as progress:
        kit.make(path, progress)
    say(f"{path}  {path.stat().st_size / 1e6:.1f} MB")
    say("next: edgeport devices check android")


def emulate(
    kind: Annotated[str, typer.Argument(metavar="pi|android", help="A Raspberry Pi behind ssh, a phone behind adb.")],
    add: Annotated[bool, typer.Option("--add", help="Add it to your devices, as emulated-KIND.")] = False,
    stop: Annotated[bool, typer.Option("--stop", help="End the one that was started in the background.")] = False,
    make: Annotated[bool, typer.Option("--make", help="Only make its root in edgeport's cache.")] = False,
    foreground: Annotated[
        bool, typer.Option("--foreground", help="Until Ctrl-C, or until a piped standard input ends.")
    ] = False,
    folder: Annotated[
        Path | None, typer.Option(help="For what belongs to this one: keys, log. Default: in edgeport's cache.")
    ] = None,
    disk_mb: Annotated[int, typer.Option(min=16, help="Room for what is written to it.", metavar="MB")] = 2048,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Of its sshd or adbd on 127.0.0.1. Default: a free one.")
    ] = 0,
    adb_state: Annotated[
        str, typer.Option(help="How adb finds the phone.", metavar="device|unauthorized|offline")
    ] = "device",
    quiet: Quiet = False,
) -> int:
    """Emulate a device to try edgeport on: its answers are right, its times mean nothing. It runs until it is stopped.

    Needs root and a Debian system with qemu-user-static; the phone also needs adb.

    Example: edgeport devices emulate pi --add
    """
    one_of("emulate", kind, KINDS)
    from edgeport.emulated import control
    from edgeport.emulated.inside import ADB_STATES
    from edgeport.emulated.kinds import KINDS as KNOWN
    from edgeport.emulated.roots import make as make_root

    one_of("--adb-state", adb_state, ADB_STATES)
    if add and foreground:
        raise UsageError("--add needs the device to run in the background; leave out --foreground")
    device = KNOWN[kind]
    place = folder.resolve() if folder else control.usual_folder(device)
    settings = control.Settings(place, port, disk_mb, adb_state)
    if stop:
        say(f"the emulated {kind} {'has ended' if control.stop(place) else 'does not run'}")
        return 0
    with display.steps(not quiet) as progress:
        if make:
            say(make_root(device, progress))
            return 0
        if foreground:
            return control.stay(device, settings, progress)
        told = control.start(device, settings, progress)
    say(told)
    if add:
        _add(control.device_file(device, place))
    return 0


def _add(source: Path) -> None:
    """Copies the file of a running device to the user's own devices."""
    from edgeport import files

    target = device_files.own_folder() / source.name
    files.writable_folder(target.parent)
    files.write_text(target, source.read_text(encoding="utf-8"))
    say(f"{target}\nnext: edgeport devices check {target.stem}")
