"""What all export tests share: each expensive export once, and the command line in this process."""

import os
from pathlib import Path

import pytest
from command_line import Edgeport, Ended, checked, network
from once import made_once

from edgeport import cli

SHUFFLENET = ("shufflenet_v2", "--set", "width=0.5", "--input-shape", "1,3,64,64")


@pytest.fixture(scope="session")
def cache() -> Path:
    """The tests' own."""
    return Path(os.environ["EDGEPORT_CACHE"])


def export(*arguments: object, to: Path) -> None:
    """An export that several tests look at, made in this process, which has PyTorch loaded."""
    assert cli.run(["export", *map(str, arguments), "-o", str(to)]) == 0


@pytest.fixture(scope="session")
def shufflenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of ShuffleNetV2 0.5 at 64x64, all four files."""
    return made_once(tmp_path_factory, "shufflenet", lambda to: export(*SHUFFLENET, "--target", "x86", to=to))


@pytest.fixture(scope="session")
def unrouted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same network as it was written: no pass that makes it faster."""
    options = ("--target", "x86", "--no-optimize")
    return made_once(tmp_path_factory, "unrouted", lambda to: export(*SHUFFLENET, *options, to=to))


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny network, all four files, int8 for ARM with integer inputs and outputs."""
    options = ("--target", "arm", "--int8-io")
    return made_once(tmp_path_factory, "small", lambda to: export(network("small"), *options, to=to))


@pytest.fixture
def here(capfd: pytest.CaptureFixture[str]) -> Edgeport:
    """The command line in this process, which has PyTorch loaded: for variations, that would take seconds each."""

    def run(*arguments: object, code: int | tuple[int, ...] = 0) -> Ended:
        capfd.readouterr()
        exit_code = cli.run([str(a) for a in arguments])
        return checked(Ended(exit_code, *capfd.readouterr()), *(code if isinstance(code, tuple) else (code,)))

    return run
