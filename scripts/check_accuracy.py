"""Exports MobileNetV2 with its ImageNet weights and counts the photos that each file names rightly.

    python scripts/check_accuracy.py [--folder DIR]

Weights and the 20 labelled photos come from packages, their hashes checked (scripts/fetch_assets.py). Exit code 0 if
the fp32 files name at least 18 of the 20 and the int8 files lose at most one photo against them, 1 otherwise.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from fetch_assets import fetch
from PIL import Image

from edgeport.export.calibrate import preprocess
from edgeport.export.manifest import read_manifest
from edgeport.export.verify import run_artifact
from edgeport.records import Preprocessing
from edgeport.runner import local_runner

LEAST_RIGHT, MOST_LOST = 18, 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="keep the export here")
    args = parser.parse_args()
    assets = fetch(["mobilenet_v2", "photos"])
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        weights = next(path for key, path in assets.items() if key.startswith("mobilenet_v2/"))
        command = [sys.executable, "-m", "edgeport.cli", "export", "mobilenet_v2", f"--weights={weights}", "-o", folder]
        subprocess.run(command, check=True)
        return judge(count_right(folder, [path for key, path in assets.items() if key.startswith("photos/")]))


def count_right(folder: Path, photos: list[Path]) -> dict[str, int]:
    """{file: photos whose class it names}; a photo's name ends in its class: imagenet_00_243.jpg."""
    manifest = read_manifest(folder)
    preprocessing = manifest.preprocessing or Preprocessing()
    labels = np.array([int(path.stem.rpartition("_")[2]) for path in photos])
    samples = np.stack([preprocess(Image.open(path), preprocessing, (224, 224))[None] for path in photos])
    right = {}
    for artifact in manifest.artifacts:
        scores = run_artifact(local_runner(), folder / artifact.file, [samples])[0]
        right[artifact.file] = int((scores.reshape(len(photos), -1).argmax(axis=1) == labels).sum())
        print(f"{artifact.file:<24} {right[artifact.file]} of {len(photos)} photos named rightly")
    return right


def judge(right: dict[str, int]) -> int:
    good = True
    for file, count in right.items():
        reference = right[file.replace(".int8.", ".fp32.")]
        good &= count >= (LEAST_RIGHT if ".fp32." in file else reference - MOST_LOST)
    wanted = f"fp32 at least {LEAST_RIGHT}, int8 at most {MOST_LOST} fewer"
    print("as it should be" if good else f"not as it should be: {wanted}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
