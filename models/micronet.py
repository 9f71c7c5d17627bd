"""MicroNet (Li et al., ICCV 2021, arXiv 2108.05894), M0 to M3, with the tables of the official code.

Micro-factorised convolutions: a pointwise W = P Phi Q^T is two group convolutions with a shuffle between them, a
depthwise k x k is k x 1 then 1 x k. Their activation is Dynamic Shift-Max, which joins what the groups keep apart.
"""

from collections import OrderedDict
from collections.abc import Mapping
from functools import reduce
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from edgeport.records import Preprocessing, Variant

PAPER = "MicroNet, arXiv 2108.05894"
INPUT_SHAPE = (3, 224, 224)
PREPROCESSING = Preprocessing()
VARIANTS = tuple(Variant({"variant": name}) for name in ("M0", "M1", "M2", "M3"))

J = 2  # terms of each sum of Dynamic Shift-Max: a channel and the one that lies C/G further
COEFFICIENT_RANGE = 4.0  # width of the interval that its coefficients move in, their initial value in the middle
REDUCTION = 8


class Row(NamedTuple):
    """A block, in the letters of the official tables."""

    s: int  # stride
    c: int  # output channels
    k: int  # kernel of the depthwise convolution
    c1: int  # expansion by k x 1
    c2: int  # expansion by 1 x k, or, where g1 > 0, by the first group convolution
    g1: int  # groups of the first group convolution; 0: there is none
    g2: int  # groups that the expanded channels are shuffled and shifted by
    g3: int  # groups of the last group convolution; 0: there is none
    g4: int  # groups that the output channels are shuffled and shifted by
    r: int  # reduction of the squeeze, in units of 8


class Settings(NamedTuple):
    """stem: outputs of 3 x 1, then how many 1 x 3 makes of each. a, b: initial coefficients, one each of K = 2.

    activations: K after the expansion, the depthwise and the output; 0 is none (ReLU6 for the first two). first: those
    of the first row.
    """

    rows: tuple[Row, ...]
    stem: tuple[int, int]
    hidden: int
    dropout: float
    activations: tuple[int, int, int] = (2, 2, 1)
    first: tuple[int, int, int] = (2, 0, 1)
    a: tuple[float, float] = (1.0, 1.0)
    b: tuple[float, float] = (0.0, 0.0)


