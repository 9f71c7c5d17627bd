"""For machines: everything, raw samples included. One result is an object, several are a list of objects."""

import re
from collections.abc import Sequence
from statistics import median
from typing import Any

import msgspec

from edgeport import breakdown, cleaning, documents, stats
from edgeport.errors import ResultFileError
from edgeport.records import SCHEMA, Comparison, OpProfile, Result
from edgeport.reports import View, rows, verdicts

RAW_PROFILE = ("plain_ns", "invoke_us", "between_us", "preempted", "disturbed", "before", "after")
# Of an indented document: a list of numbers, which no text can look like, for in JSON none has a line break.
NUMBERS = re.compile(r"\[\n\s*(-?[\d.][-+.\deE]*(?:,\n\s*-?[\d.][-+.\deE]*)*)\n\s*\]")


def render(results: Sequence[Result], view: View) -> str:
    """With each list of numbers on one line."""
    documents = [document(result) for result in results]
    text = cleaning.as_json(documents[0] if len(documents) == 1 else documents)
    return NUMBERS.sub(lambda found: f"[{re.sub(chr(10) + ' *', ' ', found[1])}]", text)


def document(result: Result) -> dict[str, Any]:
    """The JSON form of a result. Its schema's history is in edgeport.records."""
    profile = result.profile
    return {
        "schema": SCHEMA,
        "model": result.model,
        "file": {"name": result.file, "sha256": result.sha256, "size_bytes": result.size_bytes},
        "device": result.device,
        "emulated": result.is_emulated,
        "runtime": result.runtime,
        "runtime_version": result.runtime_version,
        "precision": result.precision,
        "num_threads": result.num_threads,
        "cores": result.cores,
        "inputs": result.inputs,
        "assumed_shapes": result.assumed_shapes,
        "input_data": result.input_data,
        "takes_outputs": result.takes_outputs,
        "verdict": stats.verdict(result),
        "limits": sorted({name for run in result.launches for name in stats.limits(run.before, run.after)}),
        "stolen_share": max((s for s in map(stats.steal, result.launches) if s is not None), default=None),
        "latency_ms": stats.latency(result.launches),
        "init_ms": median(launch.init_ns for launch in result.launches) / 1e6,
        "first_inference_ms": median(launch.first_ns for launch in result.launches) / 1e6,
        "peak_memory_bytes": rows.peak_bytes(result),
        "classes": _classes(profile),
        "unattributed_share": breakdown.unattributed_share(profile) if profile else None,
        "profiler_overhead": stats.overhead(profile) if profile else None,
        "invoke_us": stats.invoke_us(profile) if profile else None,
        "profiled_runs": len(profile.invoke_us) if profile else None,
        "profiled_runs_set_aside": stats.runs_set_aside(profile) if profile else None,
        "disturbed": profile.disturbed if profile else None,
        "too_short_to_break_down": breakdown.is_too_short(profile) if profile else None,
        "ops": _ops(profile),
        "raw": {
            "warmup_runs": result.warmup_runs,
            "launches": result.launches,
            "samples_ns": [launch.samples_ns for launch in result.launches],
            "profile": _raw(profile),
        },
        "facts": result.facts,
        "origin": result.origin,
    }


def read(text: bytes, name: str) -> list[Result | Comparison]:
    """The results that render() wrote, and comparisons in theirs (edgeport.reports.verdicts). name: of the file, for
    errors. Raises ResultFileError.
    """
    try:
        found: Any = documents.decoded(text, object)
        return [_read(document) for document in (found if isinstance(found, list) else [found])]
    except (msgspec.MsgspecError, LookupError, TypeError, ValueError, ArithmeticError, AttributeError) as e:
        why = f"{e} is missing" if isinstance(e, KeyError) else e
        raise ResultFileError(f"{name} holds no results of --format json: {why}") from e


def _read(document: dict[str, Any]) -> Result | Comparison:
    if document["schema"] > SCHEMA:
        raise ValueError(f"it is of schema {document['schema']}, this edgeport knows {SCHEMA}; upgrade edgeport")
    raw = document["raw"]
    if document.get("kind") == "comparison":
        comparison = msgspec.convert(raw, Comparison)
        for side in (*comparison.baselines, *comparison.candidates):
            _check(side)
        if not comparison.baselines or not comparison.candidates:
            raise ValueError("a comparison has not both sides")
        for format in verdicts.FORMATS:  # what cannot be judged and shown is no comparison
            verdicts.render([comparison], format, View())
        return comparison
    profile = raw["profile"] and {"before": {}, "after": {}, **raw["profile"], "ops": document["ops"]}
    fields = {**document, **raw, "file": document["file"]["name"], "profile": profile}
    result = msgspec.convert({**document["file"], **fields}, Result)
    _check(result)
    return result


def _check(result: Result) -> None:
    if not result.launches or not all(launch.samples_ns for launch in result.launches):
        raise ValueError("a result has no samples")
    render([result], View())  # what cannot be shown is no result


def _raw(profile: OpProfile | None) -> dict[str, Any] | None:
    if profile is None:
        return None
    return {name: getattr(profile, name) for name in RAW_PROFILE}


def _classes(profile: OpProfile | None) -> dict[str, Any]:
    lines = breakdown.by_class(profile) if profile else []
    return {line.key: {"us": line.us, "share": line.share} for line in lines if line.key != breakdown.UNATTRIBUTED}


def _ops(profile: OpProfile | None) -> list[dict[str, Any]]:
    pairs = breakdown.by_op(profile) if profile else []
    return [
        {**msgspec.to_builtins(op), "share": line.share, "gmacs": line.gmacs if op.madds else None}
        for op, line in pairs
    ]
