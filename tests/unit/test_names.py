"""Module paths out of the names that several exporters give to operators."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeport.formats.names import module_of, operator_name

segments = st.sampled_from(["conv", "layer1", "branch2", "fc_out", "x", "0", "12"])
paths = st.lists(segments, max_size=5).map(".".join)


@given(paths, segments)
def test_edgeports_own_names_give_back_the_module_that_they_were_made_from(module: str, operator: str) -> None:
    assert module_of(operator_name(module, operator)) == module


@given(paths, paths, segments)
def test_an_operator_fused_into_another_belongs_to_its_own_module(module: str, other: str, operator: str) -> None:
    """A fused operator lists its parts last first: what computes stands at the end."""
    fused = f"{operator_name(other, 'relu')};{operator_name(module, operator)}"
    assert module_of(fused) == module


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("/conv1/Conv", "conv1"),
        ("/layer1/layer1.0/conv1/Conv", "layer1.0.conv1"),
        ("/layer1/layer1.0/downsample/downsample.0/Conv", "layer1.0.downsample.0"),
        pytest.param(
            "/features/features.3/conv/conv.1/conv.1.0/Conv",
            "features.3.conv.1.0",
        ),
        ("/block/block/Conv", "block.block"),
        ("/Flatten", ""),
    ],
)
def test_names_of_torchscripts_onnx_exporter(name: str, module: str) -> None:
    assert module_of(name) == module


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("net.Net/torch.nn.modules.conv.Conv2d_stem;", "stem"),
        (
            "net.Net/torch.nn.modules.container.Sequential_stages/net.Unit_1/torch.nn.modules.conv.Conv2d_0;",
            "stages.1.0",
        ),
        ("net.Net/torch.nn.modules.conv.Conv2d_stem;1", "stem"),
        ("net.Net/torch.nn.modules.linear.Linear_fc_out;", "fc_out"),
    ],
)
def test_names_of_litert_torch(name: str, module: str) -> None:
    assert module_of(name) == module


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("model/block1/conv/Conv2D", "model.block1.conv"),
        ("model/block1/relu/Relu;model/block1/bn/FusedBatchNormV3;model/block1/conv/Conv2D", "model.block1.conv"),
    ],
)
def test_names_of_tensorflows_converter(name: str, module: str) -> None:
    assert module_of(name) == module


@pytest.mark.parametrize("name", ["", "Conv_12", "arith.constant5", "conv;relu"])
def test_a_name_that_carries_no_path_gives_none(name: str) -> None:
    assert module_of(name) is None