SETTINGS = {
    "M0": Settings(
        rows=(
            Row(2, 8, 3, 2, 2, 0, 4, 2, 2, 1),
            Row(2, 12, 3, 2, 2, 0, 8, 4, 4, 1),
            Row(2, 16, 5, 2, 2, 0, 12, 4, 4, 1),
            Row(1, 32, 5, 1, 4, 4, 4, 4, 4, 1),
            Row(2, 64, 5, 1, 4, 8, 8, 8, 8, 1),
            Row(1, 96, 3, 1, 4, 8, 8, 8, 8, 2),
            Row(1, 384, 3, 1, 4, 12, 12, 0, 0, 2),
        ),
        stem=(2, 2),
        hidden=640,
        dropout=0.05,
    ),
    "M1": Settings(
        rows=(
            Row(2, 8, 3, 2, 2, 0, 6, 2, 2, 1),
            Row(2, 16, 3, 2, 2, 0, 8, 4, 4, 1),
            Row(2, 16, 5, 2, 2, 0, 16, 4, 4, 1),
            Row(1, 32, 5, 1, 6, 4, 4, 4, 4, 1),
            Row(2, 64, 5, 1, 6, 8, 8, 8, 8, 1),
            Row(1, 96, 3, 1, 6, 8, 8, 8, 8, 2),
            Row(1, 576, 3, 1, 6, 12, 12, 0, 0, 2),
        ),
        stem=(3, 2),
        hidden=960,
        dropout=0.05,
    ),
    "M2": Settings(
        rows=(
            Row(2, 12, 3, 2, 2, 0, 8, 4, 4, 1),
            Row(2, 16, 3, 2, 2, 0, 12, 4, 4, 1),
            Row(1, 24, 3, 2, 2, 0, 16, 4, 4, 1),
            Row(2, 32, 5, 1, 6, 6, 6, 4, 4, 1),
            Row(1, 32, 5, 1, 6, 8, 8, 4, 4, 2),
            Row(1, 64, 5, 1, 6, 8, 8, 8, 8, 2),
            Row(2, 96, 5, 1, 6, 8, 8, 8, 8, 2),
            Row(1, 128, 3, 1, 6, 12, 12, 8, 8, 2),
            Row(1, 768, 3, 1, 6, 16, 16, 0, 0, 2),
        ),
        stem=(4, 2),
        hidden=1024,
        dropout=0.1,
    ),
    "M3": Settings(
        rows=(
            Row(2, 16, 3, 2, 2, 0, 12, 4, 4, 1),
            Row(2, 24, 3, 2, 2, 0, 16, 4, 4, 1),
            Row(1, 24, 3, 2, 2, 0, 24, 4, 4, 1),
            Row(2, 32, 5, 1, 6, 6, 6, 4, 4, 1),
            Row(1, 32, 5, 1, 6, 8, 8, 4, 4, 2),
            Row(1, 64, 5, 1, 6, 8, 8, 8, 8, 2),
            Row(1, 80, 5, 1, 6, 8, 8, 8, 8, 2),
            Row(1, 80, 5, 1, 6, 10, 10, 8, 8, 2),
            Row(2, 120, 5, 1, 6, 10, 10, 10, 10, 2),
            Row(1, 120, 5, 1, 6, 12, 12, 10, 10, 2),
            Row(1, 144, 3, 1, 6, 12, 12, 12, 12, 2),
            Row(1, 864, 3, 1, 6, 12, 12, 0, 0, 2),
        ),
        stem=(4, 3),
        hidden=1024,
        dropout=0.1,
        activations=(0, 2, 0),
        first=(0, 2, 0),
        a=(1.0, 0.5),
        b=(0.0, 0.5),
    ),
}


def make_divisible(channels: int, divisor: int) -> int:
    """The nearest multiple of the divisor that is not more than 10% below, at least the divisor itself."""
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded


def rotated(x: Tensor, dim: int, by: int) -> Tensor:
    """The entry that lies `by` places further along dim, in a circle."""
    head, tail = torch.split(x, [by, x.shape[dim] - by], dim)
    return torch.cat((tail, head), dim)


