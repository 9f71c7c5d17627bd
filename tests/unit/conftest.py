"""Settings of all unit tests, and the device that they share."""

from collections.abc import Iterator

import pytest
from hypothesis import settings

from edgeport.runner import Runner, local_runner

# No deadline: a busy machine is no failure. The same examples each time: a change fails in its own run, not later.
settings.register_profile("edgeport", deadline=None, derandomize=True, max_examples=40)
settings.load_profile("edgeport")


@pytest.fixture(scope="session", autouse=True)
def _own_history(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What tests measure is not to land in the history of whoever runs them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_DATA_HOME", str(tmp_path_factory.mktemp("data")))
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
        patch.delenv("EDGEPORT_DEVICES", raising=False)
        patch.delenv("EDGEPORT_DATABASE", raising=False)
        yield


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """An empty cache of edgeport for a file of tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEPORT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def runner() -> Runner:
    """This machine, by another name."""
    return local_runner("bench")
