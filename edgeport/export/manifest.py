"""Reads what an export's folder says of itself. Needs no torch."""

from pathlib import Path

import msgspec

from edgeport.errors import ModelFileError
from edgeport.records import SCHEMA, Manifest

MANIFEST = "manifest.json"


def read_manifest(folder: Path) -> Manifest:
    """Raises ModelFileError where there is none, or it is of another version."""
    path = folder / MANIFEST
    try:
        manifest = msgspec.json.decode(path.read_bytes(), type=Manifest)
    except OSError as e:
        raise ModelFileError(f"{folder} is no export: it has no {MANIFEST}; make one with edgeport export") from e
    except msgspec.MsgspecError as e:
        raise ModelFileError(f"{path} is damaged or of another version ({e}); export again") from e
    if manifest.schema != SCHEMA:
        raise ModelFileError(f"{path} has schema {manifest.schema}, this edgeport reads {SCHEMA}; export again")
    return manifest
