"""The exports that profile takes where no model is named: those below ./exports."""

import os
from pathlib import Path

from edgeport.cli.checks import complain
from edgeport.errors import UsageError

EXPORTS = Path("exports")  # where edgeport export writes, unless told otherwise
DEPTHS = ("manifest.json", "*/manifest.json", "*/*/manifest.json")


def chosen(model: str | None, every: bool) -> list[str]:
    """The model that was named, or else the newest export's folder, or every one; and says which. Raises UsageError."""
    if model is not None:
        if every:
            raise UsageError(f"--all takes every export below {EXPORTS}/; leave out {model!r}, or leave out --all")
        return [model]
    folders = _folders()
    if not folders:
        raise UsageError(
            f"no model is named, and there is no export below {EXPORTS}/ in {Path.cwd()}; name one "
            "('edgeport profile shufflenet_v2'), or make one first ('edgeport export shufflenet_v2')"
        )
    taken = folders if every else folders[:1]
    number = f"of {len(folders)}; --all takes every one" if len(folders) > 1 else "the only one"
    if every:
        complain(f"no model is named: profiles every export below {EXPORTS}/: {', '.join(map(str, taken))}")
    else:
        complain(f"no model is named: profiles {taken[0]}, the newest export below {EXPORTS}/ ({number})")
    return [str(folder) for folder in taken]


def _folders() -> list[Path]:
    """Those of whole exports, the newest first."""
    found = [path for pattern in DEPTHS for path in EXPORTS.glob(pattern) if not _is_hidden(path)]
    try:
        return [path.parent for path in sorted(found, key=lambda p: (-p.stat().st_mtime_ns, os.fspath(p)))]
    except OSError as e:  # a link that leads nowhere
        raise UsageError(f"cannot look at {e.filename}: {(e.strerror or str(e)).lower()}; name a model") from e


def _is_hidden(path: Path) -> bool:
    """Of an export that is being made, or was given up."""
    return any(part.startswith(".") for part in path.parts)
