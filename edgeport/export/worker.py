"""TFLite work in a process of its own: `python -m edgeport.export.worker convert|quantize JOB LOG`.

What the libraries print goes to the log; standard output holds what the task returns as JSON, or the errors as a JSON
list. A library that crashes takes nothing with it.
"""

import importlib
import os
import sys
import traceback
from pathlib import Path
from typing import Any, TextIO

import msgspec

from edgeport import files, lifeline
from edgeport.errors import causes
from edgeport.export.job import Job

TASKS = {"convert": "edgeport.export.litert_torch", "quantize": "edgeport.export.quantize_tflite"}


def main(task: str, job: str, log: str) -> int:
    """Returns 0, or 1 after writing the error and those behind it, the root last."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    handle = files.append_only(Path(log))
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    try:
        result = importlib.import_module(TASKS[task]).run(msgspec.json.decode(job, type=Job))
    except Exception as e:  # converters raise what they like; the log has the traceback, the parent makes the message
        traceback.print_exc()
        return _answer(answers, causes(e), 1)
    return _answer(answers, result, 0)


def _answer(answers: TextIO, what: Any, code: int) -> int:
    answers.write(msgspec.json.encode(what).decode())
    answers.flush()
    return code


if __name__ == "__main__":
    lifeline.follow()
    code = main(*sys.argv[1:])
    sys.stderr.flush()
    os._exit(code)  # no time is lost in taking the libraries apart
