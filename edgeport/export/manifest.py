"""Reads what an export's folder says of itself. Needs no torch."""

from pathlib import Path

from edgeport import documents, files
from edgeport.errors import ModelFileError
from edgeport.export import folder as folders
from edgeport.records import SCHEMA, Artifact, Manifest

MANIFEST = "manifest.json"


def read_manifest(folder: Path) -> Manifest:
    """Of the files that were exported last, whole. Raises ModelFileError where there is none, or it is of another
    version.
    """
    path = folder / MANIFEST
    folders.settle(folder, MANIFEST)
    try:
        manifest = documents.read(path, Manifest)
    except OSError as e:
        why = "it has no" if isinstance(e, FileNotFoundError) else f"{files.reason(e)}:"
        raise ModelFileError(f"{folder} is no export: {why} {MANIFEST}; make one with edgeport export") from e
    except documents.DocumentError as e:
        raise ModelFileError(f"{path} is damaged or of another version ({e}); export again") from e
    if manifest.schema != SCHEMA:
        raise ModelFileError(f"{path} has schema {manifest.schema}, this edgeport reads {SCHEMA}; export again")
    return manifest


def whole_artifact(folder: Path, artifact: Artifact) -> Path:
    """A file that the manifest tells of. Raises ModelFileError where it is gone or is not the one that was exported."""
    path = folder / artifact.file
    if not path.is_file():
        raise ModelFileError(f"{path} is missing: the export is not whole; export again")
    if files.sha256(path) != artifact.sha256:
        raise ModelFileError(
            f"{path} is not the file that {MANIFEST} tells of (its hash is another one): it was changed or swapped "
            "since; export again, or measure the file by its own name"
        )
    return path
