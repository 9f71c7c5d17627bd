"""The TFLite converter in a process of its own: `python -m edgeport.export.worker LOG`.

It imports its libraries while the network is still being captured, then reads one job (JSON, a line) from standard
input. Its standard output is for its messages alone; whatever the converter prints goes to the log. A converter that
crashes takes nothing with it.
"""

import os
import sys
import traceback
from typing import Any

import msgspec

from edgeport.export.job import Job


def main(log: str) -> int:
    """Messages on standard output, one JSON object a line: {"done": precision, "path": ...}, {"errors": [...]}."""
    messages = os.fdopen(os.dup(1), "w", encoding="utf-8")
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(handle, 1)
    os.dup2(handle, 2)

    def say(**fields: Any) -> None:
        messages.write(msgspec.json.encode(fields).decode() + "\n")
        messages.flush()

    from edgeport.export.converters import causes

    try:
        import torch

        from edgeport.export import tflite

        torch.set_num_threads(1)
        line = sys.stdin.readline()
        if line:  # otherwise the parent gave up
            job = msgspec.json.decode(line, type=Job)
            for precision, path in tflite.convert(job, torch.export.load(job.graph)):
                say(done=precision, path=str(path))
    except Exception as e:  # converters raise what they like; the log has the traceback, the parent makes the message
        traceback.print_exc()
        say(errors=causes(e))
        return 1
    return 0


if __name__ == "__main__":
    code = main(sys.argv[1])
    sys.stderr.flush()
    os._exit(code)  # no time is lost in taking the converters apart
