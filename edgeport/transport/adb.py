from pathlib import Path
from edgeport import files
KIT_PYTHON, KIT_SUMS = "bin/python3", "SHA256SUMS"
def default_kit() -> Path:
    return files.cache_folder("kit") / "android-arm64.tar"
