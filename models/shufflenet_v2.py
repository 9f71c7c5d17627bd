"""ShuffleNetV2 (Ma et al., ECCV 2018, arXiv 1807.11164), Table 5, in the two structures whose weights are published.

torchvision: both branches of a unit that opens a stage end in half of the stage's channels; units end with the shuffle;
the classifier has a bias. official (megvii's code): the shortcut branch of such a unit keeps its input's channels and
the main branch makes the rest; units of stride 1 begin with the shuffle; no bias. The weights do not fit each other.

PREPROCESSING is torchvision's. Megvii's weights expect BGR of 0 to 255, not normalised; the official network says so in
its own PREPROCESSING.
"""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from edgeport.records import Preprocessing, Variant

PAPER = "ShuffleNetV2, arXiv 1807.11164"
INPUT_SHAPE = (3, 224, 224)
PREPROCESSING = Preprocessing()
VARIANTS = tuple(
    Variant({"variant": variant, "width": width})
    for variant in ("torchvision", "official")
    for width in (0.5, 1.0, 1.5, 2.0)
)

UNITS = (4, 8, 4)
STEM_CHANNELS = 24
# Table 5: output channels of stages 2, 3 and 4, and of Conv5.
CHANNELS = {
    0.5: (48, 96, 192, 1024),
    1.0: (116, 232, 464, 1024),
    1.5: (176, 352, 704, 1024),
    2.0: (244, 488, 976, 2048),
}