class GroupShuffle(nn.Module):
    """Phi: interleaves the channels of `groups` equal groups. Input and output (N, C, H, W)."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        return x.view(n, self.groups, c // self.groups, h, w).transpose(1, 2).reshape(n, c, h, w)


class DynamicShiftMax(nn.Module):
    """y_i = max over k < K of the sum over j < J of a^k_ij(x) x_{(i + j C/G) mod C}.

    The coefficients a^k_ij come from the means of x's channels through two linear layers and a hard sigmoid, which
    moves them by up to 2 around their initial values. rotate: x_{i + C/G} is taken one place further inside its group,
    as the official code does and the paper's formula does not. Input and output (N, C, H, W).
    """

    lowest: Tensor

    def __init__(
        self,
        channels: int,
        groups: int,
        squeezed: int,
        initial: tuple[tuple[float, ...], ...],  # K tuples of J values
        rotate: bool,
    ) -> None:
        super().__init__()
        self.groups, self.rotate, self.K = groups, rotate, len(initial)
        outputs = channels * self.K * J
        self.linear1 = nn.Linear(channels, squeezed)
        self.linear2 = nn.Linear(squeezed, outputs)
        lowest = torch.tensor(initial).flatten().repeat_interleave(channels) - COEFFICIENT_RANGE / 2
        self.register_buffer("lowest", lowest, persistent=False)

    def coefficients(self, x: Tensor) -> list[tuple[Tensor, ...]]:
        """K tuples of J tensors (N, C, 1, 1)."""
        squeezed = torch.relu(self.linear1(x.mean((2, 3))))
        gate = nn.functional.hardsigmoid(self.linear2(squeezed))
        values = (gate * COEFFICIENT_RANGE + self.lowest).view(len(x), -1, 1, 1).chunk(self.K * J, dim=1)
        return [values[k * J : (k + 1) * J] for k in range(self.K)]

    def shifted(self, x: Tensor) -> Tensor:
        """x_{(i + C/G) mod C}, in place of x_i."""
        n, c, h, w = x.shape
        x = rotated(x, 1, c // self.groups)
        if self.rotate:
            x = rotated(x.view(n, self.groups, c // self.groups, h, w), 2, 1).reshape(n, c, h, w)
        return x

    def forward(self, x: Tensor) -> Tensor:
        further = self.shifted(x)
        sums = [x * a0 + further * a1 for a0, a1 in self.coefficients(x)]
        return reduce(torch.maximum, sums)


def group_conv(inp: int, out: int, groups: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inp, out, 1, groups=groups, bias=False), nn.BatchNorm2d(out))


def separable_conv(inp: int, c1: int, c2: int, kernel: int, stride: int, dense: bool = False) -> nn.Sequential:
    """k x 1 from inp to c1 channels, dense or by channel, then 1 x k by channel to c2; nothing rectifies in between."""
    pad = kernel // 2
    return nn.Sequential(
        nn.Conv2d(inp, c1, (kernel, 1), (stride, 1), (pad, 0), groups=1 if dense else inp, bias=False),
        nn.BatchNorm2d(c1),
        nn.Conv2d(c1, c2, (1, kernel), (1, stride), (0, pad), groups=c1, bias=False),
        nn.BatchNorm2d(c2),
    )


class Activations(NamedTuple):
    """What follows a block's expansion (0), its depthwise (1) and its output (2); k, a and b as in Settings."""

    k: tuple[int, int, int]
    a: tuple[float, float]
    b: tuple[float, float]
    rotate: bool

    def layer(self, place: int, channels: int, groups: int, reduction: int) -> nn.Module:
        if self.k[place] == 0:
            return nn.Identity() if place == 2 else nn.ReLU6(inplace=True)
        initial = tuple(zip(self.a, self.b, strict=True))[: self.k[place]]
        return DynamicShiftMax(channels, groups, make_divisible(channels // reduction, 4), initial, self.rotate)


def shuffle(groups: int, k: int) -> nn.Module:
    """The official code shuffles again, by pairs, after a Shift-Max: that is one shuffle with half as many groups."""
    groups = groups // 2 if k else groups
    return GroupShuffle(groups) if groups > 1 else nn.Identity()


def lite_layers(inp: int, row: Row, act: Activations) -> dict[str, nn.Module]:
    """A row with g1 = 0: the depthwise expands, one group convolution reduces."""
    hidden = inp * row.c1 * row.c2
    return {
        "depthwise": separable_conv(inp, inp * row.c1, hidden, row.k, row.s),
        "activation2": act.layer(1, hidden, row.g2, REDUCTION * row.r),
        "shuffle2": shuffle(row.g2, act.k[1]),
        "pointwise": group_conv(hidden, row.c, row.g3),
        "activation3": act.layer(2, row.c, row.g4, REDUCTION * row.r // 2),
        "shuffle3": shuffle(row.g4, act.k[2]),
    }


def full_layers(inp: int, row: Row, act: Activations) -> dict[str, nn.Module]:
    """Group convolution, depthwise, group convolution: all of them factorised."""
    hidden = inp * row.c2
    reduction = REDUCTION * row.r
    # As in the official code: quarters after two Shift-Max, halves after one, as it is after none.
    parts = 2 * sum(k > 0 for k in act.k[:2])
    return {
        "expand": group_conv(inp, hidden, row.g1),
        "activation1": act.layer(0, hidden, row.g2, reduction),
        "shuffle1": GroupShuffle(row.g2),
        "depthwise": separable_conv(hidden, hidden, hidden, row.k, row.s),
        "activation2": act.layer(1, hidden, hidden // row.g2, reduction),
        "shuffle2": GroupShuffle(hidden // parts) if parts else nn.Identity(),
        "pointwise": group_conv(hidden, row.c, row.g3),
        "activation3": act.layer(2, row.c, row.g4, reduction // 2 if row.c < hidden else reduction),
        "shuffle3": shuffle(row.g4, act.k[2]),
    }


def last_layers(inp: int, row: Row, act: Activations) -> dict[str, nn.Module]:
    """A row with g3 = 0: a group convolution alone."""
    return {
        "expand": group_conv(inp, row.c, row.g1),
        "activation3": act.layer(2, row.c, row.g2, REDUCTION * row.r),
    }


class MicroBlock(nn.Sequential):
    """One row of the tables; shortcut when shapes agree."""

    def __init__(self, inp: int, row: Row, act: Activations) -> None:
        layers = lite_layers if row.g1 == 0 else full_layers if row.g3 else last_layers
        super().__init__(OrderedDict(layers(inp, row, act)))
        self.shortcut = row.s == 1 and inp == row.c

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for layer in self:
            y = layer(y)
        return x + y if self.shortcut else y


class MicroNet(nn.Module):
    """Input (N, 3, H, W), H and W at least 32; output (N, num_classes) logits, through an h-swish of their own."""

    def __init__(self, settings: Settings, num_classes: int, rotate: bool) -> None:
        super().__init__()
        c1, inp = settings.stem[0], settings.stem[0] * settings.stem[1]
        self.stem = nn.Sequential(
            separable_conv(3, c1, inp, kernel=3, stride=2, dense=True), nn.ReLU6(inplace=True), GroupShuffle(c1)
        )
        blocks: list[nn.Module] = []
        for row in settings.rows:
            k = settings.activations if blocks else settings.first
            blocks.append(MicroBlock(inp, row, Activations(k, settings.a, settings.b, rotate)))
            inp = row.c
        self.features = nn.Sequential(*blocks)
        self.classifier = nn.Sequential(
            *linear_bn_hswish(inp, settings.hidden),
            nn.Dropout(settings.dropout),
            *linear_bn_hswish(settings.hidden, num_classes),
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):  # keeps the signal's size; few of the layers are rectified
                nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
            elif isinstance(module, DynamicShiftMax):  # so that coefficients start near their initial values
                nn.init.normal_(module.linear2.weight, std=0.1)
                nn.init.normal_(module.linear2.bias, std=0.1)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.relu6(self.features(self.stem(x)))
        x = nn.functional.hardswish(x.mean((2, 3)))
        return self.classifier(x)  # type: ignore[no-any-return]


def linear_bn_hswish(inp: int, out: int) -> list[nn.Module]:
    return [nn.Linear(inp, out), nn.BatchNorm1d(out), nn.Hardswish()]


def build(variant: Literal["M0", "M1", "M2", "M3"] = "M1", num_classes: int = 1000, rotate: bool = True) -> nn.Module:
    """rotate: take the shifted channel one place further inside its group, as the official networks do."""
    if variant not in SETTINGS:
        raise ValueError(f"variant is {variant!r}; the paper has {', '.join(SETTINGS)}")
    return MicroNet(SETTINGS[variant], num_classes, rotate)


def recognise(shapes: Mapping[str, tuple[int, ...]]) -> tuple[str, dict[str, Any]]:
    """By the stem, whose outputs are another number in each variant. Turning leaves no trace in weights."""
    variants = {settings.stem[0] * settings.stem[1]: name for name, settings in SETTINGS.items()}
    variant, classes = variants[shapes["stem.0.2.weight"][0]], shapes["classifier.4.weight"][0]
    return "edgeport's MicroNet", {"variant": variant, "num_classes": classes}
