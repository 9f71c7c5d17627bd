"""Settings of all unit tests."""

from collections.abc import Iterator

import pytest
from hypothesis import settings

# No deadline: a busy machine is no failure. The same examples each time: a change fails in its own run, not later.
settings.register_profile("edgeport", deadline=None, derandomize=True, max_examples=40)
settings.load_profile("edgeport")


@pytest.fixture(scope="session", autouse=True)
def _own_history(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What tests measure is not to land in the history of whoever runs them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_DATA_HOME", str(tmp_path_factory.mktemp("data")))
        patch.delenv("EDGEPORT_DATABASE", raising=False)
        yield
