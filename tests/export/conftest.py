"""What all export tests share: a cache of their own, and each expensive export once."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import Edgeport, Ended, checked, edgeport, network

from edgeport import cli

SHUFFLENET = ("shufflenet_v2", "--set", "width=0.5", "--input-shape", "1,3,64,64")


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache and a history of the tests' own, for this process and for the commands that it runs; and a folder for
    temporary files, with the lock of this machine: who measures beside the tests is not to stop them.
    """
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEPORT_CACHE", str(folder))
        patch.setenv("TMPDIR", str(tmp_path_factory.mktemp("tmp")))
        patch.setenv("XDG_DATA_HOME", str(tmp_path_factory.mktemp("data")))
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
        patch.delenv("EDGEPORT_DATABASE", raising=False)
        yield folder


@pytest.fixture(scope="session")
def shufflenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of ShuffleNetV2 0.5 at 64x64, all four files."""
    folder = tmp_path_factory.mktemp("exports") / "shufflenet"
    edgeport("export", *SHUFFLENET, "--target", "x86", "-o", folder)
    return folder


@pytest.fixture(scope="session")
def unrouted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same network as it was written: no pass that makes it faster."""
    folder = tmp_path_factory.mktemp("exports") / "unrouted"
    edgeport("export", *SHUFFLENET, "--target", "x86", "--no-optimize", "-o", folder)
    return folder


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny network, all four files, int8 for ARM with integer inputs and outputs."""
    folder = tmp_path_factory.mktemp("exports") / "small"
    edgeport("export", network("small"), "--target", "arm", "--int8-io", "-o", folder)
    return folder


@pytest.fixture
def here(capfd: pytest.CaptureFixture[str]) -> Edgeport:
    """The command line in this process, which has PyTorch loaded: for variations, that would take seconds each."""

    def run(*arguments: object, code: int | tuple[int, ...] = 0) -> Ended:
        capfd.readouterr()
        exit_code = cli.run([str(a) for a in arguments])
        return checked(Ended(exit_code, *capfd.readouterr()), *(code if isinstance(code, tuple) else (code,)))

    return run
