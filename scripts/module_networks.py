"""Networks whose operators are hard to trace to modules: lists of modules, skips, shared layers, fused activations.

SIZES has two sizes of each: one for tests, and one that is deployed.
"""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812


def _norm(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(outputs)]


def _settled(network: nn.Module) -> nn.Module:
    """With statistics in its batch normalisations, which would hardly change a number without."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.running_mean, module.bias):
                assert tensor is not None
                tensor.data.normal_(0, 0.3)
            for tensor in (module.running_var, module.weight):
                assert tensor is not None
                tensor.data.uniform_(0.6, 1.6)
    return network


# U-Net on an encoder of MobileNetV3


class _Squeeze(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc1, self.fc2 = nn.Conv2d(channels, channels // 4, 1), nn.Conv2d(channels // 4, channels, 1)
        self.act, self.gate = nn.ReLU(), nn.Hardsigmoid()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x * self.gate(self.fc2(self.act(self.fc1(self.pool(x)))))
        return y


class _Inverted(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, kernel: int, squeezes: bool) -> None:
        super().__init__()
        inner = 4 * inputs
        layers = [*_norm(inputs, inner, 1), nn.Hardswish(), *_norm(inner, inner, kernel, stride, inner), nn.Hardswish()]
        self.block = nn.Sequential(*layers, *([_Squeeze(inner)] if squeezes else []), *_norm(inner, outputs, 1))
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.block(x)
        return x + y if self.residual else y


class _Up(nn.Module):
    def __init__(self, inputs: int, skip: int, outputs: int) -> None:
        super().__init__()
        self.reduce = nn.Sequential(*_norm(inputs + skip, outputs), nn.ReLU(inplace=True))
        self.refine = nn.Sequential(*_norm(outputs, outputs), nn.ReLU(inplace=True))

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        grown = F.interpolate(x, scale_factor=2.0, mode="nearest")
        y: Tensor = self.refine(self.reduce(torch.cat([grown, skip], 1)))
        return y


class UNet(nn.Module):
    """Skips are joined by concat; the stages of the encoder are a ModuleList."""

    def __init__(self, width: int) -> None:
        super().__init__()
        widths = [width, width, 2 * width, 3 * width, 5 * width]
        self.stem = nn.Sequential(*_norm(3, width, 3, 2), nn.Hardswish())
        self.encoder = nn.ModuleList(
            nn.Sequential(_Inverted(i, o, 2, 5 if n % 2 else 3, n > 0), _Inverted(o, o, 1, 3, n > 1))
            for n, (i, o) in enumerate(itertools.pairwise(widths))
        )
        ups = list(zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.decoder = nn.ModuleList(_Up(i, o, o) for i, o in ups)
        self.head = nn.Conv2d(width, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        features = [self.stem(x)]
        for stage in self.encoder:
            features.append(stage(features[-1]))
        y = features.pop()
        for up in self.decoder:
            y = up(y, features.pop())
        return F.interpolate(self.head(y), scale_factor=2.0, mode="bilinear")


def unet(width: int = 8) -> nn.Module:
    return _settled(UNet(width))


# DenseNet


class _Dense(nn.Module):
    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(inputs), nn.Conv2d(inputs, 4 * growth, 1, bias=False)
        self.norm2, self.conv2 = nn.BatchNorm2d(4 * growth), nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        y = self.conv1(F.relu(self.norm1(torch.cat(list(features), 1))))
        made: Tensor = self.conv2(F.relu(self.norm2(y)))
        return made


class _DenseBlock(nn.ModuleDict):
    def __init__(self, layers: int, inputs: int, growth: int) -> None:
        super().__init__({f"denselayer{n + 1}": _Dense(inputs + n * growth, growth) for n in range(layers)})

    def forward(self, x: Tensor) -> Tensor:
        features = [x]
        for layer in self.values():
            features.append(layer(features))
        return torch.cat(features, 1)


def densenet(growth: int = 8, layers: int = 3) -> nn.Module:
    wide = 2 * growth + layers * growth
    transition = [nn.BatchNorm2d(wide), nn.ReLU(), nn.Conv2d(wide, 2 * growth, 1, bias=False), nn.AvgPool2d(2)]
    network = nn.Sequential(
        nn.Sequential(*_norm(3, 2 * growth, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)),
        _DenseBlock(layers, 2 * growth, growth),
        nn.Sequential(*transition),
        _DenseBlock(layers, 2 * growth, growth),
        nn.Sequential(nn.BatchNorm2d(wide), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(wide, 10)),
    )
    return _settled(network)


# OSNet


class _Light(nn.Sequential):
    """OSNet's lite convolution: 1x1, then depthwise 3x3."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = (
            nn.Conv2d(channels, channels, 1, bias=False),
            nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False),
        )
        self.bn, self.relu = nn.BatchNorm2d(channels), nn.ReLU(inplace=True)


