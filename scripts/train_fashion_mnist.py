"""Trains the ShuffleNetV2 0.5x on Fashion-MNIST that scripts/check_int8.py measures int8 with.

    python scripts/train_fashion_mnist.py [--epochs 8] [--seed 0] [-o FILE.pth]

Writes a state dict (float32) that fits models/shufflenet_v2.py with width=0.5 and num_classes=10, and prints its
accuracy on the 10,000 test images. These choose no epoch: the last one's weights are what is written. The data set
comes from a package, its hashes checked (scripts/fetch_assets.py).

The recipe: cross entropy; SGD with Nesterov's momentum; the learning rate in one cycle (Smith and Topin 2017, arXiv
1708.07120); half of the images mirrored. All of it runs on one thread from one seed, so that the same PyTorch on the
same processor writes the same weights. An epoch takes two to three minutes.
"""

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from edgeport.models import shufflenet_v2  # type: ignore[import-not-found]
from fetch_assets import fetch
from numpy.typing import NDArray
from torch import Tensor, nn

CHECKPOINT = Path(__file__).parents[1] / "tests" / "data" / "fashion_mnist" / "shufflenet_v2_x0.5.pth"
WIDTH, CLASSES, SIZE = 0.5, 10, 64
MEAN, STD = 0.286, 0.353  # of the training images' pixels, which are 0 to 1
BATCH, PEAK_RATE, MOMENTUM, WEIGHT_DECAY = 128, 0.15, 0.9, 5e-4
STEPS_A_LINE = 100


class Labelled(NamedTuple):
    """images: (N, 28, 28), grey, 0 the background. labels: (N,), 0 to 9."""

    images: NDArray[np.uint8]
    labels: NDArray[np.uint8]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path, default=CHECKPOINT)
    args = parser.parse_args()
    torch.set_num_threads(1)  # several threads add up in another order, and so to other weights
    network = train(load("train"), args.epochs, args.seed)
    right = count_right(network, load("t10k"))
    args.output.parent.mkdir(parents=True, exist_ok=True)
    torch.save(network.state_dict(), args.output)
    print(f"{args.output}: {right} of 10000 test images named rightly")
    return 0


def load(part: str) -> Labelled:
    """part: "train" (60,000 images) or "t10k" (10,000). Downloads the data set unless it is cached."""
    paths = fetch(["fashion_mnist"])
    images, labels = (paths[f"fashion_mnist/{part}-{kind}-ubyte"] for kind in ("images-idx3", "labels-idx1"))
    return Labelled(read_idx(images), read_idx(labels))


def read_idx(path: Path) -> NDArray[np.uint8]:
    """A file of bytes in MNIST's format: the number of axes in byte 3, then each one's size in four bytes."""
    data = path.read_bytes()
    shape = np.frombuffer(data, ">u4", count=data[3], offset=4)
    return np.frombuffer(data, np.uint8, offset=4 + shape.nbytes).reshape(shape)


def prepare(images: NDArray[np.uint8]) -> Tensor:
    """(N, 28, 28) -> (N, 3, 64, 64), what the network takes: enlarged, normalised, grey in all three channels."""
    grey = torch.tensor(images).unsqueeze(1) / 255
    enlarged = nn.functional.interpolate(grey, size=(SIZE, SIZE), mode="bilinear")
    return ((enlarged - MEAN) / STD).expand(-1, 3, -1, -1)


def train(data: Labelled, epochs: int, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    network: nn.Module = shufflenet_v2.build(width=WIDTH, num_classes=CLASSES)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # a third less time on a CPU
    steps = epochs * (len(data.labels) // BATCH)
    optimizer = torch.optim.SGD(
        network.parameters(), PEAK_RATE, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY, nesterov=True
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE, total_steps=steps)
    network.train()
    start, losses = time.monotonic(), []
    for step, chosen in enumerate(batches(len(data.labels), epochs), start=1):
        images, labels = prepare(data.images[chosen]), torch.tensor(data.labels[chosen]).long()
        loss = nn.functional.cross_entropy(network(mirrored(images)), labels)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        if step % STEPS_A_LINE == 0 or step == steps:
            recent = np.mean(losses[-STEPS_A_LINE:])
            print(f"step {step} of {steps}, loss {recent:.3f}, {time.monotonic() - start:.0f} s", flush=True)
    network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    return network


def batches(count: int, epochs: int) -> Iterator[NDArray[np.int64]]:
    """Indices of the images of each step; every epoch in a new order, without the last few that fill no batch."""
    for _ in range(epochs):
        yield from torch.randperm(count)[: count // BATCH * BATCH].view(-1, BATCH).numpy()


def mirrored(images: Tensor) -> Tensor:
    """Half of the images, chosen at random, with left and right exchanged."""
    chosen = torch.rand(len(images), 1, 1, 1) < 0.5
    return torch.where(chosen, images.flip(3), images)


def count_right(network: nn.Module, data: Labelled) -> int:
    network.eval()
    with torch.inference_mode():
        found = [network(prepare(images)).argmax(1) for images in np.array_split(data.images, 100)]
    return int((torch.cat(found).numpy() == data.labels).sum())


if __name__ == "__main__":
    sys.exit(main())
