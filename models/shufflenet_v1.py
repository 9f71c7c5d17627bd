"""ShuffleNet (Zhang et al., CVPR 2018, arXiv 1707.01083), Table 1, with megvii's parameter names, so that its weights
load.

Two things are as in megvii's code and not as in Fig. 2: the shuffle comes after the depthwise convolution, which is the
same network with that layer's weights in another order, and it deals the channels out to the groups, which undoes what
the paper's shuffle does. Both hand each group of the second convolution channels of every group of the first.

Megvii's weights, the only ones in this layout, expect BGR of 0 to 255, not normalised: PREPROCESSING below.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from edgeport.records import Preprocessing, Variant

PAPER = "ShuffleNet, arXiv 1707.01083"
INPUT_SHAPE = (3, 224, 224)
PREPROCESSING = Preprocessing(colors="BGR", scale=1.0, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
VARIANTS = tuple(
    Variant({"groups": groups, "width": width})
    for groups in (1, 2, 3, 4, 8)
    for width in {3: (0.25, 0.5, 1.0, 1.5, 2.0), 8: (0.5, 1.0, 1.5, 2.0)}.get(groups, (1.0,))
)

UNITS = (4, 8, 4)
# Table 1: output channels of stage 2 by number of groups; each further stage has twice as many.
CHANNELS = {1: 144, 2: 200, 3: 240, 4: 272, 8: 384}
# The official stems, which do not scale as the stages do. 0.25's is unpublished; 0.5's gives the paper's 13M MAdds.
STEM_CHANNELS = {0.25: 12, 0.5: 12, 1.0: 24, 1.5: 24, 2.0: 48}
STEM_CHANNELS_OF_8_GROUPS = {**STEM_CHANNELS, 0.25: 16, 0.5: 16}


def conv_bn(inp: int, out: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    conv = nn.Conv2d(inp, out, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(out)]


def bottleneck(out: int, groups: int) -> int:
    """A quarter of the unit's output, also where the stride is 2.

    Rounded up to a multiple of the groups, which changes nothing in the official variants.
    """
    return -(-out // (4 * groups)) * groups


def channel_shuffle(x: Tensor, groups: int) -> Tensor:
    """Deals the channels out to the groups in turn: group i gets channels i, i + groups, ... x: (N, C, H, W)."""
    n, c, h, w = x.shape
    return x.view(n, c // groups, groups, h, w).transpose(1, 2).reshape(n, c, h, w)


class ShuffleUnit(nn.Module):
    """The unit of Fig. 2: (b) for stride 1; (c), whose shortcut is an average pool and joined by concat, for stride 2.

    Nothing rectifies what the depthwise convolution makes, and only the first pointwise group convolution is shuffled.
    """

    def __init__(self, inp: int, out: int, stride: int, groups: int, first_groups: int) -> None:
        super().__init__()
        inner = bottleneck(out, groups)
        self.stride, self.groups = stride, groups
        self.branch_main_1 = nn.Sequential(
            *conv_bn(inp, inner, 1, groups=first_groups),
            nn.ReLU(inplace=True),
            *conv_bn(inner, inner, 3, stride, groups=inner),
        )
        self.branch_main_2 = nn.Sequential(*conv_bn(inner, out - inp if stride == 2 else out, 1, groups=groups))
        self.branch_proj = nn.AvgPool2d(3, stride=2, padding=1) if stride == 2 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.branch_main_1(x)
        if self.groups > 1:
            y = channel_shuffle(y, self.groups)
        y = self.branch_main_2(y)
        if self.stride == 1:
            return torch.relu(x + y)
        return torch.cat((self.branch_proj(x), torch.relu(y)), dim=1)  # the pool's input is rectified already


class ShuffleNetV1(nn.Module):
    """Input (N, 3, H, W), H and W at least 32; output (N, num_classes) logits."""

    def __init__(self, groups: int, width: float, num_classes: int) -> None:
        super().__init__()
        inp = (STEM_CHANNELS_OF_8_GROUPS if groups == 8 else STEM_CHANNELS)[width]
        self.first_conv = nn.Sequential(*conv_bn(3, inp, 3, stride=2), nn.ReLU(inplace=True))
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        units: list[nn.Module] = []
        for stage, repeats in enumerate(UNITS):
            out = int(CHANNELS[groups] * width) * 2**stage
            for i in range(repeats):
                # Table 1, note: the stem's channels are too few to group.
                first_groups = 1 if not units else groups
                units.append(ShuffleUnit(inp, out, 2 if i == 0 else 1, groups, first_groups))
                inp = out
        self.features = nn.Sequential(*units)
        self.classifier = nn.Sequential(nn.Linear(inp, num_classes, bias=False))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):  # keeps the signal's size from layer to layer (He et al., 2015)
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.first_conv(x))
        x = self.features(x).mean((2, 3))
        return self.classifier(x)  # type: ignore[no-any-return]


def build(groups: int = 3, width: float = 1.0, num_classes: int = 1000) -> nn.Module:
    """groups: 1, 2, 3, 4 or 8, the columns of Table 1. width: 0.25, 0.5, 1.0, 1.5 or 2.0, s of "ShuffleNet sx"."""
    if groups not in CHANNELS:
        raise ValueError(f"groups is {groups}; the paper has {', '.join(map(str, CHANNELS))}")
    if width not in STEM_CHANNELS:
        raise ValueError(f"width is {width}; there are {', '.join(map(str, STEM_CHANNELS))}")
    return ShuffleNetV1(groups, width, num_classes)


def recognise(shapes: Mapping[str, tuple[int, ...]]) -> tuple[str, dict[str, Any]]:
    """The groups are those of the second unit: its input's channels over what a weight of its first layer sums over."""
    channels = shapes["features.1.branch_main_2.0.weight"][0]
    groups = channels // shapes["features.1.branch_main_1.0.weight"][1]
    widths = {int(CHANNELS[groups] * width): width for width in STEM_CHANNELS}
    classes = shapes["classifier.0.weight"][0]
    return "megvii's ShuffleNet v1", {"groups": groups, "width": widths[channels], "num_classes": classes}
