"""The emulated devices themselves: what they are, and that nothing of them outlives them."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import until

from edgeport import catalog
from edgeport.sessions import Access, runner_on
from edgeport.transport import open_transport

from .conftest import DEVICES, READY_S, SURROUNDINGS, Emulated, started


def processes(folder: Path) -> list[int]:
    """Those of which a word of the command line lies in the folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if os.fsencode(folder) in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def mounted(tests: Path) -> set[str]:
    """All file systems, but for those that tests beside this one mount."""
    return {line for line in Path("/proc/mounts").read_text().splitlines() if str(tests) not in line}


@pytest.fixture
def mounts(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """There are the same afterwards as before."""
    tests = tmp_path_factory.getbasetemp().parent
    before = mounted(tests)
    yield
    assert mounted(tests) == before
    assert str(tmp_path) not in Path("/proc/mounts").read_text()


@pytest.mark.usefixtures("virtual_devices", "mounts")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("name", ["pi", "android"])
def test_nothing_is_left_of_a_device_however_it_ends(name: str, number: int, tmp_path: Path) -> None:
    folder = tmp_path / "it"
    with started(name, folder) as (process, _):
        assert processes(folder)
        os.kill(process.pid, number)
        process.wait(timeout=READY_S)
        until(lambda: not processes(folder), "all its processes have ended")


def test_a_pi_is_a_raspberry_pi_of_64_bits(pi: Emulated) -> None:
    device = pi.device()
    with open_transport(device) as transport:
        runner = runner_on(device, transport, Access())
        facts = runner.facts()
        assert transport.run(["getconf", "LONG_BIT"]).out == "64\n"
    assert facts["device_model"].startswith("Raspberry Pi 4 Model B")
    assert facts["machine"] == "aarch64"
    assert facts["emulated"]


def test_a_pi_tells_its_throttled_bits(pi: Emulated, tmp_path: Path) -> None:
    with Path("devices/emulated.toml").open("a") as f:
        f.write('\n[sensors]\nthrottled = ["vcgencmd", "get_throttled"]\ntemperature = ["vcgencmd", "measure_temp"]\n')
    device = catalog.find_device("emulated")
    with open_transport(device) as transport:
        transport.run(["sh", "-c", "echo 0x50005 > /run/vcgencmd/throttled"])
        snapshot = runner_on(device, transport, Access()).state().snapshot
        transport.run(["rm", "/run/vcgencmd/throttled"])
    assert snapshot["throttled_bits"] == 0x50005
    assert 48.3 in snapshot["celsius"]


@pytest.mark.usefixtures("virtual_devices")
def test_a_device_in_the_background_is_stopped_by_name(tmp_path: Path) -> None:
    folder, surroundings = tmp_path / "it", {**SURROUNDINGS, "XDG_CONFIG_HOME": str(tmp_path / "config")}

    def emulate(*options: str) -> subprocess.CompletedProcess[str]:
        command = [*DEVICES, "emulate", "pi", "--folder", str(folder), *options]
        return subprocess.run(command, env=surroundings, capture_output=True, text=True, check=False)

    done = emulate("--add")
    added = tmp_path / "config" / "edgeport" / "devices" / "emulated-pi.toml"
    assert done.returncode == 0, done.stderr
    assert str(added) in done.stdout
    assert catalog.read_device(added).transport == "ssh"
    again = emulate()
    assert again.returncode == 2
    assert "runs already" in again.stderr
    assert "has ended" in emulate("--stop").stdout
    assert not processes(folder)
    assert not folder.exists()
    assert "does not run" in emulate("--stop").stdout
