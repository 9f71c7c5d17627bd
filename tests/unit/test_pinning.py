"""Which cores --pin means."""

from typing import Any

import pytest

from edgeport import pinning
from edgeport.errors import DeviceError, UsageError


def facts(*khz: int) -> dict[str, Any]:
    """Of a device with a core of each of these frequencies."""
    return {"cores": list(range(len(khz))), "core_max_khz": {str(n): k for n, k in enumerate(khz)}, "cpus": len(khz)}


PI = facts(18, 18, 18, 18)
TWO_BIG = facts(18, 18, 18, 18, 22, 22)  # Rockchip RK3399
THREE_KINDS = facts(18, 18, 18, 18, 24, 24, 24, 28)  # most phones
FOUR_BIG = facts(18, 18, 18, 18, 24, 24, 24, 24)


@pytest.mark.parametrize(
    ("device", "big", "little"),
    [
        (PI, (0, 1, 2, 3), (0, 1, 2, 3)),
        (TWO_BIG, (4, 5), (0, 1, 2, 3)),
        (THREE_KINDS, (4, 5, 6, 7), (0, 1, 2, 3)),
        (FOUR_BIG, (4, 5, 6, 7), (0, 1, 2, 3)),
        (facts(18, 18, 24, 24, 28, 28), (4, 5), (0, 1)),
    ],
)
def test_big_and_little_go_by_the_cores_highest_frequencies(
    device: dict[str, Any], big: tuple[int, ...], little: tuple[int, ...]
) -> None:
    assert pinning.cores("big", device) == big
    assert pinning.cores("little", device) == little


@pytest.mark.parametrize(
    ("pin", "cores"), [("0xf0", (4, 5, 6, 7)), ("0x1", (0,)), ("4-6", (4, 5, 6)), ("2,3", (2, 3)), ("7,0-1", (0, 1, 7))]
)
def test_masks_and_lists_name_cores(pin: str, cores: tuple[int, ...]) -> None:
    assert pinning.cores(pin, THREE_KINDS) == cores


@pytest.mark.parametrize("pin", ["fast", "", "0x", "0x0", "1-", "3-1", "a-b", ","])
def test_what_names_no_cores_is_a_usage_error(pin: str) -> None:
    with pytest.raises(UsageError, match="--pin"):
        pinning.cores(pin, THREE_KINDS)


def test_a_core_that_the_device_has_not_is_told_with_those_it_has() -> None:
    with pytest.raises(UsageError, match=r"the device has the cores 0, 1, 2, 3$"):
        pinning.cores("0xf0", PI)


def test_a_device_that_does_not_tell_frequencies_needs_a_list() -> None:
    with pytest.raises(DeviceError, match="give a list of cores"):
        pinning.cores("big", {"cores": [0, 1], "core_max_khz": {"0": 18}})
