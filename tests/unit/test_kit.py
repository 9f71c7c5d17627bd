"""The runtimes' libraries for a device of another kind, out of wheels."""

import platform
import zipfile
from pathlib import Path

import pytest

from edgeport import kit
from edgeport.errors import DeviceError
from edgeport.probe import System, abi_refusal
from edgeport.sessions import fitting_library

LIBRARY = b"\x7fELF...\0GLIBC_2.17\0GLIBC_2.34\0GLIBC_2.4\0GLIBCXX_3.4.30\0..."
OTHER = "riscv64" if platform.machine() == "aarch64" else "aarch64"
VERSION = kit.library("litert").version


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEPORT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    """A folder with LiteRT's wheel for another machine, as pip wants one to be."""
    folder, info = tmp_path / "wheels", f"ai_edge_litert-{VERSION}.dist-info"
    folder.mkdir()
    tag = f"py3-none-manylinux_2_27_{OTHER}"
    with zipfile.ZipFile(folder / f"ai_edge_litert-{VERSION}-{tag}.whl", "w") as wheel:
        wheel.writestr("ai_edge_litert/libLiteRt.so", LIBRARY)
        wheel.writestr("ai_edge_litert/__init__.py", "")
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: ai-edge-litert\nVersion: {VERSION}\n")
        wheel.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: {tag}\n")
        wheel.writestr(f"{info}/RECORD", "")
    return folder


def system(*libc: int) -> System:
    return System(OTHER, "Linux", 64, libc, (3, 11, 2), True)


def test_this_machines_own_library_is_the_installed_one() -> None:
    assert kit.library_for("litert", platform.machine()) == kit.library("litert")


def test_another_machines_comes_out_of_its_wheel_once(wheels: Path) -> None:
    found = kit.library_for("litert", OTHER, wheels)
    assert found.path.read_bytes() == LIBRARY
    assert found.path.name == "libLiteRt.so"
    assert found.version == VERSION
    next(wheels.iterdir()).unlink()
    assert kit.library_for("litert", OTHER, wheels) == found


def test_a_library_needs_the_newest_glibc_that_its_symbols_name(wheels: Path) -> None:
    assert kit.library_for("litert", OTHER, wheels).oldest_libc() == (2, 34)


def test_a_system_with_an_older_glibc_is_refused_with_both_versions(wheels: Path) -> None:
    with pytest.raises(DeviceError, match=rf"old: litert {VERSION} needs glibc 2\.34 and the device has 2\.31"):
        fitting_library("litert", device="old", system=system(2, 31), wheels=wheels)
    assert fitting_library("litert", device="new", system=system(2, 36), wheels=wheels).path.is_file()


def test_a_wheel_that_is_missing_is_told_with_how_to_get_it(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DeviceError) as error:
        kit.library_for("litert", OTHER, tmp_path / "empty")
    assert f"no wheel of ai-edge-litert=={VERSION} for {OTHER} in {tmp_path / 'empty'}" in str(error.value)
    assert f"--platform=manylinux_2_28_{OTHER} ai-edge-litert=={VERSION}" in str(error.value)
    assert "--wheels" in str(error.value)


def test_a_damaged_wheel_is_told_and_leaves_nothing(wheels: Path, tmp_path: Path) -> None:
    wheel = next(wheels.iterdir())
    data = wheel.read_bytes()
    wheel.write_bytes(data.replace(LIBRARY, LIBRARY[::-1]))
    with pytest.raises(DeviceError, match=r"damaged|no wheel"):
        kit.library_for("litert", OTHER, wheels)
    assert not list((tmp_path / "cache").rglob("*.so*"))


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (System("aarch64", "Linux", 32, (2, 36), (3, 11, 2), True), "32-bit"),
        (System("armv7l", "Linux", 0, (2, 36), (3, 11, 2), True), "32-bit"),
        (System("x86_64", "Darwin", 64, (), (3, 11, 2), True), "it runs Darwin"),
        (System("aarch64", "Linux", 64, (), (3, 11, 2), True), "no glibc"),
    ],
)
def test_a_system_without_runtimes_is_refused_with_the_reason(found: System, told: str) -> None:
    assert told in (abi_refusal(found) or "")


def test_a_raspberry_pi_with_a_64_bit_system_is_not_refused() -> None:
    assert abi_refusal(System("aarch64", "Linux", 64, (2, 36), (3, 11, 2), True)) is None
