"""Weights for x86-64 without VNNI: no two products of neighbours leave 16 bits, and no step is larger than need be."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgeport import targets
from edgeport.export import saturation

LARGEST_ACTIVATION, LARGEST_INT16 = 255, 32767


def largest_sum(stored: NDArray[np.int8], kind: str, transposed: bool) -> int:
    """The largest that two products of neighbours can add up to, as vpmaddubsw pairs them."""
    rows = saturation.read_by_kernel(stored.astype(np.int64), kind, transposed)
    rows = np.pad(rows, ((0, 0), (0, rows.shape[1] % 2))).reshape(len(rows), -1, 2)
    return int(max(np.maximum(side, 0).sum(axis=2).max() for side in (rows, -rows))) * LARGEST_ACTIVATION


LAYERS = [
    ("Conv", False, (4, 3, 3, 3)),
    ("Conv", False, (5, 4, 1, 1)),
    ("Conv", False, (2, 5, 3)),
    ("Gemm", True, (4, 7)),
    ("Gemm", False, (7, 4)),
    ("MatMul", False, (6, 3)),
    ("MatMul", False, (2, 6, 3)),
]


@given(
    st.sampled_from(LAYERS),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)
def test_products_of_neighbours_fit_16_bits(layer: tuple[str, bool, tuple[int, ...]], equal: bool, seed: int) -> None:
    kind, transposed, shape = layer
    generator = np.random.default_rng(seed)
    weights = np.ones(shape) if equal else generator.standard_normal(shape) * generator.uniform(0.01, 10)
    outputs = 0 if kind == "Conv" or transposed else len(shape) - 1
    others = tuple(axis for axis in range(len(shape)) if axis != outputs)
    scale = (np.abs(weights).max(axis=others) / 127).astype(np.float32)
    stored, larger = saturation.limited(weights.astype(np.float32), scale, outputs, kind, transposed)
    assert largest_sum(stored, kind, transposed) <= LARGEST_INT16
    assert (larger >= scale).all()
    assert (larger <= scale * 2.001).all()
    along = larger.reshape([-1 if axis == outputs else 1 for axis in range(len(shape))])
    assert np.abs(stored * along - weights).max() <= larger.max() * 0.501


def test_weights_with_room_keep_their_steps() -> None:
    weights = np.array([[127.0, -127.0, 60.0, 60.0], [100.0, 20.0, -5.0, -90.0]], np.float32)
    scale = np.ones(2, np.float32)
    stored, larger = saturation.limited(weights, scale, 0, "Gemm", True)
    assert np.array_equal(larger, scale)
    assert np.array_equal(stored, weights)


def test_one_step_for_all_channels_stays_one() -> None:
    weights = np.array([[127.0, 127.0], [1.0, 1.0]], np.float32)
    stored, larger = saturation.limited(weights, np.ones((), np.float32), 0, "Gemm", True)
    assert larger == pytest.approx(2.0)
    assert largest_sum(stored, "Gemm", True) <= LARGEST_INT16


@pytest.mark.parametrize(
    ("flags", "target"),
    [("fpu avx2 avx512f", "x86"), ("avx512_vnni avx2", "x86-vnni"), ("avx_vnni", "x86-vnni"), ("", "x86")],
)
def test_the_host_s_target_follows_from_its_processor_s_flags(
    flags: str, target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor\t: 0\nflags\t\t: {flags}\n" if flags else "nothing of the kind\n")
    monkeypatch.setattr(targets, "CPUINFO", cpuinfo)
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    assert targets.of_host() == target
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert targets.of_host() == "arm"
