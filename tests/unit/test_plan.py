"""How many launches and runs a profile has where nobody said so: fewer where they would take minutes, which is told."""

from collections.abc import Callable, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import msgspec
import pytest
from small_models import small_onnx

from edgeport import protocol
from edgeport.agent import PROTOCOL
from edgeport.display import Steps
from edgeport.measure import LAUNCH_SECONDS, Artifact, Measurement, Settings
from edgeport.protocol import Message
from edgeport.runner import Runner, local_runner

BOTH = frozenset(("num_runs", "launches"))
SECOND = 10**9


class Slow(Runner, frozen=True):
    """A device on which a run takes so many seconds, by a clock of its own."""

    run_seconds: float = 1.0
    asked: list[dict[str, str]] = msgspec.field(default_factory=list)

    def run(
        self,
        command: str,
        runtime: str,
        model: Path,
        options: Sequence[str] = (),
        on_message: Callable[[Message], None] = lambda message: None,
    ) -> protocol.Messages:
        given = dict(option.removeprefix("--").split("=", 1) for option in options)
        self.asked.append(given)
        most = float(given.get("max-seconds", "1e9"))
        runs = min(int(given["num-runs"]), max(4, int(most / self.run_seconds)))
        ns = round(self.run_seconds * SECOND)
        told = [
            protocol.Hello(PROTOCOL, protocol.Facts()),
            protocol.Ready(SECOND // 10, "1", cores=(0,)),
            protocol.First(ns),
            protocol.Samples((ns,) * runs),
            protocol.Bye(1),
        ]
        return protocol.Messages(self.device, told)


def measured(tmp_path: Path, run_seconds: float, **settings: Any) -> tuple[list[int], list[dict[str, str]], str]:
    """(timed runs of each launch, what the device was asked for, what was said)."""
    model = small_onnx(tmp_path / "a.onnx")
    local = local_runner("pi")
    runner = Slow(local.device, local.transport, run_seconds=run_seconds)
    said = StringIO()
    with Steps(said) as steps:
        how = Settings(profile=False, **settings)
        measurement = Measurement([Artifact(model, "a", "onnxruntime", "fp32")], runner, how, steps)
        measurement.run()
    [result] = measurement.results()
    return [len(launch.samples_ns) for launch in result.launches], runner.asked, said.getvalue()


def test_what_is_quick_is_measured_in_full_without_a_word(tmp_path: Path) -> None:
    runs, _, said = measured(tmp_path, 0.01, plans=BOTH)
    assert runs == [16] * 4
    assert "plan" not in said


@pytest.mark.parametrize(("run_seconds", "runs", "told"), [(1.0, [5] * 4, "30 s more"), (8.0, [4] * 2, "72 s more")])
def test_what_is_slow_has_fewer_runs_and_launches_and_its_time_is_told(
    tmp_path: Path, run_seconds: float, runs: list[int], told: str
) -> None:
    made, asked, said = measured(tmp_path, run_seconds, plans=BOTH)
    assert made == runs
    assert float(asked[0]["max-seconds"]) == LAUNCH_SECONDS
    assert all("max-seconds" not in options and options["num-runs"] == str(runs[0]) for options in asked[1:])
    assert "plan for pi" in said
    assert f"{len(runs)} launches of {runs[0]} runs; some {told} (--launches, --num-runs, --no-ops)" in said


def test_what_was_asked_for_is_done_however_long_it_takes_and_that_is_told(tmp_path: Path) -> None:
    runs, asked, said = measured(tmp_path, 8.0, num_runs=16, launches=3)
    assert runs == [16] * 3
    assert not any("max-seconds" in options for options in asked)
    assert "3 launches of 16 runs; some 6 minutes more" in said


def test_the_agent_ends_a_launch_whose_seconds_are_over_but_not_before_a_few_runs(tmp_path: Path) -> None:
    model = small_onnx(tmp_path / "a.onnx")
    options = ("--num-runs=50", "--warmup-runs=0", "--max-seconds=1e-9")
    made = local_runner().run("latency", "onnxruntime", model, options)
    assert len(made[protocol.Samples].ns) == 4
