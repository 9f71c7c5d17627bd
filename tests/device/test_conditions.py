"""The state of a device: what it tells of itself, what is refused, waited for and written down."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeport import catalog, preflight
from edgeport.progress import Silent
from edgeport.sessions import Access, open_runner

from .board import Board, board
from .conftest import MODELS, Here, install
from .test_check import tools

MODEL = MODELS / "ones.tflite"
QUICK = ("--device", "board", "--no-ops", "--launches=1", "--num-runs=2", "--warmup-runs=0", "--quiet")
SENSORS = """
[sensors]
temperature = ["vcgencmd", "measure_temp"]
throttled = ["vcgencmd", "get_throttled"]
"""
# Prints what a Raspberry Pi's does, of files that say it; temperatures one after the other, to the last.
VCGENCMD = """case "$1" in
measure_temp) echo "temp=$(head -n 1 {0}/temp)'C"; [ "$(wc -l <{0}/temp)" = 1 ] || sed -i 1d {0}/temp ;;
get_throttled) echo "throttled=$(cat {0}/throttled)" ;;
esac"""


@pytest.fixture
def pi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Board]:
    """A board with vcgencmd, at 48.3 degrees and unharmed."""
    path = tools(tmp_path / "bin", vcgencmd=VCGENCMD.format(tmp_path))
    (tmp_path / "temp").write_text("48.3\n")
    (tmp_path / "throttled").write_text("0x50000")
    with board(tmp_path / "it", {"PATH": f"{path}:/usr/bin:/bin"}) as made:
        install(made, tmp_path, monkeypatch)
        with (tmp_path / "devices" / "board.toml").open("a") as file:
            file.write(SENSORS)
        yield made


def test_a_pis_temperature_and_throttling_are_written_down_around_each_launch(pi: Board, here: Here) -> None:
    shown = json.loads(here("profile", MODEL, *QUICK, "--format", "json").out)
    for snapshot in (shown["raw"]["launches"][0][when] for when in ("before", "after")):
        assert snapshot["celsius"][0] == 48.3
        assert snapshot["throttled_bits"] == 0x50000
    assert shown["limits"] == []  # what was before these runs is not theirs


def test_a_pi_with_too_little_power_is_refused_unless_that_is_wanted(pi: Board, tmp_path: Path, here: Here) -> None:
    (tmp_path / "throttled").write_text("0x50005")
    text = here("profile", MODEL, *QUICK, code=3).err
    assert "board is not fit to be measured on" in text
    assert "it is being slowed down (under-voltage, throttling); check its power supply" in text
    assert "--allow-unstable" in text
    shown = here("profile", MODEL, *QUICK, "--allow-unstable")
    assert "THROTTLED (under-voltage, throttling)" in shown.out.splitlines()[0]
    assert re.search(r"^ *litert .* throttled$", shown.out, re.MULTILINE)
    steps = json.loads(here("devices", "check", "board", "--format", "json", code=3).out)["steps"]
    assert [s["name"] for s in steps if s["status"] == "FAIL"] == ["governor"]


def test_a_launch_waits_until_the_device_is_cool(
    pi: Board, tmp_path: Path, here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "temp").write_text("71.5\n71.5\n60.0\n51.5\n")
    monkeypatch.setattr(preflight, "LOOK_SECONDS", 0.01)
    shown = json.loads(here("profile", MODEL, *QUICK, "--cool-down", "55", "--format", "json").out)
    assert shown["raw"]["launches"][0]["before"]["celsius"][0] == 51.5


@pytest.mark.parametrize(
    ("minutes", "steady_seconds", "why"),
    [
        ("0", 120.0, "after 0 minutes (--cool-down-minutes)"),
        ("90", 0.0, "and has cooled down no further for 0 minutes"),
    ],
)
def test_a_device_that_stays_hot_is_told(
    minutes: str, steady_seconds: float, why: str, pi: Board, here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(preflight, "STEADY_SECONDS", steady_seconds)
    limits = ("--cool-down", "40", "--cool-down-minutes", minutes)
    told = here("profile", MODEL, *QUICK, *limits, code=3).err
    assert f"waits for at most {minutes} minutes each time (--cool-down-minutes)" in told
    assert f"board is at 48.3 C and not below 40 C {why}" in told


def test_cores_are_those_that_were_asked_for_as_the_device_has_them(a_board: Board, here: Here) -> None:
    shown = json.loads(here("profile", MODEL, *QUICK, "--pin", "0x1", "--format", "json").out)
    assert shown["cores"] == [0]
    assert "the device has the cores" in here("profile", MODEL, *QUICK, "--pin", "0-4000", code=2).err


def test_a_governor_that_is_not_the_expected_one_is_told_with_the_command_to_set_it(a_board: Board) -> None:
    pi = catalog.find_device("rpi4")
    found = preflight.objections(pi, {}, {"governors": ["ondemand"]})
    assert len(found) == 1
    assert found[0].startswith("its governor is ondemand, expected performance; run 'echo performance | sudo tee ")
    assert not preflight.objections(pi, {}, {"governors": ["performance"]})
    assert not preflight.objections(catalog.find_device("board"), {}, {"governors": ["ondemand"]})


def test_what_a_device_is_and_who_else_computes_there_is_told(a_board: Board) -> None:
    with open_runner(catalog.find_device("board"), Access(), Silent()) as runner:
        state = runner.state()
    facts = state.facts
    assert facts["page_size"] > 0
    assert facts["kernel"]
    assert facts["boot_id"]
    assert all(program.name and program.cores > 0 for program in state.busy)