def conv1x1(inp: int, out: int) -> list[nn.Module]:
    return [nn.Conv2d(inp, out, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU(inplace=True)]


def depthwise3x3(channels: int, stride: int) -> list[nn.Module]:
    conv = nn.Conv2d(channels, channels, 3, stride, padding=1, groups=channels, bias=False)
    return [conv, nn.BatchNorm2d(channels)]


def stem() -> nn.Sequential:
    conv = nn.Conv2d(3, STEM_CHANNELS, 3, stride=2, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(STEM_CHANNELS), nn.ReLU(inplace=True))


def initialize(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.Conv2d):  # keeps the signal's size from layer to layer (He et al., 2015)
            nn.init.kaiming_normal_(module.weight)


def channel_shuffle(x: Tensor, groups: int) -> Tensor:
    """Interleaves the channels of `groups` equal groups. x: (N, C, H, W), C divisible by groups."""
    n, c, h, w = x.shape
    return x.view(n, groups, c // groups, h, w).transpose(1, 2).reshape(n, c, h, w)


class InvertedResidual(nn.Module):
    """The unit of Fig. 3: (c) for stride 1, where half of the channels pass untouched; (d) for stride 2."""

    def __init__(self, inp: int, out: int, stride: int) -> None:
        super().__init__()
        branch = out // 2
        self.stride = stride
        self.branch1 = nn.Sequential()
        if stride == 2:
            self.branch1 = nn.Sequential(*depthwise3x3(inp, stride), *conv1x1(inp, branch))
        self.branch2 = nn.Sequential(
            *conv1x1(inp if stride == 2 else branch, branch),
            *depthwise3x3(branch, stride),
            *conv1x1(branch, branch),
        )

    def forward(self, x: Tensor) -> Tensor:
        if self.stride == 1:
            passed, processed = x.chunk(2, dim=1)
            x = torch.cat((passed, self.branch2(processed)), dim=1)
        else:
            x = torch.cat((self.branch1(x), self.branch2(x)), dim=1)
        return channel_shuffle(x, 2)


def stage(inp: int, out: int, units: int) -> nn.Sequential:
    """One row of Table 5: a unit of stride 2, then units of stride 1."""
    rest = [InvertedResidual(out, out, stride=1) for _ in range(units - 1)]
    return nn.Sequential(InvertedResidual(inp, out, stride=2), *rest)


class ShuffleNetV2(nn.Module):
    """torchvision's. Input (N, 3, H, W), H and W at least 32; output (N, num_classes) logits."""

    def __init__(self, width: float, num_classes: int) -> None:
        super().__init__()
        *stages, last = CHANNELS[width]
        self.conv1 = stem()
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.stage2 = stage(STEM_CHANNELS, stages[0], UNITS[0])
        self.stage3 = stage(stages[0], stages[1], UNITS[1])
        self.stage4 = stage(stages[1], stages[2], UNITS[2])
        self.conv5 = nn.Sequential(*conv1x1(stages[2], last))
        self.fc = nn.Linear(last, num_classes)
        initialize(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.conv1(x))
        x = self.stage4(self.stage3(self.stage2(x)))
        x = self.conv5(x).mean((2, 3))
        return self.fc(x)  # type: ignore[no-any-return]


class OfficialUnit(nn.Module):
    """The same unit in megvii's code, which shuffles as it splits: even channels pass, odd ones are processed."""

    def __init__(self, inp: int, out: int, stride: int) -> None:
        super().__init__()
        passed = inp if stride == 2 else inp // 2
        inner = out // 2
        self.stride = stride
        self.branch_main = nn.Sequential(
            *conv1x1(inp if stride == 2 else inp // 2, inner),
            *depthwise3x3(inner, stride),
            *conv1x1(inner, out - passed),
        )
        self.branch_proj = nn.Sequential()
        if stride == 2:
            self.branch_proj = nn.Sequential(*depthwise3x3(inp, stride), *conv1x1(inp, passed))

    def forward(self, x: Tensor) -> Tensor:
        if self.stride == 1:
            passed, x = channel_shuffle(x, x.shape[1] // 2).chunk(2, dim=1)
        else:
            passed = self.branch_proj(x)
        return torch.cat((passed, self.branch_main(x)), dim=1)


class OfficialShuffleNetV2(nn.Module):
    """Megvii's. Input (N, 3, H, W), H and W at least 32; output (N, num_classes) logits."""

    PREPROCESSING = Preprocessing(colors="BGR", scale=1.0, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))

    def __init__(self, width: float, num_classes: int) -> None:
        super().__init__()
        *stages, last = CHANNELS[width]
        self.first_conv = stem()
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        units, inp = [], STEM_CHANNELS
        for out, repeats in zip(stages, UNITS, strict=True):
            units += [OfficialUnit(inp if i == 0 else out, out, 2 if i == 0 else 1) for i in range(repeats)]
            inp = out
        self.features = nn.Sequential(*units)
        self.conv_last = nn.Sequential(*conv1x1(inp, last))
        self.classifier = nn.Sequential(nn.Linear(last, num_classes, bias=False))
        initialize(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(self.maxpool(self.first_conv(x)))
        x = self.conv_last(x).mean((2, 3))
        return self.classifier(x)  # type: ignore[no-any-return]


def build(
    width: float = 1.0, num_classes: int = 1000, variant: Literal["torchvision", "official"] = "torchvision"
) -> nn.Module:
    """width: 0.5, 1.0, 1.5 or 2.0, the columns of Table 5. variant: whose structure, and so whose weights fit."""
    if width not in CHANNELS:
        raise ValueError(f"width is {width}; the paper has {', '.join(map(str, CHANNELS))}")
    if variant not in ("torchvision", "official"):
        raise ValueError(f"variant is {variant!r}; there are 'torchvision' and 'official'")
    return (OfficialShuffleNetV2 if variant == "official" else ShuffleNetV2)(width, num_classes)


def recognise(shapes: Mapping[str, tuple[int, ...]]) -> tuple[str, dict[str, Any]]:
    """Whose ShuffleNetV2 has tensors of these names and shapes, by what the last layers take and make."""
    megvii = "conv_last.0.weight" in shapes
    last, classifier = ("conv_last.0", "classifier.0") if megvii else ("conv5.0", "fc")
    widths = {stages[2]: width for width, stages in CHANNELS.items()}
    variant, width = "official" if megvii else "torchvision", widths[shapes[f"{last}.weight"][1]]
    arguments = {"variant": variant, "width": width, "num_classes": shapes[f"{classifier}.weight"][0]}
    return f"{'megvii' if megvii else 'torchvision'}'s ShuffleNetV2", arguments
