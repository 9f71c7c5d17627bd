"""What earlier exports left: in the folder that is exported into, and in the cache."""

import contextlib
from pathlib import Path

import msgspec

from edgeport import graph
from edgeport.errors import ModelFileError
from edgeport.export.manifest import read_manifest, whole_artifact
from edgeport.records import Artifact, Manifest


def with_earlier(folder: Path, fresh: Manifest) -> Manifest:
    """With the files of an earlier export of the very same network into this folder, which this one did not make."""
    try:
        earlier = read_manifest(folder)
    except ModelFileError:
        return fresh
    if _without_files(earlier) != _without_files(fresh):
        return fresh
    made = {a.file for a in fresh.artifacts}
    kept = [a for a in earlier.artifacts if a.file not in made and _is_there(folder, a)]
    other = {a.format for a in kept} - {a.format for a in fresh.artifacts}
    passes = [p for p in earlier.passes if p.formats != graph.FORMATS and other.issuperset(p.formats)]
    return msgspec.structs.replace(fresh, artifacts=(*fresh.artifacts, *kept), passes=(*fresh.passes, *passes))


def is_whole(folder: Path) -> bool:
    """Whether an export is there with all that its manifest tells of, as it was written."""
    try:
        return all(_is_there(folder, artifact) for artifact in read_manifest(folder).artifacts)
    except ModelFileError:
        return False


def _without_files(manifest: Manifest) -> Manifest:
    """What is said of the network, and what was done to it for all formats alike."""
    shared = tuple(p for p in manifest.passes if p.formats == graph.FORMATS)
    return msgspec.structs.replace(manifest, artifacts=(), passes=shared)


def _is_there(folder: Path, artifact: Artifact) -> bool:
    with contextlib.suppress(ModelFileError):
        return whole_artifact(folder, artifact).is_file()
    return False
