"""Emulated devices, one of each for all tests: a Raspberry Pi behind a real sshd, a phone behind the real adb client.

Where the machine cannot have them (edgeport devices emulate says why) the tests are skipped, but not in CI.
"""

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from command_line import EDGEPORT
from once import made_once

from edgeport import catalog, cli, device_files
from edgeport.catalog import Device

DEVICES = (*EDGEPORT, "devices")
SURROUNDINGS = dict(os.environ)  # as they were before the tests made their own: the devices' roots are kept for long
READY_S = 300
KIT = "android.tar"


class Emulated(NamedTuple):
    """One that runs. keys: of its file; environment: what its programs on this machine need."""

    folder: Path
    keys: dict[str, Any]
    environment: dict[str, str]

    def write(self, **keys: Any) -> None:
        """Its file into the folder that we are in."""
        Path("devices").mkdir(exist_ok=True)
        lines = [f"{key} = {json.dumps(value)}" for key, value in {**self.keys, "target": "arm", **keys}.items()]
        Path("devices", "emulated.toml").write_text("\n".join([*lines, ""]))

    def device(self, **keys: Any) -> Device:
        self.write(**keys)
        return catalog.find_device("emulated")


@contextlib.contextmanager
def started(name: str, folder: Path, *options: str) -> Iterator[tuple[subprocess.Popen[bytes], Emulated]]:
    """It ends with the block, and with this process."""
    command = [*DEVICES, "emulate", name, "--foreground", "--folder", str(folder), *options]
    log = folder.with_suffix(".log")
    with log.open("wb") as f:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=f, stderr=f, env=SURROUNDINGS)
    ready, deadline = folder / "ready.json", time.monotonic() + READY_S
    try:
        while not ready.exists():
            assert process.poll() is None, log.read_text(errors="replace")
            assert time.monotonic() < deadline, f"{name} did not start: {log.read_text(errors='replace')}"
            time.sleep(0.05)
        told = json.loads(ready.read_text())
        yield process, Emulated(folder, told["device"], told.get("environment", {}))
    finally:
        assert process.stdin
        process.stdin.close()
        process.wait(timeout=READY_S)


@pytest.fixture(scope="session")
def virtual_devices(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Their roots are made, by one worker."""
    made_once(tmp_path_factory, "roots", lambda _: make_roots())


def make_roots() -> None:
    for kind in ("pi", "android"):
        make_root(kind)


def make_root(kind: str) -> None:
    command = [*DEVICES, "emulate", kind, "--make"]
    done = subprocess.run(command, env=SURROUNDINGS, capture_output=True, text=True, check=False)
    if done.returncode == 2:  # what this machine does not allow, said in red at the end
        pytest.skip(f"NOT TESTED: the emulated Raspberry Pi and phone: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="session")
def one_pi(virtual_devices: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulated]:
    with started("pi", tmp_path_factory.mktemp("pi") / "it") as (_, pi):
        yield pi


@pytest.fixture(scope="session")
def one_phone(virtual_devices: None, android_kit: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulated]:
    with started("android", tmp_path_factory.mktemp("phone") / "it") as (_, phone):
        yield phone._replace(keys={**phone.keys, "android_kit": str(android_kit)})


@pytest.fixture(scope="session")
def android_kit(virtual_devices: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    def make(folder: Path) -> None:
        folder.mkdir()
        command = [*DEVICES, "android-kit", "-o", str(folder / KIT)]
        subprocess.run(command, env=SURROUNDINGS, check=True)

    return made_once(tmp_path_factory, "kit", make) / KIT


@pytest.fixture(scope="session")
def shufflenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All four files of it, for ARM, at an input that an emulated processor masters in no time."""
    options = ["--input-shape", "1,3,96,96", "--target", "arm", "--quiet"]

    def make(folder: Path) -> None:
        assert cli.run(["export", "shufflenet_v2", *options, "-o", str(folder)]) == 0

    return made_once(tmp_path_factory, "shufflenet_v2", make)


@pytest.fixture
def pi(one_pi: Emulated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Emulated:
    """Known as "emulated" in the folder that we are in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(device_files.FOLDER, "devices")
    one_pi.write()
    return one_pi


@pytest.fixture
def phone(one_phone: Emulated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Emulated:
    """Known as "emulated" in the folder that we are in; adb speaks to a server of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(device_files.FOLDER, "devices")
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", one_phone.environment["ANDROID_ADB_SERVER_PORT"])
    one_phone.write()
    return one_phone
