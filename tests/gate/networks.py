"""The network that a branch changes, as its file stands on the branch. Written to files by the tests."""

SOURCE = """
from torch import nn

INPUT_SHAPE = (3, 32, 32)


def block(channels: int, extra: bool = False) -> nn.Module:
    layers = [nn.Conv2d(channels, channels, 3, padding=1, groups=channels), nn.ReLU()]
    layers += [nn.Conv2d(channels, channels, 1), nn.ReLU()]
    if extra:
        layers[2:2] = [nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3, 2, 1)
        self.stage1 = nn.Sequential(block(32), block(32))
        self.down = nn.Conv2d(32, 64, 3, 2, 1)
        self.stage2 = nn.Sequential(block(64), block(64, extra=False), block(64))
        self.head = nn.Linear(64, 4)

    def forward(self, x):
        return self.head(self.stage2(self.down(self.stage1(self.stem(x)))).mean((2, 3)))


def build() -> nn.Module:
    return Net()
"""
COMMENTED = SOURCE.replace("class Net", "# Only this comment is new.\n\n\nclass Net").replace("layers +=", "layers  +=")
LONGER = SOURCE.replace("extra=False), block(64))", "extra=True), block(64))")
assert SOURCE != LONGER != COMMENTED != SOURCE
