"""What a later state is held against: artifacts, named by their content, with their results, in a folder.

A folder that can be committed, cached or copied. baseline.json is written last, so that what it names is there.
"""

import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from edgeport import documents, files, scratch, trust
from edgeport.errors import ModelFileError, NothingComparedError, UsageError, nearest
from edgeport.measure import Artifact
from edgeport.records import SCHEMA, Baseline, BaselineEntry

INDEX, OBJECTS = "baseline.json", "objects"
OBJECT = re.compile(r"[0-9a-f]{64}\.[a-z]+")
ANEW = "remove it and save the baseline anew"
MOST_BYTES = 1_000_000_000  # of an index, which holds every sample


def load(folder: Path) -> Baseline:
    """Raises NothingComparedError where there is none, ModelFileError where it is damaged or of another version."""
    path = folder / INDEX
    try:
        found = documents.read(path, Baseline, MOST_BYTES)
    except OSError as e:
        hint = f"make one with edgeport baseline save MODEL -o {folder}"
        raise NothingComparedError(f"there is no baseline in {folder} ({files.reason(e)}); {hint}") from e
    except documents.DocumentError as e:
        raise ModelFileError(f"{path} is damaged or of another version ({e}); {ANEW}") from e
    if found.schema != SCHEMA:
        raise ModelFileError(f"{path} has schema {found.schema}, this edgeport reads {SCHEMA}; {ANEW}")
    return found


def save(folder: Path, made: Sequence[tuple[BaselineEntry, Path]]) -> Baseline:
    """Adds to what the folder holds, in place of entries of the same model, options, runtime, precision and device.

    Artifacts that no entry names any longer are removed, those of a process that was killed as well. Raises
    ModelFileError rather than replace an index that it cannot read.
    """
    files.writable_folder(folder / OBJECTS)
    with scratch.locked(folder):
        old = kept(folder)
        try:
            for entry, source in made:
                _keep(_object(folder, entry), entry, source)
            baseline = Baseline(SCHEMA, _replaced(old, [entry for entry, _ in made]))
            text = msgspec.json.format(msgspec.json.encode(baseline), indent=1).decode()
            files.write_text(folder / INDEX, f"{text}\n")
        finally:
            _remove_unnamed(folder)
    return baseline


def kept(folder: Path) -> tuple[BaselineEntry, ...]:
    """What the folder holds; nothing where there is no baseline yet. Raises ModelFileError for one that is damaged."""
    return load(folder).entries if (folder / INDEX).exists() else ()


def is_trusted(folder: Path) -> bool:
    """Whether the user saved this baseline here, and nobody changed it since."""
    index = folder / INDEX
    return index.is_file() and trust.is_trusted(index, files.sha256(index))


def trust_saved(folder: Path) -> None:
    """Records that the user themselves saved what the folder holds. Raises EdgeportError where that cannot be kept."""
    trust.trust(folder / INDEX, files.sha256(folder / INDEX))


def artifact(folder: Path, entry: BaselineEntry) -> Artifact:
    """The kept file. Raises ModelFileError where it is gone or is not what was kept."""
    path, result = _object(folder, entry), entry.result
    if not path.is_file():
        raise ModelFileError(f"{path} is missing: the baseline of {entry.model} is not whole; save it again")
    if files.sha256(path) != result.sha256:
        raise ModelFileError(f"{path} is damaged: its hash is not the one in its name; save the baseline again")
    return Artifact(path, result.model, result.runtime, result.precision)


def select(baseline: Baseline, models: Sequence[str], devices: Sequence[str]) -> list[BaselineEntry]:
    """The entries of these models (as given when saved, or by name) on these devices; all where none is named.

    Raises UsageError for a name that the baseline does not have, NothingComparedError where nothing is left.
    """
    entries = baseline.entries
    for flag, wanted, known in (
        ("", models, [n for e in entries for n in (e.model, e.result.model)]),
        ("--device ", devices, [e.result.device for e in entries]),
    ):
        for name in wanted:
            if entries and name not in known:
                there = ", ".join(dict.fromkeys(known))
                raise UsageError(f"{flag}{name}: the baseline has {there}{nearest(name, set(known))}")
    found = [
        e
        for e in entries
        if (not models or e.model in models or e.result.model in models) and (not devices or e.result.device in devices)
    ]
    if not found:
        raise NothingComparedError("the baseline has nothing to compare with; edgeport baseline save MODEL adds to it")
    return found


def _keep(path: Path, entry: BaselineEntry, source: Path) -> None:
    if not path.exists() or files.sha256(path) != entry.result.sha256:
        with files.whole_file(path) as beside:
            shutil.copyfile(source, beside)


def _replaced(old: Sequence[BaselineEntry], new: Sequence[BaselineEntry]) -> tuple[BaselineEntry, ...]:
    keys = [_key(entry) for entry in new]
    return *(entry for entry in old if _key(entry) not in keys), *new


def _remove_unnamed(folder: Path) -> None:
    """Artifacts that the index does not name. Other files of the folder are the user's."""
    named = {_object(folder, entry).name for entry in kept(folder)}
    for path in (folder / OBJECTS).iterdir():
        if OBJECT.fullmatch(path.name) and path.name not in named:
            path.unlink(missing_ok=True)


def _object(folder: Path, entry: BaselineEntry) -> Path:
    """In the folder: hash and ending were checked where they were read (edgeport.records)."""
    return folder / OBJECTS / (entry.result.sha256 + Path(entry.result.file).suffix.lower())


def _key(entry: BaselineEntry) -> tuple[Any, ...]:
    result = entry.result
    options = msgspec.json.encode(entry.options, order="sorted")
    return entry.model, options, result.runtime, result.precision, result.device, result.num_threads
