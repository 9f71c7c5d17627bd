"""Checkpoints as their authors wrote them, and what they compute, from descriptions of their code alone.

Nothing here comes from models/: names, shapes and the order of operators are what those networks are held against.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

State = dict[str, Tensor]

STAGES_OF_V2 = {
    0.5: (48, 96, 192, 1024),
    1.0: (116, 232, 464, 1024),
    1.5: (176, 352, 704, 1024),
    2.0: (244, 488, 976, 2048),
}
# (groups, width): stem, then channels of the stages. The official variants.
STAGES_OF_V1 = {
    (3, 0.5): (12, 120, 240, 480),
    (3, 1.0): (24, 240, 480, 960),
    (8, 0.5): (16, 192, 384, 768),
    (8, 1.0): (24, 384, 768, 1536),
}
UNITS = (4, 8, 4)


class Layout(NamedTuple):
    """A checkpoint, and the network's output for an input (N, 3, H, W)."""

    state: State
    forward: Callable[[Tensor], Tensor]


# Making state dicts


class Writer:
    """Fills a state dict with weights that keep a signal's size, and statistics that are not the initial ones."""

    def __init__(self) -> None:
        self.state: State = {}
        self.random = torch.Generator().manual_seed(0)

    def conv(self, prefix: str, place: str, out: int, inp: int, kernel: int, groups: int = 1) -> None:
        """A convolution, and its normalisation at the next place."""
        shape = (out, inp // groups, kernel, kernel)
        scale = (2 / (shape[1] * kernel**2)) ** 0.5
        self.state[f"{prefix}.{place}.weight"] = torch.randn(shape, generator=self.random) * scale
        head, dot, last = place.rpartition(".")
        norm = f"{prefix}.{head}{dot}{int(last) + 1}"
        for name, low, high in (("weight", 0.8, 1.2), ("bias", -0.1, 0.1)):
            self.state[f"{norm}.{name}"] = self._uniform(out, low, high)
        for name, low, high in (("running_mean", -0.1, 0.1), ("running_var", 0.8, 1.2)):
            self.state[f"{norm}.{name}"] = self._uniform(out, low, high)
        self.state[f"{norm}.num_batches_tracked"] = torch.tensor(1)

    def linear(self, prefix: str, out: int, inp: int, bias: bool) -> None:
        self.state[f"{prefix}.weight"] = torch.randn((out, inp), generator=self.random) * inp**-0.5
        if bias:
            self.state[f"{prefix}.bias"] = self._uniform(out, -0.1, 0.1)

    def _uniform(self, size: int, low: float, high: float) -> Tensor:
        return torch.rand(size, generator=self.random) * (high - low) + low


def units(stages: tuple[int, ...], inp: int) -> Iterator[tuple[int, int, int, int, int]]:
    """(stage from 2, unit in it, unit in all, input channels, output channels)."""
    number = 0
    for stage, out in enumerate(stages):
        for i in range(UNITS[stage]):
            yield stage + 2, i, number, inp, out
            inp, number = out, number + 1


# Reading them


class Reader:
    """Runs layers of a state dict."""

    def __init__(self, state: State) -> None:
        self.state = state

    def conv(self, x: Tensor, prefix: str, place: str, stride: int = 1, groups: int = 1, relu: bool = False) -> Tensor:
        weight = self.state[f"{prefix}.{place}.weight"]
        x = F.conv2d(x, weight, None, stride, weight.shape[-1] // 2, groups=groups)
        head, dot, last = place.rpartition(".")
        norm = f"{prefix}.{head}{dot}{int(last) + 1}"
        mean, var, scale, bias = (
            self.state[f"{norm}.{name}"] for name in ("running_mean", "running_var", "weight", "bias")
        )
        x = F.batch_norm(x, mean, var, scale, bias)
        return F.relu(x) if relu else x

    def depthwise(self, x: Tensor, prefix: str, place: str, stride: int) -> Tensor:
        return self.conv(x, prefix, place, stride, groups=x.shape[1])

    def linear(self, x: Tensor, prefix: str) -> Tensor:
        return F.linear(x.mean((2, 3)), self.state[f"{prefix}.weight"], self.state.get(f"{prefix}.bias"))


def pooled(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 3, 2, 1)


# ShuffleNetV2


def torchvision_v2(width: float, classes: int = 1000) -> Layout:
    """Both branches of an opening unit make half; units end with the shuffle; the classifier has a bias."""
    *stages, last = STAGES_OF_V2[width]
    write = Writer()
    write.conv("conv1", "0", 24, 3, 3)
    for stage, i, _, inp, out in units(tuple(stages), 24):
        half, unit = out // 2, f"stage{stage}.{i}"
        if i == 0:
            write.conv(f"{unit}.branch1", "0", inp, inp, 3, groups=inp)
            write.conv(f"{unit}.branch1", "2", half, inp, 1)
        write.conv(f"{unit}.branch2", "0", half, inp if i == 0 else half, 1)
        write.conv(f"{unit}.branch2", "3", half, half, 3, groups=half)
        write.conv(f"{unit}.branch2", "5", half, half, 1)
    write.conv("conv5", "0", last, stages[2], 1)
    write.linear("fc", classes, last, bias=True)

    def forward(x: Tensor) -> Tensor:
        read = Reader(write.state)
        x = pooled(read.conv(x, "conv1", "0", 2, relu=True))
        for stage, i, _, _, out in units(tuple(stages), 24):
            unit, stride = f"stage{stage}.{i}", 2 if i == 0 else 1
            passed, taken = (x, x) if i == 0 else (x[:, : out // 2], x[:, out // 2 :])
            if i == 0:
                passed = read.depthwise(passed, f"{unit}.branch1", "0", 2)
                passed = read.conv(passed, f"{unit}.branch1", "2", relu=True)
            taken = read.conv(taken, f"{unit}.branch2", "0", relu=True)
            taken = read.depthwise(taken, f"{unit}.branch2", "3", stride)
            taken = read.conv(taken, f"{unit}.branch2", "5", relu=True)
            x = torch.stack((passed, taken), dim=2).flatten(1, 2)  # in turn: one of either
        return read.linear(read.conv(x, "conv5", "0", relu=True), "fc")

    return Layout(write.state, forward)


def megvii_v2(width: float, classes: int = 1000) -> Layout:
    """The shortcut of an opening unit keeps its channels; other units pass even channels and process odd ones."""
    *stages, last = STAGES_OF_V2[width]
    write = Writer()
    write.conv("first_conv", "0", 24, 3, 3)
    for _, i, n, inp, out in units(tuple(stages), 24):
        half, unit = out // 2, f"features.{n}"
        write.conv(f"{unit}.branch_main", "0", half, inp if i == 0 else half, 1)
        write.conv(f"{unit}.branch_main", "3", half, half, 3, groups=half)
        write.conv(f"{unit}.branch_main", "5", out - inp if i == 0 else half, half, 1)
        if i == 0:
            write.conv(f"{unit}.branch_proj", "0", inp, inp, 3, groups=inp)
            write.conv(f"{unit}.branch_proj", "2", inp, inp, 1)
    write.conv("conv_last", "0", last, stages[2], 1)
    write.linear("classifier.0", classes, last, bias=False)

    def forward(x: Tensor) -> Tensor:
        read = Reader(write.state)
        x = pooled(read.conv(x, "first_conv", "0", 2, relu=True))
        for _, i, n, _, _ in units(tuple(stages), 24):
            unit, stride = f"features.{n}", 2 if i == 0 else 1
            passed, taken = (x, x) if i == 0 else (x[:, 0::2], x[:, 1::2])
            if i == 0:
                passed = read.depthwise(passed, f"{unit}.branch_proj", "0", 2)
                passed = read.conv(passed, f"{unit}.branch_proj", "2", relu=True)
            taken = read.conv(taken, f"{unit}.branch_main", "0", relu=True)
            taken = read.depthwise(taken, f"{unit}.branch_main", "3", stride)
            x = torch.cat((passed, read.conv(taken, f"{unit}.branch_main", "5", relu=True)), dim=1)
        return read.linear(read.conv(x, "conv_last", "0", relu=True), "classifier.0")

    return Layout(write.state, forward)


# ShuffleNet v1


def megvii_v1(groups: int, width: float, classes: int = 1000) -> Layout:
    """The shuffle follows the depthwise; an opening unit rectifies its main branch alone, and pools its shortcut."""
    stem, *stages = STAGES_OF_V1[groups, width]
    write = Writer()
    write.conv("first_conv", "0", stem, 3, 3)
    for _, i, n, inp, out in units(tuple(stages), stem):
        inner, unit = out // 4, f"features.{n}"
        write.conv(f"{unit}.branch_main_1", "0", inner, inp, 1, groups=1 if n == 0 else groups)
        write.conv(f"{unit}.branch_main_1", "3", inner, inner, 3, groups=inner)
        write.conv(f"{unit}.branch_main_2", "0", out - inp if i == 0 else out, inner, 1, groups=groups)
    write.linear("classifier.0", classes, stages[2], bias=False)

    def forward(x: Tensor) -> Tensor:
        read = Reader(write.state)
        x = pooled(read.conv(x, "first_conv", "0", 2, relu=True))
        for _, i, n, _, _ in units(tuple(stages), stem):
            unit = f"features.{n}"
            y = read.conv(x, f"{unit}.branch_main_1", "0", groups=1 if n == 0 else groups, relu=True)
            y = read.depthwise(y, f"{unit}.branch_main_1", "3", 2 if i == 0 else 1)
            y = torch.cat([y[:, g::groups] for g in range(groups)], dim=1)
            y = read.conv(y, f"{unit}.branch_main_2", "0", groups=groups)
            x = torch.cat((F.avg_pool2d(x, 3, 2, 1), F.relu(y)), dim=1) if i == 0 else F.relu(x + y)
        return read.linear(x, "classifier.0")

    return Layout(write.state, forward)


# MobileNetV2

ROWS_OF_MOBILENET_V2 = (
    *((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2)),
    *((6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)),
)


def bottlenecks() -> Iterator[tuple[int, int, int, int, int]]:
    """(place among the features, expansion, input channels, output channels, stride), at width 1."""
    inp, place = 32, 1
    for expansion, out, repeats, stride in ROWS_OF_MOBILENET_V2:
        for i in range(repeats):
            yield place, expansion, inp, out, stride if i == 0 else 1
            inp, place = out, place + 1


def torchvision_mobilenet_v2(classes: int = 1000) -> Layout:
    write = Writer()
    write.conv("features.0", "0", 32, 3, 3)
    for place, expansion, inp, out, _ in bottlenecks():
        block, hidden, at = f"features.{place}.conv", inp * expansion, 0
        if expansion > 1:
            write.conv(block, "0.0", hidden, inp, 1)
            at = 1
        write.conv(block, f"{at}.0", hidden, hidden, 3, groups=hidden)
        write.conv(block, f"{at + 1}", out, hidden, 1)
    write.conv("features.18", "0", 1280, 320, 1)
    write.linear("classifier.1", classes, 1280, bias=True)

    def forward(x: Tensor) -> Tensor:
        read = Reader(write.state)
        x = F.relu6(read.conv(x, "features.0", "0", 2))
        for place, expansion, inp, out, stride in bottlenecks():
            block, at, y = f"features.{place}.conv", 0, x
            if expansion > 1:
                y = F.relu6(read.conv(y, block, "0.0"))
                at = 1
            y = read.conv(F.relu6(read.depthwise(y, block, f"{at}.0", stride)), block, f"{at + 1}")
            x = x + y if stride == 1 and inp == out else y
        return read.linear(F.relu6(read.conv(x, "features.18", "0")), "classifier.1")

    return Layout(write.state, forward)
