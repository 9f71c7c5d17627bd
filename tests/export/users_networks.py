"""A file as users have it: factories of small networks, some of which cannot be converted, or are no networks."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

INPUT_SHAPE = (3, 16, 16)


def small(channels: int = 8, classes: int = 10) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, channels, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
        nn.Conv2d(channels, channels, 3, padding=1, groups=channels),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(channels, classes),
    )


class Matching(nn.Module):
    """Two images in, a dict of tensors out."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv2d(3, 6, 3, padding=1)

    def forward(self, left: Tensor, right: Tensor) -> dict[str, Tensor]:
        a, b = self.features(left), self.features(right)
        return {"score": torch.sigmoid((a * b).mean((2, 3))), "features": a + b}


def two_inputs() -> nn.Module:
    return Matching()


class Embedding(nn.Module):
    """Returns what it has seen on its way, as detectors and encoders do."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.scores = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        features = self.first(x)
        embedding = torch.relu(self.second(features)).mean((2, 3))
        return {"scores": self.scores(embedding), "embedding": embedding, "features": features}


def embedding() -> nn.Module:
    return Embedding()


def one_image() -> nn.Module:
    """Takes an image without a batch, as PyTorch's convolutions do."""
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2))


class InPlace(nn.Module):
    """Overwrites what it has made."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        z = self.second(y)
        z += y
        z *= 0.5
        return F.relu_(z)


def in_place() -> nn.Module:
    return InPlace()


class Calling(nn.Module):
    """Calls a function of torch."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def forward(self, x: Tensor) -> Tensor:
        functions = {
            "fft2": lambda x: torch.fft.fft2(x).abs(),
            "svd": torch.linalg.svdvals,
            "lgamma": lambda x: torch.lgamma(x.abs() + 1),
        }
        y: Tensor = functions[self.name](x)
        return y


def calling(name: str) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Sequential(Calling(name), nn.ReLU()))


class Rare(nn.Module):
    """Operators that edgeport's own lowering leaves to litert-torch."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.PReLU(6), nn.AvgPool2d(4))
        self.tokens = nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 8), nn.GELU())

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.tokens(self.stem(x).flatten(2).transpose(1, 2))
        return torch.cumsum(y, 1)


def rare() -> nn.Module:
    return Rare()


def before_norm() -> nn.Module:
    """A normalisation that follows no convolution, as in pre-activation networks."""
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(784, 3))


def padded_pooling() -> nn.Module:
    """A padded max pooling of numbers that may be negative."""
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.MaxPool2d(3, stride=2, padding=1), nn.Flatten())


def raising(message: str = "the moon is full") -> nn.Module:
    raise LookupError(message)


def a_list() -> list[int]:
    return [1, 2, 3]


def typed(width: float = 1.0, layers: int = 2, name: str = "x", wide: bool = False) -> nn.Module:
    return nn.Sequential(*(nn.Conv2d(3, 3, 1) for _ in range(layers)))


class Picky(nn.Module):
    def forward(self, x: Tensor) -> Iterator[Tensor]:
        raise TypeError("only on Sundays")


def picky() -> nn.Module:
    return nn.Sequential(nn.ReLU(), Picky())
