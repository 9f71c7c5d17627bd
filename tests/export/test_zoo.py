"""The published variants: README lists them all with their counts, and scripts/zoo.py measures them one by one."""

import importlib
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from edgeport.errors import EdgeportError

from . import counting
from .test_published_rows import ROWS
from .test_published_rows import network as built

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

import zoo
import zoo_report
from zoo import Count, Network

NETWORKS = zoo.zoo()


def build(network: Network) -> Callable[..., nn.Module]:
    found: Callable[..., nn.Module] = importlib.import_module(f"edgeport.models.{network.model}").build
    return found


def size(network: Network) -> int:
    return network.variant.input_shape[-1] if network.variant.input_shape else 224


def counted_apart(network: Network) -> Count:
    """Not by edgeport's own counting, and in little time."""
    made = built(build(network), **network.variant.arguments)
    return Count(counting.parameters(made), counting.madds(made, size(network)))


def identity(build: Callable[..., nn.Module], arguments: dict[str, Any], size: int) -> tuple[object, ...]:
    """The same for the same network, whichever arguments were left to their defaults."""
    bound = inspect.signature(build).bind(**arguments)
    bound.apply_defaults()
    return build, tuple(bound.arguments.items()), size


def test_readme_lists_the_variants_with_their_counts() -> None:
    text = zoo.README.read_text(encoding="utf-8")
    counts = {n.name: counted_apart(n) for n in NETWORKS}
    assert zoo.with_section(text, zoo.section(NETWORKS, counts)) == text, "run scripts/zoo.py counts"


@pytest.mark.parametrize("name", ["micronet-M0", "mobilenet_v1-1.0-128"])
def test_the_counts_are_those_of_edgeport_inspect(name: str) -> None:
    network = next(n for n in NETWORKS if n.name == name)
    assert zoo.counted(network) == counted_apart(network)


def test_every_published_count_is_of_a_listed_variant() -> None:
    """test_published_rows holds the counts themselves."""
    listed = {identity(build(n), n.variant.arguments, size(n)) for n in NETWORKS}
    assert {identity(row.build, row.arguments, row.size) for row in ROWS} <= listed


def test_names_are_unique_and_tell_the_variant() -> None:
    names = {n.name for n in NETWORKS}
    assert len(names) == len(NETWORKS)
    assert {"shufflenet_v1-g3-0.5", "mobilenet_v1-1.0-160", "shufflenet_v2-official-1.0", "micronet-M0"} <= names


def test_a_text_without_the_markers_is_refused() -> None:
    with pytest.raises(EdgeportError, match="no part between"):
        zoo.with_section("# A README\n", "")


# measure


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the variants that were measured; one of them always fails."""
    names = []

    def measure_one(network: Network, folder: Path) -> str:
        names.append(network.name)
        if network.name.endswith("M1"):
            raise EdgeportError("it made three files of four")
        folder.mkdir(parents=True)
        (folder / zoo_report.KEPT).touch()
        return "measured"

    monkeypatch.setattr(zoo, "measure_one", measure_one)
    return names


def test_measuring_goes_on_where_it_ended(
    measured: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert zoo.measure(NETWORKS[2:3], tmp_path) == 0
    assert zoo.measure(NETWORKS[2:4], tmp_path) == 0
    assert measured == ["micronet-M2", "micronet-M3"]
    assert "[1/2] micronet-M2: kept from before" in capsys.readouterr().out


def test_a_variant_that_fails_is_told_and_does_not_stop_the_others(
    measured: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert zoo.measure(NETWORKS[:4], tmp_path) == 1
    assert len(measured) == 4
    out = capsys.readouterr().out
    assert "it made three files of four" in out
    assert out.endswith("FAILED: micronet-M1\n")


def test_a_name_that_no_variant_has_gets_those_that_there_are(tmp_path: Path) -> None:
    with pytest.raises(EdgeportError, match=r"there are micronet-M0, micronet-M1"):
        zoo.measure([], tmp_path)


def test_a_failed_command_shows_what_it_wrote() -> None:
    with pytest.raises(EdgeportError, match=r"(?s)edgeport export no_such ended with 2:.*unknown model"):
        zoo.edgeport("export", "no_such")


def test_without_results_there_is_no_report(tmp_path: Path) -> None:
    with pytest.raises(EdgeportError, match="holds 0 measured variants"):
        zoo.report(tmp_path, tmp_path)
