"""What a phone tells of its state, in whatever words its version of Android has, or none."""

from typing import Any

import pytest

from edgeport import stats
from edgeport.agent import android

THERMAL = """\
IsStatusOverride: false
Thermal Status: 2
Cached temperatures:
\tTemperature{mValue=99.0, mType=0, mName=old, mStatus=0}
HAL Ready: true
Current temperatures from HAL:
\tTemperature{mValue=43.5, mType=0, mName=CPU0, mStatus=0}
\tTemperature{mName=CPU1, mStatus=0, mType=0, mValue=-3}
\tTemperature{mValue=NaN, mType=0, mName=CPU2, mStatus=0}
\tTemperature{mValue=31.9, mType=3, mName=skin, mStatus=2}
"""
BATTERY = "Current Battery Service state:\n  AC powered: false\n  USB powered: true\n  level: 87\n  temperature: -15\n"


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What each service of dumpsys prints."""
    answers: dict[str, str] = {}

    def answer(*command: str) -> str | None:
        return answers.get(command[-1])

    monkeypatch.setattr(android, "_told", answer)
    monkeypatch.setattr(android, "is_android", lambda: True)
    return answers


def test_temperatures_are_those_that_the_cpu_has_now(told: dict[str, str]) -> None:
    told.update(thermalservice=THERMAL, battery=BATTERY)
    assert android.state() == {
        "thermal_status": 2,
        "cpu_celsius": [43.5, -3.0],
        "battery": {"percent": 87, "celsius": -1.5, "powered": True},
    }


def test_what_a_phone_does_not_tell_is_unknown(told: dict[str, str]) -> None:
    unknown = {"percent": None, "celsius": None, "powered": None}
    assert android.state() == {"thermal_status": None, "cpu_celsius": [], "battery": unknown}


def test_a_machine_that_is_no_phone_tells_nothing_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(android, "is_android", lambda: False)
    assert android.state() == {}
    with android.steady() as refused:
        assert refused == []


@pytest.mark.parametrize(("status", "limits"), [(None, ()), (0, ()), (3, ("thermal status 3 of 6",))])
def test_a_thermal_status_is_a_limit(status: Any, limits: tuple[str, ...]) -> None:
    assert stats.limits({}, {"thermal_status": status}) == limits