class _Omni(nn.Module):
    """Four streams of growing depth, one gate that they all share."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        middle = outputs // 4
        self.conv1 = nn.Sequential(*_norm(inputs, middle, 1), nn.ReLU(inplace=True))
        self.streams = nn.ModuleList(nn.Sequential(*(_Light(middle) for _ in range(n + 1))) for n in range(4))
        self.gate = nn.Sequential(
            *(nn.AdaptiveAvgPool2d(1), nn.Conv2d(middle, max(middle // 4, 2), 1), nn.ReLU(inplace=True)),
            *(nn.Conv2d(max(middle // 4, 2), middle, 1), nn.Sigmoid()),
        )
        self.conv3 = nn.Sequential(*_norm(middle, outputs, 1))
        self.downsample = nn.Sequential(*_norm(inputs, outputs, 1)) if inputs != outputs else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(x)
        made = [stream(y) for stream in self.streams]
        y = self.conv3(sum(self.gate(m) * m for m in made))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


def osnet(width: int = 16) -> nn.Module:
    network = nn.Sequential(
        nn.Sequential(*_norm(3, width, 7, 2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)),
        *(_Omni(width, 2 * width), _Omni(2 * width, 2 * width)),
        nn.Sequential(*_norm(2 * width, 2 * width, 1), nn.ReLU(inplace=True), nn.AvgPool2d(2)),
        _Omni(2 * width, 3 * width),
        nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3 * width, 16)),
    )
    return _settled(network)


# YOLO


class _Conv(nn.Module):
    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__()
        self.conv, self.bn = _norm(inputs, outputs, kernel, stride)
        self.act = nn.SiLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.act(self.bn(self.conv(x)))
        return y


class _Bottleneck(nn.Module):
    def __init__(self, channels: int, adds: bool) -> None:
        super().__init__()
        self.cv1, self.cv2, self.adds = _Conv(channels, channels), _Conv(channels, channels), adds

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.cv2(self.cv1(x))
        return x + y if self.adds else y


class _C2f(nn.Module):
    def __init__(self, inputs: int, outputs: int, n: int, adds: bool = False) -> None:
        super().__init__()
        half = outputs // 2
        self.cv1, self.cv2 = _Conv(inputs, outputs, 1), _Conv((2 + n) * half, outputs, 1)
        self.m = nn.ModuleList(_Bottleneck(half, adds) for _ in range(n))

    def forward(self, x: Tensor) -> Tensor:
        y = list(self.cv1(x).chunk(2, 1))
        for m in self.m:
            y.append(m(y[-1]))
        made: Tensor = self.cv2(torch.cat(y, 1))
        return made


class _Sppf(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.cv1, self.cv2 = _Conv(channels, channels // 2, 1), _Conv(2 * channels, channels, 1)
        self.m = nn.MaxPool2d(5, 1, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = [self.cv1(x)]
        for _ in range(3):
            y.append(self.m(y[-1]))
        made: Tensor = self.cv2(torch.cat(y, 1))
        return made


class _Detect(nn.Module):
    """The head of YOLOv8: two lists of branches, and boxes from distributions."""

    def __init__(self, channels: Sequence[int], size: int, classes: int) -> None:
        super().__init__()
        box, cls = max(16, channels[0] // 4), max(channels[0], min(classes, 100))
        self.cv2 = nn.ModuleList(nn.Sequential(_Conv(c, box), _Conv(box, box), nn.Conv2d(box, 64, 1)) for c in channels)
        self.cv3 = nn.ModuleList(
            nn.Sequential(_Conv(c, cls), _Conv(cls, cls), nn.Conv2d(cls, classes, 1)) for c in channels
        )
        self.dfl = nn.Conv2d(16, 1, 1, bias=False)
        self.dfl.weight.data[:] = torch.arange(16.0).view(1, 16, 1, 1)
        grids, strides = [], []
        for stride in (8, 16, 32):
            line = torch.arange(size // stride) + 0.5
            y, x = torch.meshgrid(line, line, indexing="ij")
            grids.append(torch.stack((x, y)).flatten(1))
            strides.append(torch.full((1, len(line) ** 2), float(stride)))
        self.anchors, self.strides = nn.Buffer(torch.cat(grids, 1)), nn.Buffer(torch.cat(strides, 1))
        self.classes = classes

    def forward(self, features: list[Tensor]) -> tuple[Tensor, Tensor]:
        made = [torch.cat((b(f), c(f)), 1).flatten(2) for b, c, f in zip(self.cv2, self.cv3, features, strict=True)]
        box, scores = torch.split(torch.cat(made, 2), [64, self.classes], 1)
        n = box.shape[-1]
        left, right = self.dfl(box.view(1, 4, 16, n).transpose(2, 1).softmax(1)).view(1, 4, n).chunk(2, 1)
        corners = torch.cat((self.anchors - left, self.anchors + right), 1) * self.strides
        return corners, scores.sigmoid()


class Yolo(nn.Module):
    """As YOLOv8: one ModuleList whose members say where they take their inputs from."""

    def __init__(self, width: int, size: int, classes: int) -> None:
        super().__init__()
        w = width
        self.model = nn.ModuleList(
            [
                *(_Conv(3, w, 3, 2), _Conv(w, 2 * w, 3, 2), _C2f(2 * w, 2 * w, 1, True), _Conv(2 * w, 4 * w, 3, 2)),
                *(_C2f(4 * w, 4 * w, 2, True), _Conv(4 * w, 8 * w, 3, 2), _C2f(8 * w, 8 * w, 2, True)),
                *(_Conv(8 * w, 16 * w, 3, 2), _C2f(16 * w, 16 * w, 1, True), _Sppf(16 * w)),
                *(nn.Upsample(scale_factor=2, mode="nearest"), nn.Identity(), _C2f(24 * w, 8 * w, 1)),
                *(nn.Upsample(scale_factor=2, mode="nearest"), nn.Identity(), _C2f(12 * w, 4 * w, 1)),
                *(_Conv(4 * w, 4 * w, 3, 2), nn.Identity(), _C2f(12 * w, 8 * w, 1)),
                *(_Conv(8 * w, 8 * w, 3, 2), nn.Identity(), _C2f(24 * w, 16 * w, 1)),
                _Detect((4 * w, 8 * w, 16 * w), size, classes),
            ]
        )
        self.joins = {11: 6, 14: 4, 17: 12, 20: 9}

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        kept: list[Tensor] = []
        for n, layer in enumerate(self.model[:-1]):
            x = torch.cat([x, kept[self.joins[n]]], 1) if n in self.joins else layer(x)
            kept.append(x)
        boxes, scores = self.model[-1]([kept[15], kept[18], kept[21]])
        return boxes, scores


def yolo(width: int = 8, size: int = 64, classes: int = 5) -> nn.Module:
    return _settled(Yolo(width, size, classes))


# SSD


class Ssd(nn.Module):
    """Heads in two lists; the best boxes by topk."""

    def __init__(self, width: int, classes: int, best: int) -> None:
        super().__init__()
        self.backbone = nn.Sequential(
            *(*_norm(3, width, 3, 2), nn.ReLU6(), *_norm(width, 2 * width, 3, 2), nn.ReLU6()),
            *(*_norm(2 * width, 4 * width, 3, 2), nn.ReLU6()),
        )
        self.extras = nn.ModuleList(
            nn.Sequential(*_norm(4 * width, 2 * width, 1), nn.ReLU6(), *_norm(2 * width, 4 * width, 3, 2), nn.ReLU6())
            for _ in range(2)
        )
        self.scores = nn.ModuleList(nn.Conv2d(4 * width, 3 * classes, 3, padding=1) for _ in range(3))
        self.boxes = nn.ModuleList(nn.Conv2d(4 * width, 12, 3, padding=1) for _ in range(3))
        self.classes, self.best = classes, best

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        maps = [self.backbone(x)]
        for extra in self.extras:
            maps.append(extra(maps[-1]))
        each = [h(m).permute(0, 2, 3, 1).reshape(1, -1, self.classes) for h, m in zip(self.scores, maps, strict=True)]
        boxes = [h(m).permute(0, 2, 3, 1).reshape(1, -1, 4) for h, m in zip(self.boxes, maps, strict=True)]
        values, order = torch.cat(each, 1).softmax(-1)[0].amax(-1).topk(self.best)
        return values, torch.cat(boxes, 1)[0].index_select(0, order)


def ssd(width: int = 8, classes: int = 5, best: int = 10) -> nn.Module:
    return _settled(Ssd(width, classes, best))


# BERT


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.output, self.heads = nn.Linear(width, width), heads

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        b, n, c = x.shape
        q, k, v = (
            layer(x).view(b, n, self.heads, c // self.heads).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        scores = q @ k.transpose(-1, -2) / (c // self.heads) ** 0.5 + mask
        y: Tensor = self.output((scores.softmax(-1) @ v).transpose(1, 2).reshape(b, n, c))
        return y


class _Layer(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention, self.norm1 = _Attention(width, heads), nn.LayerNorm(width)
        self.up, self.act, self.down = nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        self.norm2 = nn.LayerNorm(width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = self.norm1(x + self.attention(x, mask))
        y: Tensor = self.norm2(x + self.down(self.act(self.up(x))))
        return y


class Bert(nn.Module):
    """Tokens and a mask of what is no padding."""

    def __init__(self, width: int, layers: int, heads: int, tokens: int) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(200, width), nn.Embedding(tokens, width)
        self.norm = nn.LayerNorm(width)
        self.layer = nn.ModuleList(_Layer(width, heads) for _ in range(layers))
        self.pooler = nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 3))
        self.register_buffer("ids", torch.arange(tokens)[None])

    def forward(self, tokens: Tensor, attention_mask: Tensor) -> Tensor:
        mask = (1.0 - attention_mask[:, None, None, :].float()) * -1e4
        x = self.norm(self.words(tokens) + self.places(self.ids))
        for layer in self.layer:
            x = layer(x, mask)
        y: Tensor = self.pooler(x[:, 0])
        return y


def bert(width: int = 16, layers: int = 2, heads: int = 2, tokens: int = 8) -> nn.Module:
    return Bert(width, layers, heads, tokens)


# GRU


class Gru(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Linear(20, width), nn.ReLU())
        self.gru = nn.GRU(width, width, num_layers=2, batch_first=True)
        self.classifier = nn.Linear(width, 6)

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.gru(self.features(x))
        made: Tensor = self.classifier(y[:, -1])
        return made


def gru(width: int = 16) -> nn.Module:
    return Gru(width)


# Shared


class Shared(nn.Module):
    """One block that is called three times, and two layers of one weight."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.block = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.Hardswish())
        self.twins = nn.ModuleList(nn.Conv2d(width, width, 1) for _ in range(2))
        self.twins[1].weight = self.twins[0].weight

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for _ in range(3):
            x = self.block(x) + x
        for twin in self.twins:
            x = F.leaky_relu(twin(x))
        return x


