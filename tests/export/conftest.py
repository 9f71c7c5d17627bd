"""What all export tests share."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache of the tests' own, for this process and for the commands that it runs."""
    folder = tmp_path_factory.mktemp("cache")
    before = os.environ.get("EDGEPORT_CACHE")
    os.environ["EDGEPORT_CACHE"] = str(folder)
    yield folder
    os.environ.pop("EDGEPORT_CACHE")
    if before is not None:
        os.environ["EDGEPORT_CACHE"] = before
