"""What the agent says to the host: one JSON object a line on standard output, each with its kind under "type"."""

import json
import sys
from typing import Any


class AgentError(Exception):
    """Something that the user can act on. `kind` is for the host's code, the text for the user."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


def emit(message: str, **fields: Any) -> None:
    sys.stdout.write(json.dumps({"type": message, **fields}) + "\n")
    sys.stdout.flush()