def shared(width: int = 16) -> nn.Module:
    return Shared(width)


# Factory, arguments of the size for tests, and for deployment; shapes of the inputs of each.
SIZES: dict[str, tuple[dict[str, int], tuple[str, ...], dict[str, int], tuple[str, ...]]] = {
    "unet": ({}, ("1,3,64,64",), {"width": 16}, ("1,3,256,256",)),
    "densenet": ({}, ("1,3,32,32",), {"growth": 32, "layers": 6}, ("1,3,128,128",)),
    "osnet": ({}, ("1,3,32,32",), {"width": 64}, ("1,3,128,64",)),
    "yolo": ({}, ("1,3,64,64",), {"width": 16, "size": 320, "classes": 80}, ("1,3,320,320",)),
    "ssd": ({}, ("1,3,32,32",), {"width": 32, "classes": 21, "best": 100}, ("1,3,192,192",)),
    "bert": (
        {},
        ("1,8:int64", "1,8:int64"),
        {"width": 128, "layers": 4, "heads": 4, "tokens": 128},
        ("1,128:int64",) * 2,
    ),
    "gru": ({}, ("1,6,20",), {"width": 128}, ("1,30,20",)),
    "shared": ({}, ("1,3,16,16",), {"width": 64}, ("1,3,64,64",)),
}
