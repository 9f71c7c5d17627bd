"""Means over whole images become pools, where that is what they are."""

import pytest
import torch
from onnxscript import optimizer
from torch import Tensor, nn

from edgeport.export import pool_means


class Mean(nn.Module):
    def __init__(self, axes: tuple[int, ...], keepdim: bool, shared: bool) -> None:
        super().__init__()
        self.conv, self.axes, self.keepdim, self.shared = nn.Conv2d(3, 8, 3), axes, keepdim, shared

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.conv(x))
        mean = x.mean(self.axes, keepdim=self.keepdim)
        return x * mean if self.shared else mean


def turned(network: nn.Module) -> tuple[int, list[str]]:
    """How many means it turned, and the operators that are left; the answer stays."""
    image = torch.randn(2, 3, 9, 7)
    exported = torch.onnx.export(network.eval(), (image,), dynamo=True, optimize=False, verbose=False)
    assert exported is not None
    optimizer.optimize_ir(exported.model)
    count = pool_means.run(exported.model)
    (answer,) = exported(image)
    assert torch.allclose(answer, network(image), atol=1e-6)
    return count, [node.op_type for node in exported.model.graph]


@pytest.mark.parametrize("axes", [(2, 3), (-1, -2), (3, 2)])
@pytest.mark.parametrize("keepdim", [True, False])
def test_the_mean_of_an_image_becomes_a_pool(axes: tuple[int, ...], keepdim: bool) -> None:
    count, left = turned(Mean(axes, keepdim, shared=False))
    assert count == 1
    assert left == ["Conv", "Relu", "GlobalAveragePool", *([] if keepdim else ["Flatten"])]


@pytest.mark.parametrize("axes", [(1, 2), (3,), (1, 2, 3)])
def test_other_means_stay(axes: tuple[int, ...]) -> None:
    assert turned(Mean(axes, keepdim=True, shared=False))[0] == 0


def test_the_mean_of_what_others_read_too_stays() -> None:
    assert turned(Mean((2, 3), keepdim=True, shared=True))[0] == 0
