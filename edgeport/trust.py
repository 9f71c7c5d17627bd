"""What the user has said they trust: content, at its place. Kept in a file of their configuration.

Content is trusted where it lies and as it is: the same bytes elsewhere, or others there, are to be trusted anew.
"""

import os
from contextlib import AbstractContextManager
from pathlib import Path

import msgspec

from edgeport import files, scratch
from edgeport.errors import EdgeportError

STORE = "trusted.json"


def config_folder() -> Path:
    """Where the user's configuration of edgeport lies: edgeport under $XDG_CONFIG_HOME."""
    root = os.environ.get("XDG_CONFIG_HOME")
    return (Path(root) if root else Path.home() / ".config") / "edgeport"


def is_trusted(path: Path, fingerprint: str) -> bool:
    """Raises EdgeportError where the record of what is trusted is damaged."""
    return _trusted().get(str(path.resolve())) == fingerprint


def trust(path: Path, fingerprint: str) -> None:
    """Records that the user trusts the content of this fingerprint at this place, and no other there."""
    with _changing():
        _write({**_trusted(), str(path.resolve()): fingerprint})


def distrust(path: Path) -> None:
    """Records that the user no longer trusts what lies there, if they did."""
    place = str(path.resolve())
    with _changing():
        _write({key: value for key, value in _trusted().items() if key != place})


def _changing() -> AbstractContextManager[None]:
    """One process at a time, so that none writes over what another has added."""
    return scratch.locked(files.private_folder(config_folder()))


def _trusted() -> dict[str, str]:
    """Fingerprints by place."""
    store = config_folder() / STORE
    try:
        return msgspec.json.decode(files.content(store), type=dict[str, str])
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.MsgspecError) as e:
        raise EdgeportError(f"{store} tells what you trust and cannot be read ({e}); remove it, and trust anew") from e


def _write(trusted: dict[str, str]) -> None:
    text = msgspec.json.format(msgspec.json.encode(trusted, order="sorted"), indent=1).decode()
    files.write_text(config_folder() / STORE, f"{text}\n", private=True)
