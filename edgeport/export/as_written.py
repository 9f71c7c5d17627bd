"""Holds an int8 file that keeps little of its signal against one of the network as it was written.

What makes a graph fast, such as channels of zeros and shared ranges, costs most networks nothing in int8. Where the
answers are poor it is no longer known to be free, and the plain form is made as well; the better one stays.
"""

import copy
import tempfile
from pathlib import Path

import msgspec
import torch

from edgeport import graph
from edgeport.export import capture
from edgeport.export.capture import Captured
from edgeport.export.job import PIECES, SAMPLES, Job
from edgeport.export.quantization import GAIN_DB
from edgeport.records import Quantized

POOR_DB = 20.0  # of the worst piece of the outputs, on the samples that were held back to judge choices
PREFIX = "as_written-"
REWRITTEN, AS_WRITTEN = "the rewritten graph", "the graph as it was written"


def is_worth_a_try(job: Job, done: Quantized) -> bool:
    """Whether the file is poor, as far as that can be judged, and of another graph than the one that was written."""
    return job.optimize and done.worst_db is not None and done.worst_db < POOR_DB


def job_for(job: Job) -> Job:
    """The same, of the graph as it was written, in a folder of its own. Raises OSError."""
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=job.folder))  # converters work side by side
    for name in (SAMPLES, PIECES):
        (folder / name).symlink_to(job.folder / name)
    return msgspec.structs.replace(job, directory=str(folder), optimize=False)


def graph_of(captured: Captured) -> torch.fx.GraphModule:
    """With what converters need, and nothing else done."""
    gm = copy.deepcopy(captured.plain)
    graph.run_passes(gm, graph.FORMATS, only=graph.REQUIRED)
    return gm


def program_of(captured: Captured) -> torch.export.ExportedProgram:
    """The same, for converters that take a program."""
    return capture.program(graph_of(captured), captured.inputs)


def is_better(plain: Quantized, rewritten: Quantized) -> bool:
    """Whether the plain form gains more than chance."""
    return (plain.worst_db or 0.0) > (rewritten.worst_db or 0.0) + GAIN_DB


def told(plain: Quantized, rewritten: Quantized) -> Quantized:
    """The record of the better form, which tells of the other one too."""
    both = {REWRITTEN: rewritten.worst_db or 0.0, AS_WRITTEN: plain.worst_db or 0.0}
    if is_better(plain, rewritten):
        changes = (AS_WRITTEN, *plain.changes)
        return msgspec.structs.replace(plain, tried={**plain.tried, **both}, changes=changes)
    changes = (*rewritten.changes, REWRITTEN)
    return msgspec.structs.replace(rewritten, tried={**rewritten.tried, **both}, changes=changes)
