"""Networks whose files are judged by what hides in them: pieces of outputs, integers in and out, masks."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Detector(nn.Module):
    """Boxes in pixels and scores from 0 to 1, joined in one output, and the class of the best box beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 16, 3, 2, 1), nn.ReLU())
        self.boxes, self.scores = nn.Conv2d(16, 4, 1), nn.Conv2d(16, 5, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        found = self.body(x)
        boxes, scores = self.boxes(found).flatten(2) * 100 + 320, self.scores(found).flatten(2)
        return {"found": torch.cat([boxes, scores.sigmoid()], 1), "best": scores.amax(2).argmax(1)}


class Text(nn.Module):
    """A classifier of tokens, with a mask that leaves padding out: without a token there is no answer."""

    def __init__(self) -> None:
        super().__init__()
        self.rows, self.layer = nn.Embedding(300, 16), nn.Linear(16, 16)
        self.classes = nn.Linear(16, 8)

    def forward(self, tokens: Tensor, attention_mask: Tensor) -> Tensor:
        rows = F.relu(self.layer(self.rows(tokens)))
        mask = attention_mask.float().unsqueeze(2)
        made: Tensor = self.classes((rows * mask).sum(1) / mask.sum(1))
        return made


class Rows(nn.Module):
    """Too few rows for what is looked up: an embedding with numbers that no graph tells."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = nn.Embedding(4, 8)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.rows(torch.cumsum(x, 1)).mean(1)
        return made


class Holder(nn.Module):
    """A weight that is no number."""

    mask: Tensor

    def __init__(self, value: float = float("nan")) -> None:
        super().__init__()
        layer = nn.Conv2d(3, 4, 1)
        layer.weight.data[1, 2] = value
        self.inner = nn.Sequential(layer, nn.BatchNorm2d(4))
        self.register_buffer("mask", torch.full((4, 1, 1), float("-inf")))

    def forward(self, x: Tensor) -> Tensor:
        return torch.maximum(self.inner(x), self.mask)


class Nothing(nn.Module):
    """It answers NaN, whatever it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(7, 4)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.layer(x) + (x.abs() * -1 - 1).sqrt().sum()
        return made
