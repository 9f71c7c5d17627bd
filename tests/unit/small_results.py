"""Results of measurements, made up so that every figure is easy to work out by hand."""

from collections.abc import Sequence
from typing import Any

from edgeport.records import Launch, OpProfile, OpTime, Result, TensorInfo

MS = 1_000_000  # ns
SNAPSHOT: dict[str, Any] = {
    "khz": [],
    "celsius": [],
    "throttle_count": None,
    "load_1min": 0.5,
    "steal_ticks": 10,
    "total_ticks": 1000,
}


def launch(*samples_ms: float, before: dict[str, Any] | None = None, after: dict[str, Any] | None = None) -> Launch:
    return Launch(
        init_ns=100 * MS,
        first_ns=9 * MS,
        samples_ns=tuple(round(ms * MS) for ms in samples_ms),
        peak_bytes=50 * 2**20,
        before={**SNAPSHOT, **(before or {})},
        after={**SNAPSHOT, **(after or {})},
    )


def op(class_: str, us: float, module: str | None, madds: int = 0, **fields: Any) -> OpTime:
    names = {"conv": "CONV_2D", "elemwise": "ADD", "data": "PAD", "shuffle": "TRANSPOSE", "other": "MEAN"}
    given = {"name": f"{class_} event", "op": names[class_], "shape": (1, 28, 28, 116), "bytes": 4096, **fields}
    return OpTime(class_=class_, us=us, module=module, madds=madds, **given)


def profile(*ops: OpTime, invoke_us: Sequence[int] = (1100, 1100), between_us: Sequence[int] = (100, 100)) -> OpProfile:
    """1000 us a run without what passes between operators."""
    return OpProfile((1_000_000,), tuple(invoke_us), tuple(between_us), ops, dict(SNAPSHOT), dict(SNAPSHOT))


def shufflenet_profile() -> OpProfile:
    """950 of 1000 us are operators', 900 of them of known modules."""
    return profile(
        op("conv", 400, "stage2.0.branch1.0", 40_000_000),
        op("shuffle", 200, "stage2.1"),
        op("conv", 100, "stage2.1.branch2.0", 20_000_000),
        op("data", 100, "stage3.0"),
        op("elemwise", 100, ""),
        op("other", 50, None),
    )


def result(launches: Sequence[Launch] = (), profile: OpProfile | None = None, **fields: Any) -> Result:
    given = {
        "model": "shufflenet_v2",
        "file": "shufflenet_v2.int8.tflite",
        "sha256": "0" * 64,
        "size_bytes": 2_500_000,
        "device": "local",
        "runtime": "litert",
        "runtime_version": "2.3.0",
        "precision": "int8",
        "num_threads": 1,
        "cores": (0,),
        "warmup_runs": 5,
        "inputs": (TensorInfo("x", (1, 224, 224, 3), "float32"),),
        "facts": {"cpu_model": "Some Chip", "machine": "x86_64", "max_khz": [], "emulated": False},
        **fields,
    }
    return Result(launches=tuple(launches) or (launch(1.0, 1.1, 0.9),), profile=profile, **given)
