"""Measures what int8 costs a trained network, on labelled images that it was neither trained nor calibrated on.

    python scripts/check_int8.py [--folder DIR] [--weights FILE.pth] [--stock] [--format text|json]

Exports the ShuffleNetV2 0.5x of scripts/train_fashion_mnist.py with edgeport's command line, its int8 ranges taken from
256 training images of Fashion-MNIST, and runs all 10,000 test images through each file with edgeport's agent. Printed
of each file is the share of the images that it names rightly, and of an int8 file also the share to which it gives the
same class, right or wrong, as the fp32 file of the same runtime. JSON has the numbers of images.

--stock exports the same network, calibrated alike, with the tools of scripts/stock_export.py too (two minutes more) and
counts for their files, each against the fp32 file of its own maker. They have no part in the verdict.

Exit code 0 if each int8 file names at most 0.5% of the images fewer rightly than the fp32 file does and gives at least
99% the same class, 1 otherwise.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from train_fashion_mnist import CHECKPOINT, CLASSES, SIZE, WIDTH, load, prepare

from edgeport.export.calibrate import MOST_SAMPLES
from edgeport.export.manifest import read_manifest
from edgeport.export.verify import run_artifact
from edgeport.runner import local_runner

STOCK, STOCK_SCRIPT = "stock", Path(__file__).with_name("stock_export.py")
FP32_OF = re.compile(r"\.(int8|u8s8)\.")
MOST_LOST, LEAST_SAME = 0.005, 0.99
IMAGES_A_RUN = 2500  # 123 MB as float32


class Score(NamedTuple):
    """Numbers of images. same_class, lost: of an int8 file, against the fp32 file of the same runtime."""

    file: str
    images: int
    right: int
    same_class: int | None = None
    lost: int | None = None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="keep the export here")
    parser.add_argument("--weights", type=Path, default=CHECKPOINT)
    parser.add_argument("--stock", action="store_true", help="the stock tools' files beside edgeport's")
    parser.add_argument("--format", choices=("text", "json"), default="text")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="edgeport-") as temporary:
        folder = args.folder or Path(temporary, "export")
        options = network(args.weights, Path(temporary, "training_images.npz"))
        export(options, folder)
        files = [folder / a.file for a in read_manifest(folder).artifacts]
        if args.stock:
            files += export_with_stock_tools(options, Path(temporary, "stock"))
        test = load("t10k")
        classes = named(files, test.images)
    scores = [score(file, classes, test.labels) for file in classes]
    good = all(passes(s) for s in scores)
    print(as_json(scores, good) if args.format == "json" else as_text(scores, good))
    return 0 if good else 1


def network(weights: Path, calibration: Path) -> list[str]:
    """Options that say what to export. Writes the calibration samples to the file that is named; they are training
    images.
    """
    np.savez(calibration, x=prepare(load("train").images[:MOST_SAMPLES]).numpy())
    arguments = [f"--set=width={WIDTH}", f"--set=num_classes={CLASSES}", f"--input-shape=1,3,{SIZE},{SIZE}"]
    return [*arguments, f"--weights={weights}", f"--calibration-data={calibration}"]


def export(options: list[str], folder: Path) -> None:
    """All four files."""
    run("-m", "edgeport.cli", "export", "shufflenet_v2", "--quiet", *options, f"--output={folder}")


def export_with_stock_tools(options: list[str], folder: Path) -> list[Path]:
    for tool in ("litert-torch", "torch.onnx", "quantize-u8s8"):
        run(str(STOCK_SCRIPT), tool, "shufflenet_v2", str(folder), *options)
    made = {file: folder / file for file in ("fp32.onnx", "int8.onnx", "u8s8.onnx", "fp32.tflite", "int8.tflite")}
    return [path.rename(folder / f"{STOCK}.{file}") for file, path in made.items()]


def run(*words: str) -> None:
    # PyTorch's threads wait for each other at every small layer: four times as long where another process is at work
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, *words], check=True, stdout=sys.stderr, env=one_thread)


def named(artifacts: list[Path], images: NDArray[np.uint8]) -> dict[str, NDArray[np.intp]]:
    """{file: the class that it gives each image}. images: (N, 28, 28)."""
    found: dict[str, list[NDArray[np.intp]]] = {artifact.name: [] for artifact in artifacts}
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # the work is done by the agent, in processes of one thread each
        for start in range(0, len(images), IMAGES_A_RUN):
            samples = prepare(images[start : start + IMAGES_A_RUN]).numpy()[:, None]
            for file, classes in zip(found, pool.map(best, artifacts, repeat(samples)), strict=True):
                found[file].append(classes)
    return {file: np.concatenate(parts) for file, parts in found.items()}


def best(artifact: Path, samples: NDArray[np.float32]) -> NDArray[np.intp]:
    """samples: (N, 1, 3, 64, 64)."""
    scores = run_artifact(local_runner(), artifact, [samples])[0]
    classes: NDArray[np.intp] = scores.reshape(len(samples), CLASSES).argmax(axis=1)
    return classes


def score(file: str, classes: dict[str, NDArray[np.intp]], labels: NDArray[np.uint8]) -> Score:
    images, right = len(labels), count(classes[file] == labels)
    if ".fp32." in file:
        return Score(file, images, right)
    reference = classes[FP32_OF.sub(".fp32.", file)]
    return Score(file, images, right, count(classes[file] == reference), count(reference == labels) - right)


def count(which: NDArray[np.bool_]) -> int:
    return int(which.sum())


def passes(score: Score) -> bool:
    if score.same_class is None or score.lost is None or score.file.startswith(STOCK):
        return True
    return score.lost <= MOST_LOST * score.images and score.same_class >= LEAST_SAME * score.images


def as_json(scores: list[Score], good: bool) -> str:
    return json.dumps({"files": [s._asdict() for s in scores], "passed": good}, indent=2)


def as_text(scores: list[Score], good: bool) -> str:
    lines = []
    for s in scores:
        same = "" if s.same_class is None else f", {s.same_class / s.images:.2%} of the same class as fp32"
        lines.append(f"{s.file:<26} {s.right / s.images:.2%} named rightly{same}")
    wanted = f"int8 at most {MOST_LOST:.1%} below fp32, at least {LEAST_SAME:.0%} of the same class"
    return "\n".join([*lines, "as it should be" if good else f"not as it should be: {wanted}"])


if __name__ == "__main__":
    sys.exit(main())
