"""How a comparison goes: which blocks are kept, when it ends, when there is a second session. Times are made up; the
real ones are in tests/gate.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from small_models import small_tflite
from small_results import MS, launch, result

from edgeport import compare, interleave, session
from edgeport.compare import BASELINE, CANDIDATE, COPY
from edgeport.errors import DeviceError
from edgeport.interleave import Block
from edgeport.measure import Artifact
from edgeport.progress import Silent
from edgeport.protocol import Burst
from edgeport.records import Comparison, Criteria
from edgeport.runner import local_runner
from edgeport.session import Pair, Settings


class Device:
    """Blocks of a candidate that takes so many times as long as the baseline; what it was asked for is noted."""

    def __init__(self, ratios: Iterator[float]) -> None:
        self.ratios = ratios
        self.asked: list[tuple[dict[str, str], interleave.Settings, Mapping[str, Sequence[str]]]] = []
        self.seeds: list[int] = []
        self.telemetry: dict[int, tuple[dict[str, Any], dict[str, Any]]] = {}
        self.before, self.after = result([launch(2)]), result([launch(2)])

    def run_block(
        self,
        runner: Any,
        arms: Mapping[str, Path],
        how: interleave.Settings,
        seed: int,
        options: Any,
        copies: Mapping[str, str],
    ) -> Block:
        assert all(Path(copies[arm]).read_bytes() == path.read_bytes() for arm, path in arms.items())
        self.asked.append((dict(copies), how, options))
        self.seeds.append(seed)
        n = len(self.asked)
        times = {BASELINE: 2 * MS, COPY: 2 * MS + n % 7 - 3, CANDIDATE: round(2 * MS * next(self.ratios)) + n}
        bursts: dict[str, tuple[Burst, ...]] = {
            arm: (Burst((ns,) * 3, (0,) * 3, (0,) * 3),) * 4 for arm, ns in times.items()
        }
        return Block(bursts, *self.telemetry.get(n, ({}, {})))


def pair_of(old: Path, new: Path) -> Pair:
    before, after = (Artifact(path, path.stem, "litert", "fp32") for path in (old, new))
    return Pair("net", before, after)


def always(value: float) -> Iterator[float]:
    while True:
        yield value


@pytest.fixture
def compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Comparison]:
    old, new = small_tflite(tmp_path / "old.tflite"), tmp_path / "new.tflite"
    new.write_bytes(old.read_bytes())

    def run(device: Device, **settings: Any) -> Comparison:
        monkeypatch.setattr(interleave, "run_block", device.run_block)
        monkeypatch.setattr(session._Comparing, "_measured", lambda *_: (device.before, device.after))
        return session.compare_pair(pair_of(old, new), local_runner(), Settings(**settings), Silent())

    return run


def counts(comparison: Comparison) -> list[int]:
    return [len(s.blocks) for s in comparison.sessions]


def test_a_pass_takes_ten_blocks(compared: Callable[..., Comparison]) -> None:
    made = compared(Device(always(1.0)))
    assert counts(made) == [10]
    assert compare.outcome(made) == compare.PASS


def test_a_slowdown_takes_a_second_session_with_another_order(compared: Callable[..., Comparison]) -> None:
    device = Device(always(1.2))
    made = compared(device)
    assert counts(made) == [10, 10]
    assert compare.outcome(made) == compare.REGRESSED
    assert len(set(device.seeds)) == 20
    assert len({path for copies, *_ in device.asked for path in copies.values()}) == 6  # copied anew for each session


def test_where_the_second_session_finds_nothing_there_is_no_regression(compared: Callable[..., Comparison]) -> None:
    made = compared(Device(iter([1.2] * 10 + [1.0] * 10)))
    assert counts(made) == [10, 10]
    assert compare.outcome(made) == compare.INCONCLUSIVE


def test_the_same_seed_gives_the_same_order(compared: Callable[..., Comparison]) -> None:
    one, same, other = (Device(always(1.0)) for _ in range(3))
    for device, seed in ((one, 1), (same, 1), (other, 2)):
        compared(device, seed=seed)
    assert one.seeds == same.seeds != other.seeds


def test_the_arms_are_the_files_and_a_copy_under_names_of_one_length(compared: Callable[..., Comparison]) -> None:
    device = Device(always(1.0))
    compared(device, spin_percent=5.0, num_threads=2, nice=-3)
    copies, how, options = device.asked[0]
    assert set(copies) == {BASELINE, COPY, CANDIDATE}
    assert len({len(path) for path in copies.values()}) == 1
    assert len(set(copies.values())) == 3
    assert (how.num_threads, how.nice) == (2, -3)
    shape = "--input-shape=x=1,224,224,3"  # that the first runs had, and the file does not name
    assert options == {BASELINE: [shape], COPY: [shape], CANDIDATE: [shape, "--spin-percent=5.0"]}
    assert not any(Path(path).exists() for path in copies.values())


def test_blocks_in_which_the_device_was_throttled_are_kept_apart(compared: Callable[..., Comparison]) -> None:
    device = Device(iter([9.0, *[1.0] * 30]))
    device.telemetry[1] = {"throttle_count": 1}, {"throttle_count": 2}
    made = compared(device)
    assert [len(s.dropped) for s in made.sessions] == [1]
    assert counts(made) == [10]
    assert compare.outcome(made) == compare.PASS


def test_a_device_that_is_always_throttled_gives_no_verdict(compared: Callable[..., Comparison]) -> None:
    device = Device(always(1.0))
    device.telemetry = {n: ({"throttle_count": n}, {"throttle_count": n + 1}) for n in range(1000)}
    made = compared(device)
    assert counts(made) == [0]
    assert compare.outcome(made) == compare.INCONCLUSIVE
    assert "slowed down in 20 of 20 blocks" in compare.latency_verdict(made).reason


@pytest.mark.parametrize(
    ("minutes", "least", "most"),
    [(1.0, 35, 40), (0.4, 10, 12), (0.2, 10, 10), (0.1, 4, 6)],  # a block takes a second of this clock
    ids=["twenty blocks are left for a second session", "half of the time", "the least, in whatever time", "too few"],
)
def test_when_the_time_is_over_it_judges_by_what_there_is(
    compared: Callable[..., Comparison], monkeypatch: pytest.MonkeyPatch, minutes: float, least: int, most: int
) -> None:
    clock = iter(range(10**6))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))
    unclear = (1.0 if n % 2 else 1.2 for n in range(100))
    made = compared(Device(unclear), max_minutes=minutes)
    assert len(made.sessions) == 1
    assert least <= counts(made)[0] <= most
    assert compare.outcome(made) == compare.INCONCLUSIVE


def test_a_second_session_ends_in_time_too(
    compared: Callable[..., Comparison], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(10**6))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))
    slower, unclear = [1.2] * 10, [1.0, 1.2] * 100
    made = compared(Device(iter([*slower, *unclear])), max_minutes=0.6)
    assert counts(made)[0] == 10
    assert 15 <= counts(made)[1] <= 26
    assert compare.outcome(made) == compare.INCONCLUSIVE


def test_what_cannot_be_compared_is_not_measured(compared: Callable[..., Comparison]) -> None:
    device = Device(always(1.0))
    device.after = result([launch(2)], runtime_version="9.9")
    made = compared(device)
    assert made.sessions == ()
    assert not device.asked
    assert compare.outcome(made) == compare.INCONCLUSIVE
    assert "9.9" in compare.latency_verdict(made).reason


def test_an_emulated_device_is_refused_unless_it_is_asked_for(compared: Callable[..., Comparison]) -> None:
    device = Device(always(1.0))
    device.before = device.after = result([launch(2)], facts={"emulated": True})
    refused = compared(device)
    assert "--allow-emulated" in compare.latency_verdict(refused).reason
    assert compare.outcome(compared(device, allow_emulated=True)) == compare.PASS


def test_several_comparisons_share_the_error_rate(compared: Callable[..., Comparison], tmp_path: Path) -> None:
    compared(Device(always(1.0)))  # which stands in for the device from now on
    file = small_tflite(tmp_path / "net.tflite")
    made: list[Comparison] = []
    session.compare_all(local_runner(), [(pair_of(file, file), Settings())] * 3, 4, made.append, Silent())
    assert [c.criteria for c in made] == [Criteria(comparisons=4)] * 3


def test_what_was_decided_stays_where_the_profiles_that_explain_it_fail(
    compared: Callable[..., Comparison], monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(*_: Any) -> Any:
        raise DeviceError("the device is gone")

    monkeypatch.setattr(session._Comparing, "_profiled", lost)
    made = compared(Device(always(1.2)))
    assert compare.outcome(made) == compare.REGRESSED
    assert len(made.candidates) == 1


def test_what_was_decided_before_a_failure_is_told(
    compared: Callable[..., Comparison], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = Device(iter([1.0] * 15))
    compared(device)

    def lost(*_: Any) -> Block:
        raise DeviceError("the device is gone")

    file = small_tflite(tmp_path / "net.tflite")
    made: list[Comparison] = []

    def then_lose(comparison: Comparison) -> None:
        made.append(comparison)
        monkeypatch.setattr(interleave, "run_block", lost)

    device.ratios = always(1.0)
    with pytest.raises(DeviceError, match="gone"):
        session.compare_all(local_runner(), [(pair_of(file, file), Settings())] * 2, 2, then_lose, Silent())
    assert len(made) == 1
