"""For machines: everything, raw samples included. One result is an object, several are a list of objects."""

from collections.abc import Sequence
from statistics import median
from typing import Any

import msgspec

from edgeport import breakdown, stats
from edgeport.records import SCHEMA, OpProfile, Result
from edgeport.reports import View


def render(results: Sequence[Result], view: View) -> str:
    documents = [document(result) for result in results]
    data = msgspec.json.encode(documents[0] if len(documents) == 1 else documents)
    return msgspec.json.format(data, indent=1).decode() + "\n"


def document(result: Result) -> dict[str, Any]:
    """The JSON form of a result. Its schema's history is in edgeport.records."""
    profile = result.profile
    return {
        "schema": SCHEMA,
        "model": result.model,
        "file": {"name": result.file, "sha256": result.sha256, "size_bytes": result.size_bytes},
        "device": result.device,
        "emulated": bool(result.facts.get("emulated")),
        "runtime": result.runtime,
        "runtime_version": result.runtime_version,
        "precision": result.precision,
        "num_threads": result.num_threads,
        "cores": result.cores,
        "inputs": result.inputs,
        "verdict": stats.verdict(result),
        "limits": sorted({name for run in result.launches for name in stats.limits(run.before, run.after)}),
        "stolen_share": max((s for s in map(stats.steal, result.launches) if s is not None), default=None),
        "latency_ms": stats.latency(result.launches),
        "init_ms": median(launch.init_ns for launch in result.launches) / 1e6,
        "first_inference_ms": median(launch.first_ns for launch in result.launches) / 1e6,
        "peak_memory_bytes": max((launch.peak_bytes or 0 for launch in result.launches), default=0) or None,
        "classes": _classes(profile),
        "unattributed_share": breakdown.unattributed_share(profile) if profile else None,
        "profiler_overhead": stats.overhead(profile) if profile else None,
        "invoke_us": stats.invoke_us(profile) if profile else None,
        "ops": _ops(profile),
        "raw": {
            "warmup_runs": result.warmup_runs,
            "launches": result.launches,
            "samples_ns": [launch.samples_ns for launch in result.launches],
            "profile": _raw(profile),
        },
        "facts": result.facts,
    }


def _raw(profile: OpProfile | None) -> dict[str, Any] | None:
    if profile is None:
        return None
    return {"plain_ns": profile.plain_ns, "invoke_us": profile.invoke_us, "between_us": profile.between_us}


def _classes(profile: OpProfile | None) -> dict[str, Any]:
    lines = breakdown.by_class(profile) if profile else []
    return {line.key: {"us": line.us, "share": line.share} for line in lines if line.key != breakdown.UNATTRIBUTED}


def _ops(profile: OpProfile | None) -> list[dict[str, Any]]:
    pairs = breakdown.by_op(profile) if profile else []
    return [
        {**msgspec.to_builtins(op), "share": line.share, "gmacs": line.gmacs if line.madds else None}
        for op, line in pairs
    ]
